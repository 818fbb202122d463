//! A checkpoint in memory, for `-dev`: what ends with the process needs no disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{CheckpointRow, CheckpointStore, Rows};
use crate::error::Result;

/// Keeps the checkpoint as long as itself. Holds a copy of every row, so it doubles the memory of the state.
#[derive(Default)]
pub struct MemoryCheckpoint {
    current: Mutex<Option<Checkpoint>>,
}

#[derive(Default)]
struct Checkpoint {
    meta: Vec<u8>,
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Checkpoint {
    fn apply(&mut self, meta: Vec<u8>, changes: &dyn Rows) {
        changes.each(&mut |CheckpointRow { table, key, row }| match row {
            Some(row) => drop(self.rows.insert((table, key), row)),
            None => drop(self.rows.remove(&(table, key))),
        });
        self.meta = meta;
    }
}

impl MemoryCheckpoint {
    /// A store without a checkpoint.
    pub fn new() -> Self {
        Self::default()
    }

    fn current(&self) -> MutexGuard<'_, Option<Checkpoint>> {
        // A caller's panic cannot leave half a checkpoint here: `update` takes it out while it works on it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, base: impl FnOnce(&mut Option<Checkpoint>) -> Checkpoint, meta: Vec<u8>, rows: &dyn Rows) {
        let mut current = self.current();
        let mut next = base(&mut current);
        next.apply(meta, rows);
        *current = Some(next);
    }
}

#[async_trait]
impl CheckpointStore for MemoryCheckpoint {
    async fn load(&self, mut sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>> {
        let current = self.current();
        let Some(Checkpoint { meta, rows }) = current.as_ref() else { return Ok(None) };
        for ((table, key), row) in rows {
            sink(CheckpointRow { table: *table, key: key.clone(), row: Some(row.clone()) });
        }
        Ok(Some(meta.clone()))
    }

    async fn write(&self, meta: Vec<u8>, changes: Box<dyn Rows>) -> Result<()> {
        self.update(|current| current.take().unwrap_or_default(), meta, changes.as_ref());
        Ok(())
    }

    async fn install(&self, meta: Vec<u8>, rows: Box<dyn Rows>) -> Result<()> {
        self.update(|_| Checkpoint::default(), meta, rows.as_ref());
        Ok(())
    }
}
