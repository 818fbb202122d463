//! What the keys were: every change of a key in the newest revisions, with the row that it replaced (R5).
//!
//! An undo log beside the table. Read forward from a revision it is the event stream; undone backward from now it is the
//! table as it was. It is state like any other: bounded, in checkpoint and snapshot, and the same on every node. Changes
//! leave it by whole revisions, oldest first, and [`History::floor`] says up to where they have: nobody is ever given a
//! part and told it was all.
//!
//! A key that a transaction changes twice is here twice; readers want [`net`] changes. Start at [`History::after`].

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, RowHash};
use super::table::{self, Row, Table, seal};
use super::{Key, KvRow, StoredRow};
use crate::codec::Stored;
use crate::limits::{HISTORY_BYTES, HISTORY_OVERHEAD, HISTORY_REVISIONS};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision of the change.
    pub revision: u64,
    /// Its place among the changes of that revision, from 0.
    ordinal: u32,
    /// The key.
    pub key: Key,
    /// The row before; `None` if there was none.
    pub before: Option<Arc<KvRow>>,
    /// The row since; `None` if it was deleted. Not stored: it is what the next change of the key replaced, or is there now.
    pub after: Option<Arc<KvRow>>,
}

/// A change as it is stored, under its revision and ordinal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replaced {
    pub key: Key,
    pub before: Option<Arc<KvRow>>,
}

impl Stored for Replaced {
    const NAME: &'static str = "change of a key";
    const VERSION: u8 = 1;
}

/// How much is kept. Both bounds hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Revisions that changed keys, at most; 0 keeps nothing.
    pub revisions: u64,
    /// Bytes of keys and replaced values, at most, with [`HISTORY_OVERHEAD`] for each.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { revisions: HISTORY_REVISIONS, bytes: HISTORY_BYTES }
    }
}

/// What belongs to the history but to none of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Frame {
    pub floor: u64,
    pub bounds: Bounds,
}

/// The newest changes of the keys. Cloning is O(1).
#[derive(Debug, Clone, Default)]
pub struct History {
    changes: Vector<Arc<Change>>,
    frame: Frame,
    digest: Digest,
    /// Different revisions among the changes. Follows from them, as `bytes` does: not stored.
    revisions: u64,
    bytes: u64,
}

impl History {
    /// Nothing is known of what was before a revision.
    pub(super) fn beginning(floor: u64, bounds: Bounds) -> History {
        History { frame: Frame { floor, bounds }, ..History::default() }
    }

    /// Every change after this revision is here.
    pub fn floor(&self) -> u64 {
        self.frame.floor
    }

    /// How much is kept.
    pub fn bounds(&self) -> Bounds {
        self.frame.bounds
    }

    /// Bytes that are kept, as [`Bounds::bytes`] counts them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes after a revision, in order. Complete only if that is not below the [floor](History::floor).
    pub fn after(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        let start = self.changes.binary_search_by(|change| match change.revision <= revision {
            true => std::cmp::Ordering::Less,
            false => std::cmp::Ordering::Greater,
        });
        let (Ok(start) | Err(start)) = start;
        self.changes.focus().narrow(start..).into_iter()
    }

    /// Undoes, in a table of keys, what was changed under a prefix after a revision.
    pub(super) fn undo(&self, rows: &mut Table<KvRow>, prefix: &[u8], revision: u64) {
        // Of the changes of one key the oldest counts: it says what was there before all of them.
        let mut before = BTreeMap::new();
        for change in self.after(revision).filter(|change| change.key.as_bytes().starts_with(prefix)) {
            before.entry(&change.key).or_insert(&change.before);
        }
        for (key, row) in before {
            match row {
                Some(row) => drop(rows.insert(key.clone(), row.clone())),
                None => drop(rows.remove(key.as_bytes())),
            }
        }
    }

    /// Notes a change of the newest revision.
    pub(super) fn note(&mut self, revision: u64, key: Key, before: Option<Arc<KvRow>>, after: Option<Arc<KvRow>>) {
        // A revision of which too much has been noted already is not kept at all.
        if revision <= self.frame.floor {
            return;
        }
        let last = self.changes.last().filter(|last| last.revision == revision);
        let ordinal = last.map_or(0, |last| last.ordinal + 1);
        self.append(Change { revision, ordinal, key, before, after });
        self.shrink();
    }

    /// Has other bounds from now on.
    pub(super) fn bind(&mut self, bounds: Bounds) {
        self.frame.bounds = bounds;
        self.shrink();
    }

    fn append(&mut self, change: Change) {
        self.revisions += u64::from(change.ordinal == 0);
        self.bytes += change.bytes();
        self.digest.add(change.hash());
        self.changes.push_back(Arc::new(change));
    }

    /// Drops whole revisions, oldest first, until the bounds hold.
    fn shrink(&mut self) {
        let Bounds { revisions, bytes } = self.frame.bounds;
        while self.revisions > revisions || self.bytes > bytes {
            let Some(oldest) = self.changes.front().map(|change| change.revision) else { return };
            while let Some(change) = self.changes.front().filter(|change| change.revision == oldest).cloned() {
                self.changes.pop_front();
                self.digest.remove(change.hash());
                self.bytes -= change.bytes();
            }
            self.revisions -= 1;
            self.frame.floor = oldest;
        }
    }
}

/// As rows of the state.
impl History {
    pub(super) fn frame(&self) -> Frame {
        self.frame
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.changes.iter().for_each(|change| visit(change.stored(true)));
    }

    /// Changes are only ever appended and dropped from the front, so both differences are at the ends.
    pub(super) fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        let dropped = older.changes.iter().take_while(|change| change.revision <= self.frame.floor);
        dropped.for_each(|change| visit(change.stored(false)));
        let newest = older.changes.last().map_or(0, |change| change.revision).max(older.frame.floor);
        self.after(newest).for_each(|change| visit(change.stored(true)));
    }

    /// Builds the history from its rows and the table as it is now.
    pub(super) fn load(frame: Frame, stored: BTreeMap<Place, Replaced>, rows: &Table<KvRow>) -> History {
        let mut history = History { frame, ..History::default() };
        // From the newest to the oldest, each change gives the one before it on the same key its outcome.
        let mut since: BTreeMap<Key, Option<Arc<KvRow>>> = BTreeMap::new();
        let newest_first = stored.into_iter().rev().map(|((revision, ordinal), Replaced { key, before })| {
            let after = since.insert(key.clone(), before.clone()).unwrap_or_else(|| rows.get(key.as_bytes()).cloned());
            Change { revision, ordinal, key, before, after }
        });
        let changes: Vec<Change> = newest_first.collect();
        changes.into_iter().rev().for_each(|change| history.append(change));
        history
    }
}

/// Revision and ordinal of a change.
pub(super) type Place = (u64, u32);

/// The place that a stored row's key says, if it is one.
pub(super) fn place(key: &Key) -> Option<Place> {
    let (revision, ordinal) = key.as_bytes().split_first_chunk()?;
    Some((u64::from_be_bytes(*revision), u32::from_be_bytes(ordinal.try_into().ok()?)))
}

impl Change {
    fn bytes(&self) -> u64 {
        let value = self.before.as_ref().map_or(0, |row| row.value.len());
        (HISTORY_OVERHEAD + self.key.as_bytes().len() + value) as u64
    }

    /// Highest byte first, so that rows stand in order.
    fn place(&self) -> [u8; 12] {
        let mut place = [0; 12];
        place[..8].copy_from_slice(&self.revision.to_be_bytes());
        place[8..].copy_from_slice(&self.ordinal.to_be_bytes());
        place
    }

    fn hash(&self) -> Digest {
        let mut hash = RowHash::new(table::id::HISTORY, &self.place());
        hash.bytes(self.key.as_bytes());
        hash.option(self.before.as_ref().map(|_| &b""[..]));
        if let Some(row) = &self.before {
            row.fields(&mut hash);
        }
        hash.finish()
    }

    fn stored(&self, kept: bool) -> StoredRow {
        let row = kept.then(|| seal(&Replaced { key: self.key.clone(), before: self.before.clone() }));
        StoredRow { table: table::id::HISTORY, key: self.place().to_vec(), row }
    }
}

/// What a revision's changes come to: each key once, in the order of its first change, from the row before the first to the
/// row after the last. A key that came and went within the revision is left out.
pub fn net<'a>(changes: impl IntoIterator<Item = &'a Arc<Change>>) -> Vec<Arc<Change>> {
    let mut places: BTreeMap<&Key, usize> = BTreeMap::new();
    let mut net: Vec<Arc<Change>> = Vec::new();
    for change in changes {
        match places.get(&change.key) {
            Some(place) => {
                let first = &mut net[*place];
                *first = Arc::new(Change { after: change.after.clone(), ..Change::clone(first) });
            }
            None => {
                places.insert(&change.key, net.len());
                net.push(change.clone());
            }
        }
    }
    net.retain(|change| change.before.is_some() || change.after.is_some());
    net
}
