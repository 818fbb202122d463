//! Tasks: spawning them, waiting for them, aborting them; and work that blocks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::World;

/// A task as a world runs it.
pub type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Stops a task at its next await.
pub trait Abort: Send + Sync {
    /// Drops the task's future as soon as it is not being polled. Nothing happens if it has ended.
    fn abort(&self);
}

/// Where tasks and blocking work run.
pub trait Spawn: Send + Sync {
    /// Runs a task to its end.
    fn spawn(&self, task: BoxTask) -> Box<dyn Abort>;
    /// Runs work that blocks, where it holds up no task.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// The task panicked, was aborted, or its world has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task ended without a result")]
pub struct TaskLost;

/// A running task; awaiting it gives its result. Dropping it lets the task run on.
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    abort: Box<dyn Abort>,
}

impl<T> Task<T> {
    /// Stops the task at its next await.
    pub fn abort(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map_err(|_| TaskLost)
    }
}

pub(super) fn spawn<F>(world: &World, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (send, result) = oneshot::channel();
    let task = world.enter(async move {
        let output = future.await;
        // Nobody may be waiting any more; that is theirs to decide.
        let _ = send.send(output);
    });
    Task { result, abort: world.spawn.spawn(Box::pin(task)) }
}

pub(super) async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TaskLost> {
    let (send, result) = oneshot::channel();
    world.spawn.blocking(Box::new(move || {
        let _ = send.send(work());
    }));
    result.await.map_err(|_| TaskLost)
}
