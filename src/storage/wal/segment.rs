//! Segment files: their names, how one is made ready before it is needed, and what becomes of it afterwards.
//!
//! ```text
//!   new.tmp ──zeros, sync──▶ new header, sync ──rename, sync dir──▶ N.wal ──purge──▶ N.spare ──┐
//!                                  ▲                                                           │
//!                                  └───────────────── sync dir ────────────────────────────────┘
//! ```
//! A crash anywhere leaves one of these names. `N.wal` always has the header of segment N: its header is synced before the
//! name is given, and the name is taken away for good before the header is overwritten. What the other names hold never
//! matters. A file whose preparation fails is removed, never tried again: after a failed sync nobody knows what it holds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::frame::{FIRST_FRAME, SegmentHeader};
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{File, OpenMode, World};

/// A file that is being filled with zeros.
const NEW: &str = "new.tmp";

/// What a name in the directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A segment.
    Segment(u64),
    /// A file that was one and may become another.
    Spare(u64),
    /// Left behind by a crash.
    New,
}

impl Name {
    /// What the name says; `None` if it is not ours.
    pub(super) fn parse(name: &str) -> Option<Name> {
        if name == NEW {
            return Some(Name::New);
        }
        let (stem, kind) = name.split_once('.')?;
        let sequence = stem.parse().ok()?;
        let name_is = match kind {
            "wal" => Name::Segment(sequence),
            "spare" => Name::Spare(sequence),
            _ => return None,
        };
        (name_is.to_string() == name).then_some(name_is)
    }

    pub(super) fn in_dir(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Segment(sequence) => write!(f, "{sequence:012}.wal"),
            Name::Spare(sequence) => write!(f, "{sequence:012}.spare"),
            Name::New => f.write_str(NEW),
        }
    }
}

/// A segment that can be written.
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
}

/// What the writer asks of the keeper.
pub(super) enum Order {
    /// Make this segment ready.
    Prepare(u64, oneshot::Sender<Segment>),
    /// Nothing in this segment is needed any more.
    Retire(u64),
}

/// Makes segments ready and puts them away, beside the writer.
pub(super) struct Keeper {
    world: World,
    dir: PathBuf,
    capacity: u64,
    spares: Vec<u64>,
}

impl Keeper {
    /// A keeper of a directory with these spare files.
    pub(super) fn new(world: World, dir: PathBuf, capacity: u64, spares: Vec<u64>) -> Self {
        Keeper { world, dir, capacity, spares }
    }

    /// Does what is ordered until nobody can order any more. While no segment can be made ready it says so and tries again
    /// and again; what is retired meanwhile may be the room that it needs.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, shared: Arc<Shared>) {
        let mut wanted: Option<(u64, oneshot::Sender<Segment>)> = None;
        loop {
            let order = match &wanted {
                None => Some(orders.recv().await),
                Some(_) => self.world.timeout(limits::FULL_DISK_RETRY, orders.recv()).await,
            };
            match order {
                Some(None) => return,
                Some(Some(Order::Retire(sequence))) => self.retire(sequence).await,
                Some(Some(Order::Prepare(sequence, reply))) => wanted = Some((sequence, reply)),
                None => {}
            }
            let Some((sequence, reply)) = wanted.take() else { continue };
            match self.prepare(sequence).await {
                Ok(segment) => {
                    shared.set_full(None);
                    // The writer may have failed meanwhile; the segment is found unused at the next start.
                    let _ = reply.send(segment);
                }
                Err(error) => {
                    shared.set_full(Some(error));
                    wanted = Some((sequence, reply));
                }
            }
        }
    }

    /// Makes segment `sequence` ready: a file of full size whose blocks have all been written once, under its name, durable.
    ///
    /// # Errors
    /// With the sentence that clients are shown while this is so.
    pub(super) async fn prepare(&mut self, sequence: u64) -> Result<Segment> {
        self.try_prepare(sequence).await.map_err(|error| {
            let dir = self.dir.display();
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Operator(format!(
                    "the disk of {dir} is full: the log needs {} bytes for its next segment. Free some space; writes go on \
                     by themselves",
                    self.capacity
                )),
                _ => Error::Operator(format!(
                    "the log's next segment cannot be prepared in {dir}: {error}. Writes go on by themselves once it can"
                )),
            }
        })
    }

    async fn try_prepare(&mut self, sequence: u64) -> io::Result<Segment> {
        let spare = self.take_spare().await?;
        let from = spare.unwrap_or_else(|| Name::New.in_dir(&self.dir));
        let result = self.turn_into(&from, sequence).await;
        if result.is_err() {
            // Whichever name it has by now. The next attempt begins with another file.
            let _ = self.world.disk.remove(&from).await;
            let _ = self.world.disk.remove(&Name::Segment(sequence).in_dir(&self.dir)).await;
        }
        result
    }

    /// A spare file of the right size; others are removed.
    async fn take_spare(&mut self) -> io::Result<Option<PathBuf>> {
        while let Some(spare) = self.spares.pop() {
            let path = Name::Spare(spare).in_dir(&self.dir);
            let file = self.world.disk.open(&path, OpenMode::Read).await?;
            if file.size().await? == self.capacity {
                // Its old name may still be what a power loss would bring back: not with a new header inside.
                self.world.disk.sync_dir(&self.dir).await?;
                return Ok(Some(path));
            }
            self.world.disk.remove(&path).await?;
        }
        Ok(None)
    }

    /// Turns a spare file, or a new one, into a segment.
    async fn turn_into(&self, from: &Path, sequence: u64) -> io::Result<Segment> {
        let disk = &self.world.disk;
        let file =
            if from.ends_with(NEW) { self.create(from).await? } else { disk.open(from, OpenMode::Write).await? };
        let header = SegmentHeader { sequence, salt: self.world.entropy.u64(), capacity: self.capacity };
        file.write_and_sync(0, header.encode()).await?;
        let path = Name::Segment(sequence).in_dir(&self.dir);
        disk.rename(from, &path).await?;
        disk.sync_dir(&self.dir).await?;
        Ok(Segment { header, file, path })
    }

    /// Creates a file of full size. Small steps, each synced, so that a batch that is written meanwhile never waits behind
    /// megabytes of zeros.
    async fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = &self.world.disk;
        let file = match disk.open(path, OpenMode::Create).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(path).await?;
                disk.open(path, OpenMode::Create).await?
            }
            other => other?,
        };
        let mut zeros = Vec::new();
        let mut at = 0;
        while at < self.capacity {
            let step = (self.capacity - at).min(limits::PREPARE_STEP_BYTES as u64);
            zeros.resize(usize::try_from(step).map_err(io::Error::other)?, 0);
            zeros = file.write_and_sync(at, zeros).await?;
            at += step;
        }
        Ok(file)
    }

    /// Puts a segment away for reuse, or removes it if enough are kept. Neither needs to be durable: recovery ignores
    /// segments that are not needed, and a spare's new name is synced before the file is used.
    pub(super) async fn retire(&mut self, sequence: u64) {
        let from = Name::Segment(sequence).in_dir(&self.dir);
        let kept = self.spares.len() < limits::SPARE_SEGMENTS;
        let result = if kept {
            self.world.disk.rename(&from, &Name::Spare(sequence).in_dir(&self.dir)).await
        } else {
            self.world.disk.remove(&from).await
        };
        match result {
            Ok(()) if kept => {
                self.spares.retain(|spare| *spare != sequence);
                self.spares.push(sequence);
            }
            Ok(()) => {}
            // It stays until the next start, which tries again. Nothing depends on it.
            Err(error) => tracing::warn!(segment = %from.display(), %error, "a log segment could not be put away"),
        }
    }
}

/// The smallest segment that makes sense: its header, and room for frames.
pub(super) const MIN_CAPACITY: u64 = FIRST_FRAME + 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        for name in [Name::Segment(1), Name::Segment(u64::MAX), Name::Spare(77), Name::New] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in
            ["lost+found", "1.wal", "000000000001.wal~", "000000000001", "-00000000001.wal", "+00000000001.wal"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
