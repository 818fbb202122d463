//! The hand-offs under many schedules. A test ends only if nobody waits for ever: shuttle reports a deadlock otherwise, with
//! the schedule that led to it.

use quorate_threads::{query, wal};

/// Schedules drawn for each test.
const SCHEDULES: usize = 20_000;

#[test]
fn no_change_falls_between_a_look_and_the_wait_after_it() {
    shuttle::check_random(|| query::against_writer(true), SCHEDULES);
    shuttle::check_pct(|| query::against_writer(true), SCHEDULES, 3);
}

/// The test above can fail: the order of steps that it is about, turned round, is found out.
#[test]
#[should_panic(expected = "deadlock")]
fn to_look_first_and_register_afterwards_is_found() {
    shuttle::check_random(|| query::against_writer(false), SCHEDULES);
}

#[test]
fn a_log_that_is_closed_writes_what_was_queued_and_tells_everyone() {
    shuttle::check_random(|| wal::against_writer(false), SCHEDULES);
    shuttle::check_pct(|| wal::against_writer(false), SCHEDULES, 3);
}

#[test]
fn a_log_that_fails_tells_everyone_who_waits_and_who_watches() {
    shuttle::check_random(|| wal::against_writer(true), SCHEDULES);
    shuttle::check_pct(|| wal::against_writer(true), SCHEDULES, 3);
}
