//! Linearizable reads: many share one read-index round (Ongaro's thesis 6.4; R1).
//!
//! A round asks a quorum whether this node still leads, and takes the commit index. It may confirm only reads that were
//! waiting before it began: a read that arrives while a round is under way joins the next one.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::types::OpenRaft;
use super::view::{Published, View};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::World;

type Waiting = oneshot::Sender<Result<Arc<View>>>;

/// The reads that wait for a round.
#[derive(Clone)]
pub(super) struct Reads {
    world: World,
    queue: mpsc::Sender<Waiting>,
}

impl Reads {
    /// Starts the task that runs the rounds.
    pub(super) fn start(world: &World, raft: OpenRaft, published: Arc<Published>) -> Self {
        let (queue, waiting) = mpsc::channel(limits::READ_QUEUE);
        let rounds = Rounds { world: world.clone(), raft, published };
        world.spawn(rounds.run(waiting));
        Reads { world: world.clone(), queue }
    }

    /// A view that holds every write acknowledged before this call.
    ///
    /// # Errors
    /// [`Error::Retry`] if this node does not lead, cannot reach a quorum in time, or is stopping.
    pub(super) async fn linearizable(&self) -> Result<Arc<View>> {
        let (send, answer) = oneshot::channel();
        let round = async {
            self.queue.send(send).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        self.world.timeout(limits::READ_WAIT, round).await.unwrap_or_else(|| Err(no_quorum()))
    }
}

struct Rounds {
    world: World,
    raft: OpenRaft,
    published: Arc<Published>,
}

impl Rounds {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut round = Vec::new();
        while waiting.recv_many(&mut round, limits::READ_QUEUE).await > 0 {
            let result = self.round().await;
            for read in round.drain(..) {
                // A reader that has hung up needs no answer.
                let _ = read.send(result.clone());
            }
        }
    }

    async fn round(&self) -> Result<Arc<View>> {
        // The bound frees the next round from one that is stuck in a lost quorum.
        let round = self.world.timeout(limits::READ_ROUND, async {
            let (read, _) = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await?;
            Ok(self.published.applied(read.index()).await)
        });
        match round.await {
            Some(Ok(view)) => Ok(view),
            Some(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => Err(super::no_leader()),
            Some(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | None => Err(no_quorum()),
            Some(Err(RaftError::Fatal(_))) => Err(stopping()),
        }
    }
}

fn no_quorum() -> Error {
    Error::Retry("No cluster leader: the leader cannot reach a majority of the servers".into())
}

fn stopping() -> Error {
    Error::Retry("this node is stopping; ask another".into())
}
