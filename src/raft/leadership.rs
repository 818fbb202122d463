//! Whether this node leads, and since when it may act on it.
//!
//! A leader is *ready* once it has applied its own first entry: only then does it know everything that was inherited, and
//! only then does it stamp log time. Writes wait for that moment; it is one log round after an election.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::{ReadPolicy, ServerState};
use tokio::sync::watch;

use super::log_clock::LogClock;
use super::types::OpenRaft;
use super::view::Published;
use crate::limits;
use crate::world::World;

/// The log clock while this node is a ready leader.
pub(super) type Leadership = watch::Receiver<Option<LogClock>>;

/// Starts the task that follows elections.
pub(super) fn follow(world: &World, raft: OpenRaft, published: Arc<Published>) -> Leadership {
    let (send, leadership) = watch::channel(None);
    let follow = Follow { world: world.clone(), raft, published, ready: send };
    world.spawn(follow.run());
    leadership
}

struct Follow {
    world: World,
    raft: OpenRaft,
    published: Arc<Published>,
    ready: watch::Sender<Option<LogClock>>,
}

impl Follow {
    async fn run(self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (leads, term) = {
                let now = metrics.borrow_and_update();
                (now.state == ServerState::Leader, now.vote.leader_id.term)
            };
            if !leads {
                self.ready.send_replace(None);
            } else if self.ready.borrow().is_none_or(|clock| clock.term != term) {
                self.ready.send_replace(self.started(term).await);
            }
            let retry = leads && self.ready.borrow().is_none();
            let changed = async {
                if retry {
                    self.world.sleep(limits::LEADER_RETRY).await;
                    Ok(())
                } else {
                    metrics.changed().await
                }
            };
            if changed.await.is_err() {
                self.ready.send_replace(None);
                return;
            }
        }
    }

    /// A read-index round is answered only by a leader that has committed its first entry; then that entry is applied.
    async fn started(&self, term: u64) -> Option<LogClock> {
        let (read, _) = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await.ok()?;
        let view = self.published.applied(read.index()).await;
        Some(LogClock::start(term, view.state.log_time(), self.world.clock.now()))
    }
}
