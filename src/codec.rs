//! The only place that names the binary codec.
//!
//! Everything that is stored or sent between nodes goes through [`seal`] and [`open`]: one version byte, a CRC-32C over
//! the rest, then bincode. A reader meets bytes it cannot trust with an error, never with a panic and never with an
//! allocation larger than [`MAX_SEALED`]. A stored type never changes its fields: it gets a new version.

use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

/// Largest sealed value, in bytes; also what bincode may allocate while it decodes one.
pub const MAX_SEALED: usize = limits::MAX_ENTRY + 64 * limits::KIB;

/// Version byte and checksum.
const HEAD: usize = 5;

/// A type with a place on disk or on the wire.
pub trait Stored: Serialize + DeserializeOwned {
    /// What an error calls it: `log entry`, `key row`.
    const NAME: &'static str;
    /// The version that is written. Older versions are read by the type's own [`Stored::upgrade`].
    const VERSION: u8;

    /// Reads a value that an older version wrote. There is none yet for most types.
    fn upgrade(version: u8, _bytes: &[u8]) -> Result<Self, CodecError> {
        Err(CodecError::Version { name: Self::NAME, found: version, known: Self::VERSION })
    }
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer quorate, or not by quorate.
    #[error(
        "{name} has format version {found}; this quorate reads up to version {known}: start the version that wrote it"
    )]
    Version {
        /// The type's name.
        name: &'static str,
        /// The version byte found.
        found: u8,
        /// The version this build writes.
        known: u8,
    },
    /// The checksum does not match: the bytes were changed after they were written.
    #[error("{0} is corrupt: its checksum does not match")]
    Checksum(&'static str),
    /// The checksum matches and the bytes still do not decode, or hold more than one value.
    #[error("{0} is corrupt: {1}")]
    Decode(&'static str, String),
    /// The value is over [`MAX_SEALED`].
    #[error("{0} is too large: {1} bytes, the limit is {MAX_SEALED}")]
    TooLarge(&'static str, usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_SEALED>()
}

/// Encodes a value with its version and checksum.
///
/// # Errors
/// [`CodecError::TooLarge`], or [`CodecError::Decode`] if the type cannot be encoded at all (a bug in the type).
pub fn seal<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&[T::VERSION, 0, 0, 0, 0]);
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .map_err(|e| CodecError::Decode(T::NAME, e.to_string()))?;
    if bytes.len() > MAX_SEALED {
        return Err(CodecError::TooLarge(T::NAME, bytes.len()));
    }
    let sum = checksum(T::VERSION, &bytes[HEAD..]);
    bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// Decodes what [`seal`] wrote, of this or an older version.
///
/// # Errors
/// [`CodecError`], if the bytes are not exactly one such value.
pub fn open<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_SEALED {
        return Err(CodecError::TooLarge(T::NAME, bytes.len()));
    }
    let Some((head, body)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(CodecError::Decode(T::NAME, format!("{} bytes are too few", bytes.len())));
    };
    let [version, s0, s1, s2, s3] = *head;
    if checksum(version, body) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Err(CodecError::Checksum(T::NAME));
    }
    if version != T::VERSION {
        return T::upgrade(version, body);
    }
    decode_body(body)
}

/// Decodes the body of a sealed value; for [`Stored::upgrade`], which has checked the rest.
///
/// # Errors
/// [`CodecError::Decode`], also if bytes are left over.
pub fn decode_body<T: Stored>(body: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::serde::decode_from_slice(body, config()).map_err(|e| CodecError::Decode(T::NAME, e.to_string()))?;
    if used != body.len() {
        return Err(CodecError::Decode(T::NAME, format!("{} bytes too many", body.len() - used)));
    }
    Ok(value)
}

fn checksum(version: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[version]), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        value: bytes::Bytes,
    }
    impl Stored for Sample {
        const NAME: &'static str = "sample";
        const VERSION: u8 = 3;
    }

    fn sample() -> Sample {
        Sample { name: "k".into(), value: bytes::Bytes::from_static(b"value") }
    }

    #[test]
    fn what_is_sealed_opens() {
        assert_eq!(open::<Sample>(&seal(&sample()).unwrap()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = seal(&sample()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<Sample>(&bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open::<Sample>(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = seal(&sample()).unwrap();
        bytes[0] = 9;
        let sum = checksum(9, &bytes[HEAD..]);
        bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(open::<Sample>(&bytes), Err(CodecError::Version { name: "sample", found: 9, known: 3 }));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // A string that claims 2^60 bytes: bincode must stop at the limit, before it allocates.
        let mut bytes = vec![3, 0, 0, 0, 0, 253];
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        let sum = checksum(3, &bytes[HEAD..]);
        bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(open::<Sample>(&bytes), Err(CodecError::Decode("sample", _))));
    }
}
