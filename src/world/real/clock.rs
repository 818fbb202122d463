//! CLOCK_BOOTTIME, the wall clock, and tokio's timer.
//!
//! The clock that decisions are made by runs through a suspend of the machine: a lease that ended meanwhile has ended. tokio's
//! timer does not, so a sleep ends late by the time that the machine slept; who keeps a deadline looks at the clock again.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::world::{Clock, Instant, Sleep, WallTime};

/// Time on this machine, counted from its start: all its processes mean the same by an instant.
pub struct RealClock;

/// The clock begins a little above zero, so that subtracting a time-out from `now` stays meaningful.
const HEAD_START: Duration = Duration::from_secs(60);

impl RealClock {
    /// A moment as CLOCK_BOOTTIME counts it, for the kernel's timers.
    pub(super) fn boot_time(at: Instant) -> Duration {
        at.since(Instant::default() + HEAD_START)
    }
}

impl Clock for RealClock {
    fn now(&self) -> Instant {
        let time = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
        Instant::default() + HEAD_START + since_boot
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
