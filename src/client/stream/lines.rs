//! Lines out of pieces of any size, none longer than a bound.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::limits;

/// What has come and is no whole line yet.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// How far it has been searched for a line break: each byte is looked at once.
    searched: usize,
    longest: usize,
}

impl Lines {
    /// None longer than this many bytes.
    pub fn new(longest: usize) -> Lines {
        Lines { buffer: BytesMut::new(), searched: 0, longest }
    }

    /// Takes the next piece. What is kept is bounded if [`Lines::next`] is asked until it has nothing.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line, without its break.
    ///
    /// # Errors
    /// `TooLarge` if it is too long, also before all of it has come.
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let end = fresh.iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        if end.unwrap_or(self.buffer.len()) > self.longest {
            let most = self.longest / limits::MIB;
            return Err(Error::TooLarge(format!("a record of the event stream is larger than {most} MiB: watch less")));
        }
        self.searched = if end.is_some() { 0 } else { self.buffer.len() };
        Ok(end.map(|end| {
            let line = self.buffer.split_to(end).freeze();
            self.buffer.advance(1);
            line
        }))
    }

    /// Whether nothing is left over.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Result<Vec<Bytes>> {
        std::iter::from_fn(|| lines.next().transpose()).collect()
    }

    #[test]
    fn wherever_the_bytes_are_cut_the_lines_are_the_same() {
        let text = b"one\n\ntwo and more\nthree\n";
        let whole: Vec<&[u8]> = vec![b"one", b"", b"two and more", b"three"];
        for cut in 0..=text.len() {
            let mut lines = Lines::new(12);
            let mut found = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                lines.push(piece);
                found.extend(all(&mut lines).unwrap());
            }
            assert_eq!(found, whole, "cut at {cut}");
            assert!(lines.is_empty());
        }
        let mut lines = Lines::new(12);
        let mut found = Vec::new();
        for byte in text {
            lines.push(&[*byte]);
            found.extend(all(&mut lines).unwrap());
        }
        assert_eq!(found, whole, "byte by byte");
    }

    #[test]
    fn a_line_too_long_is_refused_before_it_has_come_and_after() {
        for text in [&b"ok\n0123456789abc"[..], b"ok\n0123456789abc\n"] {
            let mut lines = Lines::new(12);
            lines.push(text);
            assert_eq!(lines.next().unwrap().unwrap(), "ok");
            assert!(matches!(lines.next(), Err(Error::TooLarge(_))));
        }
        let mut lines = Lines::new(12);
        lines.push(b"0123456789ab");
        assert_eq!(lines.next().unwrap(), None);
        lines.push(b"\n");
        assert_eq!(lines.next().unwrap().unwrap(), "0123456789ab");
    }
}
