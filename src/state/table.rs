//! A table: a persistent ordered map from keys to rows, which keeps the sum of its rows' hashes as it changes.
//!
//! Everything in the state lives in one of these, so that snapshot, difference, load and digest are written once. A clone
//! is a pointer copy; a change copies one path of the tree. Rows are immutable behind an `Arc`: a change of a node copies
//! pointers, never values.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::digest::{Digest, RowHash};
use super::{Key, StoredRow};
use crate::codec::{self, Stored};

/// Numbers of the tables, as they stand in checkpoints. Never reused.
pub(super) mod id {
    /// One row: what belongs to no table.
    pub const HEADER: u8 = 0;
    /// Keys.
    pub const KV: u8 = 1;
    /// Deleted keys and prefixes.
    pub const TOMBSTONES: u8 = 2;
    /// Writers whose request ids are remembered.
    pub const INCARNATIONS: u8 = 3;
    /// Their answers.
    pub const ANSWERS: u8 = 4;
    /// Sessions.
    pub const SESSIONS: u8 = 5;
    /// Keys under a lock-delay.
    pub const DELAYS: u8 = 6;
    /// Nodes.
    pub const NODES: u8 = 7;
    /// Instances of services.
    pub const SERVICES: u8 = 8;
    /// Checks.
    pub const CHECKS: u8 = 9;
    /// The root certificate.
    pub const ROOTS: u8 = 10;
    /// Waiters for locks.
    pub const WAITERS: u8 = 11;
    /// Changes of keys.
    pub const HISTORY: u8 = 12;
    /// What a restore has staged.
    pub const PARTS: u8 = 13;
}

/// A type of row.
pub(super) trait Row: Stored + Eq {
    /// The table of such rows.
    const TABLE: u8;

    /// Feeds the row to its digest, field by field. The default takes the sealed bytes: enough where writes are rare.
    fn fields(&self, hash: &mut RowHash) {
        hash.bytes(&seal(self));
    }
}

/// Encodes a row for a checkpoint.
pub(super) fn seal<R: Stored>(row: &R) -> Vec<u8> {
    codec::seal(row).expect("apply bounds the size of every row, and rows are plain data that always encodes")
}

/// A table of rows in ascending order of their keys.
#[derive(Debug)]
pub(super) struct Table<R> {
    rows: OrdMap<Key, Arc<R>>,
    digest: Digest,
}

// By hand: derived, they would ask the same of the row.
impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        Table { rows: self.rows.clone(), digest: self.digest }
    }
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Table { rows: OrdMap::new(), digest: Digest::default() }
    }
}

impl<R: Row> Table<R> {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The sum of the hashes of all rows.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<R>> {
        self.rows.get(key)
    }

    /// Rows under a prefix, ascending, from the first key above `after`.
    pub fn prefix<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<R>)> + 'a {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.rows.range::<_, [u8]>((from, Bound::Unbounded));
        rows.take_while(move |(key, _)| key.as_bytes().starts_with(prefix))
    }

    /// Rows under a prefix that the iterator keeps.
    pub fn under(&self, prefix: Key) -> impl Iterator<Item = (&Key, &Arc<R>)> {
        let rows = self.rows.range::<_, [u8]>((Bound::Included(prefix.as_bytes()), Bound::Unbounded));
        rows.take_while(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
    }

    /// Writes a row; returns the one that it replaces.
    pub fn insert(&mut self, key: Key, row: impl Into<Arc<R>>) -> Option<Arc<R>> {
        let row = row.into();
        self.digest.add(hash(&key, &*row));
        let old = self.rows.insert(key.clone(), row)?;
        self.digest.remove(hash(&key, &*old));
        Some(old)
    }

    /// Removes and returns a row.
    pub fn remove(&mut self, key: &[u8]) -> Option<Arc<R>> {
        let (key, old) = self.rows.remove_with_key(key)?;
        self.digest.remove(hash(&key, &*old));
        Some(old)
    }

    /// Visits all rows, ascending.
    pub fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.iter().for_each(|(key, row)| visit(stored(key, Some(row))));
    }

    /// Visits what must be written and removed to make `older` this table, ascending. What both share is skipped.
    pub fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        for change in older.rows.diff(&self.rows) {
            visit(match change {
                DiffItem::Add(key, row) | DiffItem::Update { new: (key, row), .. } => stored(key, Some(row)),
                DiffItem::Remove(key, _) => stored::<R>(key, None),
            });
        }
    }
}

fn hash<R: Row>(key: &Key, row: &R) -> Digest {
    let mut hash = RowHash::new(R::TABLE, key.as_bytes());
    row.fields(&mut hash);
    hash.finish()
}

fn stored<R: Row>(key: &Key, row: Option<&Arc<R>>) -> StoredRow {
    StoredRow { table: R::TABLE, key: key.as_bytes().to_vec(), row: row.map(|row| seal(&**row)) }
}
