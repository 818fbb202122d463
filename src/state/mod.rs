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

mod command;
mod digest;
mod key;
mod kv;
mod requests;
mod stored;
mod table;
mod tombstones;

#[cfg(test)]
mod tests;

pub use command::{Command, Entry, LogTime, Reply, RequestId, Response};
pub use digest::Digest;
pub use key::Key;
pub use kv::{KvRow, KvTable};
pub use stored::{Loader, STATE_FORMAT, StoredRow};

use requests::{Admission, Place, Requests};

use crate::error::{Error, Result};
use crate::limits::MAX_REVISION;

/// The replicated state. Cloning is O(1).
#[derive(Debug, Clone, Default)]
pub struct State {
    revision: u64,
    entries: u64,
    log_time: LogTime,
    kv: KvTable,
    requests: Requests,
}

/// One changed row as the watch index sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Revision of the change.
    pub revision: u64,
    /// The key (kv table).
    pub key: Key,
}

/// One command as it is executed: what it may use, and what it leaves behind.
struct Step<'a> {
    /// The revision of all its changes.
    revision: u64,
    /// Log time.
    time: LogTime,
    changed: bool,
    touched: &'a mut Vec<Touched>,
}

impl Step<'_> {
    /// Notes a change of a key.
    fn touch(&mut self, key: Key) {
        self.changed = true;
        self.touched.push(Touched { revision: self.revision, key });
    }
}

impl State {
    /// Applies one entry; appends what changed to `touched`. The same entries give the same state and the same answers on
    /// every node. Work is bounded by the command and by the limits on what is due, not by the size of the state.
    pub fn apply(&mut self, entry: &Entry, touched: &mut Vec<Touched>) -> Response {
        self.entries += 1;
        self.log_time = self.log_time.max(entry.time);
        self.kv.tombstones.reap_due(self.log_time);
        self.requests.forget_due(self.log_time);

        let Some(id) = &entry.request else { return self.execute(&entry.command, touched) };
        let reply = match self.requests.admit(id, Place { entry: self.entries, time: self.log_time }) {
            Admission::First => {
                let response = self.execute(&entry.command, touched);
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
    fn execute(&mut self, command: &Command, touched: &mut Vec<Touched>) -> Response {
        // Index 1 always means "nothing yet": an empty store answers it, since an index is never 0, and a client that waits
        // for what comes after it must be woken by the first write.
        let revision = self.revision.max(1) + 1;
        let mut step = Step { revision, time: self.log_time, changed: false, touched };
        let reply = match self.dispatch(command, &mut step) {
            Ok(done) => Reply::Done(done),
            Err(refusal) => {
                assert!(refusal.is_deterministic() && !step.changed, "a refusal must be the same on every node");
                Reply::Refused(refusal.to_string())
            }
        };
        if step.changed {
            self.revision = step.revision;
        }
        Response { revision: self.revision, reply }
    }

    fn dispatch(&mut self, command: &Command, step: &mut Step<'_>) -> Result<bool> {
        if step.revision >= MAX_REVISION {
            return Err(Error::Request(format!("the store has used up its indexes: {MAX_REVISION} is the last")));
        }
        match command {
            Command::KvSet { key, value, flags, cas } => self.kv.set(key, value, *flags, *cas, step),
            Command::KvDelete { key, cas } => self.kv.delete(key, *cas, step),
            Command::KvDeleteTree { prefix } => self.kv.delete_tree(prefix, step),
        }
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
}
