//! The checkpoint store of a machine: it loses power, refuses writes, and fails after it has kept them.
//!
//! The product keeps its checkpoint in a database that opens files itself and cannot run here, so this stands in for it: it
//! gives the guarantees of `CheckpointStore` and not a bit more. It also notices what no client would for a long time: a
//! checkpoint that is older than the one it replaces, behind which the log may be gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use quorate::error::{Error, Result};
use quorate::raft::checkpoint_index;
use quorate::storage::CheckpointStore;
use quorate::storage::checkpoint::{CheckpointRow, Rows};

use super::hold;
use crate::engine::Time;
use crate::rng::Rng;

/// What a machine keeps of its checkpoint. It outlives the stores that are opened on it.
pub struct Platter(Mutex<Kept>);

struct Kept {
    rng: Rng,
    synced: Option<Checkpoint>,
    /// Stores of an earlier process are dead.
    process: u64,
    /// Of a thousand writes, so many fail; of these, half were kept.
    errors_per_mille: u64,
    /// Checkpoints that were written.
    written: u64,
    /// An older checkpoint replaced a newer one: the indexes of both.
    fell: Option<(u64, u64)>,
}

#[derive(Clone, Default)]
struct Checkpoint {
    meta: Vec<u8>,
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Checkpoint {
    fn apply(&mut self, CheckpointRow { table, key, row }: CheckpointRow) {
        match row {
            Some(row) => drop(self.rows.insert((table, key), row)),
            None => drop(self.rows.remove(&(table, key))),
        }
    }
}

impl Platter {
    /// No checkpoint yet.
    pub fn new(rng: Rng) -> Self {
        Platter(Mutex::new(Kept { rng, synced: None, process: 0, errors_per_mille: 0, written: 0, fell: None }))
    }

    /// Opens the store for the process that runs now.
    pub fn open(self: &Arc<Self>, time: Arc<dyn Time>) -> SimCheckpoint {
        let process = self.kept().process;
        SimCheckpoint { platter: self.clone(), process, time, turn: tokio::sync::Mutex::default() }
    }

    /// The process has ended, with power or without: what was under way is not kept.
    pub fn end_process(&self) {
        self.kept().process += 1;
    }

    /// The machine is lost, and with it its checkpoint.
    pub fn wipe(&self) {
        let mut kept = self.kept();
        kept.synced = None;
        kept.process += 1;
    }

    /// Sets how many of a thousand writes fail.
    pub fn set_errors(&self, per_mille: u64) {
        self.kept().errors_per_mille = per_mille;
    }

    /// Checkpoints that were written.
    pub fn written(&self) -> u64 {
        self.kept().written
    }

    /// The indexes of a checkpoint and of an older one that replaced it, if that ever was: what is durable goes back (R2).
    pub fn fell(&self) -> Option<(u64, u64)> {
        self.kept().fell
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        hold(&self.0)
    }
}

/// See the module.
pub struct SimCheckpoint {
    platter: Arc<Platter>,
    process: u64,
    time: Arc<dyn Time>,
    turn: tokio::sync::Mutex<()>,
}

impl SimCheckpoint {
    /// The platter, as long as this process runs.
    fn powered(&self) -> Result<MutexGuard<'_, Kept>> {
        let kept = self.platter.kept();
        if kept.process == self.process { Ok(kept) } else { Err(Error::Operator("this process has ended".into())) }
    }

    async fn rest(&self, most_millis: u64) -> Result<()> {
        let millis = self.powered()?.rng.below(most_millis);
        self.time.sleep(Duration::from_millis(millis)).await;
        self.powered().map(drop)
    }

    async fn replace(&self, mut next: Checkpoint, meta: Vec<u8>, rows: &dyn Rows) -> Result<()> {
        rows.each(&mut |row| next.apply(row));
        next.meta = meta;
        // Nothing of `next` is kept until the last step: that is the unsynced part.
        self.rest(40).await?;
        let failed = self.sync(next)?;
        // The process may end after the sync and before the caller hears of it.
        self.rest(5).await?;
        if failed { Err(Error::Operator("the disk failed".into())) } else { Ok(()) }
    }

    fn sync(&self, next: Checkpoint) -> Result<bool> {
        let kept = &mut *self.powered()?;
        let failed = kept.errors_per_mille > 0 && kept.rng.chance(kept.errors_per_mille);
        if !failed || kept.rng.chance(500) {
            let index = |checkpoint: &Checkpoint| checkpoint_index(&checkpoint.meta).unwrap_or_default();
            let before = kept.synced.as_ref().map_or(0, index);
            kept.fell = kept.fell.or((index(&next) < before).then_some((before, index(&next))));
            kept.synced = Some(next);
            kept.written += 1;
        }
        Ok(failed)
    }
}

#[async_trait]
impl CheckpointStore for SimCheckpoint {
    async fn load(&self, mut sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>> {
        let _turn = self.turn.lock().await;
        self.rest(10).await?;
        let Some(Checkpoint { meta, rows }) = self.powered()?.synced.clone() else { return Ok(None) };
        for ((table, key), row) in rows {
            sink(CheckpointRow { table, key, row: Some(row) });
        }
        Ok(Some(meta))
    }

    async fn write(&self, meta: Vec<u8>, changes: Box<dyn Rows>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let current = self.powered()?.synced.clone().unwrap_or_default();
        self.replace(current, meta, changes.as_ref()).await
    }

    async fn install(&self, meta: Vec<u8>, rows: Box<dyn Rows>) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.replace(Checkpoint::default(), meta, rows.as_ref()).await
    }
}
