//! A world for the edge's own tests: its clock moves only when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::world::{Clock, Instant, MemoryDisk, Sleep, WallTime, World, real};

/// A clock that stands still until [`HandClock::advance`].
pub struct HandClock(watch::Sender<u64>);

impl HandClock {
    /// Moves the time.
    pub fn advance(&self, duration: Duration) {
        self.0.send_modify(|now| *now += u64::try_from(duration.as_nanos()).unwrap());
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        Instant(*self.0.borrow())
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            // The clock outlives every sleep of these tests.
            let _ = now.wait_for(|now| *now >= deadline.0).await;
        })
    }
}

/// A world whose tasks run on the tokio runtime of the test.
pub fn test_world() -> (World, Arc<HandClock>) {
    let clock = Arc::new(HandClock(watch::Sender::new(1)));
    let world = World {
        clock: clock.clone(),
        net: Arc::new(real::RealNetwork),
        disk: Arc::new(MemoryDisk::default()),
        entropy: Arc::new(real::RealEntropy),
        spawn: Arc::new(real::RealSpawn),
    };
    (world, clock)
}
