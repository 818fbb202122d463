//! Linearizability by revision order (R1, R2, R3): the server says at which revision a row was written, so the order of
//! most writes is known and need not be searched for. O(n log n) per key.
//!
//! It trusts the revisions only as far as the clients' own order confirms them. It never reports what a linearizable
//! store could have answered, but it may miss what [`linear`](super::linear) finds: it does not try orders.
//!
//! A read stands in the order at the revision that it shows: the row's ModifyIndex, or for a missing key the index of
//! the whole table (consul.md 2.1). A put stands at the revision at which it was read. The rest follows from the
//! definition (Herlihy and Wing 1990): what ended before another began comes first. The method is that of
//! Gibbons and Korach 1997 for histories whose write order is known.

use std::collections::BTreeMap;

use super::realtime::{Future, Past, Shown};
use super::verdict::Verdict;
use super::versions::{Version, Versions};
use crate::history::{Call, Found, Operation, Outcome};

/// Checks the operations of one key, given in the order of their starts.
pub fn check(operations: &[&Operation]) -> Verdict {
    let key = Key::new(operations);
    let checks = [Key::answers, Key::versions, Key::lives, Key::order, Key::writes, Key::presence, Key::refusals];
    checks.into_iter().find_map(|check| check(&key)).unwrap_or(Verdict::Ok)
}

/// One key, with what its operations show about the order.
struct Key<'a> {
    operations: &'a [&'a Operation],
    versions: Versions<'a>,
    /// Revisions that had certainly come to be when an operation ended.
    past: Past<'a>,
    /// Revisions that had certainly not been passed when an operation started.
    future: Future<'a>,
}

impl<'a> Key<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        let versions = Versions::learn(operations);
        let shown = |&by: &&'a Operation| position(by, &versions).map(|number| (by, number));
        let shown: Vec<(&Operation, u64)> = operations.iter().filter_map(shown).collect();
        let past = Past::new(shown.iter().map(|&(by, number)| Shown { moment: by.settled(), number, by }));
        let future = Future::new(shown.iter().map(|&(by, number)| Shown { moment: by.start, number, by }));
        Key { operations, versions, past, future }
    }

    /// Every single answer is possible: what was read was written, and by somebody who could have.
    fn answers(&self) -> Option<Verdict> {
        self.operations.iter().find_map(|&operation| {
            if operation.cas().is_none() && operation.outcome == (Outcome::Written { applied: false }) {
                return broken("R3", "a write without a condition was answered with false", [operation]);
            }
            let (found, index) = operation.read()?;
            let Found { value, modify_index, create_index } = found?;
            let Some(put) = self.versions.put_of(value) else {
                return broken("R1", format!("{value} was read, but nobody wrote it"), [operation]);
            };
            if !put.may_be_applied() {
                return broken(
                    "R3",
                    format!("{value} was read, but its write was answered as not applied"),
                    [put, operation],
                );
            }
            if operation.settled() < put.start {
                return broken("R1", format!("{value} was read before it was written"), [put, operation]);
            }
            if create_index > modify_index || index < modify_index {
                return broken("R4", "a read's indexes contradict each other: created ≤ modified ≤ index", [operation]);
            }
            None
        })
    }

    /// A revision has one value, and a value one revision: no write is applied twice (L13).
    fn versions(&self) -> Option<Verdict> {
        self.operations.iter().find_map(|&operation| {
            let found = operation.found()?;
            let (at, with) = (self.versions.at(found.modify_index), self.versions.with_value(found.value));
            if let Some(at) = at.filter(|at| at.seen != found) {
                let sentence = format!("two reads of revision {} found different rows", found.modify_index);
                return broken("R1", sentence, [at.seen_by, operation]);
            }
            let with = with.filter(|with| with.seen.modify_index != found.modify_index)?;
            let sentence = format!("{} has two revisions: its write was applied twice", found.value);
            broken("R3", sentence, [with.put, with.seen_by, operation])
        })
    }

    /// A key lives from its creation to its deletion: somebody created it, the lives do not overlap, no read misses the key
    /// within one, and a conditional put fits where it stands.
    fn lives(&self) -> Option<Verdict> {
        // Of the puts that may have created the key without being read, the one that began first.
        let creates = |put: &&&Operation| {
            let creates = put.written_value().is_some() && put.may_be_applied() && matches!(put.cas(), None | Some(0));
            creates && self.versions.of(put).is_none()
        };
        let creator = self.operations.iter().find(creates).map_or(u64::MAX, |put| put.start);
        let mut before: Option<&Version> = None;
        for version in self.versions.iter() {
            let created = version.seen.create_index;
            if self.versions.at(created).is_none() && creator > version.seen_by.settled() {
                let sentence = format!("nobody can have created the key at revision {created}");
                return broken("R1", sentence, [version.seen_by]);
            }
            if let Some(before) = before.replace(version)
                && before.seen.create_index != created
                && before.seen.modify_index >= created
            {
                let sentence = "a key that was modified and not deleted has two creation indexes";
                return broken("R1", sentence, [before.seen_by, version.seen_by]);
            }
            if let Some(verdict) = self.condition(version) {
                return Some(verdict);
            }
        }
        self.missing_while_alive()
    }

    fn missing_while_alive(&self) -> Option<Verdict> {
        self.operations.iter().find_map(|&operation| {
            let (None, index) = operation.read()? else { return None };
            let alive = self.versions.from(index).filter(|version| version.seen.create_index <= index)?;
            let Found { modify_index, create_index, .. } = alive.seen;
            let sentence =
                format!("missing at revision {index}, although the key lived from {create_index} to {modify_index}");
            broken("R1", sentence, [operation, alive.seen_by])
        })
    }

    /// The condition of a put held at the place where it took effect.
    fn condition(&self, version: &Version) -> Option<Verdict> {
        let Found { modify_index, create_index, .. } = version.seen;
        match version.put.cas()? {
            0 if create_index != modify_index => {
                broken("R1", "a put with cas=0 replaced a key that was there", [version.put, version.seen_by])
            }
            0 => None,
            cas if cas < create_index || cas >= modify_index => {
                let sentence = format!("a put with cas={cas} was applied where the key's ModifyIndex was not {cas}");
                broken("R1", sentence, [version.put, version.seen_by])
            }
            cas => {
                let between = self.versions.below(modify_index).filter(|between| between.seen.modify_index > cas)?;
                let sentence =
                    format!("lost update: a put with cas={cas} overwrote revision {}", between.seen.modify_index);
                broken("R1", sentence, [between.put, between.seen_by, version.put, version.seen_by])
            }
        }
    }

    /// What ended before another began comes first: no read goes back, no write lands in the past.
    fn order(&self) -> Option<Verdict> {
        self.operations.iter().find_map(|&operation| {
            let at = position(operation, &self.versions)?;
            let seen = self.past.before(operation.start)?;
            if at >= seen.number {
                return None;
            }
            let proof = [Some(seen.by), Some(operation), self.witness(seen.by), self.witness(operation)];
            let proof = proof.into_iter().flatten();
            let sentence = match operation.call {
                Call::Get => format!("stale read of revision {at}, after {} was there already", seen.number),
                _ => format!("written at revision {at}, after {} was there already", seen.number),
            };
            broken("R1", sentence, proof)
        })
    }

    /// An acknowledged put that was never read has a revision all the same: one between what was there before it and what
    /// is there after it. If there is no room for it, it was lost (R2). No version is applied over twice by `cas`.
    fn writes(&self) -> Option<Verdict> {
        let mut by_cas = BTreeMap::new();
        self.operations.iter().find_map(|&put| {
            put.written_value()?;
            let version = self.versions.of(put);
            if !put.is_applied() && version.is_none() {
                return None;
            }
            let cas = put.cas().filter(|&cas| cas > 0);
            if let Some(twin) = cas.and_then(|cas| by_cas.insert(cas, put)) {
                return broken("R1", "two puts were applied over the same revision", [twin, put]);
            }
            if version.is_some() {
                return None; // It has its place, which `order` and `lives` judge.
            }
            let before = self.past.before(put.start);
            let after = self.future.after(put.settled());
            let overwritten = cas.and_then(|cas| self.versions.from(cas.saturating_add(1)));
            let low = before.map_or(0, |seen| seen.number).max(cas.unwrap_or(0));
            let high = after.map_or(u64::MAX, |seen| seen.number);
            let high = overwritten.map_or(high, |version| high.min(version.seen.modify_index));
            if low < high.saturating_sub(1) {
                return None;
            }
            let witnesses = [before.map(|seen| seen.by), after.map(|seen| seen.by), overwritten.map(|v| v.seen_by)];
            let proof = witnesses.into_iter().flatten();
            let sentence =
                format!("lost write: acknowledged, but there is no revision for it between {low} and {high}");
            broken("R2", sentence, proof.chain([put]))
        })
    }

    /// What was there stays there until somebody deletes it, and what was deleted does not come back.
    fn presence(&self) -> Option<Verdict> {
        // The number of a presence is its operation's start: of all, the one that started last is the hardest to delete.
        let present = self.operations.iter().filter(|operation| {
            operation.found().is_some() || (operation.written_value().is_some() && operation.is_applied())
        });
        let present = Past::new(present.map(|&by| Shown { moment: by.settled(), number: by.start, by }));
        let is_delete = |operation: &&&Operation| matches!(operation.call, Call::Delete { .. });
        let deletes = || self.operations.iter().filter(is_delete);
        // The latest moment until which a delete that began early enough may have taken effect.
        let possible = deletes().filter(|delete| delete.may_be_applied());
        let possible = Past::new(possible.map(|&by| Shown { moment: by.start, number: by.settled(), by }));
        // The revision that was certainly there when an acknowledged delete took effect.
        let certain = deletes().filter(|delete| delete.is_applied());
        let certain = Past::new(certain.filter_map(|&by| {
            let number = self.past.before(by.start)?.number;
            Some(Shown { moment: by.settled(), number, by })
        }));
        self.operations.iter().find_map(|&read| {
            let (found, _) = read.read()?;
            let Some(found) = found else {
                let present = present.before(read.start)?;
                if possible.before(read.settled()).is_some_and(|delete| delete.number > present.number) {
                    return None;
                }
                let proof = [Some(present.by), Some(read), possible.before(read.settled()).map(|delete| delete.by)];
                return broken("R2", "a key is missing that nobody can have deleted", proof.into_iter().flatten());
            };
            let delete = certain.before(read.start).filter(|delete| delete.number >= found.create_index)?;
            let seen = self.past.before(delete.by.start).map(|seen| seen.by);
            let sentence = format!("a key of creation index {} is there after its deletion", found.create_index);
            broken("R2", sentence, [Some(delete.by), Some(read), seen].into_iter().flatten())
        })
    }

    /// A condition that held from before a request until after its answer was not refused.
    fn refusals(&self) -> Option<Verdict> {
        self.operations.iter().find_map(|&write| {
            let cas = write.cas().filter(|_| write.outcome == Outcome::Written { applied: false })?;
            let version = self.versions.at(cas)?;
            let (before, after) = (self.past.before(write.start)?, self.future.after(write.settled())?);
            if (before.number, after.number) != (cas, cas) {
                return None;
            }
            let sentence = format!("refused, although the key's ModifyIndex was {cas} all the time");
            broken("R3", sentence, [before.by, write, after.by, version.seen_by])
        })
    }

    /// The read that told the revision of a put.
    fn witness(&self, operation: &Operation) -> Option<&'a Operation> {
        self.versions.of(operation).map(|version| version.seen_by)
    }
}

/// The revision at which an operation stands, if it shows one. An operation that had no effect stands nowhere.
fn position(operation: &Operation, versions: &Versions) -> Option<u64> {
    match operation.read() {
        Some((found, index)) => Some(found.map_or(index, |found| found.modify_index)),
        None => versions.of(operation).map(|version| version.seen.modify_index),
    }
}

fn broken<'a>(
    invariant: &'static str,
    sentence: impl Into<String>,
    proof: impl IntoIterator<Item = &'a Operation>,
) -> Option<Verdict> {
    Some(Verdict::violation(invariant, sentence, proof))
}
