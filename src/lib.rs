//! quorate: a strongly consistent store for configuration, service discovery, locks and leader election.
//!
//! This file is the map and nothing else. ARCHITECTURE.md is the guide: which floor imports which, a write's journey, a
//! read's journey, and why each thing is where it is. Start there, then with [`node`].

pub mod agent;
pub mod api;
pub mod archive;
pub mod cli;
pub mod client;
pub mod codec;
pub mod config;
pub mod error;
pub mod http;
pub mod limits;
pub mod node;
pub mod raft;
pub mod rpc;
pub mod state;
pub mod storage;
pub mod sync;
pub mod telemetry;
pub mod world;
