//! What the callers and the writer share: the log in memory, and the queue of what is still to be written.
//!
//! One lock covers both, so a change is in memory and in the queue at the same moment, and the disk sees changes in the
//! order of the calls. The lock is held for memory work only, never across an await or a callback.

use std::collections::VecDeque;

use super::record::Record;
use super::tail::{Gap, Tail, weight};
use super::{Done, Position};
use crate::error::{Error, Result};
use crate::sync::{Mutex, MutexGuard, Notify, PoisonError};

/// A record that is still to be written, and who waits for it.
struct Item {
    record: Record,
    done: Option<Done>,
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) committed: Option<Position>,
    /// Who waits for them, in order.
    pub(super) dones: Vec<Done>,
}

/// See the module's documentation.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer, its only listener: something is queued, the log is closing, or the disk is
    /// full.
    wake: Notify,
    /// Wakes all who look whether the log has failed.
    failed: Notify,
}

/// Behind the lock.
pub(super) struct State {
    pub(super) tail: Tail,
    pub(super) appended: u64,
    pub(super) failure: Option<Error>,
    pub(super) full: Option<Error>,
    /// Entries here are in `tail` too, and share their bytes: what bounds the log in memory bounds the queue.
    queue: VecDeque<Item>,
    closing: bool,
}

impl Shared {
    /// A log as it was recovered.
    pub(super) fn new(tail: Tail) -> Self {
        let state = State { tail, appended: 0, failure: None, full: None, queue: VecDeque::new(), closing: false };
        Shared { state: Mutex::new(state), wake: Notify::new(), failed: Notify::new() }
    }

    /// The state. A panic elsewhere cannot leave it half changed, so poisoning carries no news.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes in memory and queues them; `done` is called after the last of them is durable, or at once if the log
    /// has failed. No changes is a change too: `done` keeps its place in the order.
    pub(super) fn change(&self, records: impl IntoIterator<Item = Record>, done: Done) {
        if let Err((error, done)) = self.try_change(records, done) {
            done(Err(error));
        }
        self.wake.notify_one();
    }

    fn try_change(&self, records: impl IntoIterator<Item = Record>, done: Done) -> Result<(), (Error, Done)> {
        let mut state = self.lock();
        if let Some(error) = state.refusal() {
            return Err((error, done));
        }
        for record in records {
            if let Err(Gap) = state.apply(&record) {
                let error = Error::Bug(format!("an entry was appended out of order: {:?}", state.tail.last()));
                return Err((state.failure.insert(error).clone(), done));
            }
            state.queue.push_back(Item { record, done: None });
        }
        match state.queue.back_mut() {
            // Still ours: whoever queued it put their own callback on it under the same lock.
            Some(item) if item.done.is_none() => item.done = Some(done),
            _ => {
                // Nothing was changed. A purge of nothing says nothing new, and needs no rule of its own.
                let record = Record::Purge { upto: None, oldest: 0 };
                state.queue.push_back(Item { record, done: Some(done) });
            }
        }
        Ok(())
    }

    /// Waits for something to write, and takes what is there, up to `limit` bytes (one larger record is a batch of its
    /// own). `None` once the log is closed and all is written, or it has failed.
    pub(super) async fn next_batch(&self, limit: usize) -> Option<Batch> {
        loop {
            {
                let mut state = self.lock();
                if state.failure.is_some() {
                    return None;
                }
                if let Some(batch) = state.take(limit) {
                    return Some(batch);
                }
                if state.closing {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Ends the log: everything that is queued, and everything later, gets this error.
    pub(super) fn fail(&self, error: &Error) {
        let queue = {
            let mut state = self.lock();
            state.failure.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.queue)
        };
        for done in queue.into_iter().filter_map(|item| item.done) {
            done(Err(error.clone()));
        }
        self.failed.notify_waiters();
    }

    /// Pends until the log has failed.
    pub(super) async fn failed(&self) -> Error {
        loop {
            let failed = self.failed.notified();
            if let Some(error) = &self.lock().failure {
                return error.clone();
            }
            failed.await;
        }
    }

    /// Sets or clears the reason why no new segment is ready.
    pub(super) fn set_full(&self, full: Option<Error>) {
        let mut state = self.lock();
        match (&state.full, &full) {
            (None, Some(error)) => tracing::error!("{error}"),
            (Some(_), None) => tracing::info!("the log has its next segment; writes go on"),
            _ => {}
        }
        state.full = full;
        self.wake.notify_one();
    }

    /// Takes no more changes; what is queued is still written.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Ends when the log is closing and there is no room. For the writer, while it waits for a segment that may never come.
    pub(super) async fn hopeless(&self) {
        loop {
            {
                let state = self.lock();
                if state.closing && state.full.is_some() {
                    return;
                }
            }
            self.wake.notified().await;
        }
    }
}

impl State {
    /// Why no change is taken.
    fn refusal(&self) -> Option<Error> {
        let closed = || self.closing.then(|| Error::Retry("the log is closed: this node is stopping".into()));
        self.failure.clone().or_else(closed)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Gap> {
        if let Record::Entry(entry) = record {
            // The first entry behind a purge must follow it; recovery, which meets older ones, is not so strict.
            let last = self.tail.last();
            if last.is_some_and(|last| last.index.checked_add(1) != Some(entry.at.index)) {
                return Err(Gap);
            }
            self.appended += weight(entry);
        }
        self.tail.apply(record)
    }

    fn take(&mut self, limit: usize) -> Option<Batch> {
        let mut batch = Batch { committed: self.tail.committed, ..Batch::default() };
        let mut size = 0;
        while let Some(item) = self.queue.front() {
            size += item.record.size();
            if size > limit && !batch.records.is_empty() {
                break;
            }
            let item = self.queue.pop_front()?;
            batch.records.push(item.record);
            batch.dones.extend(item.done);
        }
        (!batch.records.is_empty()).then_some(batch)
    }
}
