//! Tombstones: what was deleted and when, so that the index of a list does not go back when its newest key goes (R4).
//!
//! A tombstone lives for [`TOMBSTONE_TTL`] of log time, or until there are more than [`MAX_TOMBSTONES`]. Reaping one
//! raises the floor to its revision, and no list answers an index below the floor: what a list has shown stays below
//! what it will show.

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, RowHash};
use super::table::{self, Row, Table};
use super::{Key, LogTime, StoredRow};
use crate::codec::Stored;
use crate::limits::{DUE_TOMBSTONES, MAX_TOMBSTONES, TOMBSTONE_TTL};

/// The row of a deleted key, or of a prefix under which all keys were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tombstone {
    /// Revision of the deletion.
    pub revision: u64,
    /// Log time of the deletion.
    pub time: LogTime,
}

impl Stored for Tombstone {
    const NAME: &'static str = "tombstone";
    const VERSION: u8 = 1;
}

impl Row for Tombstone {
    const TABLE: u8 = table::id::TOMBSTONES;

    fn fields(&self, hash: &mut RowHash) {
        hash.number(self.revision);
        hash.number(self.time.0);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tombstones {
    rows: Table<Tombstone>,
    /// The same by (revision, key), which is their order in log time too. Follows from the rows: not stored.
    by_age: OrdSet<(u64, Key)>,
    floor: u64,
}

impl Tombstones {
    /// No list's index is below this.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The newest deletion that a list of this prefix must show: a tombstone under it, or the floor.
    ///
    /// A tombstone of a shorter prefix need not be looked for: it took all keys under this one with it, so those that
    /// are there now are newer.
    pub fn newest_under(&self, prefix: &[u8]) -> u64 {
        self.rows.prefix(prefix, None).map(|(_, row)| row.revision).fold(self.floor, u64::max)
    }

    /// Notes a deletion.
    pub fn bury(&mut self, key: Key, revision: u64, time: LogTime) {
        self.load(key, Tombstone { revision, time });
        if self.rows.len() > MAX_TOMBSTONES {
            self.reap_oldest();
        }
    }

    /// Notes that every key was deleted. The floor says it for all lists at once, so no tombstone says more.
    pub fn bury_all(&mut self, revision: u64) {
        *self = Tombstones { floor: revision, ..Tombstones::default() };
    }

    /// Reaps what has lived long enough, at most [`DUE_TOMBSTONES`].
    pub fn reap_due(&mut self, now: LogTime) {
        for _ in 0..DUE_TOMBSTONES {
            let oldest = self.by_age.get_min().and_then(|(_, key)| self.rows.get(key.as_bytes()));
            if oldest.is_none_or(|tombstone| tombstone.time + TOMBSTONE_TTL > now) {
                return;
            }
            self.reap_oldest();
        }
    }

    fn reap_oldest(&mut self) {
        if let Some((revision, key)) = self.by_age.remove_min() {
            self.rows.remove(key.as_bytes());
            self.floor = self.floor.max(revision);
        }
    }

    pub fn digest(&self) -> Digest {
        self.rows.digest()
    }

    pub fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit(visit);
    }

    pub fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit_changes(&older.rows, visit);
    }

    pub fn load(&mut self, key: Key, tombstone: Tombstone) {
        let revision = tombstone.revision;
        if let Some(old) = self.rows.insert(key.clone(), tombstone) {
            self.by_age.remove(&(old.revision, key.clone()));
        }
        self.by_age.insert((revision, key));
    }

    pub fn load_floor(&mut self, floor: u64) {
        self.floor = floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tombstone_too_many_reaps_the_oldest_and_raises_the_floor() {
        let mut tombstones = Tombstones::default();
        for revision in 1..=MAX_TOMBSTONES as u64 {
            tombstones.bury(Key::from(&revision.to_be_bytes()[..]), revision, LogTime(0));
        }
        assert_eq!((tombstones.floor(), tombstones.rows.len()), (0, MAX_TOMBSTONES));

        tombstones.bury("one more".into(), 1_000_000, LogTime(0));
        assert_eq!((tombstones.floor(), tombstones.rows.len()), (1, MAX_TOMBSTONES));
        assert_eq!(tombstones.rows.get(&1u64.to_be_bytes()), None);
    }

    #[test]
    fn an_entry_reaps_a_bounded_number_and_the_next_goes_on() {
        let mut tombstones = Tombstones::default();
        for revision in 1..=DUE_TOMBSTONES as u64 + 1 {
            tombstones.bury(Key::from(&revision.to_be_bytes()[..]), revision, LogTime(0));
        }
        let due = LogTime(0) + TOMBSTONE_TTL;
        tombstones.reap_due(due);
        assert_eq!(tombstones.floor(), DUE_TOMBSTONES as u64);
        tombstones.reap_due(due);
        assert_eq!((tombstones.floor(), tombstones.rows.len()), (DUE_TOMBSTONES as u64 + 1, 0));
    }

    #[test]
    fn a_key_deleted_again_is_reaped_by_its_last_deletion() {
        let mut tombstones = Tombstones::default();
        tombstones.bury("k".into(), 1, LogTime(0));
        tombstones.bury("k".into(), 2, LogTime(10));
        tombstones.reap_due(LogTime(9) + TOMBSTONE_TTL);
        assert_eq!((tombstones.floor(), tombstones.rows.len()), (0, 1));
        tombstones.reap_due(LogTime(10) + TOMBSTONE_TTL);
        assert_eq!((tombstones.floor(), tombstones.rows.len()), (2, 0));
    }
}
