//! The lock and the wake-up of hand-offs: what is changed here and awaited there, perhaps by another thread.
//!
//! They have a module so that `sim/threads` can compile the same hand-offs over locks that try every order of steps. It never
//! adds anything of its own.

pub use std::sync::{Mutex, MutexGuard, PoisonError};
pub use tokio::sync::Notify;
