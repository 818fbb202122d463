//! Connecting to one peer, not more often than makes sense: a dead peer costs one attempt per pause, not one per call.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use uuid::Uuid;

use super::error::RpcError;
use super::handshake::{Hello, Lane, greet};
use super::{Identity, hold};
use crate::limits;
use crate::world::{BoxStream, Instant, World};

/// Makes connections to one peer.
pub(super) struct Dialer {
    pub(super) world: World,
    pub(super) identity: Identity,
    pub(super) peer: SocketAddr,
    target: Option<Uuid>,
    backoff: Mutex<Backoff>,
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    /// Until when attempts are answered with this error.
    pause: Option<(Instant, RpcError)>,
}

impl Dialer {
    pub(super) fn new(world: World, identity: Identity, peer: SocketAddr, target: Option<Uuid>) -> Self {
        Dialer { world, identity, peer, target, backoff: Mutex::default() }
    }

    /// Fails as the last attempt did, while it is too early for another.
    pub(super) fn gate(&self) -> Result<(), RpcError> {
        match &hold(&self.backoff).pause {
            Some((until, error)) if self.world.clock.now() < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Connects and greets, within [`limits::RPC_CONNECT`].
    pub(super) async fn dial(&self, hello: &Hello) -> Result<BoxStream, RpcError> {
        let connected = self.world.timeout(limits::RPC_CONNECT, async {
            let mut stream = self.world.net.connect(self.peer).await.map_err(|e| self.not_sent(e.to_string()))?;
            greet(&mut stream, hello, self.peer).await?;
            Ok(stream)
        });
        let late = || Err(self.not_sent(format!("no connection within {:?}", limits::RPC_CONNECT)));
        let connected = connected.await.unwrap_or_else(late);
        match &connected {
            Ok(_) => *hold(&self.backoff) = Backoff::default(),
            Err(error) => self.failed(error.clone()),
        }
        connected
    }

    /// What this node says to the peer now.
    pub(super) fn hello(&self, lane: Lane) -> Hello {
        Hello::new(&self.identity, self.target, lane)
    }

    /// Begins a pause: twice the last, less up to half of it by chance, so that nodes do not return as a herd.
    pub(super) fn failed(&self, error: RpcError) {
        let mut backoff = hold(&self.backoff);
        let pause =
            limits::RPC_BACKOFF_FIRST.saturating_mul(1 << backoff.failures.min(16)).min(limits::RPC_BACKOFF_CAP);
        let jitter = self.world.entropy.below(pause.as_nanos() as u64 / 2);
        backoff.failures = backoff.failures.saturating_add(1);
        let until = self.world.clock.now() + pause - Duration::from_nanos(jitter);
        backoff.pause = Some((until, error));
    }

    pub(super) fn not_sent(&self, reason: String) -> RpcError {
        RpcError::NotSent { peer: self.peer, reason }
    }
}
