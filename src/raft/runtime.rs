//! openraft's runtime, on the world of the task that asks.
//!
//! openraft reaches its runtime through static functions. Here each of them asks the current [`World`], which
//! `World::spawn` and `World::enter` set whenever a task is polled. So there is one runtime type for every world, and
//! no simulator needs to know openraft's trait. The channels are tokio's: they have no clock and no randomness.

use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioWatch};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{self, Sleep, Task, TaskLost, World};

/// See the module.
#[derive(Debug)]
pub struct WorldRuntime;

/// A point on the current world's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub(super) world::Instant);

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Instant(World::current(|world| world.clock.now()))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Instant(self.0 + duration)
    }
}
impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Instant(self.0 - duration)
    }
}
impl Sub<Self> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}
impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}
impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// The time was up.
#[derive(Debug, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

pin_project_lite::pin_project! {
    /// A future with a deadline.
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for WorldRuntime {
    type JoinError = TaskLost;
    type JoinHandle<T: OptionalSend + 'static> = Task<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Task<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        World::current(|world| world.spawn(future))
    }

    fn sleep(duration: Duration) -> Sleep {
        World::current(|world| world.sleep(duration))
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        World::current(|world| world.clock.sleep_until(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &TaskLost) -> bool {
        // A task of openraft's that ends without a result has panicked: nobody else aborts them while a node runs.
        true
    }

    fn thread_rng() -> StdRng {
        StdRng::seed_from_u64(World::current(|world| world.entropy.u64()))
    }

    fn new(_threads: usize) -> Self {
        WorldRuntime
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        // openraft documents that only its own test-suite calls this.
        unreachable!("a node runs inside its world")
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let world = World::current(World::clone);
        async move { world.blocking(work).await.map_err(io::Error::other) }
    }
}
