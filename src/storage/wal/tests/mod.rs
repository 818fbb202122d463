//! The log on a disk that fails: scripts for what it does, random crashes against a model, and every offset by hand.

mod crash;
mod damage;
mod disk;
mod golden;
mod space;

use std::path::Path;

use tokio::sync::oneshot;

use self::disk::FaultyDisk;
use super::{Done, EntryKind, LogEntry, Position, Wal};
use crate::error::{Error, Result};

/// Where the log lies.
fn dir() -> &'static Path {
    Path::new("/data/wal")
}

/// Segments of the tests: room for a few dozen batches.
const SEGMENT: usize = 16 * 1024;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn open(disk: &FaultyDisk) -> Result<Wal> {
    Wal::open(&disk.world(), dir(), SEGMENT).await
}

fn position(term: u64, index: u64) -> Position {
    Position { term, index }
}

fn entry(term: u64, index: u64, bytes: impl Into<Vec<u8>>) -> LogEntry {
    LogEntry { at: position(term, index), kind: EntryKind::Command, bytes: bytes.into().into() }
}

/// A callback and where its result arrives.
fn waiter() -> (Done, impl Future<Output = Result<()>>) {
    let (send, receive) = oneshot::channel();
    let done: Done = Box::new(move |result| drop(send.send(result)));
    (done, async { receive.await.unwrap_or(Err(Error::Bug("the callback was dropped".into()))) })
}

async fn append(wal: &Wal, entries: Vec<LogEntry>) -> Result<()> {
    let (done, result) = waiter();
    wal.append(entries, done);
    result.await
}

async fn purge(wal: &Wal, upto: Position) -> Result<()> {
    let (done, result) = waiter();
    wal.purge(upto, done);
    result.await
}

async fn truncate(wal: &Wal, after: Option<u64>) -> Result<()> {
    let (done, result) = waiter();
    wal.truncate_after(after, done);
    result.await
}

/// Gives the background tasks turns enough to finish what they do.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}
