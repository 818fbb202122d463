//! The bytes of a file, without the zeros: a log segment is megabytes of them before its first entry.

use std::collections::BTreeMap;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: u64 = 512;
const PAGE: u64 = 4096;
/// To compare with: a segment of the log is written once as zeros.
const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// A file's contents. A page that is not there is all zeros.
#[derive(Clone, Default)]
pub struct Pages {
    len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Pages {
    /// The size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Makes the file at least this long, with zeros.
    pub fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Bytes from an offset; fewer where the file ends.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len as u64).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for (number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE).max(offset / PAGE)) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + PAGE).min(end));
            let place = (from - offset) as usize..(to - offset) as usize;
            bytes[place].copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        bytes
    }

    /// Writes at an offset; returns the ranges that may have changed. Zeros over zeros change nothing but the size.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Vec<(u64, u64)> {
        self.grow(offset + bytes.len() as u64);
        let mut changed = Vec::new();
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let start = at / PAGE * PAGE;
            let (piece, after) = rest.split_at(rest.len().min((start + PAGE - at) as usize));
            let page = match self.pages.get_mut(&(at / PAGE)) {
                Some(page) => Some(page),
                None if *piece == ZEROS[..piece.len()] => None,
                None => Some(self.pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]))),
            };
            if let Some(page) = page {
                page[(at - start) as usize..][..piece.len()].copy_from_slice(piece);
                changed.push((at, at + piece.len() as u64));
            }
            at += piece.len() as u64;
            rest = after;
        }
        changed
    }

    /// The sectors that are not all zeros.
    pub fn written_sectors(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().flat_map(|(number, page)| {
            let first = number * (PAGE / SECTOR);
            let sectors = page.chunks(SECTOR as usize).zip(first..);
            sectors.filter(|(bytes, _)| bytes.iter().any(|byte| *byte != 0)).map(|(_, sector)| sector)
        })
    }

    /// Makes one sector the same as in another file's contents.
    pub fn copy_sector(&mut self, from: &Pages, sector: u64) {
        let bytes = from.read(sector * SECTOR, SECTOR as usize);
        self.write(sector * SECTOR, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_a_plain_vector_would() {
        let mut rng = crate::rng::Rng::new(1);
        let (mut plain, mut pages) = (Vec::new(), Pages::default());
        for _ in 0..300 {
            let (offset, len) = (rng.below(20_000), rng.below(9_000) as usize);
            let bytes = vec![rng.below(2) as u8; len];
            if plain.len() < offset as usize + len {
                plain.resize(offset as usize + len, 0);
            }
            plain[offset as usize..][..len].copy_from_slice(&bytes);
            pages.write(offset, &bytes);
            let (from, len) = (rng.below(20_000) as usize, rng.below(9_000) as usize);
            let end = (from + len).min(plain.len());
            assert_eq!(pages.read(from as u64, len), plain[from.min(end)..end]);
            assert_eq!(pages.len(), plain.len() as u64);
        }
    }
}
