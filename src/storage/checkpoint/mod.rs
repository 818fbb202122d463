//! The checkpoint: the rows of a state, kept so that a restart does not replay the whole log.
//!
//! A checkpoint is a set of rows (table, key, bytes) and one piece of meta bytes that says which state it is: applied
//! id, membership, digest. It changes in two ways, both atomic and both synced when they return:
//!
//! - [`CheckpointStore::write`] brings it forward by the rows that changed. Its cost follows the change, not the size.
//! - [`CheckpointStore::install`] replaces all of it, with what a leader sent or a backup held.
//!
//! Rows and meta move together: there is no instant at which a power loss leaves the rows of one state under the meta of
//! another, since the log behind a checkpoint is purged on the meta's word.
//!
//! An operation that returned an error has happened wholly or not at all, and the caller cannot tell which. So the caller
//! keeps the changes, adds what has changed since, and writes again: rows are absolute, writing them twice is harmless.
//!
//! What this module never does: look inside a row or the meta. Their own checksums belong to the layer above.
//!
//! Start with [`CheckpointStore`]; [`FjallCheckpoint`] is the product's, [`MemoryCheckpoint`] is `-dev`'s. The contract
//! is a test that any store must pass: `tests/checkpoint.rs`.

mod fjall;
mod memory;

use async_trait::async_trait;

use crate::error::Result;

pub use fjall::FjallCheckpoint;
pub use memory::MemoryCheckpoint;

/// One row: `row: None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Which table.
    pub table: u8,
    /// Key within the table; at most [`MAX_CHECKPOINT_KEY`](crate::limits::MAX_CHECKPOINT_KEY) bytes, possibly none.
    pub key: Vec<u8>,
    /// Bytes, or None if removed.
    pub row: Option<Vec<u8>>,
}

/// Rows that can be visited where blocking is allowed: an immutable state, or the difference of two.
pub trait Rows: Send + Sync {
    /// Visits each row once, in ascending (table, key) order.
    fn each(&self, visit: &mut dyn FnMut(CheckpointRow));
}

/// Rows that were collected before, already in order.
impl Rows for Vec<CheckpointRow> {
    fn each(&self, visit: &mut dyn FnMut(CheckpointRow)) {
        self.iter().cloned().for_each(visit);
    }
}

/// Where checkpoints live. One call at a time: a second one waits for the first.
///
/// # Errors
/// Every method: [`Error::Operator`](crate::error::Error::Operator) if the disk fails or what it holds is damaged, with
/// the directory and the cure; [`Error::Bug`](crate::error::Error::Bug) if rows come out of order or over their bounds.
/// After an error the store is still usable: the next call opens what it needs again.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Reads the current checkpoint: each row goes to `sink`, in ascending (table, key) order and never as a removal;
    /// returns its meta bytes, or None if there is none yet. After an error, what `sink` was given is to be dropped.
    async fn load(&self, sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>>;
    /// Applies changed rows and the new meta to the current checkpoint, atomically, synced when it returns. Without a
    /// checkpoint, the changes become the first.
    async fn write(&self, meta: Vec<u8>, changes: Box<dyn Rows>) -> Result<()>;
    /// Replaces the checkpoint by a whole new one, atomically, synced when it returns. The old one stays current, and on
    /// disk beside the new one, until then.
    async fn install(&self, meta: Vec<u8>, rows: Box<dyn Rows>) -> Result<()>;
}
