//! What an engine is: it runs a scene's hosts, and gives their machines time, sockets and tasks.

use std::sync::Arc;
use std::time::Duration;

use quorate::world::{Abort, BoxTask, Network, Sleep};

use crate::scene::Scene;
use crate::stage::Stage;

/// What runs hosts in virtual time. Each run has a thread of its own.
pub trait Engine: 'static {
    /// What `--engine` calls it.
    const NAME: &'static str;

    /// From here on, this thread is a run of this seed: nothing of the machine that it runs on may reach it.
    fn enter(seed: u64);

    /// Runs a scene to its end.
    ///
    /// # Errors
    /// Why the engine could not go on. What a panic said is for the caller to find.
    fn run(scene: &Scene) -> Result<Stage, String>;

    /// Virtual time, as exactly as the code that asks can know it.
    fn now() -> Duration;
}

/// The primitives of one host, valid for one start of its process.
#[derive(Clone)]
pub struct Primitives {
    /// Virtual time.
    pub time: Arc<dyn Time>,
    /// Simulated TCP.
    pub net: Arc<dyn Network>,
    /// Runs a task on this host; its crash drops it.
    pub spawn: fn(BoxTask) -> Box<dyn Abort>,
}

/// True virtual time, the same for all hosts.
pub trait Time: Send + Sync {
    /// Since the run began.
    fn elapsed(&self) -> Duration;
    /// Sleeps this long.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// Time for tests: none passes, and no sleep takes any.
#[cfg(test)]
pub(crate) struct StandingStill;

#[cfg(test)]
impl Time for StandingStill {
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}
