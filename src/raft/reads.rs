//! Linearizable reads: many share one read-index round (Ongaro's thesis 6.4; R1).
//!
//! A round on the leader asks a quorum whether it still leads, and takes the commit index; a round anywhere else asks the
//! leader for that index. It may confirm only reads that were waiting before it began: a read that arrives while a round is
//! under way joins the next one. The read then waits until this server has applied that far.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::Raft;
use super::forward::Leader;
use super::links::Failed;
use super::message::{ReadIndex, Target, call};
use super::types::OpenRaft;
use super::view::{Published, View};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::World;

pub(super) type Waiting = oneshot::Sender<Result<Round>>;

/// What a round found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// What a read that waited for it must have applied.
    index: u64,
    /// Whether a majority followed this very server.
    led: bool,
}

/// Where [`run`] takes the reads from.
pub(super) type Queue = mpsc::Receiver<Waiting>;

/// The reads that wait for a round.
pub(super) struct Reads {
    world: World,
    published: Arc<Published>,
    queue: mpsc::Sender<Waiting>,
}

impl Reads {
    /// A queue, and what [`run`] takes the reads from.
    pub(super) fn new(world: &World, published: Arc<Published>) -> (Self, Queue) {
        let (queue, waiting) = mpsc::channel(limits::READ_QUEUE);
        (Reads { world: world.clone(), published, queue }, waiting)
    }

    /// A view that holds every write acknowledged before this call.
    ///
    /// # Errors
    /// [`Error::Retry`] if there is no leader, it cannot reach a quorum in time, or this node is stopping.
    pub(super) async fn linearizable(&self) -> Result<Arc<View>> {
        self.read(false).await
    }

    /// The same, by a round in which this server led.
    ///
    /// # Errors
    /// As [`Reads::linearizable`], and if another server leads.
    pub(super) async fn confirmed(&self) -> Result<Arc<View>> {
        self.read(true).await
    }

    async fn read(&self, leading: bool) -> Result<Arc<View>> {
        let read = async {
            let round = self.queued().await?;
            if leading && !round.led {
                return Err(super::no_leader());
            }
            Ok(self.published.applied(round.index).await)
        };
        self.world.timeout(limits::READ_WAIT, read).await.unwrap_or_else(|| Err(no_quorum()))
    }

    /// The index that such a view must have applied.
    ///
    /// # Errors
    /// As [`Reads::linearizable`].
    pub(super) async fn index(&self) -> Result<u64> {
        let round = self.world.timeout(limits::READ_WAIT, self.queued()).await.unwrap_or_else(|| Err(no_quorum()));
        round.map(|round| round.index)
    }

    async fn queued(&self) -> Result<Round> {
        let (send, answer) = oneshot::channel();
        self.queue.send(send).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// Runs the rounds until the node stops.
pub(super) async fn run(raft: Raft, mut waiting: Queue) {
    let mut reads = Vec::new();
    while waiting.recv_many(&mut reads, limits::READ_QUEUE).await > 0 {
        // The bound frees the next round from one that is stuck in a lost quorum.
        let round = raft.inner.world.timeout(limits::READ_ROUND, round(&raft)).await;
        let round = round.unwrap_or_else(|| Err(no_quorum()));
        for read in reads.drain(..) {
            // A reader that has hung up needs no answer.
            let _ = read.send(round.clone());
        }
    }
}

async fn round(raft: &Raft) -> Result<Round> {
    match raft.whereabouts() {
        Some(Leader::Here) => here(&raft.inner.raft).await.map(|index| Round { index, led: true }),
        Some(Leader::There(id, member)) => {
            let asked = raft.ask_leader((id, &member), call::READ, &Target(None)).await;
            asked.map(|ReadIndex(index)| Round { index, led: false }).map_err(Failed::harmless)
        }
        None => Err(super::no_leader()),
    }
}

async fn here(raft: &OpenRaft) -> Result<u64> {
    match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
        Ok((read, _)) => Ok(read.index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err(super::no_leader()),
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(no_quorum()),
        Err(RaftError::Fatal(_)) => Err(stopping()),
    }
}

fn no_quorum() -> Error {
    Error::Retry("No cluster leader: the leader cannot reach a majority of the servers".into())
}

fn stopping() -> Error {
    Error::Retry("this node is stopping; ask another".into())
}
