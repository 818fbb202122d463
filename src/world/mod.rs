//! The seams: everything a node takes from outside itself.
//!
//! A [`World`] is a handful of trait objects: a clock, a network, a disk, randomness, and a place to run tasks. A node is
//! handed one and reaches the outside through nothing else, so the same node runs on a real machine ([`real`]) or inside a
//! simulated one. No feature, no `cfg` and no global decides which.
//!
//! What this module never does: know who uses it, or which world it is.
//!
//! Start with [`World`]; then the five traits, one file each.

mod clock;
mod disk;
mod entropy;
mod memory;
mod net;
pub mod real;
mod spawn;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use clock::{Clock, Instant, Sleep, WallTime};
pub use disk::{Disk, File, Lock, OpenMode};
pub use entropy::Entropy;
pub use memory::MemoryDisk;
pub use net::{BoxListener, BoxStream, Interface, Listener, Network, Stream};
pub use spawn::{Abort, BoxTask, Spawn, Task, TaskLost};

/// Everything a node takes from outside itself. Cloning it copies five pointers.
#[derive(Clone)]
pub struct World {
    /// Monotonic and wall time, and sleeping.
    pub clock: Arc<dyn Clock>,
    /// Sockets and names.
    pub net: Arc<dyn Network>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Tasks and blocking work.
    pub spawn: Arc<dyn Spawn>,
}

thread_local! {
    /// The world of the task that this thread is polling. openraft's runtime trait is all static functions, so that is
    /// where `raft::runtime` finds its host.
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

impl World {
    /// Runs a task on this world. The task is cancelled by [`Task::abort`], not by dropping the handle.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn::spawn(self, future)
    }

    /// Runs work that blocks its thread, away from the tasks.
    ///
    /// # Errors
    /// [`TaskLost`] if the work panicked or the world is shutting down.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, TaskLost> {
        spawn::blocking(self, work).await
    }

    /// Sleeps at least this long.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.clock.sleep(duration)
    }

    /// The future's result, or `None` if it took longer than `duration`. The future is dropped then.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        // Most futures are ready at once; those need no timer.
        let mut sleep = None;
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => sleep.get_or_insert_with(|| self.sleep(duration)).as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// Makes this world the current one whenever the future is polled; see [`World::current`].
    pub fn enter<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        InWorld { world: Some(self.clone()), future }
    }

    /// Asks something of the world of the task being polled on this thread.
    ///
    /// # Panics
    /// Outside a task that [`World::spawn`] or [`World::enter`] runs: a bug in the caller, which lost its world.
    pub(crate) fn current<T>(ask: impl FnOnce(&World) -> T) -> T {
        CURRENT
            .with_borrow(|world| ask(world.as_ref().expect("raft code runs only inside World::spawn or World::enter")))
    }
}

pin_project_lite::pin_project! {
    /// A future that is polled with its world as the current one. The world is moved in and out of the thread-local, so
    /// a poll costs no reference counting.
    struct InWorld<F> {
        world: Option<World>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for InWorld<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _exit = Exit { outer: CURRENT.replace(this.world.take()), world: this.world };
        this.future.poll(cx)
    }
}

/// Puts both worlds back where they were, also when a poll panics.
struct Exit<'a> {
    outer: Option<World>,
    world: &'a mut Option<World>,
}

impl Drop for Exit<'_> {
    fn drop(&mut self) {
        *self.world = CURRENT.replace(self.outer.take());
    }
}
