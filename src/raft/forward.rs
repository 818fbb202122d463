//! Any server takes any request: those that need the leader are carried to it, and tried again through elections.
//!
//! A write that is carried gets a request id first, so that a second copy of it returns the first one's answer (R3). Only
//! therefore may it be repeated when its outcome is unknown; and if it is still unknown when patience ends, that is what
//! the caller is told.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use uuid::Uuid;

use super::links::Failed;
use super::message::{Write, call};
use super::types::Member;
use super::{Raft, no_leader, unknown};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{Command, Reply, RequestId, Response};
use crate::world::Instant;

/// Where the leader is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Leader {
    /// This server leads, or is about to.
    Here,
    There(Uuid, Member),
}

/// The request ids of this process's own writes.
pub(super) struct Numbers {
    inner: Mutex<Counting>,
    /// Changes when a write is no longer open.
    closed: watch::Sender<()>,
}

struct Counting {
    incarnation: Uuid,
    born: u64,
    last: u64,
    /// The sequences that may still be repeated.
    open: BTreeSet<u64>,
    used: Option<Instant>,
}

/// A write's id. While this lives, the write may be repeated.
struct Open<'a> {
    id: RequestId,
    numbers: &'a Numbers,
}

impl Default for Numbers {
    fn default() -> Self {
        let none = Counting { incarnation: Uuid::nil(), born: 0, last: 0, open: BTreeSet::new(), used: None };
        Numbers { inner: Mutex::new(none), closed: watch::Sender::new(()) }
    }
}

impl Numbers {
    fn hold(&self) -> std::sync::MutexGuard<'_, Counting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next id, if so few are open that the state remembers all of them.
    fn next(&self, raft: &Raft) -> Option<RequestId> {
        let world = &raft.inner.world;
        let mut counting = self.hold();
        let now = world.clock.now();
        let idle = counting.used.is_none_or(|used| now.since(used) >= limits::REQUEST_MEMORY / 2);
        if counting.open.is_empty() && idle {
            // A new life: the old one may be forgotten before long.
            *counting = Counting {
                incarnation: world.entropy.uuid(),
                born: raft.view().state.entries(),
                last: 0,
                open: BTreeSet::new(),
                used: None,
            };
        }
        let sequence = counting.last + 1;
        let acknowledged_below = counting.open.first().copied().unwrap_or(sequence);
        if sequence - acknowledged_below >= limits::OPEN_REQUESTS as u64 {
            return None;
        }
        counting.last = sequence;
        counting.used = Some(now);
        counting.open.insert(sequence);
        Some(RequestId { incarnation: counting.incarnation, born: counting.born, sequence, acknowledged_below })
    }

    async fn open(&self, raft: &Raft) -> Result<Open<'_>> {
        let mut closed = self.closed.subscribe();
        let opening = async {
            loop {
                if let Some(id) = self.next(raft) {
                    return Open { id, numbers: self };
                }
                let _ = closed.changed().await;
            }
        };
        let opened = raft.inner.world.timeout(limits::ADMISSION_WAIT, opening).await;
        opened.ok_or_else(|| Error::Busy("write refused: too many are waiting for their turn on this server".into()))
    }

    /// Ends a life that the state has forgotten, so that the next write begins another.
    fn forget(&self, incarnation: Uuid, born: u64, fresh: Uuid) {
        let mut counting = self.hold();
        if counting.incarnation == incarnation {
            *counting = Counting { incarnation: fresh, born, last: 0, open: BTreeSet::new(), used: counting.used };
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut counting = self.numbers.hold();
        if counting.incarnation == self.id.incarnation {
            counting.open.remove(&self.id.sequence);
        }
        drop(counting);
        self.numbers.closed.send_replace(());
    }
}

impl Raft {
    /// The leader as this server knows it now.
    pub(super) fn whereabouts(&self) -> Option<Leader> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            return Some(Leader::Here);
        }
        let id = metrics.current_leader.filter(|id| *id != metrics.id)?;
        let member = metrics.membership_config.membership().get_node(&id)?.clone();
        Some(Leader::There(id, member))
    }

    /// This server, if it leads.
    pub(super) fn lead(&self) -> Result<&Self> {
        if self.whereabouts() == Some(Leader::Here) { Ok(self) } else { Err(no_leader()) }
    }

    /// Pends while the leader is this one.
    async fn moved(&self, from: &Leader) {
        let mut metrics = self.inner.raft.server_metrics();
        loop {
            let _ = metrics.borrow_and_update();
            let now = self.whereabouts();
            if now.is_some_and(|now| now != *from) || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks the leader there, until it answers or another one leads.
    pub(super) async fn ask_leader<Q: Stored, A: Stored>(
        &self,
        leader: (Uuid, &Member),
        kind: u8,
        question: &Q,
    ) -> Result<A, Failed> {
        let asking = self.inner.links.ask(leader, kind, question, limits::FORWARD_WAIT);
        let from = Leader::There(leader.0, leader.1.clone());
        tokio::select! {
            biased;
            answer = asking => answer,
            () = self.moved(&from) => {
                Err(Failed { error: unknown("its leader was replaced"), nothing_was_done: false, refused: false })
            }
        }
    }

    /// Has the leader write, wherever it is.
    pub(super) async fn propose_anywhere(&self, request: Option<RequestId>, command: Command) -> Result<Response> {
        let mut carrying = Carrying { raft: self, given: request, own: None, copies: 0, lost: None };
        let start = self.inner.world.clock.now();
        loop {
            let outcome = match self.whereabouts() {
                Some(leader) => carrying.attempt(&leader, &command).await,
                None => Err(Failed::from(no_leader())),
            };
            let failed = match outcome {
                Ok(response) if response.reply == Reply::Forgotten && request.is_none() => {
                    carrying.forgotten().await?;
                    continue;
                }
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let waited = self.inner.world.clock.now().since(start);
            if let Some(error) = carrying.give_up(failed, waited) {
                return Err(error);
            }
            self.inner.world.sleep(limits::FORWARD_RETRY).await;
        }
    }
}

/// One write on its way.
struct Carrying<'a> {
    raft: &'a Raft,
    /// The id it came with.
    given: Option<RequestId>,
    /// The id it got here.
    own: Option<Open<'a>>,
    /// Copies that may have reached a leader.
    copies: u32,
    /// Why the fate of a copy is unknown.
    lost: Option<Error>,
}

impl Carrying<'_> {
    async fn attempt(&mut self, leader: &Leader, command: &Command) -> Result<Response, Failed> {
        let id = self.given.or(self.own.as_ref().map(|open| open.id));
        match leader {
            Leader::Here => {
                let outcome = self.raft.propose_here(id, command).await;
                outcome.map_err(Failed::answered)
            }
            Leader::There(node, member) => {
                let request = match id {
                    Some(id) => id,
                    None => self.own.insert(self.raft.inner.numbers.open(self.raft).await?).id,
                };
                let write = Write { request: Some(request), command: command.clone() };
                self.raft.ask_leader((*node, member), call::WRITE, &write).await
            }
        }
        .inspect(|_| self.copies += 1)
        .inspect_err(|failed| self.copies += u32::from(!failed.nothing_was_done))
    }

    /// What to tell the caller after a failure, or nothing if it is to be tried again.
    fn give_up(&mut self, failed: Failed, waited: std::time::Duration) -> Option<Error> {
        let Failed { error, nothing_was_done, refused } = failed;
        let named = self.given.is_some() || self.own.is_some();
        if !nothing_was_done {
            // Without an id a second copy could be a second write.
            if !named || waited >= limits::FORWARD_WAIT {
                return Some(error);
            }
            self.lost = Some(error);
            return None;
        }
        match (&self.lost, &error) {
            (Some(_), _) if waited < limits::FORWARD_WAIT => None,
            (Some(lost), _) => Some(lost.clone()),
            (None, Error::Retry(_)) if !refused && waited < limits::LEADER_WAIT => None,
            (None, _) => Some(error),
        }
    }

    /// The state has forgotten this process's life. If only one copy was ever sent, it was not applied, and goes again under
    /// a new life.
    async fn forgotten(&mut self) -> Result<()> {
        let Some(open) = self.own.take().filter(|_| self.copies <= 1) else {
            return Err(unknown("it was sent twice, and its request id has been forgotten since"));
        };
        let view = self.raft.linearizable().await?;
        let fresh = self.raft.inner.world.entropy.uuid();
        self.raft.inner.numbers.forget(open.id.incarnation, view.state.entries(), fresh);
        self.copies = 0;
        Ok(())
    }
}
