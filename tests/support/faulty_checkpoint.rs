//! A checkpoint store on a simulated disk that loses power, refuses writes, and lies about whether a write was kept.
//!
//! The disk outlives the store: power loss ends every store that was opened on it, in whatever step it is, and what was
//! not synced by then is gone. It gives the guarantees of `CheckpointStore` and not a bit more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use quorate::error::{Error, Result};
use quorate::storage::CheckpointStore;
use quorate::storage::checkpoint::{CheckpointRow, Rows};

/// Rows between two steps at which power may fail.
const CHUNK: usize = 4;

/// A whole checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its meta bytes.
    pub meta: Vec<u8>,
    /// Its rows.
    pub rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Checkpoint {
    /// Sets or removes one row.
    pub fn apply(&mut self, CheckpointRow { table, key, row }: CheckpointRow) {
        match row {
            Some(row) => drop(self.rows.insert((table, key), row)),
            None => drop(self.rows.remove(&(table, key))),
        }
    }
}

/// What the next `write` or `install` meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was kept: a full disk.
    Refused,
    /// It fails, and all of it was kept: the error came after the last sync.
    KeptAnyway,
}

/// The disk of one machine's checkpoint.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    synced: Option<Checkpoint>,
    power_losses: u64,
    fault: Option<Fault>,
}

impl FaultyDisk {
    /// Opens the store. Stores that were opened before a power loss fail from then on.
    pub fn open(&self) -> FaultyCheckpoint {
        FaultyCheckpoint { disk: self.clone(), boot: self.platter().power_losses, turn: tokio::sync::Mutex::default() }
    }

    /// Ends every open store and drops what is not synced.
    pub fn lose_power(&self) {
        self.platter().power_losses += 1;
    }

    /// The next `write` or `install` meets this fault.
    pub fn fail_next(&self, fault: Fault) {
        self.platter().fault = Some(fault);
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no code panics while it holds the platter")
    }
}

/// See the module.
pub struct FaultyCheckpoint {
    disk: FaultyDisk,
    /// Power losses before this store was opened.
    boot: u64,
    turn: tokio::sync::Mutex<()>,
}

impl FaultyCheckpoint {
    /// The platter, as long as there is power.
    fn powered(&self) -> Result<MutexGuard<'_, Platter>> {
        let platter = self.disk.platter();
        if platter.power_losses == self.boot { Ok(platter) } else { Err(Error::Operator("the power is off".into())) }
    }

    async fn replace(&self, mut next: Checkpoint, meta: Vec<u8>, rows: &dyn Rows) -> Result<()> {
        let mut collected = Vec::new();
        rows.each(&mut |row| collected.push(row));
        // Nothing of `next` is on the platter until the last step: that is the unsynced part.
        for chunk in collected.chunks(CHUNK) {
            tokio::task::yield_now().await;
            drop(self.powered()?);
            chunk.iter().cloned().for_each(|row| next.apply(row));
        }
        next.meta = meta;
        tokio::task::yield_now().await;
        let fault = self.sync(next)?;
        // Power may fail after the sync and before the caller hears of it.
        tokio::task::yield_now().await;
        drop(self.powered()?);
        fault.map_or(Ok(()), |_| Err(Error::Operator("the disk failed".into())))
    }

    fn sync(&self, next: Checkpoint) -> Result<Option<Fault>> {
        let mut platter = self.powered()?;
        let fault = platter.fault.take();
        if fault != Some(Fault::Refused) {
            platter.synced = Some(next);
        }
        Ok(fault)
    }
}

#[async_trait]
impl CheckpointStore for FaultyCheckpoint {
    async fn load(&self, mut sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>> {
        let _turn = self.turn.lock().await;
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
