//! The keys (consul.md 2.1): what a write does to them and what index a read answers.
//!
//! Every index here is a revision of the state. A write that leaves value and flags as they are changes nothing: it takes
//! no revision and wakes nobody. Deletions leave [tombstones](super::tombstones), so no index ever goes back (R4).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::RowHash;
use super::table::{self, Row, Table};
use super::tombstones::Tombstones;
use super::{Key, Step};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits::{MAX_KEY, MAX_VALUE_CEILING};

/// The row of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvRow {
    /// At most [`MAX_VALUE_CEILING`] bytes.
    pub value: Bytes,
    /// The client's opaque number.
    pub flags: u64,
    /// Acquisitions by a new holder since the key was created.
    pub lock_index: u64,
    /// The session that holds the key as a lock.
    pub session: Option<Uuid>,
    /// Revision at which the key was created. Deleting and creating it again starts anew.
    pub create_index: u64,
    /// Revision of the last change of anything in this row.
    pub modify_index: u64,
}

impl Stored for KvRow {
    const NAME: &'static str = "key row";
    const VERSION: u8 = 1;
}

impl Row for KvRow {
    const TABLE: u8 = table::id::KV;

    fn fields(&self, hash: &mut RowHash) {
        hash.bytes(&self.value);
        hash.number(self.flags);
        hash.number(self.lock_index);
        hash.option(self.session.as_ref().map(|id| &id.as_bytes()[..]));
        hash.number(self.create_index);
        hash.number(self.modify_index);
    }
}

/// The table of keys.
#[derive(Debug, Clone, Default)]
pub struct KvTable {
    pub(super) rows: Table<KvRow>,
    pub(super) tombstones: Tombstones,
    /// Newest change of any key. Follows from rows, tombstones and floor: not stored.
    newest: u64,
}

/// Reads. An index is never 0: to a client, 0 means "do not wait".
impl KvTable {
    /// The row of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<KvRow>> {
        self.rows.get(key)
    }

    /// Rows under a prefix, in ascending byte order. Costs what is taken from it, not the size of the table.
    pub fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Key, &'a Arc<KvRow>)> + 'a {
        self.rows.prefix(prefix, None)
    }

    /// The same from the first key above `start_after`: the next page. That key need not exist any more.
    pub fn prefix_after<'a>(
        &'a self,
        prefix: &'a [u8],
        start_after: &'a [u8],
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<KvRow>)> + 'a {
        self.rows.prefix(prefix, Some(start_after))
    }

    /// Highest index of the table: newest change of any key, deletions included. At least 1.
    pub fn index(&self) -> u64 {
        self.newest.max(1)
    }

    /// The index of a read of one key: its ModifyIndex, or the table's index if it is absent. At least 1.
    pub fn key_index(&self, key: &[u8]) -> u64 {
        self.get(key).map_or(self.index(), |row| row.modify_index)
    }

    /// The index of a list (consul.md 2.1 "Index of a list", R4): of the newest key found, the newest tombstone under the
    /// prefix and the floor. The table's index for the empty prefix, or if nothing is found. At least 1.
    pub fn prefix_index(&self, prefix: &[u8]) -> u64 {
        let found = self.prefix(prefix).map(|(_, row)| row.modify_index).max();
        match found {
            Some(found) if !prefix.is_empty() => found.max(self.tombstones.newest_under(prefix)),
            _ => self.index(),
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes. Each returns what the client gets: `false` if the condition did not hold.
impl KvTable {
    /// Creates or replaces a key's value and flags; a lock on it stays as it is. With `cas` 0 only if the key is absent,
    /// with N only if its ModifyIndex is N.
    pub(super) fn set(
        &mut self,
        key: &Key,
        value: &Bytes,
        flags: u64,
        cas: Option<u64>,
        step: &mut Step<'_>,
    ) -> Result<bool> {
        check_key(key)?;
        if value.len() > MAX_VALUE_CEILING {
            let len = value.len();
            return Err(Error::TooLarge(format!("the value has {len} bytes, the limit is {MAX_VALUE_CEILING}")));
        }
        let old = self.rows.get(key.as_bytes());
        // No row has ModifyIndex 0, so an absent key may stand as 0.
        if cas.is_some_and(|cas| cas != old.map_or(0, |row| row.modify_index)) {
            return Ok(false);
        }
        let (lock_index, session, create_index) = match old {
            Some(old) if old.flags == flags && old.value == value => return Ok(true),
            Some(old) => (old.lock_index, old.session, old.create_index),
            None => (0, None, step.revision),
        };
        let modify_index = step.revision;
        self.rows.insert(
            key.clone(),
            KvRow { value: value.clone(), flags, lock_index, session, create_index, modify_index },
        );
        self.newest = step.revision;
        step.touch(key.clone());
        Ok(true)
    }

    /// Deletes a key, with `cas` only if its ModifyIndex is that. An absent key counts as deleted.
    pub(super) fn delete(&mut self, key: &Key, cas: Option<u64>, step: &mut Step<'_>) -> Result<bool> {
        check_key(key)?;
        let Some(old) = self.rows.get(key.as_bytes()) else { return Ok(true) };
        if cas.is_some_and(|cas| cas != old.modify_index) {
            return Ok(false);
        }
        self.rows.remove(key.as_bytes());
        self.tombstones.bury(key.clone(), step.revision, step.time);
        self.newest = step.revision;
        step.touch(key.clone());
        Ok(true)
    }

    /// Deletes every key under a prefix, all for the empty one. The prefix alone gets a tombstone.
    pub(super) fn delete_tree(&mut self, prefix: &Key, step: &mut Step<'_>) -> Result<bool> {
        check_length(prefix)?;
        let doomed: Vec<Key> = self.prefix(prefix.as_bytes()).map(|(key, _)| key.clone()).collect();
        if doomed.is_empty() {
            return Ok(true);
        }
        if prefix.as_bytes().is_empty() {
            self.rows = Table::default();
            self.tombstones.bury_all(step.revision);
        } else {
            doomed.iter().for_each(|key| drop(self.rows.remove(key.as_bytes())));
            self.tombstones.bury(prefix.clone(), step.revision, step.time);
        }
        self.newest = step.revision;
        doomed.into_iter().for_each(|key| step.touch(key));
        Ok(true)
    }

    pub(super) fn load(&mut self, key: Key, row: KvRow) {
        self.newest = self.newest.max(row.modify_index);
        self.rows.insert(key, row);
    }

    pub(super) fn load_tombstone(&mut self, key: Key, tombstone: super::tombstones::Tombstone) {
        self.newest = self.newest.max(tombstone.revision);
        self.tombstones.load(key, tombstone);
    }

    pub(super) fn load_floor(&mut self, floor: u64) {
        self.newest = self.newest.max(floor);
        self.tombstones.load_floor(floor);
    }
}

// The edges check this first, with better sentences; here it holds for whatever gets into the log.
fn check_key(key: &Key) -> Result<()> {
    if key.as_bytes().is_empty() {
        return Err(Error::Request("the key is empty".into()));
    }
    check_length(key)
}

fn check_length(key: &Key) -> Result<()> {
    let len = key.as_bytes().len();
    if len > MAX_KEY {
        return Err(Error::Request(format!("the key has {len} bytes, the limit is {MAX_KEY}")));
    }
    Ok(())
}
