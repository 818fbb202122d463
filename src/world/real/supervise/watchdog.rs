//! When a job is to be asked to stop, and when to be killed: a value that is told the time.

use std::time::Duration;

use super::Margins;
use crate::limits;
use crate::world::Instant;

/// What a supervisor knows of its job's time.
#[derive(Debug, Clone)]
pub struct Watchdog {
    margins: Margins,
    until: Instant,
    /// When the owner asked for an end, or was gone.
    asked: Option<Instant>,
    /// When SIGTERM was sent.
    termed: Option<Instant>,
    killed: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment; nothing at all before somebody says something.
    Wait(Option<Instant>),
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

impl Watchdog {
    pub fn new(margins: Margins, until: Instant) -> Watchdog {
        Watchdog { margins, until, asked: None, termed: None, killed: false }
    }

    /// A new deadline. It may save a job that was not yet asked to stop.
    pub fn extend(&mut self, until: Instant) {
        self.until = until;
    }

    /// The job is to end.
    pub fn ask(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// Whether the job has been told to end.
    pub fn stops(&self) -> bool {
        self.termed.is_some()
    }

    /// What to do now. Each signal is said once.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.killed {
            return Step::Wait(None);
        }
        let last = self.until - self.margins.kill;
        let kill = self.termed.map_or(last, |termed| last.min(termed + limits::LOCK_STOP));
        if now >= kill {
            self.killed = true;
            self.termed.get_or_insert(now);
            return Step::Kill;
        }
        let term = self.asked.unwrap_or(Instant(u64::MAX)).min(self.until - self.margins.term);
        match self.termed {
            None if now >= term => {
                self.termed = Some(now);
                Step::Term
            }
            None => Step::Wait(Some(term.min(kill))),
            Some(_) => Step::Wait(Some(kill)),
        }
    }
}

impl Margins {
    /// For a lease of this length: time to end well, but never so much that a renewal which was missed twice is too late.
    pub fn of(lease: Duration) -> Margins {
        Margins { term: limits::LOCK_STOP.min(lease / 3), kill: limits::LOCK_KILL_MARGIN.min(lease / 10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    fn lease(millis: u64) -> Watchdog {
        Watchdog::new(Margins::of(Duration::from_millis(millis)), at(millis))
    }

    #[test]
    fn a_job_is_asked_and_killed_before_its_deadline() {
        let mut dog = lease(15_000);
        assert_eq!(dog.step(at(9_999)), Step::Wait(Some(at(10_000))));
        assert_eq!(dog.step(at(10_000)), Step::Term);
        assert_eq!(dog.step(at(10_000)), Step::Wait(Some(at(14_500))));
        assert_eq!(dog.step(at(14_500)), Step::Kill);
        assert_eq!(dog.step(at(20_000)), Step::Wait(None), "once");
    }

    #[test]
    fn short_leases_have_short_margins() {
        let mut dog = lease(1_500);
        assert_eq!(dog.step(at(0)), Step::Wait(Some(at(1_000))));
        assert_eq!(dog.step(at(1_000)), Step::Term);
        assert_eq!(dog.step(at(1_000)), Step::Wait(Some(at(1_350))));
    }

    #[test]
    fn a_renewal_moves_the_deadline_until_the_job_was_asked_to_stop() {
        let mut dog = lease(15_000);
        dog.extend(at(20_000));
        assert_eq!(dog.step(at(10_000)), Step::Wait(Some(at(15_000))));
        assert_eq!(dog.step(at(15_000)), Step::Term);
        dog.extend(at(60_000));
        assert_eq!(dog.step(at(16_000)), Step::Wait(Some(at(20_000))), "it is still stopping");
        assert_eq!(dog.step(at(20_000)), Step::Kill);
    }

    #[test]
    fn who_is_asked_to_stop_has_some_seconds_or_what_the_lease_leaves() {
        let mut dog = lease(60_000);
        dog.ask(at(1_000));
        assert_eq!(dog.step(at(1_000)), Step::Term);
        assert_eq!(dog.step(at(1_000)), Step::Wait(Some(at(6_000))));
        let mut dog = lease(3_000);
        dog.ask(at(1_000));
        assert_eq!(dog.step(at(1_000)), Step::Term);
        assert_eq!(dog.step(at(1_000)), Step::Wait(Some(at(2_700))), "the lease comes first");
    }

    #[test]
    fn who_wakes_up_too_late_kills_at_once() {
        let mut dog = lease(2_000);
        assert_eq!(dog.step(at(9_000)), Step::Kill);
        assert!(dog.stops());
    }
}
