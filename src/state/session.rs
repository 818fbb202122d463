//! Sessions, and the locks that end with them (consul.md 2.4, guarantees.md G1).
//!
//! A session is a row; that it lives is for its leader to watch (`agent::leases`), and that it ended is an entry like any
//! other. In the entry that ends it, its keys are let go of too (L9). Where Consul ends a session because a check or a node
//! is gone, one with a TTL is only *condemned* here: it is renewed no more, and ends when the last lease that was answered
//! has run out, so that whoever holds that lease is not proven wrong by it (G1.7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalog::Status;
use super::digest::Digest;
use super::table::{self, Row, Table};
use super::{Key, Reply, State, Step, StoredRow, Subject};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits::{MAX_LOCK_DELAY, MAX_NAME, MAX_SESSION_CHECKS, MAX_SESSION_TTL};

/// The check that says whether a node is alive. It is a session's default.
pub const SERF_HEALTH: &str = "serfHealth";

/// What becomes of a session's locks when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Behavior {
    /// They are free.
    #[default]
    Release,
    /// Their keys are deleted.
    Delete,
}

/// What a session is made of. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Session {
    /// A name for people; need not be unique.
    pub name: String,
    /// The node it belongs to.
    pub node: String,
    /// For how long nobody gets its locks after it was invalidated; at most [`MAX_LOCK_DELAY`].
    pub lock_delay: Duration,
    /// What becomes of its locks.
    pub behavior: Behavior,
    /// How long it lives without a renewal, at most [`MAX_SESSION_TTL`]; zero if it needs none.
    pub ttl: Duration,
    /// Checks of its node that it is bound to.
    pub node_checks: Vec<String>,
    /// Checks of its node's services that it is bound to.
    pub service_checks: Vec<String>,
}

impl Session {
    /// The checks that it is bound to.
    fn checks(&self) -> impl Iterator<Item = &String> {
        self.node_checks.iter().chain(&self.service_checks)
    }
}

/// The row of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// What it is made of.
    pub session: Session,
    /// Revision at which it was created, and last changed: it does not change.
    pub create_index: u64,
}

impl Stored for SessionRow {
    const NAME: &'static str = "session row";
    const VERSION: u8 = 1;
}

impl Row for SessionRow {
    const TABLE: u8 = table::id::SESSIONS;
}

/// How a session stands: what a renewal of it may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Gone,
    /// It has no TTL: there is nothing to renew.
    Endless,
    /// It may be renewed for so long.
    Renewable(Duration),
    /// It might have been, but its node or one of its checks is gone or critical: it is renewed no more, and ends with its
    /// lease.
    Condemned(Duration),
}

/// The table of sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionTable {
    pub(super) rows: Table<SessionRow>,
    /// Sessions of each node, by its key. Follows from the rows: not stored.
    by_node: OrdSet<(Key, Uuid)>,
}

impl SessionTable {
    /// A session.
    pub fn get(&self, id: Uuid) -> Option<&Arc<SessionRow>> {
        self.rows.get(id.as_bytes())
    }

    /// All sessions, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &Arc<SessionRow>)> {
        self.rows.prefix(b"", None).map(|(key, row)| (id_of(key), row))
    }

    /// The sessions of a node, ascending by id.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = (Uuid, &Arc<SessionRow>)> {
        let key = super::catalog::node_key(node);
        let from = (key.clone(), Uuid::nil());
        let ids = self.by_node.range(from..).take_while(move |(node, _)| *node == key);
        ids.filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn load(&mut self, key: Key, row: SessionRow) {
        self.by_node.insert((super::catalog::node_key(&row.session.node), id_of(&key)));
        self.rows.insert(key, row);
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<SessionRow>> {
        let row = self.rows.remove(id.as_bytes())?;
        self.by_node.remove(&(super::catalog::node_key(&row.session.node), id));
        Some(row)
    }

    pub(super) fn digest(&self) -> Digest {
        self.rows.digest()
    }

    pub(super) fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit(visit);
    }

    pub(super) fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit_changes(&older.rows, visit);
    }
}

/// Its key in the table.
pub(super) fn key_of(id: Uuid) -> Key {
    Key::from(&id.as_bytes()[..])
}

fn id_of(key: &Key) -> Uuid {
    // The loader takes a key only if it is one.
    Uuid::from_slice(key.as_bytes()).unwrap_or_default()
}

impl State {
    /// How a session stands.
    pub fn standing(&self, id: Uuid) -> Standing {
        let Some(row) = self.sessions.get(id) else { return Standing::Gone };
        let session = &row.session;
        // That the node is not heard does not end a session that says by itself that it lives.
        let mut named = session.checks().filter(|check| *check != SERF_HEALTH);
        match () {
            () if session.ttl.is_zero() => Standing::Endless,
            () if self.catalog.node(&session.node).is_none() => Standing::Condemned(session.ttl),
            () if named.any(|check| !self.passes(&session.node, check)) => Standing::Condemned(session.ttl),
            () => Standing::Renewable(session.ttl),
        }
    }

    /// Whether a check is there and not critical.
    fn passes(&self, node: &str, check: &str) -> bool {
        self.catalog.check(node, check).is_some_and(|row| row.check.status != Status::Critical)
    }

    /// Makes a session the holder of a key (consul.md 2.1): it must exist here and now (G1.5), and no delay hold (G1.6).
    pub(super) fn acquire(
        &mut self,
        key: &Key,
        value: &Bytes,
        flags: u64,
        session: Uuid,
        step: &mut Step<'_>,
    ) -> Result<Reply> {
        self.existing(session)?;
        let held = self.kv.get(key.as_bytes()).is_some_and(|row| row.holder.is_some());
        if !held && !self.may_take(key, session, step) {
            return Ok(Reply::Done(false));
        }
        let Some(fence) = self.kv.acquire(key, value, flags, session, step)? else { return Ok(Reply::Done(false)) };
        self.granted(key, session, step);
        Ok(Reply::Granted { fence })
    }

    /// Refuses a session that is not there.
    pub(super) fn existing(&self, session: Uuid) -> Result<()> {
        if self.sessions.get(session).is_some() {
            return Ok(());
        }
        Err(Error::Request(format!("invalid session \"{session}\": it does not exist, or not any more")))
    }

    /// Creates a session under an id that the proposer drew.
    pub(super) fn create_session(&mut self, id: Uuid, session: &Session, step: &mut Step<'_>) -> Result<Reply> {
        check(session)?;
        if id.is_nil() || self.sessions.get(id).is_some() {
            return Err(Error::Request(format!("the id {id} cannot be a new session's")));
        }
        let node = self.catalog.node(&session.node);
        let node = node.ok_or_else(|| Error::Request(format!("no node {:?} is registered", session.node)))?;
        // As the node is spelled in the catalog.
        let session = Session { node: node.node.name.clone(), ..session.clone() };
        for check in session.checks() {
            let found = self.catalog.check(&session.node, check);
            let found = found.ok_or_else(|| {
                Error::Request(format!("no check {check:?} is registered on node {:?}", session.node))
            })?;
            if found.check.status == Status::Critical {
                return Err(Error::Request(format!("check {check:?} is critical")));
            }
        }
        self.sessions.load(key_of(id), SessionRow { session, create_index: step.revision });
        step.touch(Subject::Session, key_of(id));
        Ok(Reply::Session(id))
    }

    /// Ends a session that was told to end; one that does not exist has ended.
    pub(super) fn destroy_session(&mut self, id: Uuid, step: &mut Step<'_>) -> Result<bool> {
        self.end_session(id, step);
        Ok(true)
    }

    /// Ends a session whose lease has run out, if that was decided in the term of this very entry (G1.3, L7).
    pub(super) fn expire_session(&mut self, id: Uuid, term: u64, step: &mut Step<'_>) -> Result<bool> {
        let ends = term == step.term && self.sessions.get(id).is_some();
        if ends {
            self.end_session(id, step);
        }
        Ok(ends)
    }

    /// Ends a session and lets go of its locks, under their delay (L9).
    fn end_session(&mut self, id: Uuid, step: &mut Step<'_>) {
        let Some(row) = self.sessions.remove(id) else { return };
        step.touch(Subject::Session, key_of(id));
        self.leave_all(id, step);
        let Session { behavior, lock_delay, .. } = row.session;
        for key in self.kv.held_by(id) {
            match behavior {
                Behavior::Release => self.kv.let_go(&key, step),
                Behavior::Delete => self.kv.take(&key, step),
            }
            if !lock_delay.is_zero() {
                self.delays.set(key, step.time + lock_delay);
            }
        }
    }

    /// Ends the sessions of a node without a TTL that have lost one of their checks, or the node itself.
    pub(super) fn end_sessions_without_checks(&mut self, node: &str, step: &mut Step<'_>) {
        let there = self.catalog.node(node).is_some();
        let lost = |session: &Session| !there || session.checks().any(|check| !self.passes(node, check));
        let ended = |session: &Session| session.ttl.is_zero() && lost(session);
        let ids: Vec<Uuid> =
            self.sessions.on_node(node).filter(|(_, row)| ended(&row.session)).map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.end_session(id, step));
    }
}

// The edges check this first, with better sentences; here it holds for whatever gets into the log.
fn check(session: &Session) -> Result<()> {
    let refused = |why: String| Err(Error::Request(why));
    if session.ttl > MAX_SESSION_TTL {
        return refused(format!("the TTL {:?} is above {MAX_SESSION_TTL:?}", session.ttl));
    }
    if session.lock_delay > MAX_LOCK_DELAY {
        return refused(format!("the lock-delay {:?} is above {MAX_LOCK_DELAY:?}", session.lock_delay));
    }
    if session.checks().count() > MAX_SESSION_CHECKS {
        return refused(format!("a session is bound to at most {MAX_SESSION_CHECKS} checks"));
    }
    if [&session.name, &session.node].into_iter().chain(session.checks()).any(|name| name.len() > MAX_NAME) {
        return refused(format!("a name in the session is longer than {MAX_NAME} bytes"));
    }
    Ok(())
}
