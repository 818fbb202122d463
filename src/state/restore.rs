//! Backup and restore: a state taken out of one cluster's log and brought in through another's, or its own (R4, G1.8).
//!
//! A restore is a sequence of ordinary entries. What a backup holds is *staged* as rows of the state, part by part; it is
//! *sealed* when it is whole; and one entry *switches*: at that entry's revision, the content is the backup's. So a restore that
//! is given up half-way has changed nothing, and no server is ever asked to forget its log.
//!
//! What the switch never does: let an index or a fence go back. Its revision is above every one that this cluster or the backup
//! knows, and it is the revision of every row that it brings in. Sessions do not survive it, neither the backup's nor those
//! of before; whoever held a lock may believe so for a while, therefore all of these locks are delayed by as much.
//! From the seal on no lease is renewed ([`State::is_sealed`]): the switch is stamped after that, so its delays outlast every
//! lease that was ever answered.
//!
//! Start at [`Stage`], then [`State::switch`].

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalog::Catalog;
use super::delays::Delays;
use super::digest::{Digest, RowHash};
use super::kv::{KvRow, KvTable};
use super::session::Behavior;
use super::subject::Indexes;
use super::table::{self, Row, Table};
use super::{Key, Loader, LogTime, Reply, State, Step, StoredRow, Subject};
use crate::codec::{self, Stored};
use crate::error::{Error, Result};
use crate::limits::{
    FOREIGN_JUMP, MAX_CHECKPOINT_KEY, MAX_RESTORE, MAX_REVISION, RESTORE_PART, RESTORE_PATIENCE, SEAL_PATIENCE,
};

/// One step of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Begins, and gives up any other that was under way.
    Begin {
        /// The backup is another cluster's: fences that it gave after the backup are unknown, so the revision jumps far ahead.
        foreign: bool,
    },
    /// The next part of what the backup holds, as [`State::pack`] made it.
    Part {
        /// From 0.
        number: u32,
        /// Rows.
        rows: Bytes,
    },
    /// That was all. From here on no session is renewed.
    Seal {
        /// How many parts there were.
        parts: u32,
    },
    /// Makes the content what the backup holds.
    Switch,
    /// Gives the restore up.
    Abandon,
}

/// A restore that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    id: Uuid,
    foreign: bool,
    sealed: bool,
    /// First moment of log time at which it has been given up.
    until: LogTime,
}

/// The row of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part(Bytes);

impl Stored for Part {
    const NAME: &'static str = "part of a backup";
    const VERSION: u8 = 1;
}

impl Row for Part {
    const TABLE: u8 = table::id::PARTS;

    fn fields(&self, hash: &mut RowHash) {
        hash.bytes(&self.0);
    }
}

/// What has been staged.
#[derive(Debug, Clone, Default)]
pub(super) struct Staging {
    head: Option<Head>,
    parts: Table<Part>,
    /// Follows from the parts: not stored.
    bytes: u64,
}

impl Staging {
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// When it is given up.
    pub fn until(&self) -> Option<LogTime> {
        self.head.map(|head| head.until)
    }

    /// Gives up what nobody has gone on with.
    pub fn drop_due(&mut self, now: LogTime) {
        if self.until().is_some_and(|until| until <= now) {
            *self = Staging::default();
        }
    }

    pub fn fields(&self, hash: &mut RowHash) {
        hash.option(self.head.as_ref().map(|head| &head.id.as_bytes()[..]));
        if let Some(Head { foreign, sealed, until, .. }) = self.head {
            [foreign.into(), sealed.into(), until.0].into_iter().for_each(|number| hash.number(number));
        }
    }

    pub fn digest(&self) -> Digest {
        self.parts.digest()
    }

    pub fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.parts.visit(visit);
    }

    pub fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.parts.visit_changes(&older.parts, visit);
    }

    pub fn load(&mut self, key: Key, part: Part) {
        self.bytes += part.0.len() as u64;
        self.parts.insert(key, part);
    }

    pub fn load_head(&mut self, head: Option<Head>) {
        self.head = head;
    }
}

/// Rows on their way in or out.
#[derive(Serialize, Deserialize)]
struct Rows(Vec<(u8, Bytes, Bytes)>);

impl Stored for Rows {
    const NAME: &'static str = "rows of a backup";
    const VERSION: u8 = 1;
}

/// Out: what a backup holds.
impl State {
    /// What a restore takes of this state: keys, the catalog, the root certificate, and whoever holds or held a lock.
    /// Request ids, queues and the history stay behind: they speak of the log that this state came from.
    pub fn backup(&self) -> State {
        State {
            revision: self.revision,
            entries: self.entries,
            log_time: self.log_time,
            epoch: self.epoch,
            kv: self.kv.without_past(),
            sessions: self.sessions.clone(),
            delays: self.delays.clone(),
            catalog: self.catalog.clone(),
            authority: self.authority.clone(),
            indexes: self.indexes.clone(),
            ..State::default()
        }
    }

    /// All rows in parts of about [`RESTORE_PART`]; one that is larger is a part of its own.
    pub fn pack(&self, visit: &mut dyn FnMut(Bytes)) {
        let (mut rows, mut size) = (Rows(Vec::new()), 0);
        let mut flush = |rows: &mut Rows| {
            if !rows.0.is_empty() {
                visit(table::seal(rows).into());
                rows.0.clear();
            }
        };
        self.rows(&mut |row| {
            let content = row.row.unwrap_or_default();
            let own = row.key.len() + content.len();
            if size + own > RESTORE_PART {
                flush(&mut rows);
                size = 0;
            }
            rows.0.push((row.table, row.key.into(), content.into()));
            size += own;
        });
        flush(&mut rows);
    }
}

/// Gives the rows of one part to a loader.
///
/// # Errors
/// [`Error::Operator`] if it is damaged or of another version.
pub fn unpack(part: &[u8], loader: &mut Loader) -> Result<()> {
    let rows: Rows = codec::open(part).map_err(|e| Error::Operator(format!("a backup cannot be read: {e}")))?;
    rows.0.into_iter().try_for_each(|(table, key, row)| {
        if key.len() > MAX_CHECKPOINT_KEY {
            return Err(Error::Operator(format!("a row of a backup has a key of {} bytes", key.len())));
        }
        loader.row(StoredRow { table, key: key.into(), row: Some(row.into()) })
    })
}

/// In.
impl State {
    /// The revision at which the content was last replaced by a backup's, or 0: what was read before that says nothing of now.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a restore is about to switch: until it does, or is given up, no lease may be renewed.
    pub fn is_sealed(&self) -> bool {
        self.staging.head.is_some_and(|head| head.sealed)
    }

    /// Does one step of a restore; `false` if it was given up, or another one has begun.
    pub(super) fn restore(&mut self, id: Uuid, stage: &Stage, step: &mut Step<'_>) -> Result<Reply> {
        if let Stage::Begin { foreign } = *stage {
            let head = Head { id, foreign, sealed: false, until: step.time + RESTORE_PATIENCE };
            self.staging = Staging { head: Some(head), ..Staging::default() };
            self.wake_timekeeper(step);
            return Ok(Reply::Done(true));
        }
        let Some(mut head) = self.staging.head.filter(|head| head.id == id) else { return Ok(Reply::Done(false)) };
        let staged = self.staging.parts.len() as u64;
        match stage {
            Stage::Part { number, rows } => {
                if u64::from(*number) != staged || head.sealed {
                    return Err(Error::Request(format!("part {number} of a backup came after {staged} parts")));
                }
                if self.staging.bytes + rows.len() as u64 > MAX_RESTORE {
                    return Err(Error::TooLarge(format!("a backup of more than {MAX_RESTORE} bytes")));
                }
                head.until = step.time + RESTORE_PATIENCE;
                self.staging.load(Key::from(&number.to_be_bytes()[..]), Part(rows.clone()));
            }
            Stage::Seal { parts } => {
                if u64::from(*parts) != staged {
                    return Err(Error::Request(format!("a backup of {parts} parts has {staged}")));
                }
                (head.sealed, head.until) = (true, step.time + SEAL_PATIENCE);
                self.wake_timekeeper(step);
            }
            Stage::Switch if !head.sealed => {
                return Err(Error::Request("a backup is restored only once it is sealed".into()));
            }
            Stage::Switch => return self.switch(head.foreign, step).map(|()| Reply::Done(true)),
            Stage::Abandon => {
                self.staging = Staging::default();
                return Ok(Reply::Done(true));
            }
            Stage::Begin { .. } => {}
        }
        self.staging.head = Some(head);
        Ok(Reply::Done(true))
    }

    /// The leader lets time pass where that ends something: a restore that nobody goes on with, too.
    fn wake_timekeeper(&self, step: &mut Step<'_>) {
        step.touch(Subject::Lock, Key::from(""));
    }

    /// Makes the content what is staged.
    fn switch(&mut self, foreign: bool, step: &mut Step<'_>) -> Result<()> {
        let parts = std::mem::take(&mut self.staging).parts;
        let mut loader = State::loader();
        parts.prefix(b"", None).try_for_each(|(_, part)| unpack(&part.0, &mut loader)).map_err(unreadable)?;
        let backup = loader.finish().map_err(unreadable)?;
        let jump = if foreign { FOREIGN_JUMP } else { 0 };
        let revision = step.revision.max(backup.revision.max(1) + 1).saturating_add(jump);
        if revision >= MAX_REVISION {
            return Err(Error::Request(format!("the backup's indexes leave none below {MAX_REVISION}")));
        }
        step.revision = revision;
        step.changed = true;

        let mut delays = Delays::default();
        delays.carry(self, step.time);
        delays.carry(&backup, step.time);
        self.delays = delays;
        self.kv = KvTable::beginning(revision, self.kv.history.bounds());
        for (key, row) in backup.kv.prefix(b"") {
            let ends = |holder: super::Holder| backup.sessions.get(holder.session).map(|row| row.session.behavior);
            // The sessions of a backup have ended, and what ends with them.
            if row.holder.and_then(ends) != Some(Behavior::Delete) {
                let row = KvRow { holder: None, create_index: revision, modify_index: revision, ..KvRow::clone(row) };
                self.kv.load(key.clone(), row);
            }
        }
        self.catalog = renewed(&backup.catalog, revision);
        if let (Some(root), _) | (None, Some(root)) = (backup.authority.root(), self.authority.root()) {
            let root = super::RootRow { create_index: revision, ..root.clone() };
            self.authority.load(Key::from(""), root);
        }
        (self.sessions, self.queues) = Default::default();
        self.indexes = Indexes::all(revision);
        self.epoch = revision;
        Ok(())
    }
}

/// A catalog all of which is as old as this revision.
fn renewed(catalog: &Catalog, revision: u64) -> Catalog {
    let mut renewed = Catalog::default();
    let (create_index, modify_index) = (revision, revision);
    for (key, row) in catalog.nodes.prefix(b"", None) {
        renewed.load_node(key.clone(), super::catalog::NodeRow { create_index, modify_index, ..(**row).clone() });
    }
    for (key, row) in catalog.services.prefix(b"", None) {
        renewed.load_service(key.clone(), super::catalog::ServiceRow { create_index, modify_index, ..(**row).clone() });
    }
    for (key, row) in catalog.checks.prefix(b"", None) {
        renewed.load_check(key.clone(), super::catalog::CheckRow { create_index, modify_index, ..(**row).clone() });
    }
    renewed
}

impl Delays {
    /// Takes over from a state that is left behind: what is left of its delays, and a delay for every lock that is held there,
    /// for as long as its holder may believe in it (G1.8).
    fn carry(&mut self, from: &State, now: LogTime) {
        for (key, until) in from.delays.iter() {
            let left = Duration::from_millis(until.0.saturating_sub(from.log_time.0));
            self.set(key.clone(), now + left);
        }
        for (session, key) in from.kv.holds() {
            let row = from.sessions.get(session);
            let belief = row.map_or(Duration::ZERO, |row| row.session.ttl.max(row.session.lock_delay));
            self.set(key.clone(), now + belief);
        }
    }
}

// Whoever staged it has read it before: only another version of this program makes parts that this one cannot read.
fn unreadable(error: Error) -> Error {
    Error::Request(format!("the backup cannot be restored: {error}"))
}
