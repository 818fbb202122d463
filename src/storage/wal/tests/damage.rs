//! Every offset, every bit: whatever is changed, the log is the truth without its last batch, or a refusal in a sentence.

use std::ops::Range;
use std::path::PathBuf;

use super::super::frame::{self, FIRST_FRAME, FrameHeader, SegmentHeader};
use super::super::record::Record;
use super::super::segment::Name;
use super::disk::{SECTOR, splitmix};
use super::*;

/// A log of several segments, one batch for each append.
struct Built {
    disk: FaultyDisk,
    /// All entries, and without the last batch.
    full: Vec<LogEntry>,
    cut: Vec<LogEntry>,
    /// Each frame in order: its file, and its bytes there with the padding.
    frames: Vec<(PathBuf, Range<usize>)>,
}

async fn build(batches: u64, last: usize) -> Built {
    let disk = FaultyDisk::new(batches);
    let wal = open(&disk).await.unwrap();
    let mut full = Vec::new();
    let mut cut = Vec::new();
    for batch in 0..batches {
        cut = full.clone();
        let size = if batch + 1 == batches { last } else { (batch as usize * 523) % 2200 };
        let from = full.len() as u64;
        let entries = vec![entry(1, from, vec![batch as u8; size]), entry(1, from + 1, "second")];
        full.extend(entries.clone());
        append(&wal, entries).await.unwrap();
        settle().await;
    }
    disk.kill();
    let frames = frames(&disk);
    if let Some((path, range)) = frames.last().filter(|(_, range)| range.start == FIRST_FRAME as usize) {
        // Torn by a crash, it would not have been followed by another segment: that one shows that it was synced.
        let Some(Name::Segment(sequence)) = Name::parse(&path.file_name().unwrap().to_string_lossy()) else { panic!() };
        disk.forget(&Name::Segment(sequence + 1).in_dir(dir()));
        assert!(range.end < SEGMENT);
    }
    Built { disk, full, cut, frames }
}

/// Where the frames lie.
pub(super) fn frames(disk: &FaultyDisk) -> Vec<(PathBuf, Range<usize>)> {
    let mut frames = Vec::new();
    for name in disk.names().iter().filter_map(|name| Name::parse(name)) {
        let Name::Segment(_) = name else { continue };
        let path = name.in_dir(dir());
        let bytes = disk.bytes(&path);
        let salt = SegmentHeader::decode(&bytes).unwrap().salt;
        let mut at = FIRST_FRAME;
        while let Some(body) = FrameHeader::read(&bytes, at, salt).and_then(|header| header.body(&bytes, at)) {
            let end = body.end.next_multiple_of(64);
            frames.push((path.clone(), at as usize..end));
            at = end as u64;
        }
    }
    frames
}

/// What all frames say.
pub(super) fn records(disk: &FaultyDisk) -> Vec<Record> {
    let body = |(path, range): (PathBuf, Range<usize>)| {
        let bytes = disk.bytes(&path);
        let salt = SegmentHeader::decode(&bytes).unwrap().salt;
        let header = FrameHeader::read(&bytes, range.start as u64, salt).unwrap();
        frame::records(&bytes[header.body(&bytes, range.start as u64).unwrap()]).unwrap()
    };
    frames(disk).into_iter().flat_map(body).collect()
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Full,
    Cut,
    Refused,
}

impl Built {
    /// Opens a copy of the log in which one file was changed.
    async fn outcome(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        let disk = self.disk.copy();
        disk.tamper(path, change);
        match open(&disk).await {
            Ok(wal) => match wal.entries(0, u64::MAX) {
                entries if entries == self.full => Outcome::Full,
                entries if entries == self.cut => Outcome::Cut,
                entries => panic!("{} entries that nobody wrote", entries.len()),
            },
            Err(Error::Operator(sentence)) => {
                assert!(sentence.contains("/data/wal"), "{sentence}");
                Outcome::Refused
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn last(&self) -> (PathBuf, Range<usize>) {
        self.frames.last().cloned().unwrap()
    }
}

/// One whose last batch stands in the middle of a segment, and one whose last is the first frame of one.
async fn builds() -> [Built; 2] {
    let (mut middle, mut first) = (None, None);
    for batches in 14..30 {
        let built = build(batches, 700).await;
        let kind = if built.last().1.start == FIRST_FRAME as usize { &mut first } else { &mut middle };
        *kind = Some(built);
    }
    [middle.unwrap(), first.unwrap()]
}

#[test]
fn a_flipped_bit_in_the_last_batch_cuts_it_and_anywhere_earlier_is_refused() {
    block_on(async {
        for built in builds().await {
            for (number, (path, range)) in built.frames.iter().enumerate().skip(built.frames.len() - 3) {
                let is_last = number + 1 == built.frames.len();
                let expected = if is_last { Outcome::Cut } else { Outcome::Refused };
                // Every bit of a header, one bit of each byte of a body.
                let header = (0..40 * 8).map(|bit| range.start * 8 + bit);
                let body = (range.start + 40..range.end).map(|byte| byte * 8 + byte % 8);
                for bit in header.chain(body) {
                    let outcome = built.outcome(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8)).await;
                    // Padding says nothing.
                    let padding = bit / 8 >= range.end - 63 && outcome == Outcome::Full;
                    assert!(padding || outcome == expected, "frame {number}, byte {}: {outcome:?}", bit / 8);
                }
            }
        }
    });
}

#[test]
fn a_flipped_bit_anywhere_never_shows_wrong_data() {
    block_on(async {
        let [built, _] = builds().await;
        let mut random = 7;
        for (path, range) in &built.frames[..built.frames.len() - 3] {
            for _ in 0..10 {
                let at = range.start + splitmix(&mut random) as usize % (range.len() - 63);
                let outcome = built.outcome(path, |bytes| bytes[at] ^= 0x10).await;
                assert_eq!(outcome, Outcome::Refused, "{} at {at}", path.display());
            }
            for at in 0..40 {
                assert_eq!(built.outcome(path, |bytes| bytes[at] ^= 1).await, Outcome::Refused, "header byte {at}");
            }
            let behind = range.end - range.end % 64 + 64 * 200;
            if behind < SEGMENT && built.frames.iter().all(|(other, range)| other != path || range.end < behind) {
                assert_eq!(built.outcome(path, |bytes| bytes[behind] ^= 1).await, Outcome::Full, "unused space");
            }
        }
    });
}

#[test]
fn a_file_cut_at_any_offset_is_refused() {
    block_on(async {
        for built in builds().await {
            let (path, range) = built.last();
            let before = range.start.saturating_sub(600);
            for len in (0..64).chain(before..range.end + 64).chain([SEGMENT - 1, SEGMENT + 1]) {
                assert_eq!(built.outcome(&path, |bytes| bytes.resize(len, 0)).await, Outcome::Refused, "{len} bytes");
            }
        }
    });
}

#[test]
fn a_last_batch_of_which_any_subset_of_sectors_is_there_is_cut() {
    block_on(async {
        for built in [build(12, 2000).await, build(8, 2000).await] {
            let (path, range) = built.last();
            let sectors: Vec<usize> = (range.start / SECTOR..range.end.div_ceil(SECTOR)).collect();
            assert!((4..8).contains(&sectors.len()), "{sectors:?}");
            for lost in 1u32..1 << sectors.len() {
                let outcome = built.outcome(&path, |bytes| {
                    for (bit, sector) in sectors.iter().enumerate().filter(|(bit, _)| lost >> bit & 1 == 1) {
                        let _ = bit;
                        // Before this batch nothing was written there, except what shares its first sector.
                        bytes[(sector * SECTOR).max(range.start)..((sector + 1) * SECTOR).min(range.end)].fill(0);
                    }
                });
                assert_eq!(outcome.await, Outcome::Cut, "lost {lost:b}");
            }
        }
    });
}

#[test]
fn a_frame_that_is_gone_or_stands_elsewhere_is_refused() {
    block_on(async {
        let [built, _] = builds().await;
        let count = built.frames.len();
        for number in 0..count - 1 {
            let (path, range) = &built.frames[number];
            assert_eq!(
                built.outcome(path, |bytes| bytes[range.clone()].fill(0)).await,
                Outcome::Refused,
                "{number} gone"
            );
            let (other, target) = &built.frames[(number + 1) % (count - 1)];
            let frame = built.disk.bytes(path)[range.clone()].to_vec();
            let misdirected = built.outcome(other, |bytes| {
                // Over the last frame as well it would be rot in the last one, which nothing shows.
                let len = frame.len().min(target.len());
                bytes[target.start..target.start + len].copy_from_slice(&frame[..len]);
            });
            assert_eq!(misdirected.await, Outcome::Refused, "{number} over the next one");
        }
    });
}

#[test]
fn a_torn_first_batch_shows_that_the_segment_before_it_was_synced() {
    block_on(async {
        let [_, built] = builds().await;
        let (path, range) = built.last();
        let (before, lost) = &built.frames[built.frames.len() - 2];
        assert_ne!(&path, before);
        built.disk.tamper(before, |bytes| bytes[lost.clone()].fill(0));
        // Its header is there, its body is not: that it was begun is enough.
        assert_eq!(built.outcome(&path, |bytes| bytes[range.start + 41] ^= 1).await, Outcome::Refused);
    });
}

#[test]
fn a_batch_whose_number_does_not_follow_is_refused() {
    block_on(async {
        let [built, _] = builds().await;
        let (path, range) = built.last();
        let outcome = built.outcome(&path, |bytes| {
            let salt = SegmentHeader::decode(bytes).unwrap().salt;
            let header = FrameHeader::read(bytes, range.start as u64, salt).unwrap();
            let body = header.body(bytes, range.start as u64).unwrap();
            let mut skipped = bytes[range.start..body.end].to_vec();
            frame::finish(&mut skipped, salt, range.start as u64, header.batch + 1);
            bytes[range.clone()].copy_from_slice(&skipped);
        });
        assert_eq!(outcome.await, Outcome::Refused);
    });
}

#[test]
fn a_value_that_looks_like_the_log_is_only_a_value() {
    block_on(async {
        let disk = FaultyDisk::new(5);
        let wal = open(&disk).await.unwrap();
        append(&wal, vec![entry(1, 0, "first")]).await.unwrap();
        // Frames as a client could make them: from another log, or of this one's former lives; at every place in a sector.
        let other = build(3, 10).await;
        let forged = other.disk.bytes(&Name::Segment(1).in_dir(dir()))[FIRST_FRAME as usize..][..1200].to_vec();
        let mut full = vec![entry(1, 0, "first")];
        for shift in 0..8 {
            let index = full.len() as u64;
            full.push(entry(1, index, [vec![0; shift * 8 + 2], forged.clone()].concat()));
            append(&wal, vec![full[index as usize].clone()]).await.unwrap();
        }
        disk.kill();
        // The last batch is torn right before the forgery begins: it must not count as a later batch.
        let (path, range) = frames(&disk).last().cloned().unwrap();
        disk.tamper(&path, |bytes| bytes[range.start + 41] ^= 1);
        assert_eq!(open(&disk).await.unwrap().entries(0, 99), full[..full.len() - 1]);
    });
}
