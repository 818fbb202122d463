//! `quorate lock` with real processes: exactly one child runs, and none outlives its lease, whatever is killed or stopped
//! (walkthrough D1, D3 to D6).

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive real processes from outside")]

mod client;
#[path = "../support/cluster.rs"]
mod cluster;
mod command;
mod faults;
mod holder;
mod recipes;
mod semaphore;
#[path = "../support/mod.rs"]
mod support;
mod weaker;
