//! The log in memory: all entries that are not purged, the vote, what is purged and what is committed.
//!
//! The same [`Tail::apply`] serves a caller's change and a record found at recovery, so that the log after a restart is
//! what it was before, by construction.

use std::collections::VecDeque;

use super::record::{ENTRY_OVERHEAD, Record};
use super::{LogEntry, Position, Vote};

/// What the log holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    entries: VecDeque<Held>,
    /// The `through` of the last entry that was purged, or of none.
    base: u64,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<Position>,
    pub(super) committed: Option<Position>,
}

/// An entry, and the bytes of all entries up to and including it: so sums over a range are one subtraction.
#[derive(Debug, Clone)]
struct Held {
    entry: LogEntry,
    through: u64,
}

/// An entry's index does not follow the last one's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap;

/// What an entry counts for: its payload and its place in a frame.
pub(super) fn weight(entry: &LogEntry) -> u64 {
    (entry.bytes.len() + ENTRY_OVERHEAD) as u64
}

impl Tail {
    /// Changes the log. An entry must follow the last one, if there is one.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), Gap> {
        match record {
            Record::Entry(entry) => {
                if self.entries.back().is_some_and(|last| last.entry.at.index.checked_add(1) != Some(entry.at.index)) {
                    return Err(Gap);
                }
                let through = self.through() + weight(entry);
                self.entries.push_back(Held { entry: entry.clone(), through });
            }
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Truncate(after) => {
                let keep = after.map_or(0, |index| self.count_through(index));
                self.entries.truncate(keep);
            }
            Record::Purge { upto: Some(upto), .. } if self.purged.is_none_or(|purged| purged.index < upto.index) => {
                let gone = self.count_through(upto.index);
                if let Some(last) = self.entries.drain(..gone).next_back() {
                    self.base = last.through;
                }
                self.purged = Some(*upto);
            }
            Record::Purge { .. } => {}
            Record::Committed(at) => self.committed = Some(*at),
        }
        Ok(())
    }

    /// The last entry, or else the last purged one.
    pub(super) fn last(&self) -> Option<Position> {
        self.entries.back().map(|held| held.entry.at).or(self.purged)
    }

    /// The index of the first entry.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|held| held.entry.at.index)
    }

    /// Entries with `start <= index < end`.
    pub(super) fn range(&self, start: u64, end: u64) -> Vec<LogEntry> {
        let from = start.checked_sub(1).map_or(0, |before| self.count_through(before));
        let to = end.checked_sub(1).map_or(0, |last| self.count_through(last));
        self.entries.range(from..to.max(from)).map(|held| held.entry.clone()).collect()
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.through() - self.base
    }

    /// See [`super::Wal::index_keeping`].
    pub(super) fn index_keeping(&self, bytes: u64) -> Option<u64> {
        let over = self.bytes().checked_sub(bytes).filter(|over| *over > 0)?;
        let at = self.entries.partition_point(|held| held.through - self.base < over);
        self.entries.get(at).map(|held| held.entry.at.index)
    }

    fn through(&self) -> u64 {
        self.entries.back().map_or(self.base, |last| last.through)
    }

    /// How many entries have an index up to this one. Indexes have no gaps, so this is arithmetic.
    fn count_through(&self, index: u64) -> usize {
        let Some(first) = self.first_index() else { return 0 };
        let count = index.checked_sub(first).map_or(0, |above| above.saturating_add(1));
        usize::try_from(count).unwrap_or(usize::MAX).min(self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::wal::EntryKind;

    fn entry(index: u64, len: usize) -> Record {
        let at = Position { term: 1, index };
        Record::Entry(LogEntry { at, kind: EntryKind::Command, bytes: vec![7; len].into() })
    }

    fn tail_of(indexes: std::ops::Range<u64>) -> Tail {
        let mut tail = Tail::default();
        indexes.for_each(|index| tail.apply(&entry(index, 100 - ENTRY_OVERHEAD)).unwrap());
        tail
    }

    fn indexes(tail: &Tail, start: u64, end: u64) -> Vec<u64> {
        tail.range(start, end).iter().map(|entry| entry.at.index).collect()
    }

    #[test]
    fn a_range_is_cut_to_what_is_there() {
        let tail = tail_of(10..15);
        assert_eq!(indexes(&tail, 0, u64::MAX), [10, 11, 12, 13, 14]);
        assert_eq!(indexes(&tail, 11, 13), [11, 12]);
        assert_eq!(indexes(&tail, 13, 11), [0; 0]);
        assert_eq!(indexes(&tail, 0, 10), [0; 0]);
        assert_eq!(indexes(&tail, 15, 20), [0; 0]);
    }

    #[test]
    fn an_entry_that_does_not_follow_is_refused() {
        let mut tail = tail_of(10..15);
        assert_eq!(tail.apply(&entry(16, 1)), Err(Gap));
        assert_eq!(tail.apply(&entry(14, 1)), Err(Gap));
        assert_eq!(tail.apply(&entry(15, 1)), Ok(()));
    }

    #[test]
    fn index_keeping_names_the_last_entry_that_may_go() {
        let mut tail = tail_of(10..15);
        tail.apply(&Record::Purge { upto: Some(Position { term: 1, index: 10 }), oldest: 1 }).unwrap();
        assert_eq!((tail.bytes(), tail.index_keeping(400)), (400, None));
        assert_eq!(tail.index_keeping(399), Some(11));
        assert_eq!(tail.index_keeping(200), Some(12));
        assert_eq!(tail.index_keeping(0), Some(14));
    }

    #[test]
    fn truncation_and_purge_count_the_bytes_that_stay() {
        let mut tail = tail_of(10..15);
        tail.apply(&Record::Truncate(Some(12))).unwrap();
        assert_eq!((tail.bytes(), tail.last().unwrap().index), (300, 12));
        tail.apply(&entry(13, 0)).unwrap();
        tail.apply(&Record::Purge { upto: Some(Position { term: 1, index: 12 }), oldest: 1 }).unwrap();
        assert_eq!((tail.bytes(), indexes(&tail, 0, 99)), (ENTRY_OVERHEAD as u64, vec![13]));
        tail.apply(&Record::Purge { upto: Some(Position { term: 2, index: 90 }), oldest: 1 }).unwrap();
        assert_eq!((tail.bytes(), tail.last().unwrap().index), (0, 90));
    }
}
