//! What survives: the write-ahead log on a [`world::Disk`](crate::world::Disk), and the checkpoint.
//!
//! The log is the truth; the checkpoint saves replaying all of it. Neither knows what it stores: entries and rows are
//! bytes here. What this module never does: interpret a command, or touch the operating system (fjall's own files aside,
//! which is why it stands behind [`CheckpointStore`]).
//!
//! Start with [`Wal`], then [`CheckpointStore`].

pub mod checkpoint;
mod lock;
pub mod wal;

pub use checkpoint::CheckpointStore;
pub use lock::lock;
pub use wal::Wal;
