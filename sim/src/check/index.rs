//! R4: the index of non-stale reads never goes back.
//!
//! In real time, over all clients and servers: a read that starts after another has ended answers no smaller index. That
//! must hold for two reads of one register, found or missing. And because a missing key is answered with the index of the whole
//! table (consul.md 2.1), it must hold for a read that misses any key after a read of any other; for machines as well. No index is 0, which to a
//! client means "do not wait".
//!
//! It says nothing about values: [`revision_order`](super::revision_order) does.

use super::realtime::{Past, Shown};
use super::verdict::Verdict;
use crate::history::{History, Operation};

/// Checks the reads of one key, given in the order of their starts.
pub fn check_key(operations: &[&Operation]) -> Verdict {
    let past = past(operations.iter().copied());
    operations.iter().find_map(|read| step_back(read, &past)).unwrap_or(Verdict::Ok)
}

/// What has an index as a whole, by the letters that its registers' names begin with: keys, machines.
pub const SUBJECTS: [&[char]; 2] = [&['k', 'p'], &['m']];

/// Checks the reads that missed their register against all others of the same subject.
pub fn check_subject(history: &History, letters: &[char]) -> Verdict {
    let of_subject = || history.operations().iter().filter(|operation| operation.key.starts_with(letters));
    let past = past(of_subject());
    let mut missing = of_subject().filter(|operation| operation.found().is_none());
    missing.find_map(|read| step_back(read, &past)).unwrap_or(Verdict::Ok)
}

fn past<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Past<'a> {
    Past::new(operations.into_iter().filter_map(|by| {
        let (_, number) = by.read()?;
        Some(Shown { moment: by.settled(), number, by })
    }))
}

fn step_back(read: &Operation, past: &Past) -> Option<Verdict> {
    let (_, index) = read.read()?;
    if index == 0 {
        return Some(Verdict::violation("R4", "a read's index is 0", [read]));
    }
    let seen = past.before(read.start).filter(|seen| seen.number > index)?;
    let sentence = format!("the index went back from {} to {index}", seen.number);
    Some(Verdict::violation("R4", sentence, [seen.by, read]))
}
