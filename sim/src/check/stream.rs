//! R5: the event stream has no gap, and tells everybody the same.
//!
//! A [`Tape`] is what one reader was told from one index to another. What is looked at:
//!
//! - in a tape revisions rise, each key stands in a revision once, and what was there before a change is what the change
//!   before it left: a change that is missing shows at the next one of its key;
//! - two tapes that cover the same revision say the same of it, key by key;
//! - what any client read at a revision that a tape covers is in the tape, with the same value.

use std::collections::BTreeMap;

use super::verdict::Verdict;
use crate::history::{Found, History, Operation};
use crate::workload::registers::Kind;
use crate::workload::streams::{Change, Row, Tape};

/// Judges all tapes of a run.
pub fn check(tapes: &[Tape], history: &History) -> Verdict {
    let wrong = tapes.iter().find_map(chain).or_else(|| agreement(tapes));
    if let Some(sentence) = wrong {
        return Verdict::violation("R5", sentence, []);
    }
    let reads = history.operations().iter().filter(|read| Kind::of(&read.key) == Kind::Key);
    let untold = reads.filter_map(|read| Some((read, read.found()?))).find_map(|(read, found)| {
        let sentence = tapes.iter().find_map(|tape| untold(tape, read, &found))?;
        Some(Verdict::violation("R5", sentence, [read]))
    });
    untold.unwrap_or(Verdict::Ok)
}

fn name(tape: &Tape) -> String {
    format!("{} from {} to {} under {:?}", tape.client, tape.begin, tape.end, tape.prefix)
}

/// What contradicts itself within a tape.
fn chain(tape: &Tape) -> Option<String> {
    let wrong = |index: u64, change: &Change, why: &str| Some(format!("{}: at {index} {why}: {change:?}", name(tape)));
    let mut known: BTreeMap<&str, Option<&Row>> = BTreeMap::new();
    let mut last = tape.begin;
    for (index, changes) in &tape.records {
        if *index <= last || *index > tape.end {
            return Some(format!("{}: {index} came after {last}", name(tape)));
        }
        last = *index;
        let mut keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        keys.sort_unstable();
        if keys.is_empty() || keys.windows(2).any(|two| two[0] == two[1]) {
            return Some(format!("{}: no key, or one twice, at {index}: {keys:?}", name(tape)));
        }
        for change in changes {
            if !change.key.starts_with(&tape.prefix) {
                return wrong(*index, change, "another prefix");
            }
            let before = change.before.as_ref();
            match known.insert(&change.key, change.after.as_ref()) {
                Some(known) if known != before => return wrong(*index, change, &format!("before it was {known:?}")),
                None if before.is_some_and(|row| row.modify_index > tape.begin) => {
                    return wrong(*index, change, "a change before it is missing");
                }
                _ => {}
            }
            if change.after.as_ref().is_some_and(|row| row.modify_index != *index)
                || (before.is_none() && change.after.is_none())
            {
                return wrong(*index, change, "not of this revision");
            }
        }
    }
    None
}

/// Where two tapes that cover a revision differ.
fn agreement(tapes: &[Tape]) -> Option<String> {
    let mut told: BTreeMap<(u64, &str), (&Tape, &Change)> = BTreeMap::new();
    for tape in tapes {
        for (index, changes) in &tape.records {
            for change in changes {
                let (other, first) = told.entry((*index, &change.key)).or_insert((tape, change));
                if *first != change {
                    let (one, other) = (name(other), name(tape));
                    return Some(format!("at {index} {one} was told {first:?}, and {other} {change:?}"));
                }
            }
        }
    }
    tapes.iter().find_map(|tape| {
        let own =
            tape.records.iter().flat_map(|(index, changes)| changes.iter().map(|change| (*index, change.key.as_str())));
        let own: std::collections::BTreeSet<(u64, &str)> = own.collect();
        let covered = told.range((tape.begin + 1, "")..(tape.end + 1, ""));
        let mut missing =
            covered.filter(|((_, key), _)| key.starts_with(&tape.prefix)).filter(|(place, _)| !own.contains(place));
        missing.next().map(|((index, _), (other, change))| {
            format!("{} was not told what {} was at {index}: {change:?}", name(tape), name(other))
        })
    })
}

/// A read of what a tape covers and does not have.
fn untold(tape: &Tape, read: &Operation, found: &Found) -> Option<String> {
    let index = found.modify_index;
    if !read.key.starts_with(&tape.prefix) || index <= tape.begin || index > tape.end {
        return None;
    }
    let record = tape.records.binary_search_by_key(&index, |(index, _)| *index).ok();
    let changes = record.map(|place| &tape.records[place].1[..]).unwrap_or_default();
    let row = changes.iter().find(|change| change.key == read.key).and_then(|change| change.after.as_ref());
    let same = row.is_some_and(|row| row.value == found.value.to_string() && row.create_index == found.create_index);
    (!same).then(|| format!("{} was told {row:?} at {index}, and a client read {found:?}", name(tape)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Outcome};
    use crate::player::Player;

    fn row(value: u64, modify_index: u64) -> Option<Row> {
        Some(Row { value: value.to_string(), create_index: 5, modify_index, lock: (0, None) })
    }

    fn set(before: Option<Row>, after: Option<Row>) -> Vec<Change> {
        vec![Change { key: "k0".into(), before, after }]
    }

    fn tape(begin: u64, end: u64, records: Vec<(u64, Vec<Change>)>) -> Tape {
        Tape { client: Player::client(1), prefix: "k".into(), begin, end, records }
    }

    fn good() -> Tape {
        tape(4, 9, vec![(5, set(None, row(1, 5))), (7, set(row(1, 5), row(2, 7))), (8, set(row(2, 7), None))])
    }

    fn is_bad(tapes: &[Tape]) -> bool {
        check(tapes, &History::default()).is_violation()
    }

    #[test]
    fn a_whole_stream_and_its_parts_are_good() {
        let late = tape(5, 7, good().records[1..2].to_vec());
        assert!(!is_bad(&[good(), late, tape(9, 9, Vec::new())]));
    }

    #[test]
    fn a_missing_change_is_found_in_the_tape_or_by_another() {
        let mut gap = good();
        gap.records.remove(1);
        assert!(is_bad(&[gap]), "by what was there before");
        let silent = tape(5, 9, Vec::new());
        assert!(!is_bad(std::slice::from_ref(&silent)) && is_bad(&[silent, good()]));
        let first = tape(4, 9, good().records[1..].to_vec());
        assert!(is_bad(&[first]), "a change that begins with what nobody told of");
    }

    #[test]
    fn what_is_told_twice_differently_or_out_of_order_is_found() {
        let mut other = good();
        other.records[0].1 = set(None, row(9, 5));
        other.records[1].1 = set(row(9, 5), row(2, 7));
        assert!(!is_bad(std::slice::from_ref(&other)) && is_bad(&[good(), other]));
        let mut twice = good();
        let again = twice.records[0].clone();
        twice.records.insert(1, again);
        assert!(is_bad(&[twice]));
        let mut double = good();
        let again = double.records[0].1[0].clone();
        double.records[0].1.push(again);
        assert!(is_bad(&[double]));
        let mut beyond = good();
        beyond.end = 7;
        assert!(is_bad(&[beyond]));
    }

    #[test]
    fn a_read_that_the_stream_knows_nothing_of_is_found() {
        let read = |value, modify_index| {
            let found = Some(Found { value, modify_index, create_index: 5 });
            let outcome = Outcome::Read { found, index: modify_index };
            Operation { client: Player::client(1), key: "k0".into(), call: Call::Get, start: 1, end: Some(2), outcome }
        };
        let bad = |read: Operation| check(&[good()], &[read].into_iter().collect()).is_violation();
        assert!(!bad(read(2, 7)) && !bad(read(3, 10)), "what it was told, and what came after");
        assert!(bad(read(3, 7)) && bad(read(3, 6)));
    }
}
