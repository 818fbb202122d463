//! A typed client of an agent's HTTP API: quorate's or any other that speaks Consul's.
//!
//! It runs on a [`crate::world::World`] like everything else, so a simulated client is this very code. What it never
//! does: repeat a request of which anything may have been done (R3). A write whose answer did not come is
//! [`crate::error::Error::Unknown`], and its caller finds out.
//!
//! Start with [`http::Http`], one connection; then [`kv`]. [`stream`] is the one thing that is not a request and its reply.

pub mod address;
pub mod agent;
pub mod http;
pub mod kv;
pub mod operator;
pub mod path;
pub mod session;
mod status;
pub mod stream;
pub mod txn;

#[cfg(test)]
pub(crate) mod tests;
