//! The ledger: what the segments on disk say so far, and which of them are still needed.
//!
//! The writer notes each record as it writes it, recovery as it reads it. From the ledger comes the head of each new
//! segment: the records that make every older segment without a live entry unnecessary.

use std::collections::VecDeque;

use super::record::Record;
use super::{Position, Vote};

/// What a reader of the segments would know.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    vote: Option<Vote>,
    purged: Option<Position>,
    pub(super) committed: Option<Position>,
    /// The highest index that is in the log, or was when it was purged.
    last_index: Option<u64>,
    /// What the last purge record says: everything before this segment may go once that record is durable, and not
    /// earlier, for a reader still asks for it.
    oldest_on_record: u64,
    /// Without a gap in sequence; the last is the one being written.
    segments: VecDeque<Coverage>,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy)]
struct Coverage {
    sequence: u64,
    /// No live entry above this index is in it.
    highest: Option<u64>,
}

/// Most bytes that the records of [`Ledger::head`] take in a frame.
pub(super) const HEAD_BYTES: usize = 128;

impl Ledger {
    /// The records that follow stand in this new segment.
    pub(super) fn begin(&mut self, sequence: u64) {
        self.segments.push_back(Coverage { sequence, highest: None });
    }

    /// A record is the next one in the newest segment.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.last_index = Some(entry.at.index);
                if let Some(newest) = self.segments.back_mut() {
                    newest.highest = Some(entry.at.index);
                }
            }
            Record::Vote(vote) => self.vote = Some(*vote),
            // `None` is below every index, so `min` is the whole rule.
            Record::Truncate(after) => {
                self.last_index = self.last_index.min(*after).max(self.purged.map(|purged| purged.index));
                self.segments.iter_mut().for_each(|segment| segment.highest = segment.highest.min(*after));
            }
            Record::Purge { upto, oldest } => {
                self.oldest_on_record = self.oldest_on_record.max(*oldest);
                if upto.map(|upto| upto.index) > self.purged.map(|purged| purged.index) {
                    self.purged = *upto;
                    self.last_index = self.last_index.max(upto.map(|upto| upto.index));
                }
            }
            Record::Committed(at) => self.committed = Some(*at),
        }
    }

    /// Whether an entry that was committed is in the log already, as far as it is written.
    pub(super) fn holds(&self, at: Position) -> bool {
        Some(at.index) <= self.last_index
    }

    /// The first segment that holds a live entry; without one, the newest. Whatever stands before it is not needed.
    pub(super) fn oldest(&self) -> u64 {
        let purged = self.purged.map(|purged| purged.index);
        let needed = self.segments.iter().find(|segment| segment.highest > purged);
        needed.or(self.segments.back()).map_or(0, |segment| segment.sequence)
    }

    /// The first segment that was noted and not released.
    pub(super) fn first(&self) -> u64 {
        self.segments.front().map_or(0, |segment| segment.sequence)
    }

    /// The purge so far as a record: what it frees depends on what was written up to now.
    pub(super) fn purge(&self) -> Record {
        Record::Purge { upto: self.purged, oldest: self.oldest() }
    }

    /// What the first frame of a segment begins with.
    pub(super) fn head(&self) -> Vec<Record> {
        let vote = self.vote.map(Record::Vote);
        let committed = self.committed.map(Record::Committed);
        vote.into_iter().chain([self.purge()]).chain(committed).collect()
    }

    /// Forgets the segments that the records so far say are not needed, and names them. They may go once those records are
    /// durable.
    pub(super) fn release(&mut self) -> Vec<u64> {
        let count = self.segments.iter().take_while(|segment| segment.sequence < self.oldest_on_record).count();
        self.segments.drain(..count).map(|segment| segment.sequence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::wal::{EntryKind, LogEntry};

    fn at(index: u64) -> Position {
        Position { term: 1, index }
    }

    fn append(ledger: &mut Ledger, indexes: std::ops::Range<u64>) {
        for index in indexes {
            let bytes = bytes::Bytes::new();
            ledger.note(&Record::Entry(LogEntry { at: at(index), kind: EntryKind::Blank, bytes }));
        }
    }

    /// Segment 1 holds 0..10, segment 2 10..20, segment 3 20..30.
    fn three() -> Ledger {
        let mut ledger = Ledger::default();
        for sequence in 1..=3 {
            ledger.begin(sequence);
            append(&mut ledger, (sequence - 1) * 10..sequence * 10);
        }
        ledger
    }

    fn purge(ledger: &mut Ledger, upto: u64) -> Vec<u64> {
        ledger.note(&Record::Purge { upto: Some(at(upto)), oldest: 0 });
        ledger.note(&ledger.purge());
        ledger.release()
    }

    #[test]
    fn a_segment_is_needed_until_its_last_live_entry_is_purged() {
        let mut ledger = three();
        assert_eq!(purge(&mut ledger, 8), [0; 0]);
        assert_eq!(purge(&mut ledger, 9), [1]);
        assert_eq!(purge(&mut ledger, 29), [2]);
        assert_eq!(ledger.oldest(), 3);
    }

    #[test]
    fn truncated_entries_need_no_segment_but_it_stays_until_a_record_says_so() {
        let mut ledger = three();
        ledger.note(&Record::Truncate(None));
        append(&mut ledger, 0..2);
        assert_eq!((ledger.oldest(), ledger.release()), (3, vec![]));
        ledger.note(&ledger.purge());
        assert_eq!(ledger.release(), [1, 2]);
    }

    #[test]
    fn a_segment_between_needed_ones_is_kept() {
        let mut ledger = three();
        ledger.note(&Record::Truncate(Some(9)));
        append(&mut ledger, 10..12);
        assert_eq!((purge(&mut ledger, 3), ledger.oldest()), (vec![], 1));
    }

    #[test]
    fn a_head_never_outgrows_its_room() {
        let mut ledger = three();
        ledger.note(&Record::Vote(Vote::default()));
        ledger.note(&Record::Committed(at(3)));
        ledger.note(&Record::Purge { upto: Some(at(2)), oldest: 0 });
        let head = ledger.head();
        assert_eq!(head.len(), 3);
        assert!(head.iter().map(Record::size).sum::<usize>() <= HEAD_BYTES);
    }
}
