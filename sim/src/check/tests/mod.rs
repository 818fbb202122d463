//! The checkers, checked: on histories from the literature, on histories of a correct register, and against a judge that
//! tries every order.

mod agreement;
mod brute;
mod literature;
mod nodes;
mod store;

use crate::history::{Call, Found, History, Operation, Outcome};
use crate::player::Player;

/// An operation on one key between two positions; no answer came if `end` is 0.
fn op(start: u64, end: u64, call: Call, outcome: Outcome) -> Operation {
    let end = (end > 0).then_some(end);
    Operation { client: Player::client(1), key: "k".into(), call, start, end, outcome }
}

/// A put of `value` between two positions.
fn put(start: u64, end: u64, value: u64, outcome: Outcome) -> Operation {
    op(start, end, Call::Put { value, cas: None }, outcome)
}

/// The same under a condition.
fn cas(start: u64, end: u64, value: u64, cas: u64, outcome: Outcome) -> Operation {
    op(start, end, Call::Put { value, cas: Some(cas) }, outcome)
}

fn delete(start: u64, end: u64, outcome: Outcome) -> Operation {
    op(start, end, Call::Delete { cas: None }, outcome)
}

/// A read that found a value as it was written at a revision, which also created the key.
fn get(start: u64, end: u64, value: u64, index: u64) -> Operation {
    get_of(start, end, value, index, index)
}

/// The same of a key that was created at another revision.
fn get_of(start: u64, end: u64, value: u64, index: u64, create_index: u64) -> Operation {
    let found = Some(Found { value, modify_index: index, create_index });
    op(start, end, Call::Get, Outcome::Read { found, index })
}

/// A read that found nothing while the table was at an index.
fn miss(start: u64, end: u64, index: u64) -> Operation {
    op(start, end, Call::Get, Outcome::Read { found: None, index })
}

const YES: Outcome = Outcome::Written { applied: true };
const NO: Outcome = Outcome::Written { applied: false };
const FAILED: Outcome = Outcome::Failed;
const UNKNOWN: Outcome = Outcome::Unknown;

fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    operations.into_iter().collect()
}

/// What [`revision_order`](super::revision_order), [`linear`](super::linear) and [`index`](super::index) say about a
/// history of one key: whether each finds a violation.
fn verdicts(history: &History) -> [bool; 3] {
    let operations: Vec<&Operation> = history.operations().iter().collect();
    let linear = super::linear::check(&operations, super::linear::BUDGET);
    assert!(!matches!(linear, super::Verdict::GaveUp { .. }), "a small history must be searched to the end");
    let revisions = super::revision_order::check(&operations);
    [revisions.is_violation(), linear.is_violation(), super::index::check_key(&operations).is_violation()]
}
