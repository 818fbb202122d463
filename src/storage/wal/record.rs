//! Records: the things that a batch says, as bytes.
//!
//! A record is one byte of kind and its fields, little-endian, without padding. It has no checksum of its own: the frame's
//! covers all of them, and a batch is taken whole or not at all. Reading never trusts a length further than the bytes at
//! hand, so nothing found on disk can make it panic or allocate more than it was given.

use bytes::Bytes;

use super::{EntryKind, LogEntry, Position, Vote};

/// One change of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// An entry is appended behind the last one.
    Entry(LogEntry),
    /// The vote is this one.
    Vote(Vote),
    /// Entries above this index are gone; all of them if there is none.
    Truncate(Option<u64>),
    /// Entries up to this one are gone, and with them every segment before `oldest`: nothing in those is needed to rebuild
    /// the log. The writer fills `oldest` in, for only it knows what lies where.
    Purge { upto: Option<Position>, oldest: u64 },
    /// Entries up to this one are known to be committed.
    Committed(Position),
}

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;

const POSITION_BYTES: usize = 16;
/// What an entry takes besides its payload.
pub(super) const ENTRY_OVERHEAD: usize = 2 + POSITION_BYTES + 4;

impl Record {
    /// How many bytes [`Record::encode`] adds.
    pub(super) fn size(&self) -> usize {
        match self {
            Record::Entry(entry) => ENTRY_OVERHEAD + entry.bytes.len(),
            Record::Vote(_) => 1 + 8 + 16 + 1,
            Record::Truncate(_) => 1 + 1 + 8,
            Record::Purge { .. } => 1 + 1 + POSITION_BYTES + 8,
            Record::Committed(_) => 1 + POSITION_BYTES,
        }
    }

    /// Adds the record's bytes to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Entry(entry) => {
                let kind = match entry.kind {
                    EntryKind::Blank => 0,
                    EntryKind::Command => 1,
                    EntryKind::Membership => 2,
                };
                out.extend([ENTRY, kind]);
                put_position(out, &entry.at);
                let len = u32::try_from(entry.bytes.len()).expect("append refuses what does not fit a segment");
                out.extend(len.to_le_bytes());
                out.extend_from_slice(&entry.bytes);
            }
            Record::Vote(vote) => {
                out.push(VOTE);
                out.extend(vote.term.to_le_bytes());
                out.extend(vote.candidate.to_le_bytes());
                out.push(u8::from(vote.committed));
            }
            Record::Truncate(after) => {
                out.extend([TRUNCATE, u8::from(after.is_some())]);
                out.extend(after.unwrap_or_default().to_le_bytes());
            }
            Record::Purge { upto, oldest } => {
                out.extend([PURGE, u8::from(upto.is_some())]);
                put_position(out, &upto.unwrap_or_default());
                out.extend(oldest.to_le_bytes());
            }
            Record::Committed(at) => {
                out.push(COMMITTED);
                put_position(out, at);
            }
        }
    }

    /// Takes one record off the front of `bytes`; `None` if there is no whole, known record.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Record> {
        Some(match take_u8(bytes)? {
            ENTRY => {
                let kind = match take_u8(bytes)? {
                    0 => EntryKind::Blank,
                    1 => EntryKind::Command,
                    2 => EntryKind::Membership,
                    _ => return None,
                };
                let at = take_position(bytes)?;
                let len = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
                let (payload, rest) = bytes.split_at_checked(len)?;
                *bytes = rest;
                // A copy: a slice of the segment's buffer would keep all of it in memory for one live entry.
                Record::Entry(LogEntry { at, kind, bytes: Bytes::copy_from_slice(payload) })
            }
            VOTE => Record::Vote(Vote {
                term: take_u64(bytes)?,
                candidate: u128::from_le_bytes(take(bytes)?),
                committed: take_bool(bytes)?,
            }),
            TRUNCATE => {
                let some = take_bool(bytes)?;
                let after = take_u64(bytes)?;
                Record::Truncate(some.then_some(after))
            }
            PURGE => {
                let some = take_bool(bytes)?;
                let upto = take_position(bytes)?;
                Record::Purge { upto: some.then_some(upto), oldest: take_u64(bytes)? }
            }
            COMMITTED => Record::Committed(take_position(bytes)?),
            _ => return None,
        })
    }
}

fn put_position(out: &mut Vec<u8>, at: &Position) {
    out.extend(at.term.to_le_bytes());
    out.extend(at.index.to_le_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    take::<1>(bytes).map(|[byte]| byte)
}

fn take_bool(bytes: &mut &[u8]) -> Option<bool> {
    match take_u8(bytes)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

fn take_position(bytes: &mut &[u8]) -> Option<Position> {
    Some(Position { term: take_u64(bytes)?, index: take_u64(bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let at = Position { term: 3, index: 41 };
        vec![
            Record::Entry(LogEntry { at, kind: EntryKind::Membership, bytes: Bytes::from_static(b"payload") }),
            Record::Entry(LogEntry { at, kind: EntryKind::Blank, bytes: Bytes::new() }),
            Record::Vote(Vote { term: 9, candidate: 7, committed: true }),
            Record::Truncate(None),
            Record::Truncate(Some(5)),
            Record::Purge { upto: None, oldest: 1 },
            Record::Purge { upto: Some(at), oldest: 8 },
            Record::Committed(at),
        ]
    }

    #[test]
    fn records_come_back_as_they_were_and_take_the_size_they_say() {
        let mut out = Vec::new();
        for record in samples() {
            let before = out.len();
            record.encode(&mut out);
            assert_eq!(out.len() - before, record.size(), "{record:?}");
        }
        let mut rest = out.as_slice();
        for record in samples() {
            assert_eq!(Record::decode(&mut rest), Some(record));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_record_cut_anywhere_is_no_record() {
        for record in samples() {
            let mut out = Vec::new();
            record.encode(&mut out);
            for len in 0..out.len() {
                assert_eq!(Record::decode(&mut &out[..len]), None, "{record:?} cut at {len}");
            }
        }
    }
}
