//! The state as rows: what checkpoints and snapshots hold, the difference of two states, and the way back.
//!
//! Table 0 has one row, the header, with all that belongs to no table, the digest over everything included. Rows are
//! visited in ascending order of (table, key).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, RowHash};
use super::history::{self, History, Replaced};
use super::restore;
use super::subject::Indexes;
use super::table::{id, seal};
use super::{Key, LogTime, State};
use crate::codec::{self, Stored};
use crate::error::{Error, Result};

/// Version of the state's format as a whole: its tables and its digest. Rises whenever either changes.
pub const STATE_FORMAT: u8 = 6;

/// A row as it stands in checkpoint and snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Which table.
    pub table: u8,
    /// Key within the table.
    pub key: Vec<u8>,
    /// The sealed row, or None if it was removed.
    pub row: Option<Vec<u8>>,
}

impl StoredRow {
    /// What it is, for people: Consul's word where it has one.
    pub fn kind(&self) -> &'static str {
        match self.table {
            id::HEADER => "Index",
            id::KV => "KVS",
            id::TOMBSTONES => "Tombstone",
            id::INCARNATIONS | id::ANSWERS => "Request",
            id::SESSIONS => "Session",
            id::DELAYS => "LockDelay",
            id::NODES => "Node",
            id::SERVICES => "Service",
            id::CHECKS => "Check",
            id::ROOTS => "ConnectCA",
            id::WAITERS => "LockWaiter",
            id::HISTORY => "Change",
            id::PARTS => "Restore",
            _ => "Other",
        }
    }
}

/// The one row of table 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub revision: u64,
    pub entries: u64,
    pub log_time: LogTime,
    /// Floor of the keys' indexes (R4).
    pub kv_floor: u64,
    /// See `requests.rs`.
    pub forgotten_before: u64,
    /// See `subject.rs`.
    pub indexes: Indexes,
    /// See `history.rs`.
    pub history: history::Frame,
    /// See `restore.rs`.
    pub epoch: u64,
    /// See `restore.rs`.
    pub restore: Option<restore::Head>,
    /// Over all rows and the fields above.
    pub digest: u128,
}

impl Stored for Header {
    const NAME: &'static str = "state header";
    const VERSION: u8 = STATE_FORMAT;
}

impl State {
    /// The digest of everything in the state (R6). Costs the same for every size of state.
    pub fn digest(&self) -> Digest {
        let mut header = RowHash::new(id::HEADER, b"");
        header.number(self.revision);
        header.number(self.entries);
        header.number(self.log_time.0);
        header.number(self.kv.tombstones.floor());
        header.number(self.requests.forgotten_before());
        self.indexes.fields(&mut header);
        let history::Frame { floor, bounds } = self.kv.history.frame();
        [floor, bounds.revisions, bounds.bytes, self.epoch].into_iter().for_each(|number| header.number(number));
        self.staging.fields(&mut header);
        let tables = [
            self.kv.rows.digest(),
            self.kv.tombstones.digest(),
            self.requests.digest(),
            self.sessions.digest(),
            self.delays.digest(),
            self.catalog.nodes.digest(),
            self.catalog.services.digest(),
            self.catalog.checks.digest(),
            self.authority.roots.digest(),
            self.queues.digest(),
            self.kv.history.digest(),
            self.staging.digest(),
        ];
        tables.into_iter().chain([header.finish()]).sum()
    }

    /// Visits all rows, ascending: a full snapshot.
    pub fn rows(&self, visit: &mut dyn FnMut(StoredRow)) {
        visit(self.header_row());
        self.kv.rows.visit(visit);
        self.kv.tombstones.visit(visit);
        self.requests.visit(visit);
        self.sessions.visit(visit);
        self.delays.visit(visit);
        self.catalog.nodes.visit(visit);
        self.catalog.services.visit(visit);
        self.catalog.checks.visit(visit);
        self.authority.roots.visit(visit);
        self.queues.visit(visit);
        self.kv.history.visit(visit);
        self.staging.visit(visit);
    }

    /// Visits the rows that differ from `older`, ascending, removed ones as None. The header is always among them. The cost
    /// follows what changed between the two: what they share is skipped, so `older` should be a former clone.
    pub fn changes_since(&self, older: &State, visit: &mut dyn FnMut(StoredRow)) {
        visit(self.header_row());
        self.kv.rows.visit_changes(&older.kv.rows, visit);
        self.kv.tombstones.visit_changes(&older.kv.tombstones, visit);
        self.requests.visit_changes(&older.requests, visit);
        self.sessions.visit_changes(&older.sessions, visit);
        self.delays.visit_changes(&older.delays, visit);
        self.catalog.nodes.visit_changes(&older.catalog.nodes, visit);
        self.catalog.services.visit_changes(&older.catalog.services, visit);
        self.catalog.checks.visit_changes(&older.catalog.checks, visit);
        self.authority.roots.visit_changes(&older.authority.roots, visit);
        self.queues.visit_changes(&older.queues, visit);
        self.kv.history.visit_changes(&older.kv.history, visit);
        self.staging.visit_changes(&older.staging, visit);
    }

    /// Builds a state from stored rows.
    pub fn loader() -> Loader {
        Loader { header: None, state: State::default(), history: BTreeMap::new() }
    }

    fn header_row(&self) -> StoredRow {
        let header = Header {
            revision: self.revision,
            entries: self.entries,
            log_time: self.log_time,
            kv_floor: self.kv.tombstones.floor(),
            forgotten_before: self.requests.forgotten_before(),
            indexes: self.indexes.clone(),
            history: self.kv.history.frame(),
            epoch: self.epoch,
            restore: self.staging.head(),
            digest: self.digest().0,
        };
        StoredRow { table: id::HEADER, key: Vec::new(), row: Some(seal(&header)) }
    }
}

/// Takes the rows of a state in any order (ascending is fastest) and ends with the check of their digest.
pub struct Loader {
    header: Option<Header>,
    state: State,
    /// Linked with the keys once they are all there.
    history: BTreeMap<history::Place, Replaced>,
}

impl Loader {
    /// One row.
    ///
    /// # Errors
    /// [`Error::Operator`], if the row is damaged or of a newer version.
    pub fn row(&mut self, row: StoredRow) -> Result<()> {
        let key = Key::from(&row.key[..]);
        let Some(bytes) = row.row else {
            return Err(Error::Operator(format!("the stored state is damaged: row {key:?} has no content")));
        };
        let state = &mut self.state;
        match row.table {
            id::HEADER => self.header = Some(codec::open(&bytes).map_err(damaged)?),
            id::KV => state.kv.load(key, open(&bytes)?),
            id::TOMBSTONES => state.kv.load_tombstone(key, open(&bytes)?),
            id::INCARNATIONS => state.requests.load_incarnation(key, open(&bytes)?),
            id::ANSWERS => state.requests.load_answer(key, open(&bytes)?),
            id::SESSIONS => state.sessions.load(key, open(&bytes)?),
            id::DELAYS => state.delays.load(key, open(&bytes)?),
            id::NODES => state.catalog.load_node(key, open(&bytes)?),
            id::SERVICES => state.catalog.load_service(key, open(&bytes)?),
            id::CHECKS => state.catalog.load_check(key, open(&bytes)?),
            id::ROOTS => state.authority.load(key, open(&bytes)?),
            id::WAITERS => state.queues.load(key, open(&bytes)?),
            id::PARTS => state.staging.load(key, open(&bytes)?),
            id::HISTORY => {
                let place = history::place(&key);
                let damaged =
                    || Error::Operator(format!("the stored state is damaged: {key:?} is no place in the history"));
                self.history.insert(place.ok_or_else(damaged)?, open(&bytes)?);
            }
            table => {
                return Err(Error::Operator(format!(
                    "the stored state has a table {table}, unknown to this quorate (state format {STATE_FORMAT}): start \
                     the version that wrote it"
                )));
            }
        }
        Ok(())
    }

    /// Recomputes the digest from the rows and compares it with the stored one.
    ///
    /// # Errors
    /// [`Error::Operator`], if they differ or there is no header.
    pub fn finish(self) -> Result<State> {
        let Some(header) = self.header else {
            return Err(Error::Operator("the stored state is damaged: it has no header".into()));
        };
        let mut state = self.state;
        state.revision = header.revision;
        state.entries = header.entries;
        state.log_time = header.log_time;
        state.kv.load_floor(header.kv_floor);
        state.epoch = header.epoch;
        state.staging.load_head(header.restore);
        state.requests.load_forgotten_before(header.forgotten_before);
        state.indexes = header.indexes;
        state.kv.history = History::load(header.history, self.history, &state.kv.rows);
        state.park_loaded();
        let (found, stored) = (state.digest().0, header.digest);
        if found != stored {
            return Err(Error::Operator(format!(
                "the stored state is damaged: its rows have digest {found:032x}, its header says {stored:032x} at revision \
                 {}; remove it and let the node fetch it from the others",
                header.revision
            )));
        }
        Ok(state)
    }
}

fn open<R: Stored + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<R> {
    codec::open(bytes).map_err(damaged)
}

fn damaged(error: codec::CodecError) -> Error {
    Error::Operator(format!("the stored state cannot be read: {error}"))
}
