//! CLOCK_MONOTONIC, the wall clock, and tokio's timer.

use std::time::{Duration, SystemTime};

use crate::world::{Clock, Instant, Sleep, WallTime};

/// Time on this machine, counted from when the clock was made.
pub struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    /// A clock that starts a little above zero, so that subtracting a time-out from `now` stays meaningful.
    #[expect(clippy::new_without_default, reason = "a default that reads the clock would surprise")]
    pub fn new() -> Self {
        RealClock { start: std::time::Instant::now() - HEAD_START }
    }
}

/// See [`RealClock::new`].
const HEAD_START: Duration = Duration::from_secs(60);

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let left = deadline.since(self.now());
        Box::pin(tokio::time::sleep(left))
    }
}
