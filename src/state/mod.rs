//! The replicated state machine: what the log means.
//!
//! [`State::apply`] takes one log entry and changes the state, the same way on every node. It never reads a clock, draws a
//! random number, iterates a hash map, touches I/O or knows which node it runs on: time, ids and secrets come in with the
//! entry. A [`State`] is persistent: a clone is a pointer copy and a consistent snapshot, however large the state is.
//!
//! Start at [`Command`], which is all that can be asked; then `kv.rs`, what the commands do; then one script under
//! `testscripts/`. Everything the state holds is rows in tables (`table.rs`), so what is stored, sent and compared is
//! written once (`stored.rs`, `digest.rs`). A new kind of thing is a module with a table, a few commands and an arm in
//! [`State::apply`]'s dispatch.

mod authority;
pub mod catalog;
mod command;
mod delays;
mod digest;
pub mod history;
mod key;
mod kv;
mod queue;
mod requests;
pub mod restore;
pub mod session;
mod stored;
mod subject;
mod table;
mod tombstones;
pub mod txn;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Root, RootRow};
pub use catalog::Catalog;
pub use command::{Command, Entry, LogTime, Registration, Reply, RequestId, Response};
pub use digest::Digest;
pub use history::{Change, History};
pub use key::Key;
pub use kv::{Holder, KvRow, KvTable};
pub use queue::{Queues, Waiter};
pub use session::{Session, SessionRow, SessionTable, Standing};
pub use stored::{Loader, STATE_FORMAT, StoredRow};
pub use subject::Subject;

use std::collections::BTreeSet;

use uuid::Uuid;

use delays::Delays;
use requests::{Admission, Place, Requests};
use subject::Indexes;

use crate::error::{Error, Result};
use crate::limits::MAX_REVISION;

/// The replicated state. Cloning is O(1).
#[derive(Debug, Clone, Default)]
pub struct State {
    revision: u64,
    entries: u64,
    log_time: LogTime,
    kv: KvTable,
    sessions: SessionTable,
    delays: Delays,
    queues: Queues,
    catalog: Catalog,
    authority: Authority,
    indexes: Indexes,
    requests: Requests,
    /// The revision at which a backup was last restored.
    epoch: u64,
    staging: restore::Staging,
}

/// One changed row as the watch index sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Revision of the change.
    pub revision: u64,
    /// What it concerns.
    pub subject: Subject,
    /// Which of them.
    pub key: Key,
}

impl Touched {
    /// The session, if it concerns one.
    pub fn session(&self) -> Option<Uuid> {
        if self.subject == Subject::Session { Uuid::from_slice(self.key.as_bytes()).ok() } else { None }
    }
}

/// One command as it is executed: what it may use, and what it leaves behind.
struct Step<'a> {
    /// The revision of all its changes.
    revision: u64,
    /// The raft term of its entry.
    term: u64,
    /// Log time.
    time: LogTime,
    changed: bool,
    /// Keys that were granted as locks.
    granted: BTreeSet<Key>,
    /// Locks that were let go of, and are still to be handed over.
    freed: BTreeSet<Key>,
    touched: &'a mut Vec<Touched>,
}

impl<'a> Step<'a> {
    fn new(revision: u64, term: u64, time: LogTime, touched: &'a mut Vec<Touched>) -> Self {
        Step { revision, term, time, changed: false, granted: BTreeSet::new(), freed: BTreeSet::new(), touched }
    }

    /// Notes a change.
    fn touch(&mut self, subject: Subject, key: Key) {
        self.changed = true;
        self.touched.push(Touched { revision: self.revision, subject, key });
    }

    /// Notes that a lock is held no more.
    fn free(&mut self, key: &Key) {
        self.freed.insert(key.clone());
        self.touch(Subject::Lock, key.clone());
    }

    /// Forgets what was changed since `touched` changes were noted.
    fn undo(&mut self, touched: usize) {
        self.touched.truncate(touched);
        self.granted.clear();
        self.freed.clear();
        self.changed = false;
    }

    /// Notes that a lock is granted. Its fence is the revision, so it cannot be granted twice in one (G2).
    fn grant(&mut self, key: &Key) -> Result<()> {
        if self.granted.insert(key.clone()) {
            return Ok(());
        }
        Err(Error::Request(format!(
            "key \"{key}\" cannot be locked twice in one transaction: its fence would not rise"
        )))
    }
}

impl State {
    /// Applies one entry of a raft term; appends what changed to `touched`. The same entries give the same state and the same
    /// answers on every node. Work is bounded by the command and by the limits on what is due, not by the size of the state;
    /// only what ends with something else (a tree, a node, a session) is as much as that holds.
    pub fn apply(&mut self, term: u64, entry: &Entry, touched: &mut Vec<Touched>) -> Response {
        self.entries += 1;
        self.log_time = self.log_time.max(entry.time);
        self.kv.tombstones.reap_due(self.log_time);
        self.delays.end_due(self.log_time, |key| self.queues.waited_for(key));
        self.requests.forget_due(self.log_time);
        self.staging.drop_due(self.log_time);

        let Some(id) = &entry.request else { return self.execute(term, &entry.command, touched) };
        let reply = match self.requests.admit(id, Place { entry: self.entries, time: self.log_time }) {
            Admission::First => {
                let response = self.execute(term, &entry.command, touched);
                self.requests.remember(id, &response);
                return response;
            }
            Admission::Repeat(response) => return response,
            Admission::Forgotten => Reply::Forgotten,
            Admission::Refused(why) => Reply::Refused(why),
        };
        Response { revision: self.revision, reply }
    }

    /// Executes a command. All its changes share the next revision, which is taken only if there are any.
    fn execute(&mut self, term: u64, command: &Command, touched: &mut Vec<Touched>) -> Response {
        // Index 1 always means "nothing yet": an empty store answers it, since an index is never 0, and a client that waits
        // for what comes after it must be woken by the first write.
        let revision = self.revision.max(1) + 1;
        let before = touched.len();
        let mut step = Step::new(revision, term, self.log_time, touched);
        let dispatched = self.dispatch(command, &mut step);
        let reply = match dispatched.and_then(|reply| self.hand_over_freed(&mut step).map(|()| reply)) {
            Ok(reply) => reply,
            Err(refusal) => {
                assert!(refusal.is_deterministic() && !step.changed, "a refusal must be the same on every node");
                Reply::Refused(refusal.to_string())
            }
        };
        if step.changed {
            self.revision = step.revision;
            touched[before..].iter().for_each(|change| self.indexes.raise(change.subject, change.revision));
        }
        Response { revision: self.revision, reply }
    }

    fn dispatch(&mut self, command: &Command, step: &mut Step<'_>) -> Result<Reply> {
        if step.revision >= MAX_REVISION {
            return Err(Error::Request(format!("the store has used up its indexes: {MAX_REVISION} is the last")));
        }
        let done = match command {
            Command::KvSet { key, value, flags, cas } => self.kv.set(key, value, *flags, *cas, step)?,
            Command::KvDelete { key, cas } => self.kv.delete(key, *cas, step)?,
            Command::KvDeleteTree { prefix } => self.kv.delete_tree(prefix, step)?,
            Command::KvAcquire { key, value, flags, session } => {
                return self.acquire(key, value, *flags, *session, step);
            }
            Command::KvRelease { key, value, flags, session, fence } => {
                self.kv.release(key, value, *flags, (*session, *fence), step)?
            }
            Command::SessionCreate { id, session } => return self.create_session(*id, session, step),
            Command::SessionDestroy { id } => self.destroy_session(*id, step)?,
            Command::SessionExpire { id, term } => self.expire_session(*id, *term, step)?,
            Command::Txn(operations) => return self.transact(operations, step),
            Command::Register(registration) => {
                return self.all_or_nothing(step, |state, step| state.register(registration, step));
            }
            Command::Deregister { node, service, check } => {
                self.deregister(node, service.as_deref(), check.as_deref(), step)
            }
            Command::KeepRoot(root) => self.authority.keep(root, step)?,
            Command::KvFenced { lock, fence, key, verb } => {
                let current = self.kv.get(lock.as_bytes()).and_then(|row| row.holder).map(|holder| holder.fence);
                if current != Some(*fence) {
                    return Ok(Reply::FencedOff { current });
                }
                self.kv.write(key, verb, step)?
            }
            Command::LockQueue { lock, session, wait } => return self.queue_for(lock, *session, *wait, step),
            Command::LockCallOff { lock, session, asked } => self.call_off(lock, *session, *asked, step),
            Command::LockRelease { lock, session, fence } => self.kv.free(lock, (*session, *fence), step)?,
            Command::LockPass => self.pass_locks(step)?,
            Command::KeepHistory(bounds) => {
                self.kv.history.bind(*bounds);
                true
            }
            Command::Restore { id, stage } => return self.restore(*id, stage, step),
        };
        Ok(Reply::Done(done))
    }

    /// Executes what has several parts: if one of them is refused, none is done.
    fn all_or_nothing(
        &mut self,
        step: &mut Step<'_>,
        parts: impl FnOnce(&mut State, &mut Step<'_>) -> Result<Reply>,
    ) -> Result<Reply> {
        // A pointer copy.
        let (before, touched) = (self.clone(), step.touched.len());
        parts(self, step).inspect_err(|_| {
            *self = before;
            step.undo(touched);
        })
    }

    /// An empty state at a revision, for tests of what watches it.
    #[cfg(test)]
    pub(crate) fn at(revision: u64) -> State {
        State { revision, ..State::default() }
    }

    /// The index of the whole store. It rises by one with every command that changes something: 0 before the first, 2 after
    /// it, because clients see the empty store as 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The number of entries that were applied since the cluster began, whether they changed something or not. Two states
    /// are comparable at equal numbers; request ids are [born](RequestId::born) at one.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Log time of the latest entry.
    pub fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// The keys.
    pub fn kv(&self) -> &KvTable {
        &self.kv
    }

    /// The sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// Nodes, services and checks.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The certificate authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The newest change of a subject: the index of whatever is read of it. At least 1; it never goes back (R4).
    pub fn index_of(&self, subject: Subject) -> u64 {
        match subject {
            Subject::Kv => self.kv.index(),
            other => self.indexes.of(other).max(1),
        }
    }
}
