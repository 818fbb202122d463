//! Frames between nodes: calls and streams over one TCP port.
//!
//! A node dials another and says who it is, whom it expects and which *lane* it wants; the other agrees or refuses with a
//! reason ([`Refusal`]). A lane of calls carries many at once, answered in any order. A lane of one stream carries bodies
//! both ways, each in order, as far as the other side has room. What a body means is decided above, by its `kind`.
//!
//! ```text
//! client                                   server            a frame, little-endian
//!   | hello: versions, cluster, node, lane   |               0   length of the body  u32
//!   |--------------------------------------->|               4   what it is          u8
//!   |        reply: version, or the refusal  |               5   kind                u8
//!   |<---------------------------------------|               6   stream id           u32
//!   | request 1, request 2, cancel 1, ping   |               10  CRC-32C of the body u32
//!   |--------------------------------------->|               14  CRC-32C of 0..14    u32
//!   |                   response 2, ping     |               18  body
//!   |<---------------------------------------|
//! ```
//!
//! The head has a checksum of its own because its length is believed before the body is there; TCP's own is too weak for
//! a log that must not differ. A connection whose bytes are wrong ends.
//!
//! **Nothing waits for ever.** Connecting, the handshake and each call have a deadline. Both sides send a ping when they
//! have nothing else to send, so silence means that the peer is gone, and a peer that takes nothing is cut off. Queues are
//! bounded in frames and bytes; who is too fast waits.
//!
//! **What was sent is unknown until it is answered** (R3): [`RpcError::nothing_was_done`] says whether a call may be
//! repeated elsewhere. A cancelled or lost call's handler is aborted, so handlers survive being dropped at any await.
//!
//! **Cluster ids** are unknown to a node that has not joined yet, and such a node talks to any. Once it has learned its own,
//! its client connections greet again, and a server ends those that come from another cluster.
//!
//! What this module never does: repeat a call, look into a body, log one, or resolve a name.
//!
//! Start with [`Client::call`] and [`serve`]; then `frame`, `handshake`, `connection`.

mod client;
mod connection;
mod dial;
mod error;
mod frame;
mod handshake;
mod pool;
mod queue;
mod server;
mod stream;
mod tasks;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use uuid::Uuid;

pub use client::Client;
pub use error::{Refusal, RpcError};
pub use pool::Pool;
pub use server::{Server, Service, serve};
pub use stream::{Receiver, Sender};

/// Who a node is to the others. Clones share the cluster id.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's own id, which lives with its data.
    pub node: Uuid,
    /// The cluster's id, set once, when the node has made or joined one.
    pub cluster: Arc<OnceLock<Uuid>>,
}

impl Identity {
    /// A node that has no cluster yet.
    pub fn new(node: Uuid) -> Self {
        Identity { node, cluster: Arc::default() }
    }

    /// The cluster's id, if the node has one. The nil id means none, here as on the wire.
    pub fn cluster(&self) -> Option<Uuid> {
        self.cluster.get().copied().filter(|id| !id.is_nil())
    }
}

/// Who is at the other end, as it said in its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node id.
    pub node: Uuid,
    /// The cluster it was in when it connected.
    pub cluster: Option<Uuid>,
    /// Where it connected from; not where it listens.
    pub address: SocketAddr,
}

/// Whether two nodes are of different clusters. One that has none yet is of any.
fn strangers(one: Option<Uuid>, other: Option<Uuid>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Locks what no panic can leave half changed, so poisoning carries no news.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
