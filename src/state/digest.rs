//! The digest of a state (R6): a wrapping sum of one 128-bit hash per row.
//!
//! A sum, so that a change costs the hash of the old row and of the new one, whatever the number of rows, and so that
//! the order of changes does not matter. It finds replicas that differ by a bug or by bad memory. It is not made against
//! an adversary who chooses rows: those are already inside.
//!
//! The hash of a row is XXH3-128 (seed 0) over its canonical form: the table's number, the key, then the row's fields in
//! order. A number is eight bytes, little-endian. A byte string stands there as its own XXH3-128, little-endian. So
//! every field has a fixed width, nothing can be read in two ways, and no value is copied to be hashed. A form that is
//! longer than [`WIDTH`] is folded: whenever the next field would not fit, the bytes so far are replaced by their hash.

use std::fmt;
use std::iter::Sum;

use twox_hash::XxHash3_128;

/// Bytes hashed at once: a key's row fits.
const WIDTH: usize = 128;

/// The digest. Compare two only after the same number of entries ([`State::entries`](super::State::entries)) and for the
/// same [`STATE_FORMAT`](super::STATE_FORMAT). Equal revisions are not enough: an entry that changes no row that clients
/// see still moves log time, remembers its request id and reaps tombstones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub u128);

impl Digest {
    /// Adds a row's hash.
    pub(super) fn add(&mut self, row: Digest) {
        self.0 = self.0.wrapping_add(row.0);
    }

    /// Takes a row's hash out again.
    pub(super) fn remove(&mut self, row: Digest) {
        self.0 = self.0.wrapping_sub(row.0);
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Digest>>(parts: I) -> Digest {
        parts.fold(Digest::default(), |mut sum, part| {
            sum.add(part);
            sum
        })
    }
}

/// Hashes the canonical form of one row.
pub(super) struct RowHash {
    form: [u8; WIDTH],
    len: usize,
}

impl RowHash {
    /// Begins the row of a key in a table.
    pub fn new(table: u8, key: &[u8]) -> Self {
        let mut hash = RowHash { form: [0; WIDTH], len: 0 };
        hash.field([table]);
        hash.bytes(key);
        hash
    }

    /// The next field, a number.
    pub fn number(&mut self, number: u64) {
        self.field(number.to_le_bytes());
    }

    /// The next field, a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.field(XxHash3_128::oneshot(bytes).to_le_bytes());
    }

    /// The next field, a byte string that may be absent.
    pub fn option(&mut self, bytes: Option<&[u8]>) {
        self.field([u8::from(bytes.is_some())]);
        self.bytes(bytes.unwrap_or_default());
    }

    /// The row's hash.
    pub fn finish(self) -> Digest {
        Digest(XxHash3_128::oneshot(&self.form[..self.len]))
    }

    fn field<const N: usize>(&mut self, bytes: [u8; N]) {
        if self.len + N > WIDTH {
            let folded = XxHash3_128::oneshot(&self.form[..self.len]).to_le_bytes();
            self.form[..folded.len()].copy_from_slice(&folded);
            self.len = folded.len();
        }
        self.form[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fill: impl Fn(&mut RowHash)) -> Digest {
        let mut hash = RowHash::new(1, b"k");
        fill(&mut hash);
        hash.finish()
    }

    #[test]
    fn table_key_and_every_field_count() {
        let base = hash(|h| h.number(1));
        assert_ne!(RowHash::new(2, b"k").finish(), RowHash::new(1, b"k").finish());
        assert_ne!(RowHash::new(1, b"l").finish(), RowHash::new(1, b"k").finish());
        assert_ne!(base, hash(|h| h.number(2)));
        assert_ne!(hash(|h| h.option(None)), hash(|h| h.option(Some(b""))));
        assert_ne!(hash(|h| (h.bytes(b"ab"), h.bytes(b"c")).1), hash(|h| (h.bytes(b"a"), h.bytes(b"bc")).1));
    }

    #[test]
    fn a_form_that_was_folded_still_depends_on_its_first_field() {
        let long = |first: u64| {
            hash(|h| {
                h.number(first);
                (0..50).for_each(|i| h.number(i));
            })
        };
        assert_ne!(long(1), long(2));
    }
}
