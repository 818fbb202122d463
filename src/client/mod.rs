//! A typed client of an agent's HTTP API: quorate's or any other that speaks Consul's.
//!
//! It runs on a [`crate::world::World`] like everything else, so a simulated client is this very code. What it never
//! does: repeat a request of which anything may have been done (R3). A write whose answer did not come is
//! [`crate::error::Error::Unknown`], and its caller finds out.
//!
//! Start with [`http::Http`], one connection; then [`kv`]. Locks are made of small parts: [`keeper`] keeps a session alive and
//! knows until when to rely on it, [`lock`] holds a key by one, [`semaphore`] one of several places, and [`election`] says who
//! leads. [`stream`] is the one thing that is not a request and its reply.

pub mod address;
pub mod agent;
mod contend;
pub mod election;
pub mod http;
pub mod keeper;
pub mod kv;
pub mod lock;

pub mod operator;
pub mod path;
mod patience;
pub mod queue;
pub mod semaphore;
pub mod session;
pub mod snapshot;
mod status;
pub mod stream;
pub mod txn;

#[cfg(test)]
pub(crate) mod tests;
