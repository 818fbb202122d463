//! Clocks that are wrong: each machine's runs a little fast or slow, and its wall clock jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate::world::{Clock, Instant, Sleep, WallTime};

use crate::engine::Time;

/// When runs begin, by a wall clock that is right: 2023-11-14.
const EPOCH_MILLIS: u64 = 1_700_000_000_000;
/// A clock starts above zero, so that subtracting a time-out from `now` stays meaningful; as the real one does.
const HEAD_START: Duration = Duration::from_secs(60);
const MILLION: u64 = 1_000_000;

/// How far the clocks of one machine are off.
#[derive(Debug, Default)]
pub struct Drift {
    /// Parts per million by which it runs fast. Set before the first start and constant: a monotonic clock never goes back.
    rate_ppm: AtomicI64,
    /// Milliseconds by which its wall clock is ahead.
    wall_millis: AtomicI64,
}

impl Drift {
    /// Sets the rate, in parts per million of excess.
    pub fn set_rate(&self, ppm: i64) {
        self.rate_ppm.store(ppm, Ordering::Relaxed);
    }

    /// Sets how far the wall clock is ahead.
    pub fn set_wall(&self, millis: i64) {
        self.wall_millis.store(millis, Ordering::Relaxed);
    }

    /// A moment of this clock in true time.
    pub fn true_time(&self, local: Instant) -> Duration {
        self.real(local.since(Instant(0) + HEAD_START))
    }

    fn local(&self, elapsed: Duration) -> u64 {
        scale(elapsed.as_nanos() as u64, self.rate(), MILLION, 0)
    }

    /// Rounded up: a sleep that ends before its deadline on this clock would be slept again, for ever, in no time.
    fn real(&self, local: Duration) -> Duration {
        let nanos = u64::try_from(local.as_nanos()).unwrap_or(u64::MAX);
        let rate = self.rate();
        Duration::from_nanos(scale(nanos, MILLION, rate, rate - 1))
    }

    /// Nanoseconds of this clock in a million true ones.
    fn rate(&self) -> u64 {
        MILLION.saturating_add_signed(self.rate_ppm.load(Ordering::Relaxed))
    }
}

/// `(nanos * by + round) / over`. What a run lasts fits into 64 bits, in which dividing takes a fraction of the time.
fn scale(nanos: u64, by: u64, over: u64, round: u64) -> u64 {
    match nanos.checked_mul(by).and_then(|product| product.checked_add(round)) {
        Some(product) => product / over,
        None => {
            let product = u128::from(nanos) * u128::from(by) + u128::from(round);
            u64::try_from(product / u128::from(over)).unwrap_or(u64::MAX)
        }
    }
}

/// The clocks as a process sees them.
pub struct SimClock {
    time: Arc<dyn Time>,
    drift: Arc<Drift>,
}

impl SimClock {
    /// Clocks over true time.
    pub fn new(time: Arc<dyn Time>, drift: Arc<Drift>) -> Self {
        SimClock { time, drift }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(self.drift.local(self.time.elapsed())) + HEAD_START
    }

    fn wall(&self) -> WallTime {
        let right = EPOCH_MILLIS + self.time.elapsed().as_millis() as u64;
        WallTime(right.saturating_add_signed(self.drift.wall_millis.load(Ordering::Relaxed)))
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.sleep(deadline.since(self.now()))
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.time.sleep(self.drift.real(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a sweep that stood still: a nanosecond before its deadline a server slept for no time, again and again.
    #[test]
    fn a_sleep_never_ends_before_its_deadline() {
        let mut rng = crate::rng::Rng::new(1);
        for _ in 0..10_000 {
            let drift = Drift::default();
            drift.set_rate(rng.between(0, 20_000) as i64 - 10_000);
            let mut below = |most: u64| {
                let magnitude = rng.between(1, most);
                Duration::from_nanos(rng.below(1 << magnitude))
            };
            let (began, wanted) = (below(60), below(60));
            let deadline = drift.local(began) + wanted.as_nanos() as u64;
            assert!(drift.local(began + drift.real(wanted)) >= deadline);
        }
    }
}
