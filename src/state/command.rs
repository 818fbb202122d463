//! What a log entry says. These types are the log's format: they only grow, and only at their ends.
//!
//! Time, ids and everything random come in with the command, so that applying it needs nothing but the state.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Key;
use super::authority::Root;
use super::catalog::{Check, Node, Service};
use super::history::Bounds;
use super::restore::Stage;
use super::session::Session;
use super::txn::{Failure, Given, KvVerb, Operation};
use crate::codec::Stored;

/// One write as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the leader proposed it.
    pub time: LogTime,
    /// What makes a repeat of it harmless (R3).
    pub request: Option<RequestId>,
    /// What to do.
    pub command: Command,
}

impl Stored for Entry {
    const NAME: &'static str = "log entry";
    const VERSION: u8 = 1;
}

/// Milliseconds of log time: the leader's monotonic clock, carried on from the last entry in its log. It never goes back,
/// stands still while there is no leader, and knows nothing of wall clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LogTime(pub u64);

impl std::ops::Add<Duration> for LogTime {
    type Output = LogTime;
    fn add(self, duration: Duration) -> LogTime {
        LogTime(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Names one write of one writer, so that its repeat returns the first result (R3). The rules are in `requests.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestId {
    /// One life of the writer: chosen at random when it starts.
    pub incarnation: Uuid,
    /// [`State::entries`](super::State::entries) of an applied state that the writer knew when it chose the incarnation,
    /// the newest that it can learn. It tells a new incarnation from a forgotten one.
    pub born: u64,
    /// The writer's own count, from 1.
    pub sequence: u64,
    /// The writer will not repeat anything below this: the results need not be remembered. At most `sequence`, and
    /// less than [`OPEN_REQUESTS`](crate::limits::OPEN_REQUESTS) behind it.
    pub acknowledged_below: u64,
}

/// Everything that can be asked of the state. New commands are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Writes a key (consul.md 2.1, PUT).
    KvSet {
        /// The key.
        key: Key,
        /// Its value, in an allocation of its own: the state keeps it, and with it all of what it was sliced from.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// `cas`: 0 writes only if the key is absent, N only if its ModifyIndex is N.
        cas: Option<u64>,
    },
    /// Deletes a key (consul.md 2.1, DELETE).
    KvDelete {
        /// The key.
        key: Key,
        /// `cas`: deletes only if the ModifyIndex is this.
        cas: Option<u64>,
    },
    /// Deletes every key with a prefix.
    KvDeleteTree {
        /// The prefix; empty for everything.
        prefix: Key,
    },
    /// Makes a session the holder of a key, and writes it (consul.md 2.1, `acquire`).
    KvAcquire {
        /// The key.
        key: Key,
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// The session.
        session: Uuid,
    },
    /// Has a session let go of a key, and writes it (consul.md 2.1, `release`).
    KvRelease {
        /// The key.
        key: Key,
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// The session.
        session: Uuid,
        /// `fence`: only the hold that has this one (G5).
        fence: Option<u64>,
    },
    /// Creates a session (consul.md 2.4).
    SessionCreate {
        /// Its id, drawn by the proposer.
        id: Uuid,
        /// What it is made of.
        session: Session,
    },
    /// Ends a session because somebody asked for it.
    SessionDestroy {
        /// The session.
        id: Uuid,
    },
    /// Ends a session because its lease has run out. It says `false` and does nothing if the leader of another term decided
    /// that (G1.3).
    SessionExpire {
        /// The session.
        id: Uuid,
        /// The term of the leader that decided it.
        term: u64,
    },
    /// Does several things or none (consul.md 2.5).
    Txn(Vec<Operation>),
    /// Registers a node, and what is on it (consul.md 2.6).
    Register(Registration),
    /// Deregisters a node with all that is on it, or one thing on it.
    Deregister {
        /// The node.
        node: String,
        /// The instance of a service, by id.
        service: Option<String>,
        /// The check, by id; goes before the service.
        check: Option<String>,
    },
    /// Keeps the root certificate, if there is none yet (consul.md 0.1).
    KeepRoot(Box<Root>),
    /// Writes or deletes a key, if at this place in the log a lock is held under a fence (G3).
    KvFenced {
        /// The lock.
        lock: Key,
        /// The fence.
        fence: u64,
        /// The key, or the prefix; the lock itself, too.
        key: Key,
        /// What to do with it: one of the verbs that write, and take no lock.
        verb: KvVerb,
    },
    /// Gives a session a lock, or a place in the lock's queue (G6).
    LockQueue {
        /// The lock.
        lock: Key,
        /// The session.
        session: Uuid,
        /// How long it waits, in log time; zero asks once.
        wait: Duration,
    },
    /// Takes a waiter out of a queue, because its client has hung up.
    LockCallOff {
        /// The lock.
        lock: Key,
        /// The session.
        session: Uuid,
        /// The revision of the request that is called off. One that was repeated since waits on.
        asked: u64,
    },
    /// Has a session let go of a lock, whose value stays.
    LockRelease {
        /// The lock.
        lock: Key,
        /// The session.
        session: Uuid,
        /// Only the hold that has this fence (G5).
        fence: Option<u64>,
    },
    /// Time has passed: ends waits, and hands over locks whose delay has ended.
    LockPass,
    /// Keeps this much of what the keys were (R5).
    KeepHistory(Bounds),
    /// Replaces all of the content by a backup's, in several steps (R4).
    Restore {
        /// This restore.
        id: Uuid,
        /// Its next step.
        stage: Stage,
    },
}

/// What is registered at once: all of it, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registration {
    /// The node.
    pub node: Node,
    /// The node is only named: it must be registered, and stays as it is.
    pub skip_node: bool,
    /// An instance of a service on it.
    pub service: Option<Service>,
    /// Checks on it.
    pub checks: Vec<Check>,
}

/// What came of a command. Part of the state: request ids remember it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The state's revision after the command.
    pub revision: u64,
    /// The answer.
    pub reply: Reply,
}

/// A command's answer. New answers are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, or (`false`) its condition did not hold and nothing was changed.
    Done(bool),
    /// The request id is too old to say what became of it: an earlier copy may have been applied, this one was not. A
    /// writer that sent no other copy may send the command again, under a new incarnation.
    Forgotten,
    /// Refused for a reason that lies in the request. Nothing was changed.
    Refused(String),
    /// The lock is held now.
    Granted {
        /// The fence it is held under (G2).
        fence: u64,
    },
    /// The session was created.
    Session(Uuid),
    /// The transaction was executed; this is what its operations gave, in order.
    Committed(Vec<Given>),
    /// These operations of the transaction failed, so nothing was changed.
    RolledBack(Vec<Failure>),
    /// The lock is not held under the fence that was named. Nothing was changed.
    FencedOff {
        /// The fence that it is held under, if it is held.
        current: Option<u64>,
    },
    /// The session waits for the lock.
    Queued {
        /// Its place: the revision at which it came.
        place: u64,
    },
}
