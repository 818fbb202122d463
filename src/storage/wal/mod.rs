//! The write-ahead log: entries, the vote, what is purged and what is committed, kept through any crash.
//!
//! Everything is in memory and on disk; reads never touch the disk. A change is visible at once and its callback is
//! called when it is durable, in the order of the calls. What it never does: interpret an entry, retry a failed sync, or
//! guess. If it cannot prove that the bytes it finds are the log that was synced, it refuses to start and says why.
//!
//! Start with [`Wal`]; then `writer` (one frame at a time), `recover` (the way back), `segment` (files before and after).
//! `frame` and `record` are the format; `tail` is the log in memory, `ledger` what is on disk, `shared` joins callers
//! and writer.
//!
//! # On disk
//! ```text
//! 000000000007.wal           000000000008.wal           000000000009.wal      000000000003.spare
//! ┌────────┬───┬───┬───┬─┐   ┌────────┬───┬───┬──────┐   ┌────────┬────────┐   a segment that was
//! │ header │ 41│ 42│ 43│ │   │ header │ 44│ 45│ zeros│   │ header │  zeros │   purged and waits to
//! └────────┴───┴───┴───┴─┘   └────────┴───┴───┴──────┘   └────────┴────────┘   become one again
//!        a full segment            being written             ready for use
//!
//! segment header, a block of 4096 bytes
//!   0 "quor-wal"   8 crc of what follows   12 format version   16 sequence   24 salt   32 size of the file
//!
//! frame, one batch, at a multiple of 64
//!   0 "qwbt"   4 crc of what follows   8 salt   16 own offset   24 batch number   32 body length   36 body crc   40 body
//!
//! body, records one after the other
//!   1 entry: kind, term, index, length, bytes      2 vote: term, candidate, committed
//!   3 truncate: index                                      4 purge: upto, oldest segment that is needed
//!   5 committed: upto
//! ```
//! Numbers are little-endian, checksums CRC-32C. The first frame of a segment begins with vote, purge and committed as they
//! were then: so a segment is needed for its entries alone, and goes when they are purged or truncated. Files have their
//! full size, and all blocks are written once, before the first frame: `fdatasync` then has no metadata to write.
//!
//! # Why what recovery finds is right
//! The fault model: a crash at any point; a power loss that keeps any subset of the sectors and names that were not synced;
//! a sync that fails and loses what it should have kept; bytes that rot. A sector is written whole or not at all.
//!
//! 1. *A valid frame is one that we wrote there.* It has the salt of its segment, drawn when the file became this segment,
//!    and its own offset; a former life's frames, a write that went astray and a client's value have not (`frame`).
//! 2. *Frame N on disk says that all frames before N were synced.* The writer writes N after N-1's sync has returned; a
//!    restart ends with a successful sync of the last frame that it found, before anything is written behind it.
//!    A failed sync ends the log.
//! 3. *So every frame but the last that was begun must be there.* Recovery reads from the oldest segment that is needed on.
//!    If a frame is not valid and anything shows that a later one was begun (a frame header behind it, in this segment or
//!    the next; a number that is skipped; a segment that is missing), synced bytes are lost: it refuses.
//!    Otherwise the frame is the last, its sync had not returned or had failed, nobody was told that it is durable, and it is
//!    cut.
//! 4. *A last frame that is valid may stay although its sync never returned*: nobody was told that it was lost either. But
//!    it may be in the page cache alone, so it is written again and synced before it is trusted.
//! 5. *What is cut does not come back.* An empty header is synced over it; a segment in which only the cut frame stood is
//!    made ready again under a new salt.
//! 6. *Nothing needed is ever removed.* A purge record names the oldest segment that is needed; older ones go after it is
//!    synced, and recovery, which reads the newest record first, does not ask for them.
//!
//! The limit of this: rot in exactly the last synced frame, before another is begun behind it, looks like a torn write. No
//! single copy can tell; the other servers' copies can, and raft does not elect a node whose log is behind.
//!
//! # When the disk is full
//! The next segment is ready before this one is full. If it cannot be made, [`Wal::writable`] says so: client writes are
//! refused, what was admitted still has room, and a batch that finds none waits (its callback with it) until there is.

mod frame;
mod ledger;
mod record;
mod recover;
mod segment;
mod shared;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use self::ledger::Ledger;
use self::record::Record;
use self::segment::{Keeper, MIN_CAPACITY};
use self::shared::Shared;
use self::tail::Tail;
use self::writer::Writer;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{Task, World};

/// Where an entry stands: raft's log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Index, from 0.
    pub index: u64,
}

/// Raft's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The node voted for.
    pub candidate: u128,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// What an entry's bytes are. The log only keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A new leader's first entry.
    Blank,
    /// A sealed `state::Entry`.
    Command,
    /// A sealed membership.
    Membership,
}

/// One raft entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its log id.
    pub at: Position,
    /// What the bytes are.
    pub kind: EntryKind,
    /// The payload. Cloning an entry shares it.
    pub bytes: Bytes,
}

/// Called once the operation is durable, or has failed for good. It is called by the writer, or by the caller itself when
/// the log has failed before: it must be short, and may call the log.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// The write-ahead log. Cloning it gives another handle; when the last one is dropped, what is queued is still written.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    segment_bytes: usize,
    max_entry: usize,
    writer: Mutex<Option<Task<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Wal {
    /// Whether `dir` holds a log. Once [`Wal::open`] has returned it does, also after a power loss.
    ///
    /// # Errors
    /// [`Error::Operator`] if the directory cannot be read.
    pub async fn exists(world: &World, dir: &Path) -> Result<bool> {
        match world.disk.list(dir).await {
            Ok(names) => {
                Ok(names.iter().any(|name| matches!(segment::Name::parse(name), Some(segment::Name::Segment(_)))))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("the log's directory {}", dir.display()), &error)),
        }
    }

    /// Recovers the log in `dir` (created if missing) and starts its writer task on the world. New segments get this size,
    /// which may differ from run to run. Nobody else may have this directory open: see [`lock`](super::lock()).
    ///
    /// # Errors
    /// [`Error::Operator`] if the directory cannot be read or written, or what it holds is damaged.
    pub async fn open(world: &World, dir: &Path, segment_bytes: usize) -> Result<Wal> {
        let capacity = segment_bytes.clamp(MIN_CAPACITY as usize, limits::MAX_SEGMENT_BYTES) as u64;
        let doing = |error| Error::io(format!("the log's directory {}", dir.display()), &error);
        world.disk.create_dir_all(dir).await.map_err(doing)?;
        if let Some(parent) = dir.parent().filter(|parent| *parent != Path::new("")) {
            world.disk.sync_dir(parent).await.map_err(doing)?;
        }
        let found = recover::recover(world, dir).await?;
        let mut keeper = Keeper::new(world.clone(), dir.into(), capacity, found.spares);
        for sequence in found.unneeded {
            keeper.retire(sequence).await;
        }
        let (orders, ordered) = mpsc::unbounded_channel();
        let (shared, writer) = match found.log {
            Some(log) => {
                let shared = Arc::new(Shared::new(log.tail));
                let writer = Writer::start(shared.clone(), log.ledger, log.segment, log.end, log.batch, orders).await?;
                (shared, writer)
            }
            None => {
                let segment = keeper.prepare(1).await?;
                let mut ledger = Ledger::default();
                ledger.begin(1);
                let shared = Arc::new(Shared::new(Tail::default()));
                let writer = Writer::start(shared.clone(), ledger, segment, frame::FIRST_FRAME, 1, orders).await?;
                (shared, writer)
            }
        };
        let keeper = world.spawn(keeper.run(ordered, shared.clone()));
        let writer = world.spawn(async move {
            writer.run().await;
            // It ends because nobody orders any more; then the directory is nobody's.
            let _ = keeper.await;
        });
        let max_entry = writer::max_record(capacity);
        let segment_bytes = usize::try_from(capacity).unwrap_or(usize::MAX);
        Ok(Wal { handle: Arc::new(Handle { shared, segment_bytes, max_entry, writer: Mutex::new(Some(writer)) }) })
    }

    /// The size of new segments.
    pub fn segment_bytes(&self) -> usize {
        self.handle.segment_bytes
    }

    /// The saved vote.
    pub fn vote(&self) -> Option<Vote> {
        self.shared().lock().tail.vote
    }

    /// The last entry, or else the last purged one.
    pub fn last(&self) -> Option<Position> {
        self.shared().lock().tail.last()
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<Position> {
        self.shared().lock().tail.purged
    }

    /// The last entry known to be committed. After a restart it may be an earlier one than before.
    pub fn committed(&self) -> Option<Position> {
        self.shared().lock().tail.committed
    }

    /// Entries with start <= index < end that are in the log, ascending (memory; unflushed ones included).
    pub fn entries(&self, start: u64, end: u64) -> Vec<LogEntry> {
        self.shared().lock().tail.range(start, end)
    }

    /// Appends; readable at once, `done` when durable. The entries may become durable one by one, in order. They follow the
    /// last one, purged or not; the first entry ever may have any index.
    ///
    /// `done` gets [`Error::TooLarge`] for an entry that fits no segment, and nothing is appended; [`Error::Bug`] for an
    /// entry that does not follow, which ends the log.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) {
        let largest = entries.iter().map(|entry| tail::weight(entry) as usize).max().unwrap_or(0);
        if largest > self.handle.max_entry {
            let limit = self.handle.max_entry;
            return done(Err(Error::TooLarge(format!("a log entry of {largest} bytes: the limit is {limit}"))));
        }
        self.shared().change(entries.into_iter().map(Record::Entry), done);
    }

    /// Saves the vote.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        self.shared().change([Record::Vote(vote)], done);
    }

    /// Rides along with the next batch; never synced for its own sake. `None` says nothing and is ignored.
    pub fn save_committed(&self, committed: Option<Position>) {
        if committed.is_some() {
            self.shared().lock().tail.committed = committed;
        }
    }

    /// Removes entries with index > `index` (all if None).
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        self.shared().change([Record::Truncate(index)], done);
    }

    /// Forgets entries up to and including this one; frees segments behind it. It may lie beyond the last entry (a snapshot
    /// was installed): then the log is empty and goes on behind it. An earlier purge than the last one changes nothing.
    pub fn purge(&self, upto: Position, done: Done) {
        self.shared().change([Record::Purge { upto: Some(upto), oldest: 0 }], done);
    }

    /// Bytes of entries in the log: their payloads, and 38 bytes for each.
    pub fn bytes(&self) -> u64 {
        self.shared().lock().tail.bytes()
    }

    /// Bytes of entries appended since the log was opened (for the checkpoint's trigger), counted as in [`Wal::bytes`].
    pub fn appended_bytes(&self) -> u64 {
        self.shared().lock().appended
    }

    /// Where to purge to keep at most `bytes` bytes: the lowest index above which the entries hold no more than that.
    /// `None` if all entries together hold no more.
    pub fn index_keeping(&self, bytes: u64) -> Option<u64> {
        self.shared().lock().tail.index_keeping(bytes)
    }

    /// `Err` while client writes must be refused: no reserved segment (full disk), with the sentence to show. Also when the
    /// log has failed.
    pub fn writable(&self) -> Result<()> {
        let state = self.shared().lock();
        state.failure.clone().or_else(|| state.full.clone()).map_or(Ok(()), Err)
    }

    /// Pends until the log has failed: not every failure meets somebody who waits for a write.
    pub async fn failed(&self) -> Error {
        self.shared().failed().await
    }

    /// The failure that ended the log (failed sync...), if any.
    pub fn failure(&self) -> Option<Error> {
        self.shared().lock().failure.clone()
    }

    /// Writes what is queued, takes no more changes, and lets go of the directory. Other handles can still read.
    pub async fn close(&self) {
        self.shared().close();
        let writer = self.handle.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // If it was lost with its world, it is closed as well.
            let _ = writer.await;
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}
