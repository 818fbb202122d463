//! What threads hand to each other, under many schedules: the same files as in the product, over shuttle's locks.
//!
//! The simulator runs everything on one thread, where a lock never waits, so it cannot show what goes wrong between a
//! lock's release and the next one's taking. Here `crate::sync` is shuttle's: every lock and every wake-up is a place where
//! another thread may go on, and shuttle draws which one does.
//!
//! Start with `tests/schedules.rs`. Run it with `cargo test --manifest-path sim/threads/Cargo.toml`.

#![allow(dead_code, missing_docs, reason = "the product's files are used in part, and documented there")]

pub mod query;
pub mod sync;

mod error {
    pub use quorate::error::{Error, Result};
}
mod limits {
    pub use quorate::limits::*;
}
mod raft {
    pub use quorate::raft::{Observer, View};
}
mod state {
    pub use quorate::state::{Key, Subject, Touched};
}

#[path = "../../../src/agent/watch.rs"]
mod watch;

pub mod wal;
