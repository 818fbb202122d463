//! Log time, as a leader makes it (architecture.md "What state may never do").
//!
//! A leader carries log time on from the last entry before its own, at the rate of its monotonic clock. A value without
//! I/O: it is told the time.

use crate::state::LogTime;
use crate::world::Instant;

/// The log clock of one leader in one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogClock {
    /// The term it belongs to: a later term starts another clock.
    pub(super) term: u64,
    base: LogTime,
    started: Instant,
}

impl LogClock {
    /// A clock that goes on from `base`, the log time of the last entry inherited.
    pub(super) fn start(term: u64, base: LogTime, now: Instant) -> Self {
        LogClock { term, base, started: now }
    }

    /// Log time at `now`. It never goes back: the monotonic clock does not.
    pub(super) fn at(&self, now: Instant) -> LogTime {
        self.base + now.since(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn log_time_goes_on_where_the_log_ended_and_knows_only_its_own_clock() {
        let start = Instant(5_000_000_000);
        let clock = LogClock::start(3, LogTime(70_000), start);
        assert_eq!(clock.at(start), LogTime(70_000));
        assert_eq!(clock.at(start + Duration::from_millis(1500)), LogTime(71_500));
        assert_eq!(clock.at(start - Duration::from_secs(1)), LogTime(70_000), "a clock that steps back stands still");
    }
}
