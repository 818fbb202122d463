//! The leases at work on a node: follows its lead, learns what the log does to sessions, answers renewals, and proposes the
//! end of what has run out. What is decided and why is in [`leases`](super::leases).
//!
//! One task and one timer serve all sessions. A renewal is a shared read-index round and two steps in ordered maps.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::leases::{Expiry, Leases, Renewal};
use crate::api::NO_LEADER;
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits;
use crate::raft::{Observer, Raft, View};
use crate::state::{Command, SessionRow, State, Touched};
use crate::world::World;

/// The leases of one node.
pub(super) struct Lessor {
    world: World,
    leases: Mutex<Leases>,
    /// A lease may run out sooner than the one that is waited for.
    sooner: Notify,
    /// The log has decided about sessions: renewals that wait for that look again.
    decided: Notify,
}

/// What the leader answers to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Renewed {
    /// The session lives on, with a lease if it has a TTL.
    Alive(SessionRow),
    /// There is no such session.
    Gone,
    /// It may not be renewed any more.
    Refused,
}

impl Stored for Renewed {
    const NAME: &'static str = "answer to a renewal";
    const VERSION: u8 = 1;
}

impl Lessor {
    pub(super) fn new(world: &World) -> Self {
        Lessor { world: world.clone(), leases: Mutex::default(), sooner: Notify::new(), decided: Notify::new() }
    }

    fn hold(&self) -> MutexGuard<'_, Leases> {
        // Nothing in there panics half-way through a change.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions have a lease here.
    pub(super) fn count(&self) -> usize {
        self.hold().count()
    }

    /// Renews a session, on the leader.
    ///
    /// # Errors
    /// [`Error::Retry`] if this server does not lead, no majority follows it, or the session's end stays undecided.
    pub(super) async fn renew(&self, raft: &Raft, session: Uuid) -> Result<Renewed> {
        raft.confirmed().await?;
        let deciding = async {
            loop {
                let mut decided = pin!(self.decided.notified());
                decided.as_mut().enable();
                match self.step(raft, session) {
                    (Renewal::Undecided, _) => decided.await,
                    (Renewal::Elsewhere, _) => return Err(Error::Retry(NO_LEADER.into())),
                    (Renewal::Refused, _) => return Ok(Renewed::Refused),
                    (Renewal::Granted(_) | Renewal::Endless, Some(row)) => return Ok(Renewed::Alive(row)),
                    (Renewal::Gone, _) | (_, None) => return Ok(Renewed::Gone),
                }
            }
        };
        let waited = self.world.timeout(limits::READ_WAIT, deciding).await;
        waited.unwrap_or_else(|| Err(Error::Retry("the end of this session has been proposed and is undecided".into())))
    }

    /// Looks at the state and moves the lease in one step: between the two nobody learns of anything (G1.1).
    fn step(&self, raft: &Raft, session: Uuid) -> (Renewal, Option<SessionRow>) {
        let mut leases = self.hold();
        let state = &raft.view().state;
        if state.is_sealed() {
            return (Renewal::Undecided, None);
        }
        let renewal = leases.renew(session, state.standing(session), self.world.clock.now());
        (renewal, state.sessions().get(session).map(|row| SessionRow::clone(row)))
    }

    /// Follows the lead of this server until it stops.
    pub(super) async fn run(self: Arc<Self>, raft: Raft) {
        loop {
            let term = raft.leads_in();
            self.turn(&raft, term);
            tokio::select! {
                () = raft.leads_no_more_in(term) => {}
                () = self.expire(&raft) => {}
            }
        }
    }

    /// Begins to lead, or to follow.
    fn turn(&self, raft: &Raft, term: Option<u64>) {
        let mut leases = self.hold();
        match term {
            // Read while we hold the leases: what is published later is learned after this.
            Some(term) => leases.lead(term, self.world.clock.now(), renewable(&raft.view().state)),
            None => leases.follow(),
        }
        drop(leases);
        self.decided.notify_waiters();
    }

    /// Proposes the end of every session whose lease runs out. Never ends.
    async fn expire(&self, raft: &Raft) {
        let mut proposed = FuturesUnordered::new();
        loop {
            let writable = raft.is_writable();
            let room = if writable { limits::EXPIRIES_IN_FLIGHT - proposed.len() } else { 0 };
            let now = self.world.clock.now();
            let (expired, next) = {
                let mut leases = self.hold();
                (leases.expire(now, room), leases.next())
            };
            let full = expired.len() == room;
            proposed.extend(expired.into_iter().map(|expiry| self.end(raft, expiry)));
            let due = async {
                match next {
                    _ if !writable => self.world.sleep(limits::FULL_DISK_RETRY).await,
                    Some(next) if !full => self.world.clock.sleep_until(next).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = proposed.next() => {}
                () = due => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Has the log decide about an expiry. While this server still leads in the term that decided it, one without an outcome
    /// is proposed again: the renewals of that session wait all the time (G1.4), so a second copy finds it ended or ends it.
    async fn end(&self, raft: &Raft, expiry: Expiry) {
        let Expiry { session, term } = expiry;
        while let Err(error) = raft.propose_in(term, Command::SessionExpire { id: session, term }).await {
            if raft.leads_in() != Some(term) {
                // The next leader has given the session a new lease.
                return tracing::debug!(%session, term, %error, "the end of a session is left to the next leader");
            }
            self.world.sleep(limits::EXPIRY_RETRY).await;
        }
        self.hold().decided(expiry, self.world.clock.now());
        self.decided.notify_waiters();
    }
}

impl Observer for Lessor {
    fn published(&self, view: &Arc<View>, touched: Option<&[Touched]>) {
        let mut leases = self.hold();
        let Some(term) = leases.term() else { return };
        let (now, before) = (self.world.clock.now(), leases.next());
        match touched {
            Some(touched) => {
                for session in touched.iter().filter_map(Touched::session) {
                    leases.learn(session, view.state.standing(session), now);
                }
            }
            None => leases.lead(term, now, renewable(&view.state)),
        }
        let sooner = leases.next() < before || before.is_none();
        drop(leases);
        if sooner {
            self.sooner.notify_one();
        }
        self.decided.notify_waiters();
    }
}

/// The sessions that live by renewals, with their TTLs.
fn renewable(state: &State) -> impl Iterator<Item = (Uuid, std::time::Duration)> {
    let sessions = state.sessions().iter().map(|(id, row)| (id, row.session.ttl));
    sessions.filter(|(_, ttl)| !ttl.is_zero())
}
