//! Time: a monotonic clock that decisions are made by, and a wall clock that is only ever shown.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::time::Duration;

/// A point on one machine's monotonic clock, in nanoseconds since some moment of that machine. It means nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this, or zero if it is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970 by the wall clock. It may jump either way; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// A sleep that has begun.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The clocks of one machine.
pub trait Clock: Send + Sync {
    /// Monotonic time now. It never goes back, does not know the wall clock's jumps, and runs on while the machine sleeps.
    fn now(&self) -> Instant;
    /// Wall-clock time now, for people to read.
    fn wall(&self) -> WallTime;
    /// Sleeps until the monotonic clock has reached `deadline`; longer by the time that the machine sleeps meanwhile.
    fn sleep_until(&self, deadline: Instant) -> Sleep;
    /// The same for a deadline that is this far from now.
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }
}
