//! A stream's lane: bodies both ways, each way in order, with backpressure.
//!
//! A stream is complete in one direction when its sender says [`Sender::end`]; a sender that is only dropped cuts the
//! stream, and the other side reads an error. So half a snapshot never looks like a whole one. When the server's side has
//! ended, the stream is over in both directions.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::connection::{FrameReader, split, write_pings, write_queue};
use super::error::{Lost, RpcError};
use super::frame::{Frame, What};
use super::queue::{Pop, Push, queue};
use crate::limits;
use crate::world::{BoxStream, World};

/// The sending half of a stream. Who sends without ever receiving may wait for ever for a peer that does the same.
pub struct Sender {
    queue: Push,
    shared: Arc<Shared>,
}

/// The receiving half of a stream. What arrives after it was dropped is thrown away.
pub struct Receiver {
    queue: Pop,
    shared: Arc<Shared>,
    ended: bool,
}

struct Shared {
    peer: SocketAddr,
    lost: OnceLock<Lost>,
}

impl Shared {
    fn why(&self) -> String {
        self.lost.get().unwrap_or(&Lost::Left).to_string()
    }
}

impl Sender {
    /// Queues the next body, as soon as the queue has room (`RPC_QUEUE_FRAMES`, `RPC_QUEUE_BYTES`). That it returns
    /// says nothing about the peer. Dropped while it waits, it has sent nothing; bound the wait with
    /// [`World::timeout`].
    ///
    /// # Errors
    /// [`RpcError::TooLarge`], or [`RpcError::NotSent`] if the stream is over; what was sent before may have arrived.
    pub async fn send(&self, body: Bytes) -> Result<(), RpcError> {
        if body.len() > limits::RPC_BODY {
            return Err(RpcError::TooLarge(body.len()));
        }
        self.push(Frame::new(What::Item, 0, body)).await
    }

    /// Tells the peer that the stream is complete in this direction.
    ///
    /// # Errors
    /// [`RpcError::NotSent`] if the stream is over.
    pub async fn end(self) -> Result<(), RpcError> {
        self.push(Frame::empty(What::End, 0)).await
    }

    async fn push(&self, frame: Frame) -> Result<(), RpcError> {
        let gone = |_| RpcError::NotSent { peer: self.shared.peer, reason: self.shared.why() };
        self.queue.push(frame).await.map_err(gone)
    }
}

impl Receiver {
    /// The next body, or `None` once the peer has ended its direction. It waits as long as the peer lives and sends
    /// nothing; dropped while it waits, it has lost nothing; bound the wait with [`World::timeout`].
    ///
    /// # Errors
    /// [`RpcError::Unknown`] if the stream was cut before its end.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, RpcError> {
        if self.ended {
            return Ok(None);
        }
        match self.queue.pop().await {
            Some(frame) if frame.what == What::End => {
                self.ended = true;
                Ok(None)
            }
            Some(frame) => Ok(Some(frame.body)),
            None => Err(RpcError::Unknown { peer: self.shared.peer, reason: self.shared.why() }),
        }
    }
}

/// A stream's connection: its two ends for the user, and what moves frames between them and the socket.
pub(super) struct Wire {
    world: World,
    stream: BoxStream,
    outgoing: Pop,
    incoming: Push,
    shared: Arc<Shared>,
}

/// Makes the two halves and the wire under them.
pub(super) fn pair(world: &World, stream: BoxStream, peer: SocketAddr) -> (Sender, Receiver, Wire) {
    let shared = Arc::new(Shared { peer, lost: OnceLock::new() });
    let (push_out, outgoing) = queue();
    let (incoming, pop_in) = queue();
    let wire = Wire { world: world.clone(), stream, outgoing, incoming, shared: shared.clone() };
    (Sender { queue: push_out, shared: shared.clone() }, Receiver { queue: pop_in, shared, ended: false }, wire)
}

impl Wire {
    /// Moves frames until the server has ended, or the connection is lost, or this side has dropped its sender.
    pub(super) async fn run_client(mut self) {
        let (mut reader, mut writer) = split(&self.world, self.stream);
        let reading = read_items(&mut reader, &self.incoming, || true);
        let writing = async {
            match write_queue(&self.world, &mut writer, &mut self.outgoing).await? {
                // The server may go on for long, and listens for us while it does.
                true => write_pings(&self.world, &mut writer).await,
                false => Err(Lost::Left),
            }
        };
        let over = tokio::select! {
            biased;
            read = reading => read,
            written = writing => written,
        };
        let _ = self.shared.lost.set(over.err().unwrap_or(Lost::Closed));
    }

    /// Moves frames until this side has ended and the client has seen it, or the connection is lost. `welcome` says
    /// whether the client is still one to talk to.
    pub(super) async fn run_server(mut self, welcome: impl Fn() -> bool) {
        let (mut reader, mut writer) = split(&self.world, self.stream);
        let reading = async {
            read_items(&mut reader, &self.incoming, welcome).await?;
            // The client has ended. Listen on, to notice when it goes.
            reader.next().await.and(Err(Lost::Protocol("it sent something after the end of a stream")))
        };
        let mut reading = std::pin::pin!(reading);
        let over: Result<bool, Lost> = tokio::select! {
            biased;
            read = &mut reading => read,
            written = write_queue(&self.world, &mut writer, &mut self.outgoing) => written,
        };
        match over {
            // Closing now would destroy what the client has not read yet, if it is still sending.
            Ok(true) => drop(self.world.timeout(limits::RPC_LINGER, reading).await),
            Ok(false) => {}
            Err(lost) => drop(self.shared.lost.set(lost)),
        }
    }
}

/// Hands items on until the peer has ended. While the receiver is full, nothing is read: that reaches the peer.
async fn read_items<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    incoming: &Push,
    welcome: impl Fn() -> bool,
) -> Result<(), Lost> {
    loop {
        let frame = reader.next().await?;
        if !welcome() {
            return Err(Lost::Stranger);
        }
        let ended = frame.what == What::End;
        if !ended && frame.what != What::Item {
            return Err(Lost::Protocol("a frame of a call came on a stream"));
        }
        // An error means that nobody receives any more. The sending half may still be in use, so go on.
        let _ = incoming.push(frame).await;
        if ended {
            return Ok(());
        }
    }
}
