//! One frame as bytes; the diagram is in [`super`]. Pure: no socket, no clock.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits;

/// Bytes before the body.
pub(super) const HEAD: usize = 18;
/// Bytes of the head that its checksum covers.
const SUMMED: usize = 14;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum What {
    /// A call begins.
    Request = 1,
    /// A call is answered.
    Response = 2,
    /// A call is answered with an error.
    Error = 3,
    /// Nobody waits for the answer any more.
    Cancel = 4,
    /// The next body of a stream.
    Item = 5,
    /// The stream is complete in this direction.
    End = 6,
    /// Nothing to say, still here.
    Ping = 7,
}

impl What {
    fn from_byte(byte: u8) -> Option<Self> {
        use What::*;
        [Request, Response, Error, Cancel, Item, End, Ping].into_iter().find(|what| *what as u8 == byte)
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The bytes were changed on their way, or were never a frame.
    #[error("a frame's checksum does not match")]
    Checksum,
    /// Not of this protocol version.
    #[error("no frame has type {0}")]
    Unknown(u8),
    /// Over [`limits::RPC_BODY`].
    #[error("a frame of {0} bytes is over the limit of {max}", max = limits::RPC_BODY)]
    TooLarge(u32),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) what: What,
    /// Which service a request is for, 0 in other frames.
    pub(super) kind: u8,
    /// Which call of the connection it belongs to, 0 on a stream's lane.
    pub(super) id: u32,
    /// At most [`limits::RPC_BODY`] bytes: who makes a frame has checked.
    pub(super) body: Bytes,
}

impl Frame {
    pub(super) fn new(what: What, id: u32, body: Bytes) -> Self {
        Frame { what, kind: 0, id, body }
    }

    pub(super) fn empty(what: What, id: u32) -> Self {
        Frame::new(what, id, Bytes::new())
    }

    /// The bytes before the body.
    pub(super) fn head(&self) -> [u8; HEAD] {
        let len = u32::try_from(self.body.len()).expect("a body is checked against RPC_BODY before it is framed");
        let mut head = [0; HEAD];
        let mut rest = &mut head[..];
        rest.put_u32_le(len);
        rest.put_u8(self.what as u8);
        rest.put_u8(self.kind);
        rest.put_u32_le(self.id);
        rest.put_u32_le(crc32c::crc32c(&self.body));
        let sum = crc32c::crc32c(&head[..SUMMED]);
        head[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        head
    }
}

/// A frame whose body is still to come.
#[derive(Debug)]
pub(super) struct Head {
    what: What,
    kind: u8,
    id: u32,
    /// Bytes of the body, at most [`limits::RPC_BODY`].
    pub(super) len: usize,
    sum: u32,
}

impl Head {
    /// Reads a head. What it returns may be allocated for.
    pub(super) fn decode(head: &[u8; HEAD]) -> Result<Self, BadFrame> {
        let sum = crc32c::crc32c(&head[..SUMMED]);
        let mut rest = &head[..];
        let (len, what, kind, id) = (rest.get_u32_le(), rest.get_u8(), rest.get_u8(), rest.get_u32_le());
        let body_sum = rest.get_u32_le();
        if rest.get_u32_le() != sum {
            return Err(BadFrame::Checksum);
        }
        if len as usize > limits::RPC_BODY {
            return Err(BadFrame::TooLarge(len));
        }
        let what = What::from_byte(what).ok_or(BadFrame::Unknown(what))?;
        Ok(Head { what, kind, id, len: len as usize, sum: body_sum })
    }

    /// The frame, once its body is there.
    pub(super) fn with(self, body: Bytes) -> Result<Frame, BadFrame> {
        if crc32c::crc32c(&body) != self.sum {
            return Err(BadFrame::Checksum);
        }
        Ok(Frame { what: self.what, kind: self.kind, id: self.id, body })
    }
}

/// Frames as one write: heads and small bodies side by side, large bodies where they are.
#[derive(Default)]
pub(super) struct Batch {
    ready: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Batch {
    pub(super) fn push(&mut self, frame: &Frame) {
        self.tail.put_slice(&frame.head());
        if frame.body.len() <= limits::RPC_COPIED_BODY {
            self.tail.put_slice(&frame.body);
        } else {
            self.ready.push_back(self.tail.split().freeze());
            self.ready.push_back(frame.body.clone());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&self.tail, |bytes| bytes)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let chunks = self.ready.iter().map(|bytes| &bytes[..]).chain(tail);
        slices.iter_mut().zip(chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.ready.front_mut() {
            if written < first.len() {
                return first.advance(written);
            }
            written -= first.len();
            self.ready.pop_front();
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Frame, BadFrame> {
        let (head, body) = bytes.split_first_chunk::<HEAD>().unwrap();
        let head = Head::decode(head)?;
        let len = head.len.min(body.len());
        head.with(Bytes::copy_from_slice(&body[..len]))
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let body = prop_oneof![Just(0), 0..40usize, 1000..5000usize].prop_map(|len| Bytes::from(vec![7; len]));
        (1..=7u8, any::<u8>(), any::<u32>(), body).prop_map(|(what, kind, id, body)| Frame {
            what: What::from_byte(what).unwrap(),
            kind,
            id,
            body,
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), HEAD..100)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_batch_written_in_any_pieces_reads_back(frames in proptest::collection::vec(frame(), 0..8), step in 1..3000usize) {
            let mut batch = Batch::default();
            frames.iter().for_each(|frame| batch.push(frame));
            let mut bytes = Vec::new();
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = batch.chunks_vectored(&mut slices);
                let piece: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                assert!(piece.starts_with(&batch.chunk()[..batch.chunk().len().min(step)]));
                batch.advance(piece.len());
                bytes.extend(piece);
            }
            for frame in frames {
                assert_eq!(decode(&bytes), Ok(frame.clone()));
                bytes.drain(..HEAD + frame.body.len());
            }
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = Frame { what: What::Item, kind: 3, id: 77, body: Bytes::from_static(b"body") };
        let bytes = [&frame.head()[..], &frame.body].concat();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), Err(BadFrame::Checksum), "bit {bit}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_by_its_head_alone() {
        let frame = Frame::new(What::Request, 1, Bytes::from(vec![0; limits::RPC_BODY + 1]));
        assert_eq!(Head::decode(&frame.head()).unwrap_err(), BadFrame::TooLarge(limits::RPC_BODY as u32 + 1));
        let frame = Frame::new(What::Request, 1, frame.body.slice(1..));
        assert_eq!(Head::decode(&frame.head()).unwrap().len, limits::RPC_BODY);
    }
}
