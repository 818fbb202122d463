//! Queued locks for the edges, on any server (G6).
//!
//! The log keeps the queues and hands over ([`state::queue`](crate::state::Queues)). Here a request waits for its turn, and is called off
//! when its client hangs up; and the leader lets time pass in the queues.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::Agent;
use super::watch::Scope;
use crate::error::{Error, Result};
use crate::limits;
use crate::raft::Raft;
use crate::state::{Command, Key, Reply, RequestId, Subject, Touched};
use crate::world::World;

impl Agent {
    /// Waits for a lock, in its queue; the fence that it is held under then. `None` if somebody else still holds it, or waits
    /// before, when the wait ends: by log time, which stands still while there is no leader. Without a `wait` it is as long as a
    /// blocking query's; zero asks once. A session has one place: to ask again, here or elsewhere, goes on waiting
    /// there. Dropped while it waits, it gives up its place; when `stopping` is ready first it keeps it.
    ///
    /// # Errors
    /// As [`Agent::write`]; [`Error::Request`] if the session does not exist, or not any more.
    pub async fn lock(
        &self,
        request: Option<RequestId>,
        lock: Key,
        session: Uuid,
        wait: Option<Duration>,
        stopping: impl Future<Output = ()>,
    ) -> Result<Option<u64>> {
        let settings = &self.inner.settings;
        let wait = wait.unwrap_or(settings.default_query_time).min(settings.max_query_time).min(limits::MAX_LOCK_WAIT);
        // A task of its own, which is not dropped with the request: what became of it must be known to be called off.
        let agent = self.clone();
        let asked = self.inner.world.spawn(async move { agent.join(request, lock, session, wait).await }).await;
        let mut line = match asked.unwrap_or_else(|_| Err(Error::Unknown("this server has stopped".into())))? {
            Asked::Held(fence) => return Ok(Some(fence)),
            Asked::Refused => return Ok(None),
            Asked::Waits(line) => line,
        };
        let turn = async {
            // However late log time is.
            let turn = self.inner.world.timeout(wait + limits::LEADER_WAIT, line.turn()).await;
            turn.unwrap_or_else(|| {
                Err(Error::Unknown("no leader ends this wait for a lock: it may be granted yet".into()))
            })
        };
        let (turn, keeps) = tokio::select! {
            biased;
            turn = turn => (turn, false),
            () = stopping => {
                (Err(Error::Retry("This server is shutting down; repeat the request at another one".into())), true)
            }
        };
        line.over = keeps || turn.is_ok();
        turn
    }

    async fn join(self, request: Option<RequestId>, lock: Key, session: Uuid, wait: Duration) -> Result<Asked> {
        let asked = self.write(request, Command::LockQueue { lock: lock.clone(), session, wait }).await?;
        match asked.reply {
            Reply::Granted { fence } => Ok(Asked::Held(fence)),
            Reply::Done(_) => Ok(Asked::Refused),
            Reply::Queued { place } => {
                Ok(Asked::Waits(InLine { agent: self, lock, session, place, asked: asked.revision, over: false }))
            }
            Reply::Refused(why) => Err(Error::Request(why)),
            other => Err(Error::Unknown(format!("the session may or may not wait for the lock: {other:?}"))),
        }
    }
}

/// What came of asking for a lock.
enum Asked {
    /// Under this fence.
    Held(u64),
    Refused,
    Waits(InLine),
}

/// A place in a queue. Dropped before its turn, it is given up.
struct InLine {
    agent: Agent,
    lock: Key,
    session: Uuid,
    place: u64,
    /// Revision of the request that got it.
    asked: u64,
    over: bool,
}

impl InLine {
    /// Until it is this place's turn, or not any more.
    async fn turn(&self) -> Result<Option<u64>> {
        let inner = &self.agent.inner;
        // First the wait, then the look: nothing can fall between.
        let wait = inner.watch.wait(Scope::Key(Subject::Lock, self.lock.clone()))?;
        loop {
            let view = inner.raft.view();
            let state = &view.state;
            // This server may not have applied yet what the leader has.
            let there = state.revision() >= self.asked;
            if there && state.queues().place_of(&self.lock, self.session) != Some(self.place) {
                let holder = state.kv().get(self.lock.as_bytes()).and_then(|row| row.holder);
                if let Some(holder) = holder.filter(|holder| holder.session == self.session) {
                    return Ok(Some(holder.fence));
                }
                if state.sessions().get(self.session).is_none() {
                    return Err(Error::Request(format!("invalid session \"{}\": it has ended", self.session)));
                }
                return Ok(None);
            }
            wait.changed().await;
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let command = Command::LockCallOff { lock: self.lock.clone(), session: self.session, asked: self.asked };
        let agent = self.agent.clone();
        self.agent.inner.world.spawn(async move {
            // If it fails, the place is given up by itself when its time is over.
            if let Err(error) = agent.write(None, command).await {
                tracing::debug!(%error, "a wait for a lock was not called off");
            }
        });
    }
}

/// Has time pass in the queues while this server leads, until it stops.
pub(super) async fn keep_time(world: World, raft: Raft, changed: Arc<Notify>) {
    loop {
        let term = raft.leads_in();
        tokio::select! {
            () = raft.leads_no_more_in(term) => {}
            () = pass(&world, &raft, &changed, term) => {}
        }
    }
}

/// Proposes that time has passed whenever that makes a difference. Never ends.
async fn pass(world: &World, raft: &Raft, changed: &Notify, term: Option<u64>) {
    let Some(term) = term else { return std::future::pending().await };
    loop {
        let due = raft.view().state.next_due();
        let (Some(due), Some(now)) = (due, raft.log_time(term)) else {
            changed.notified().await;
            continue;
        };
        if now < due {
            let left = Duration::from_millis(due.0 - now.0);
            let _ = world.timeout(left, changed.notified()).await;
        } else if !raft.is_writable() {
            world.sleep(limits::FULL_DISK_RETRY).await;
        } else if let Err(error) = raft.propose_in(term, Command::LockPass).await {
            tracing::debug!(%error, "time does not pass in the queues of locks");
            world.sleep(limits::EXPIRY_RETRY).await;
        }
    }
}

/// Whether a change may bring something nearer that time does to queues.
pub(super) fn concerns(touched: Option<&[Touched]>) -> bool {
    touched.is_none_or(|touched| touched.iter().any(|change| change.subject == Subject::Lock))
}
