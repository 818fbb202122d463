//! The simulator: whole clusters of the real server in virtual time, with clients and faults, and a verdict.
//!
//! Everything in this library is the same for every engine: the machines' parts ([`world`]), the faults ([`nemesis`]), the
//! clients ([`workload`]), what they saw ([`history`]). An engine gives time, tasks and sockets: [`engine`]. What this
//! crate never does: change the product. It reaches a server through `quorate::world` and HTTP alone.
//!
//! Start with [`run::run`], then [`cluster`].

#[cfg(not(tokio_unstable))]
compile_error!("build this with `cargo sim`: only tokio_unstable lets the engine seed tokio's own randomness");

pub mod check;
pub mod cli;
pub mod cluster;
pub mod engine;
pub mod history;
pub mod meta;
pub mod minimize;
pub mod nemesis;
pub mod observer;
pub mod page;
pub mod player;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod scene;
pub mod server;
pub mod stage;
pub mod sweep;
pub mod text;
pub mod trace;
pub mod wires;
pub mod workload;
pub mod world;
