//! Files, with the promises that a log may build on and no others.
//!
//! A write is kept only once [`File::sync`] has returned; a created, renamed or removed name only once
//! [`Disk::sync_dir`] has. After a failed sync the unsynced bytes are gone and must never be believed, also if they can
//! still be read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; it is not written.
    Read,
    /// It must exist; it is read and written.
    Write,
    /// It must not exist; it is read and written. Its name is kept once its directory is synced.
    Create,
}

/// An open file. Dropping it closes it.
#[async_trait]
pub trait File: Send + Sync {
    /// Its size in bytes.
    async fn size(&self) -> io::Result<u64>;
    /// Reads `len` bytes at `offset`; fewer only where the file ends.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Writes all the bytes at `offset`, extending the file if it must.
    async fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()>;
    /// Makes every write that has returned survive a power loss (`fdatasync`).
    async fn sync(&self) -> io::Result<()>;
    /// [`File::write_at`], then [`File::sync`], in one hop to the disk. Hands the buffer back for reuse.
    async fn write_and_sync(&self, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// An exclusive lock on a file; dropping it, or the end of the process, releases it.
pub trait Lock: Send + Sync {}

/// The files of one machine.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Opens a file.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// The names in a directory, in ascending order.
    async fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and its parents; it may exist.
    async fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file over another or a new name.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names of a directory survive a power loss.
    async fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file, which is created if it is missing. `WouldBlock` if another process holds it.
    async fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}
