//! Frames: one batch as bytes in a segment, and the header that begins a segment. Pure functions over bytes.
//!
//! A frame is believed only where it was meant to stand: its header carries the segment's salt and its own offset. The salt
//! is random and new each time a file becomes a segment, so frames left from a file's former life are strangers, a write
//! that landed in the wrong place is a stranger there, and a client who stores bytes that look like a frame would have to
//! guess 64 random bits that are shown nowhere.

use std::ops::Range;

use super::record::Record;

/// The format that is written and read. It stands in the segment's header: a segment never mixes formats.
pub(super) const VERSION: u32 = 1;
/// Where the first frame begins. The header has a block to itself, so that no torn write of a frame can reach it, also on a
/// disk with sectors of 4 KiB.
pub(super) const FIRST_FRAME: u64 = 4096;
/// Frames begin at multiples of this: a search for them need not look at every byte.
pub(super) const ALIGN: u64 = 64;
/// Bytes of a frame's header.
pub(super) const FRAME_HEADER: usize = 40;

const SEGMENT_MAGIC: [u8; 8] = *b"quor-wal";
const FRAME_MAGIC: [u8; 4] = *b"qwbt";
/// Bytes of a segment's header that are in use. Their layout is the same in every version, so that any version can say
/// which one it found.
const SEGMENT_HEADER: usize = 40;

/// What begins a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its place among the segments, from 1; also its name.
    pub(super) sequence: u64,
    /// What its frames must carry.
    pub(super) salt: u64,
    /// The size of the file, which it has from the start.
    pub(super) capacity: u64,
}

/// Why a segment's header is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// The bytes are not what was written.
    Damaged,
    /// A newer quorate wrote it.
    Version(u32),
}

impl SegmentHeader {
    /// The whole block before the first frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(FIRST_FRAME as usize);
        block.extend(SEGMENT_MAGIC);
        block.extend([0; 4]);
        block.extend(VERSION.to_le_bytes());
        block.extend(self.sequence.to_le_bytes());
        block.extend(self.salt.to_le_bytes());
        block.extend(self.capacity.to_le_bytes());
        let sum = crc32c::crc32c(&block[12..SEGMENT_HEADER]);
        block[8..12].copy_from_slice(&sum.to_le_bytes());
        block.resize(FIRST_FRAME as usize, 0);
        block
    }

    /// Reads what [`SegmentHeader::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let header = bytes.get(..SEGMENT_HEADER).ok_or(HeaderFault::Damaged)?;
        if header[..8] != SEGMENT_MAGIC || u32_at(header, 8) != crc32c::crc32c(&header[12..]) {
            return Err(HeaderFault::Damaged);
        }
        match u32_at(header, 12) {
            VERSION => Ok(SegmentHeader {
                sequence: u64_at(header, 16),
                salt: u64_at(header, 24),
                capacity: u64_at(header, 32),
            }),
            version => Err(HeaderFault::Version(version)),
        }
    }
}

/// What begins a frame, besides the salt and the offset that it was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The batch's number. Numbers rise by one from frame to frame, from segment to segment.
    pub(super) batch: u64,
    body_len: u32,
    body_sum: u32,
}

impl FrameHeader {
    /// The frame header at `offset` of a segment, if one that belongs there stands there. That it does proves that this
    /// batch's write was begun, whatever became of its body.
    pub(super) fn read(segment: &[u8], offset: u64, salt: u64) -> Option<FrameHeader> {
        let start = usize::try_from(offset).ok()?;
        let header = segment.get(start..)?.get(..FRAME_HEADER)?;
        let belongs = header[..4] == FRAME_MAGIC && u64_at(header, 8) == salt && u64_at(header, 16) == offset;
        if !belongs || u32_at(header, 4) != crc32c::crc32c(&header[8..]) {
            return None;
        }
        Some(FrameHeader { batch: u64_at(header, 24), body_len: u32_at(header, 32), body_sum: u32_at(header, 36) })
    }

    /// Where the body lies, if all of it is there and is what was written.
    pub(super) fn body(&self, segment: &[u8], offset: u64) -> Option<Range<usize>> {
        let start = usize::try_from(offset).ok()?.checked_add(FRAME_HEADER)?;
        let end = start.checked_add(usize::try_from(self.body_len).ok()?)?;
        let body = segment.get(start..end)?;
        (crc32c::crc32c(body) == self.body_sum).then_some(start..end)
    }
}

/// Begins a frame in `buffer`: room for its header, which [`finish`] fills in.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER, 0);
}

/// Ends the frame that [`begin`] began and records were added to: header, checksums, padding.
pub(super) fn finish(buffer: &mut Vec<u8>, salt: u64, offset: u64, batch: u64) {
    let body = &buffer[FRAME_HEADER..];
    let body_len = u32::try_from(body.len()).expect("a batch is smaller than its segment");
    let body_sum = crc32c::crc32c(body);
    buffer[..4].copy_from_slice(&FRAME_MAGIC);
    buffer[8..16].copy_from_slice(&salt.to_le_bytes());
    buffer[16..24].copy_from_slice(&offset.to_le_bytes());
    buffer[24..32].copy_from_slice(&batch.to_le_bytes());
    buffer[32..36].copy_from_slice(&body_len.to_le_bytes());
    buffer[36..40].copy_from_slice(&body_sum.to_le_bytes());
    let sum = crc32c::crc32c(&buffer[8..FRAME_HEADER]);
    buffer[4..8].copy_from_slice(&sum.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGN as usize), 0);
}

/// The records of a frame's body; `None` if they do not decode, although their checksum matches.
pub(super) fn records(mut body: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        records.push(Record::decode(&mut body)?);
    }
    Some(records)
}

/// Little-endian numbers inside headers whose length was checked before.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// See [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { sequence: 7, salt: 0xfeed, capacity: 1 << 20 };

    #[test]
    fn a_segment_header_with_any_bit_flipped_is_damaged() {
        let block = HEADER.encode();
        assert_eq!(block.len() as u64, FIRST_FRAME);
        assert_eq!(SegmentHeader::decode(&block), Ok(HEADER));
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_segment_is_told_from_a_damaged_one() {
        let mut block = HEADER.encode();
        block[12..16].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let sum = crc32c::crc32c(&block[12..SEGMENT_HEADER]);
        block[8..12].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Version(VERSION + 1)));
    }

    #[test]
    fn a_frame_is_believed_only_at_its_place_in_its_segment() {
        let mut frame = Vec::new();
        begin(&mut frame);
        Record::Truncate(Some(4)).encode(&mut frame);
        finish(&mut frame, 0xfeed, 128, 9);
        assert_eq!(frame.len() % ALIGN as usize, 0);
        let mut segment = vec![0; 512];
        segment[128..128 + frame.len()].copy_from_slice(&frame);
        segment[256..256 + frame.len()].copy_from_slice(&frame);

        let header = FrameHeader::read(&segment, 128, 0xfeed).unwrap();
        let body = header.body(&segment, 128).unwrap();
        assert_eq!((header.batch, records(&segment[body])), (9, Some(vec![Record::Truncate(Some(4))])));
        assert_eq!(FrameHeader::read(&segment, 128, 0xbeef), None, "another salt");
        assert_eq!(FrameHeader::read(&segment, 256, 0xfeed), None, "another place");
        for bit in 128 * 8..(128 + FRAME_HEADER + Record::Truncate(None).size()) * 8 {
            let mut bad = segment.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let body = FrameHeader::read(&bad, 128, 0xfeed).and_then(|header| header.body(&bad, 128));
            assert_eq!(body, None, "bit {bit}");
        }
    }
}
