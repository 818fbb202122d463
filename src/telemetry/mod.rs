//! What a node tells its operator. So far: logs.

pub mod log;
