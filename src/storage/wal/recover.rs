//! Recovery: from the bytes in a directory to the log that they are, or to a sentence that says why they are not one.
//!
//! The argument for why the result is right stands in the [module above](super). Nothing here trusts a length, a number or a
//! name before it is checked, and nothing is changed on disk before everything has been read and believed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::frame::{self, ALIGN, FIRST_FRAME, FrameHeader, HeaderFault, SegmentHeader};
use super::ledger::Ledger;
use super::record::Record;
use super::segment::{Name, Segment};
use super::tail::Tail;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{OpenMode, World};

/// What a directory holds.
pub(super) struct Found {
    /// The log; `None` if none was ever begun.
    pub(super) log: Option<Log>,
    /// Segments in which nothing is needed.
    pub(super) unneeded: Vec<u64>,
    /// Files for reuse.
    pub(super) spares: Vec<u64>,
}

/// A log and where to go on writing it.
pub(super) struct Log {
    pub(super) tail: Tail,
    pub(super) ledger: Ledger,
    pub(super) segment: Segment,
    pub(super) end: u64,
    pub(super) batch: u64,
}

/// Reads a directory. All of the log that it finds is durable when this returns.
///
/// # Errors
/// [`Error::Operator`], if the disk cannot be read, or if what it holds cannot be what this log wrote and synced.
pub(super) async fn recover(world: &World, dir: &Path) -> Result<Found> {
    let names = world.disk.list(dir).await.map_err(|error| Error::io(dir.display(), &error))?;
    let (mut segments, mut spares) = (Vec::new(), Vec::new());
    for name in names.iter().filter_map(|name| Name::parse(name)) {
        match name {
            Name::Segment(sequence) => segments.push(sequence),
            Name::Spare(sequence) => spares.push(sequence),
            Name::New => {
                let path = name.in_dir(dir);
                world.disk.remove(&path).await.map_err(|error| Error::io(path.display(), &error))?;
            }
        }
    }
    segments.sort_unstable();
    let reader = Reader { world, dir, segments };
    let Some(newest) = reader.newest().await? else {
        return Ok(Found { log: None, unneeded: reader.segments, spares });
    };
    let log = reader.log(newest).await?;
    let needed = log.ledger.first()..=log.segment.header.sequence;
    let unneeded = reader.segments.into_iter().filter(|sequence| !needed.contains(sequence)).collect();
    Ok(Found { log: Some(log), unneeded, spares })
}

struct Reader<'a> {
    world: &'a World,
    dir: &'a Path,
    /// Ascending.
    segments: Vec<u64>,
}

impl Reader<'_> {
    /// The newest segment with a frame in it: where writing stopped. `None` if no frame was ever written.
    async fn newest(&self) -> Result<Option<Contents>> {
        let Some(&last) = self.segments.last() else { return Ok(None) };
        let contents = self.read(last).await?;
        if !contents.frames.is_empty() {
            return Ok(Some(contents));
        }
        if self.segments == [1] {
            return Ok(None);
        }
        // It was made ready and not used, or its first batch was torn. Either was begun only after the segment before it
        // had a frame; and the second only after all frames there were synced.
        let before = self.read(last.saturating_sub(1)).await?;
        let next = before.next_batch();
        if next.is_none() || contents.torn.is_some_and(|torn| Some(torn) != next) {
            return Err(damaged(&before.segment.path, before.end, "a synced batch cannot be read"));
        }
        Ok(Some(before))
    }

    /// The log that ends in this segment.
    async fn log(&self, newest: Contents) -> Result<Log> {
        let sequence = newest.segment.header.sequence;
        let damage = |what| Err(damaged(&newest.segment.path, FIRST_FRAME, what));
        let oldest = newest.frames.iter().flat_map(|frame| &frame.records).rev().find_map(|record| match record {
            Record::Purge { oldest, .. } => Some(*oldest),
            _ => None,
        });
        let Some(oldest) = oldest.filter(|oldest| (1..=sequence).contains(oldest)) else {
            return damage("it does not say which segments belong to it");
        };
        let (mut tail, mut ledger) = (Tail::default(), Ledger::default());
        let mut before: Option<Contents> = None;
        for sequence in oldest..sequence {
            let contents = self.read(sequence).await?;
            contents.follows(before.as_ref())?;
            contents.replay(&mut tail, &mut ledger)?;
            before = Some(contents.without_records());
        }
        newest.follows(before.as_ref())?;
        newest.replay(&mut tail, &mut ledger)?;
        let purged = tail.purged.map(|purged| purged.index);
        if tail.first_index().is_some_and(|first| purged.is_some_and(|purged| purged.checked_add(1) != Some(first))) {
            return damage("the entries after the last purge are missing");
        }
        // The caller truncated what it had called committed; to know less is always safe.
        let last = tail.last().map(|last| last.index);
        tail.committed = tail.committed.filter(|committed| Some(committed.index) <= last);
        let Some(batch) = newest.next_batch() else { return damage("it holds no batch") };
        self.settle(&newest).await?;
        Ok(Log { tail, ledger, end: newest.end, batch, segment: newest.segment })
    }

    /// Makes the last batch durable. It may be in the page cache alone, also after a failed sync, which leaves pages marked
    /// as clean; and writing the same bytes again can tear nothing. Behind it goes an empty header, so that the remains of a
    /// batch that is cut never meet a later one.
    async fn settle(&self, newest: &Contents) -> Result<()> {
        let Contents { segment, frames, end, last_frame, torn, .. } = newest;
        let doing = || format!("{}: making the last batch durable", segment.path.display());
        if torn.is_some() {
            tracing::warn!(segment = %segment.path.display(), offset = end, "the last batch was torn by a crash and is cut");
        }
        let Some(last) = frames.last() else { return Ok(()) };
        let mut bytes = last_frame.clone();
        if end + ALIGN <= segment.header.capacity {
            bytes.resize(bytes.len() + ALIGN as usize, 0);
        }
        segment.file.write_and_sync(last.offset, bytes).await.map_err(|error| Error::io(doing(), &error))?;
        self.world.disk.sync_dir(self.dir).await.map_err(|error| Error::io(self.dir.display(), &error))
    }

    /// Reads and checks one segment.
    async fn read(&self, sequence: u64) -> Result<Contents> {
        let path = Name::Segment(sequence).in_dir(self.dir);
        if self.segments.binary_search(&sequence).is_err() {
            return Err(Error::Operator(format!("the log segment {} is missing. {CURE}", path.display())));
        }
        let io_error = |error: io::Error| Error::io(format!("{}: reading the log", path.display()), &error);
        let file = self.world.disk.open(&path, OpenMode::Write).await.map_err(io_error)?;
        let block = file.read_at(0, FIRST_FRAME as usize).await.map_err(io_error)?;
        let header = SegmentHeader::decode(&block).map_err(|fault| match fault {
            HeaderFault::Damaged => damaged(&path, 0, "the segment's header is not what was written"),
            HeaderFault::Version(found) => Error::Operator(format!(
                "{} has log format {found}; this quorate reads up to format {}: start the version that wrote it",
                path.display(),
                frame::VERSION
            )),
        })?;
        if header.sequence != sequence {
            return Err(damaged(&path, 0, "it is another segment under this name"));
        }
        let len = file.size().await.map_err(io_error)?;
        if len != header.capacity || len > limits::MAX_SEGMENT_BYTES as u64 {
            let what = format!("the file has {len} bytes and was made with {}", header.capacity);
            return Err(damaged(&path, len.min(header.capacity), &what));
        }
        let size = usize::try_from(len).map_err(|error| io_error(io::Error::other(error)))?;
        let bytes = file.read_at(0, size).await.map_err(io_error)?;
        Contents::parse(Segment { header, file, path }, &bytes)
    }
}

/// What a segment holds.
struct Contents {
    segment: Segment,
    frames: Vec<Frame>,
    /// Behind the last valid frame.
    end: u64,
    /// The number of a batch whose write was begun there and did not end.
    torn: Option<u64>,
    /// The bytes of the last frame, padding included.
    last_frame: Vec<u8>,
}

struct Frame {
    offset: u64,
    batch: u64,
    records: Vec<Record>,
}

impl Contents {
    /// Finds the frames from the first one on, up to one that is not valid. That one may only be the last that was ever
    /// begun: frames are written one after the other is synced, so any sign of a later one proves damage.
    fn parse(segment: Segment, bytes: &[u8]) -> Result<Contents> {
        let salt = segment.header.salt;
        let (mut frames, mut end, mut torn) = (Vec::<Frame>::new(), FIRST_FRAME, None);
        let mut last: Range<usize> = 0..0;
        while let Some(header) = FrameHeader::read(bytes, end, salt) {
            if frames.last().is_some_and(|before| before.batch.checked_add(1) != Some(header.batch)) {
                return Err(damaged(&segment.path, end, "a batch is missing"));
            }
            let Some(body) = header.body(bytes, end) else {
                torn = Some(header.batch);
                break;
            };
            let Some(records) = frame::records(&bytes[body.clone()]) else {
                return Err(damaged(&segment.path, end, "a batch with a good checksum makes no sense"));
            };
            let offset = end;
            end = (body.end as u64).next_multiple_of(ALIGN).min(bytes.len() as u64);
            last = body.start - frame::FRAME_HEADER..usize::try_from(end).unwrap_or(bytes.len());
            frames.push(Frame { offset, batch: header.batch, records });
        }
        let behind = (end + ALIGN..bytes.len() as u64).step_by(ALIGN as usize);
        if behind.into_iter().any(|offset| FrameHeader::read(bytes, offset, salt).is_some()) {
            return Err(damaged(&segment.path, end, "a synced batch cannot be read: a later one stands behind it"));
        }
        Ok(Contents { last_frame: bytes[last].to_vec(), segment, frames, end, torn })
    }

    fn next_batch(&self) -> Option<u64> {
        self.frames.last().and_then(|last| last.batch.checked_add(1))
    }

    /// Checks that nothing is missing between the segment before and this one.
    fn follows(&self, before: Option<&Contents>) -> Result<()> {
        let Some(before) = before else { return Ok(()) };
        if before.next_batch().is_some() && before.next_batch() == self.frames.first().map(|first| first.batch) {
            return Ok(());
        }
        Err(damaged(&before.segment.path, before.end, "a synced batch cannot be read: the next segment begins later"))
    }

    fn replay(&self, tail: &mut Tail, ledger: &mut Ledger) -> Result<()> {
        ledger.begin(self.segment.header.sequence);
        for frame in &self.frames {
            for record in &frame.records {
                ledger.note(record);
                let gap = |_| damaged(&self.segment.path, frame.offset, "an entry does not follow the one before it");
                tail.apply(record).map_err(gap)?;
            }
        }
        Ok(())
    }

    /// Lets go of the entries, which the tail has.
    fn without_records(mut self) -> Contents {
        self.frames.iter_mut().for_each(|frame| frame.records = Vec::new());
        self
    }
}

/// What an operator does about a log that cannot be trusted.
const CURE: &str = "This node's data cannot be trusted: move its data directory away and start it again, so that it joins \
                    as a new server and gets the data from the others; if it is the only server, restore a backup";

fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    let path: PathBuf = path.into();
    Error::Operator(format!("the log is damaged in {} at byte {offset}: {what}. {CURE}", path.display()))
}
