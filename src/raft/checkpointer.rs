//! Checkpoints: when they are taken, what goes into them, and what happens if the disk refuses.
//!
//! A checkpoint writes what changed since the one before, found by comparing two immutable states: shared subtrees are
//! skipped, so the cost follows the change and the write path keeps no account of it. openraft purges the log behind a
//! checkpoint only after it is synced.
//!
//! openraft takes a failed checkpoint for the end of the node. A full disk is not that: a checkpoint is tried again until
//! it succeeds, and meanwhile the log grows until its own bound refuses writes ([`crate::limits::MAX_LOG_BYTES`]).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::Mutex;

use super::types::{LogId, OpenRaft, SnapshotMeta, open_meta, seal_meta};
use super::view::View;
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{Loader, State, StoredRow};
use crate::storage::Wal;
use crate::storage::checkpoint::{CheckpointRow, CheckpointStore, Rows};
use crate::world::World;

/// When checkpoints are due, besides after [`limits::CHECKPOINT_LOG_BYTES`] of the log, and what of the log stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// This long after the last one, if anything was written since.
    pub interval: Duration,
    /// Entries kept behind a checkpoint at most, within [`limits::KEEP_LOG_BYTES`].
    pub trailing: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints { interval: limits::CHECKPOINT_INTERVAL, trailing: u64::MAX }
    }
}

/// Keeps the checkpoint.
pub(super) struct Checkpointer {
    world: World,
    store: Arc<dyn CheckpointStore>,
    /// What the store holds, and has synced.
    stored: ArcSwap<View>,
    /// Makes an install and a checkpoint take turns.
    turn: Mutex<()>,
}

impl Checkpointer {
    /// Opens the store's checkpoint, or starts with an empty state.
    ///
    /// # Errors
    /// [`Error::Operator`] if the checkpoint cannot be read, or what it holds is not what its digest says.
    pub(super) async fn open(world: &World, store: Arc<dyn CheckpointStore>) -> Result<Self> {
        let (send, mut loaded) = tokio::sync::mpsc::unbounded_channel();
        let mut loading = Loading { loader: Some(State::loader()), failed: None, send };
        let meta = store.load(Box::new(move |row| loading.row(row))).await?;
        let stored = match meta {
            None => View::default(),
            Some(meta) => {
                let meta = open_meta(&meta).map_err(|e| Error::Operator(e.to_string()))?;
                let state =
                    loaded.recv().await.ok_or_else(|| Error::Bug("the checkpoint's rows were lost".into()))??;
                View { state, applied: meta.last_log_id, membership: meta.last_membership }
            }
        };
        Ok(Checkpointer { world: world.clone(), store, stored: ArcSwap::from_pointee(stored), turn: Mutex::new(()) })
    }

    /// What the store holds, and has synced: what survives if the process ends now.
    pub(super) fn stored(&self) -> Arc<View> {
        self.stored.load_full()
    }

    /// Makes the store hold `view`, or something newer; returns what it holds. Does not return before it is synced.
    pub(super) async fn checkpoint(&self, view: &View) -> Arc<View> {
        let _turn = self.turn.lock().await;
        let stored = self.stored();
        // A snapshot may have been installed since this view was taken: never replace newer by older.
        if stored.applied < view.applied {
            let rows = Changes { older: stored.state.clone(), newer: view.state.clone() };
            self.persist(view, |meta| self.store.write(meta, Box::new(rows.clone()))).await;
            drop((rows, stored));
            self.replace(view).await;
        }
        self.stored()
    }

    /// Makes the store hold exactly `view`. Does not return before it is synced.
    pub(super) async fn install(&self, view: &View) {
        let _turn = self.turn.lock().await;
        let rows = Everything(view.state.clone());
        self.persist(view, |meta| self.store.install(meta, Box::new(rows.clone()))).await;
        drop(rows);
        self.replace(view).await;
    }

    async fn replace(&self, view: &View) {
        let older = self.stored.swap(Arc::new(view.clone()));
        self.free(older).await;
    }

    /// Frees what only an older state still holds: every row that was changed since, or all of them. That takes too long
    /// for a thread that others wait for.
    pub(super) async fn free(&self, older: impl Send + 'static) {
        // It fails only while the process ends.
        let _ = self.world.blocking(move || drop(older)).await;
    }

    /// Tries until it succeeds.
    async fn persist<F>(&self, view: &View, attempt: impl Fn(Vec<u8>) -> F)
    where
        F: Future<Output = Result<()>>,
    {
        let meta = SnapshotMeta { last_log_id: view.applied, last_membership: view.membership.clone() };
        let mut failures = 0u64;
        loop {
            // Sealing fails only for a membership of megabytes, which no cluster has; it is retried like the rest.
            let result = match seal_meta(&meta) {
                Ok(meta) => attempt(meta).await,
                Err(e) => Err(Error::Bug(e.to_string())),
            };
            match result {
                Ok(()) if failures > 0 => return tracing::info!(failures, "checkpoint written after all"),
                Ok(()) => return,
                // Once a minute is enough to be seen and not enough to fill a disk that is already full.
                Err(error) if failures.is_multiple_of(60) => tracing::error!(%error, "checkpoint failed; trying again"),
                Err(_) => {}
            }
            failures += 1;
            self.world.sleep(limits::CHECKPOINT_RETRY).await;
        }
    }
}

/// Takes checkpoints as the log grows, and lets go of the log behind them. Runs until the node stops.
///
/// What is due is read off the log and the newest checkpoint each time, never counted: a count would begin anew with each
/// restart, and a server that restarts often would never take a checkpoint.
pub(super) async fn run(world: World, raft: OpenRaft, wal: Wal, due: Checkpoints) {
    let mut asked = world.clock.now();
    let mut purged: Option<LogId> = None;
    loop {
        world.sleep(limits::CHECKPOINT_POLL).await;
        let (snapshot, applied) = {
            let metrics = raft.data_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot, metrics.last_applied)
        };
        let large = wal.index_keeping(limits::CHECKPOINT_LOG_BYTES) > snapshot.map(|log_id| log_id.index);
        let old = world.clock.now().since(asked) >= due.interval;
        if applied > snapshot && (large || old) {
            asked = world.clock.now();
            // openraft ignores this while a checkpoint is being taken.
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        if snapshot > purged {
            purged = snapshot;
            let newest = applied.map_or(0, |log_id| log_id.index);
            let spare = wal.index_keeping(limits::KEEP_LOG_BYTES).max(newest.checked_sub(due.trailing));
            let upto = snapshot.map(|log_id| log_id.index).min(spare);
            if let Some(upto) = upto
                && raft.trigger().purge_log(upto).await.is_err()
            {
                return;
            }
        }
    }
}

/// Collects the rows of a checkpoint into a state. The store drops it after the last row; that is when the state is
/// handed over.
struct Loading {
    loader: Option<Loader>,
    failed: Option<Error>,
    send: tokio::sync::mpsc::UnboundedSender<Result<State>>,
}

impl Loading {
    fn row(&mut self, row: CheckpointRow) {
        if let (None, Some(loader)) = (&self.failed, &mut self.loader) {
            let row = StoredRow { table: row.table, key: row.key, row: row.row };
            self.failed = loader.row(row).err();
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let state = match (self.failed.take(), self.loader.take()) {
            (Some(error), _) => Err(error),
            (None, Some(loader)) => loader.finish(),
            (None, None) => return,
        };
        // Nobody listens if the store failed to load.
        let _ = self.send.send(state);
    }
}

fn checkpoint_row(row: StoredRow) -> CheckpointRow {
    CheckpointRow { table: row.table, key: row.key, row: row.row }
}

#[derive(Clone)]
struct Changes {
    older: State,
    newer: State,
}

impl Rows for Changes {
    fn each(&self, visit: &mut dyn FnMut(CheckpointRow)) {
        self.newer.changes_since(&self.older, &mut |row| visit(checkpoint_row(row)));
    }
}

#[derive(Clone)]
struct Everything(State);

impl Rows for Everything {
    fn each(&self, visit: &mut dyn FnMut(CheckpointRow)) {
        self.0.rows(&mut |row| visit(checkpoint_row(row)));
    }
}
