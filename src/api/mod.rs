//! What crosses the wire: the JSON bodies of Consul's HTTP API, its durations, and the few texts that clients compare.
//!
//! The server writes these and the clients read them, so both sides share one definition. Nothing here knows a socket,
//! a state or a node.
//!
//! Start with [`kv`]; [`json`] is how a body is written.

pub mod agent;
pub mod authority;
pub mod catalog;
pub mod decode;
pub mod duration;
pub mod json;
pub mod kv;
pub mod lock;
pub mod operator;
pub mod session;
pub mod txn;

/// The text of a 500 that Consul's clients take for "try again": there is no leader, or it cannot be reached.
pub const NO_LEADER: &str = "No cluster leader";
