//! The anomalies that stores were caught with, each beside the history most like it that is correct.

use super::*;
use crate::check::{Verdict, index, linear, revision_order, run};
use crate::workload::locks::Book;
use crate::workload::restores::Restores;

/// Which checkers must find it: revision order, linear, index.
#[track_caller]
fn assert_found(expected: [bool; 3], operations: impl IntoIterator<Item = Operation>) {
    assert_eq!(verdicts(&history(operations)), expected);
}

#[track_caller]
fn assert_fine(operations: impl IntoIterator<Item = Operation>) {
    assert_found([false, false, false], operations);
}

#[test]
fn a_read_may_see_either_side_of_a_concurrent_write() {
    let base = [put(1, 2, 1, YES), put(5, 10, 2, YES)];
    assert_fine(base.clone().into_iter().chain([get(6, 7, 1, 3)]));
    assert_fine(base.into_iter().chain([get_of(6, 7, 2, 4, 3)]));
}

#[test]
fn a_stale_read_is_found() {
    assert_found([true, true, true], [put(1, 2, 1, YES), put(3, 4, 2, YES), get_of(5, 6, 2, 4, 3), get(7, 8, 1, 3)]);
    // Nobody read what was overwritten before: the put has no known revision, and no room for one.
    assert_found([true, true, false], [put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 6, 2, YES), get(7, 8, 1, 3)]);
    assert_fine([put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 6, 2, FAILED), get(7, 8, 1, 3)]);
    assert_fine([put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 6, 2, UNKNOWN), get(7, 8, 1, 3)]);
}

#[test]
fn a_lost_write_is_found_behind_a_newer_concurrent_read() {
    let base = [put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 6, 2, YES), put(7, 21, 3, UNKNOWN), get_of(10, 20, 3, 9, 3)];
    assert_fine(base.clone());
    assert_found([true, true, false], base.into_iter().chain([get(11, 12, 1, 3)]));
}

#[test]
fn a_delete_of_a_version_that_nobody_read_may_explain_a_missing_key() {
    let delete = op(6, 0, Call::Delete { cas: Some(9) }, UNKNOWN);
    assert_fine([put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 0, 2, UNKNOWN), delete, miss(8, 9, 10)]);
}

#[test]
fn reads_that_go_back_during_a_write_are_found() {
    assert_found([true, true, true], [put(1, 2, 1, YES), put(3, 9, 2, YES), get_of(4, 5, 2, 4, 3), get(6, 7, 1, 3)]);
    assert_fine([put(1, 2, 1, YES), put(3, 9, 2, YES), get(4, 5, 1, 3), get_of(6, 7, 2, 4, 3)]);
}

#[test]
fn a_dirty_read_of_a_refused_write_is_found() {
    assert_found([true, true, false], [put(1, 2, 1, FAILED), get(3, 4, 1, 3)]);
    assert_found([true, true, false], [put(1, 2, 1, YES), get(3, 4, 1, 3), cas(5, 6, 2, 9, NO), get_of(7, 8, 2, 4, 3)]);
    assert_fine([put(1, 2, 1, UNKNOWN), get(3, 4, 1, 3)]);
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    assert_found([true, true, false], [get(1, 2, 1, 3)]);
    assert_found([true, true, false], [get(1, 2, 1, 3), put(3, 4, 1, YES)]);
    assert_fine([get(1, 3, 1, 3), put(2, 4, 1, YES)]);
}

#[test]
fn a_lost_update_is_found() {
    // Both clients read revision 3 and both were told that their cas=3 was applied.
    let start = [put(1, 2, 1, YES), get(3, 4, 1, 3), cas(5, 7, 2, 3, YES), cas(6, 8, 3, 3, YES)];
    assert_found([true, true, false], start);
    assert_fine([put(1, 2, 1, YES), get(3, 4, 1, 3), cas(5, 7, 2, 3, YES), cas(6, 8, 3, 3, NO)]);
    // The first was overwritten by the second, which expected what had been there before.
    let seen = [get_of(9, 10, 2, 4, 3), get_of(12, 13, 3, 5, 3)];
    let base = [put(1, 2, 1, YES), get(3, 4, 1, 3), put(5, 7, 2, YES), cas(6, 15, 3, 3, UNKNOWN)];
    assert_found([true, true, false], base.into_iter().chain(seen));
}

#[test]
fn a_condition_that_was_applied_against_the_content_is_found() {
    assert_found(
        [true, true, false],
        [put(1, 2, 1, YES), get(3, 4, 1, 3), cas(5, 6, 2, 0, YES), get_of(7, 8, 2, 4, 3)],
    );
    let refused = [put(1, 2, 1, YES), get(3, 4, 1, 3), cas(5, 6, 2, 3, NO), get(7, 8, 1, 3)];
    assert_found([true, true, false], refused);
    assert_found([true, true, false], [put(1, 2, 1, NO)]);
}

#[test]
fn an_unknown_write_that_was_seen_must_stay() {
    // Seen, and then the old value again: whatever happened to the write, it cannot be undone.
    assert_found(
        [true, true, true],
        [put(1, 2, 1, YES), put(3, 0, 2, UNKNOWN), get_of(4, 5, 2, 4, 3), get(6, 7, 1, 3)],
    );
    // It may come late, even after its client was told that nobody knows.
    let late = [get(5, 6, 1, 3), get_of(7, 8, 2, 4, 3)];
    assert_fine([put(1, 2, 1, YES), put(3, 4, 2, UNKNOWN)].into_iter().chain(late));
    let never = [get(4, 5, 1, 3), get(6, 7, 1, 3)];
    assert_fine([put(1, 2, 1, YES), put(3, 0, 2, UNKNOWN)].into_iter().chain(never));
}

#[test]
fn an_unknown_write_that_is_applied_twice_is_found() {
    let twice =
        [put(1, 0, 1, UNKNOWN), get(2, 3, 1, 3), put(4, 5, 2, YES), get_of(6, 7, 2, 4, 3), get_of(8, 9, 1, 5, 3)];
    assert_found([true, true, false], twice);
}

#[test]
fn a_key_that_vanishes_or_comes_back_is_found() {
    assert_found([true, true, false], [put(1, 2, 1, YES), miss(3, 4, 3)]);
    assert_fine([put(1, 2, 1, YES), delete(3, 4, UNKNOWN), miss(5, 6, 4)]);
    // The delete was over before the put began.
    assert_found([true, true, false], [delete(1, 2, YES), put(3, 4, 1, YES), miss(5, 6, 4)]);
    assert_found([true, true, false], [put(1, 2, 1, YES), get(3, 4, 1, 3), delete(5, 6, YES), get(7, 8, 1, 3)]);
    assert_fine([put(1, 2, 1, YES), get(3, 4, 1, 3), delete(5, 6, YES), put(7, 8, 2, YES), get(9, 10, 2, 5)]);
}

#[test]
fn what_the_indexes_alone_betray_is_found() {
    // A new value under the old life, although the key was deleted in between.
    let revived = [put(1, 2, 1, YES), get(3, 4, 1, 3), delete(5, 6, YES), put(7, 8, 2, YES), get_of(9, 10, 2, 5, 3)];
    assert_found([true, false, false], revived);
    // Two values of one revision.
    assert_found([true, true, false], [put(1, 3, 1, YES), put(2, 4, 2, YES), get(5, 6, 1, 3), get(7, 8, 2, 3)]);
    // Created after it was modified.
    assert_found([true, false, false], [put(1, 2, 1, YES), get_of(3, 4, 1, 3, 4)]);
    // Created by nobody.
    assert_found([true, false, false], [put(1, 2, 1, YES), get_of(3, 4, 1, 4, 3)]);
    // By one who could only have replaced a row.
    assert_found([true, false, false], [cas(1, 0, 1, 9, UNKNOWN), put(2, 3, 2, YES), get_of(4, 5, 2, 4, 3)]);
    // Missing in the middle of its life, although a delete could be to blame.
    let gap =
        [put(1, 10, 1, UNKNOWN), delete(2, 11, UNKNOWN), put(3, 12, 2, UNKNOWN), miss(4, 5, 4), get_of(6, 7, 2, 5, 3)];
    assert_found([true, false, false], gap);
    // Written at a smaller revision than one that was there before.
    let late = [put(1, 2, 1, YES), get(3, 4, 1, 9), put(5, 6, 2, YES), get_of(7, 8, 2, 5, 3)];
    assert_found([true, false, true], late);
}

#[test]
fn an_index_that_goes_back_is_found() {
    let check = |operations: Vec<Operation>| {
        let history = history(operations);
        let all: Vec<&Operation> = history.operations().iter().collect();
        (index::check_key(&all).is_violation(), index::check_subject(&history, index::SUBJECTS[0]).is_violation())
    };
    assert_eq!(check(vec![miss(1, 2, 5), miss(3, 4, 4)]), (true, true));
    assert_eq!(check(vec![miss(1, 3, 5), miss(2, 4, 4)]), (false, false), "the reads are concurrent");
    assert_eq!(check(vec![miss(1, 4, 9), miss(2, 5, 4), miss(6, 7, 5)]), (true, true), "the newest is not the last");
    assert_eq!(check(vec![miss(1, 2, 0)]), (true, true));
    let other = Operation { key: "p".into(), ..get(1, 2, 1, 5) };
    let table = history([other.clone(), miss(3, 4, 4)]);
    assert!(
        index::check_subject(&table, index::SUBJECTS[0]).is_violation(),
        "the table's index went back between two keys"
    );
    let older = history([other.clone(), get(3, 4, 1, 4)]);
    assert!(!index::check_subject(&older, index::SUBJECTS[0]).is_violation(), "an older row is no step back");
    let machine = history([Operation { key: "m".into(), ..other }, miss(3, 4, 4)]);
    assert!(!index::check_subject(&machine, index::SUBJECTS[0]).is_violation(), "machines have an index of their own");
}

#[test]
fn a_violation_is_shown_by_the_few_operations_that_matter() {
    let mut operations = Vec::new();
    for i in 0..200 {
        operations.push(put(10 * i + 1, 10 * i + 3, i, if i % 7 == 0 { UNKNOWN } else { YES }));
        operations.push(get_of(10 * i + 4, 10 * i + 5, i, i + 2, 2));
    }
    operations.push(get_of(1_001_000, 1_001_001, 150, 152, 2));
    let history = history(operations);
    let all: Vec<&Operation> = history.operations().iter().collect();
    let Verdict::Violation(violation) = linear::check(&all, linear::BUDGET) else { panic!("a stale read") };
    assert!(violation.proof.len() <= 5 && violation.context.is_empty(), "{violation}");
    let proof: Vec<&Operation> = violation.proof.iter().collect();
    assert!(linear::check(&proof, linear::BUDGET).is_violation(), "the proof proves nothing:\n{violation}");
    assert!(revision_order::check(&all).is_violation());
}

#[test]
fn a_report_shows_columns_and_counts() {
    let bad = run(
        &history([put(1, 2, 7, YES), miss(30, 41, 3)]),
        &Book::default(),
        &Restores::default(),
        &[],
        &[],
        linear::BUDGET,
    );
    let shown = "\
checker             ok  violations  gave up
index                3           0        0
linear               0           1        0
locks                1           0        0
raft                 1           0        0
revision-order       0           1        0
stream               1           0        0";
    assert_eq!(bad.to_string(), shown);
    let violations: Vec<String> =
        bad.violations().map(|(checker, violation)| format!("[{checker}] {violation}")).collect();
    let shown = "\
[revision-order] R2: a key is missing that nobody can have deleted
  start  end  client  key  call   answer
>     1    2  c1      k    put 7  true
>    30   41  c1      k    get    missing, index 3

[linear] R1: no order of these operations explains their answers
  start  end  client  key  call   answer
>     1    2  c1      k    put 7  true
>    30   41  c1      k    get    missing, index 3";
    assert_eq!(violations.join("\n\n"), shown);
    assert!(!bad.is_ok());
}

#[test]
fn a_search_without_budget_gives_up() {
    let report =
        run(&history([put(1, 2, 1, YES), get(3, 4, 1, 3)]), &Book::default(), &Restores::default(), &[], &[], 1);
    assert_eq!((report.gave_up(), report.is_ok()), (1, true));
}
