//! The keys (consul.md 2.1): what a write does to them and what index a read answers.
//!
//! Every index here is a revision of the state. A write that leaves value and flags as they are changes nothing: it takes
//! no revision and wakes nobody. Deletions leave [tombstones](super::tombstones), so no index ever goes back (R4).

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::RowHash;
use super::history::{Bounds, History};
use super::table::{self, Row, Table};
use super::tombstones::Tombstones;
use super::txn::KvVerb;
use super::{Key, Step, Subject};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits::{MAX_KEY, MAX_VALUE_CEILING};

/// The row of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvRow {
    /// At most [`MAX_VALUE_CEILING`] bytes.
    pub value: Bytes,
    /// The client's opaque number.
    pub flags: u64,
    /// Acquisitions by a new holder since the key was created.
    pub lock_index: u64,
    /// Who holds the key as a lock.
    pub holder: Option<Holder>,
    /// Revision at which the key was created. Deleting and creating it again starts anew.
    pub create_index: u64,
    /// Revision of the last change of anything in this row.
    pub modify_index: u64,
}

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The session.
    pub session: Uuid,
    /// Revision that granted it (G2). It stays when the holder acquires again.
    pub fence: u64,
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
        hash.option(self.holder.as_ref().map(|holder| &holder.session.as_bytes()[..]));
        hash.number(self.holder.map_or(0, |holder| holder.fence));
        hash.number(self.create_index);
        hash.number(self.modify_index);
    }
}

impl KvRow {
    /// The row that takes the place of `old`, changed now; value and flags are as they were.
    fn next(old: Option<&Arc<KvRow>>, step: &Step<'_>) -> KvRow {
        let modify_index = step.revision;
        match old {
            Some(old) => KvRow { modify_index, ..KvRow::clone(old) },
            None => KvRow { create_index: step.revision, modify_index, ..KvRow::default() },
        }
    }

    fn holds(&self, value: &Bytes, flags: u64) -> bool {
        self.flags == flags && self.value == value
    }
}

/// The table of keys.
#[derive(Debug, Clone, Default)]
pub struct KvTable {
    pub(super) rows: Table<KvRow>,
    pub(super) tombstones: Tombstones,
    pub(super) history: History,
    /// Keys that each session holds. Follows from the rows: not stored.
    held: OrdSet<(Uuid, Key)>,
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

    /// What was changed lately.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The keys under a prefix as they were at a revision, which is not below the history's floor. Costs what was changed since.
    pub fn as_of(&self, revision: u64, prefix: &[u8]) -> KvTable {
        let mut then = KvTable { rows: self.rows.clone(), newest: revision, ..KvTable::default() };
        self.history.undo(&mut then.rows, prefix, revision);
        then
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
        check_value(value)?;
        let old = self.rows.get(key.as_bytes());
        // No row has ModifyIndex 0, so an absent key may stand as 0.
        if cas.is_some_and(|cas| cas != old.map_or(0, |row| row.modify_index)) {
            return Ok(false);
        }
        if let Some(old) = old
            && old.holds(value, flags)
        {
            return Ok(true);
        }
        let row = KvRow { value: value.clone(), flags, ..KvRow::next(old, step) };
        self.put(key, row, step);
        Ok(true)
    }

    /// Does what a verb says, if it is one that writes and takes no lock.
    pub(super) fn write(&mut self, key: &Key, verb: &KvVerb, step: &mut Step<'_>) -> Result<bool> {
        match verb {
            KvVerb::Set { value, flags } => self.set(key, value, *flags, None, step),
            KvVerb::Cas { value, flags, index } => self.set(key, value, *flags, Some(*index), step),
            KvVerb::Delete => self.delete(key, None, step),
            KvVerb::DeleteCas(index) => self.delete(key, Some(*index), step),
            KvVerb::DeleteTree => self.delete_tree(key, step),
            _ => Err(Error::Request("only writes and deletions can be fenced".into())),
        }
    }

    /// Makes a session the holder of a key, and writes it. The fence of its hold; `None` if another session holds it.
    /// Whether the session exists, and the key is not delayed, is for the caller to know (G1.5).
    pub(super) fn acquire(
        &mut self,
        key: &Key,
        value: &Bytes,
        flags: u64,
        session: Uuid,
        step: &mut Step<'_>,
    ) -> Result<Option<u64>> {
        check_key(key)?;
        check_value(value)?;
        let old = self.rows.get(key.as_bytes());
        let mut row = KvRow { value: value.clone(), flags, ..KvRow::next(old, step) };
        let fence = match (old, old.and_then(|old| old.holder)) {
            (_, Some(holder)) if holder.session != session => return Ok(None),
            (Some(old), Some(holder)) if old.holds(value, flags) => return Ok(Some(holder.fence)),
            (_, Some(holder)) => holder.fence,
            (_, None) => {
                step.grant(key)?;
                row.lock_index += 1;
                row.holder = Some(Holder { session, fence: step.revision });
                step.revision
            }
        };
        self.put(key, row, step);
        Ok(Some(fence))
    }

    /// Has a session let go of a key, and writes it; `false` if it does not hold it, or under another fence (G5).
    pub(super) fn release(
        &mut self,
        key: &Key,
        value: &Bytes,
        flags: u64,
        holder: (Uuid, Option<u64>),
        step: &mut Step<'_>,
    ) -> Result<bool> {
        check_key(key)?;
        check_value(value)?;
        let (session, fence) = holder;
        let old = self.rows.get(key.as_bytes());
        let holds = |held: Holder| held.session == session && fence.is_none_or(|fence| fence == held.fence);
        if !old.and_then(|old| old.holder).is_some_and(holds) {
            return Ok(false);
        }
        let row = KvRow { value: value.clone(), flags, holder: None, ..KvRow::next(old, step) };
        self.put(key, row, step);
        Ok(true)
    }

    /// Makes a session the holder of a key that is free. Its value stays; a key that is not there gets an empty one.
    pub(super) fn grant(&mut self, key: &Key, session: Uuid, step: &mut Step<'_>) -> Result<u64> {
        step.grant(key)?;
        let mut row = KvRow::next(self.rows.get(key.as_bytes()), step);
        row.lock_index += 1;
        row.holder = Some(Holder { session, fence: step.revision });
        self.put(key, row, step);
        Ok(step.revision)
    }

    /// Has a session let go of a key, and leaves its value; `false` as [`KvTable::release`].
    pub(super) fn free(&mut self, key: &Key, holder: (Uuid, Option<u64>), step: &mut Step<'_>) -> Result<bool> {
        let Some(old) = self.rows.get(key.as_bytes()).cloned() else { return Ok(false) };
        self.release(key, &old.value, old.flags, holder, step)
    }

    /// Frees a key whose holder has ended.
    pub(super) fn let_go(&mut self, key: &Key, step: &mut Step<'_>) {
        if let Some(old) = self.rows.get(key.as_bytes()) {
            let row = KvRow { holder: None, ..KvRow::next(Some(old), step) };
            self.put(key, row, step);
        }
    }

    /// The same keys, with nothing of the past.
    pub(super) fn without_past(&self) -> KvTable {
        KvTable { rows: self.rows.clone(), held: self.held.clone(), newest: self.newest, ..KvTable::default() }
    }

    /// No keys; whatever was before a revision is not known any more.
    pub(super) fn beginning(revision: u64, bounds: Bounds) -> KvTable {
        let mut table = KvTable { history: History::beginning(revision, bounds), ..KvTable::default() };
        table.tombstones.bury_all(revision);
        table.newest = revision;
        table
    }

    /// Who holds which keys.
    pub(super) fn holds(&self) -> impl Iterator<Item = (Uuid, &Key)> {
        self.held.iter().map(|(session, key)| (*session, key))
    }

    /// The keys that a session holds, ascending.
    pub(super) fn held_by(&self, session: Uuid) -> Vec<Key> {
        let from = (session, Key::from(""));
        self.held.range(from..).take_while(|(id, _)| *id == session).map(|(_, key)| key.clone()).collect()
    }

    /// Deletes a key, with `cas` only if its ModifyIndex is that. An absent key counts as deleted.
    pub(super) fn delete(&mut self, key: &Key, cas: Option<u64>, step: &mut Step<'_>) -> Result<bool> {
        check_key(key)?;
        let Some(old) = self.rows.get(key.as_bytes()) else { return Ok(true) };
        if cas.is_some_and(|cas| cas != old.modify_index) {
            return Ok(false);
        }
        self.take(key, step);
        Ok(true)
    }

    /// Deletes a key that is there.
    pub(super) fn take(&mut self, key: &Key, step: &mut Step<'_>) {
        self.forget(key, step);
        self.tombstones.bury(key.clone(), step.revision, step.time);
        self.newest = step.revision;
        step.touch(Subject::Kv, key.clone());
    }

    /// Deletes every key under a prefix, all for the empty one. The prefix alone gets a tombstone.
    pub(super) fn delete_tree(&mut self, prefix: &Key, step: &mut Step<'_>) -> Result<bool> {
        check_length(prefix)?;
        let doomed: Vec<Key> = self.prefix(prefix.as_bytes()).map(|(key, _)| key.clone()).collect();
        if doomed.is_empty() {
            return Ok(true);
        }
        if prefix.as_bytes().is_empty() {
            let Self { rows, history, .. } = self;
            rows.prefix(b"", None)
                .for_each(|(key, row)| history.note(step.revision, key.clone(), Some(row.clone()), None));
            self.held.iter().for_each(|(_, key)| step.free(key));
            (self.rows, self.held) = (Table::default(), OrdSet::new());
            self.tombstones.bury_all(step.revision);
        } else {
            doomed.iter().for_each(|key| self.forget(key, step));
            self.tombstones.bury(prefix.clone(), step.revision, step.time);
        }
        self.newest = step.revision;
        doomed.into_iter().for_each(|key| step.touch(Subject::Kv, key));
        Ok(true)
    }

    fn put(&mut self, key: &Key, row: KvRow, step: &mut Step<'_>) {
        let row = Arc::new(row);
        let before = self.replace(key.clone(), row.clone());
        let (old, new) = (before.as_ref().and_then(|row| row.holder), row.holder);
        self.history.note(step.revision, key.clone(), before, Some(row));
        if old.is_some() && new.is_none() {
            step.free(key);
        } else if old != new {
            step.touch(Subject::Lock, key.clone());
        }
        self.newest = step.revision;
        step.touch(Subject::Kv, key.clone());
    }

    /// Writes a row and keeps `held` with it; returns the one that it replaces.
    fn replace(&mut self, key: Key, row: Arc<KvRow>) -> Option<Arc<KvRow>> {
        let holder = row.holder;
        let before = self.rows.insert(key.clone(), row);
        let old = before.as_ref().and_then(|old| old.holder);
        if old == holder {
            return before;
        }
        if let Some(old) = old {
            self.held.remove(&(old.session, key.clone()));
        }
        if let Some(holder) = holder {
            self.held.insert((holder.session, key));
        }
        before
    }

    /// Removes a row and keeps `held` with it.
    fn forget(&mut self, key: &Key, step: &mut Step<'_>) {
        let Some(row) = self.rows.remove(key.as_bytes()) else { return };
        if let Some(holder) = row.holder {
            self.held.remove(&(holder.session, key.clone()));
            step.free(key);
        }
        self.history.note(step.revision, key.clone(), Some(row), None);
    }

    pub(super) fn load(&mut self, key: Key, row: KvRow) {
        self.newest = self.newest.max(row.modify_index);
        self.replace(key, row.into());
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
pub(super) fn check_key(key: &Key) -> Result<()> {
    if key.as_bytes().is_empty() {
        return Err(Error::Request("the key is empty".into()));
    }
    check_length(key)
}

fn check_value(value: &Bytes) -> Result<()> {
    let len = value.len();
    if len > MAX_VALUE_CEILING {
        return Err(Error::TooLarge(format!("the value has {len} bytes, the limit is {MAX_VALUE_CEILING}")));
    }
    Ok(())
}

fn check_length(key: &Key) -> Result<()> {
    let len = key.as_bytes().len();
    if len > MAX_KEY {
        return Err(Error::Request(format!("the key has {len} bytes, the limit is {MAX_KEY}")));
    }
    Ok(())
}
