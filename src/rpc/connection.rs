//! Reading and writing frames, as both sides do: with an end to every wait.

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

use super::error::Lost;
use super::frame::{Batch, Frame, HEAD, Head, What};
use super::queue::Pop;
use crate::limits;
use crate::world::{BoxStream, World};

/// The two halves of a connection that has been greeted.
pub(super) fn split(world: &World, stream: BoxStream) -> (FrameReader<ReadHalf<BoxStream>>, WriteHalf<BoxStream>) {
    let (read, write) = tokio::io::split(stream);
    (FrameReader { world: world.clone(), reader: BufReader::with_capacity(limits::RPC_FIRST_READ, read) }, write)
}

/// Frames out of a byte stream.
pub(super) struct FrameReader<R> {
    world: World,
    reader: BufReader<R>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// The next frame that is not a ping. If it is dropped while it waits, the reader is of no more use.
    pub(super) async fn next(&mut self) -> Result<Frame, Lost> {
        loop {
            let mut head = [0; HEAD];
            self.fill(&mut head.as_mut_slice(), HEAD).await?;
            let head = Head::decode(&head)?;
            let mut body = Vec::with_capacity(head.len.min(limits::RPC_FIRST_READ));
            self.fill(&mut body, head.len).await?;
            let frame = head.with(Bytes::from(body))?;
            if frame.what != What::Ping {
                return Ok(frame);
            }
        }
    }

    /// Reads exactly `len` bytes. Silence is measured from byte to byte: a large frame on a slow link is no silence.
    async fn fill(&mut self, into: &mut impl BufMut, len: usize) -> Result<(), Lost> {
        let mut into = into.limit(len);
        while into.has_remaining_mut() {
            match self.world.timeout(limits::RPC_SILENCE, self.reader.read_buf(&mut into)).await {
                None => return Err(Lost::Silent),
                Some(Ok(0)) => return Err(Lost::Closed),
                Some(read) => drop(read?),
            }
        }
        Ok(())
    }
}

/// Writes what is queued, all of it in one write, and a ping when nothing is. Returns when every sending end of the queue
/// is gone and the queue is empty; then tells whether the last frame was an [`What::End`].
pub(super) async fn write_queue(
    world: &World,
    writer: &mut (impl AsyncWrite + Unpin),
    queue: &mut Pop,
) -> Result<bool, Lost> {
    let mut taken = Vec::new();
    let mut batch = Batch::default();
    let mut ended = false;
    loop {
        match world.timeout(limits::RPC_PING, queue.pop_all(&mut taken)).await {
            Some(0) => return Ok(ended),
            Some(_) => taken.iter().for_each(|queued| batch.push(&queued.frame)),
            None => batch.push(&Frame::empty(What::Ping, 0)),
        }
        ended = taken.last().map_or(ended, |queued| queued.frame.what == What::End);
        write(world, writer, &mut batch).await?;
        // Only now, so that the bytes that wait for a slow peer count.
        taken.clear();
    }
}

/// Sends nothing but pings, for as long as it is polled.
pub(super) async fn write_pings(world: &World, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), Lost> {
    let mut batch = Batch::default();
    loop {
        world.sleep(limits::RPC_PING).await;
        batch.push(&Frame::empty(What::Ping, 0));
        write(world, writer, &mut batch).await?;
    }
}

async fn write(world: &World, writer: &mut (impl AsyncWrite + Unpin), batch: &mut Batch) -> Result<(), Lost> {
    while batch.has_remaining() {
        match world.timeout(limits::RPC_STALL, writer.write_buf(batch)).await {
            None => return Err(Lost::Stalled),
            Some(Ok(0)) => return Err(Lost::Closed),
            Some(written) => drop(written?),
        }
    }
    world.timeout(limits::RPC_STALL, writer.flush()).await.ok_or(Lost::Stalled)?.map_err(Lost::from)
}
