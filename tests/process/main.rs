//! The program as a user meets it: real processes, the commands of the walkthrough, and everything that can be typed wrong.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive real processes from outside")]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod commands;
mod configuration;
mod durability;
mod run;
mod snapshot;
mod stream;
mod watch;
