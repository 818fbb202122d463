//! Tasks that are known by a number while they run, so that they can be counted and stopped.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use super::hold;
use crate::world::{Task, World};

/// Running tasks, or `None` once they were stopped for good.
pub(super) struct Tasks(Mutex<Option<BTreeMap<u64, Task<()>>>>);

impl Tasks {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Tasks(Mutex::new(Some(BTreeMap::new()))))
    }

    /// Runs a task under a number that no other has. Does nothing after [`Tasks::stop`].
    pub(super) fn spawn(
        self: &Arc<Self>,
        world: &World,
        number: u64,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        // Held while the task begins, so that one that ends at once finds its number to remove.
        let mut running = hold(&self.0);
        if let Some(running) = running.as_mut() {
            let tasks = self.clone();
            let task = world.spawn(async move {
                // Made here and not before: a world that is ending may drop the task while we hold the lock.
                let _forget = Forget { tasks, number };
                future.await;
            });
            running.insert(number, task);
        }
    }

    pub(super) fn len(&self) -> usize {
        hold(&self.0).as_ref().map_or(0, BTreeMap::len)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        hold(&self.0).as_ref().is_some_and(|running| running.contains_key(&number))
    }

    /// Aborts one task, if it still runs.
    pub(super) fn abort(&self, number: u64) {
        let task = hold(&self.0).as_mut().and_then(|running| running.remove(&number));
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Aborts all tasks and begins no more. They can be awaited.
    pub(super) fn stop(&self) -> Vec<Task<()>> {
        let stopped: Vec<_> = hold(&self.0).take().unwrap_or_default().into_values().collect();
        stopped.iter().for_each(Task::abort);
        stopped
    }
}

/// Removes a task's number when the task ends, however it ends.
struct Forget {
    tasks: Arc<Tasks>,
    number: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let ended = hold(&self.tasks.0).as_mut().and_then(|running| running.remove(&self.number));
        // Dropped without the lock: what a world does when a task's handle goes is its own business.
        drop(ended);
    }
}

/// Stops the tasks when it is dropped: no call outlives its connection.
pub(super) struct StopOnDrop(pub(super) Arc<Tasks>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
