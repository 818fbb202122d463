//! A queue of frames, bounded in frames and in bytes. Who pushes into a full one waits: that is the backpressure.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::{Frame, HEAD};
use crate::limits;

/// The receiving end is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// The sending end. Clones share the queue.
#[derive(Clone)]
pub(super) struct Push {
    frames: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// The receiving end. Dropping it wakes and refuses who pushes.
pub(super) struct Pop {
    frames: mpsc::Receiver<Queued>,
    room: Arc<Semaphore>,
}

/// A frame and its share of the queue's bytes, which it gives back when it is dropped.
pub(super) struct Queued {
    pub(super) frame: Frame,
    _room: OwnedSemaphorePermit,
}

/// A queue of [`limits::RPC_QUEUE_FRAMES`] and [`limits::RPC_QUEUE_BYTES`].
pub(super) fn queue() -> (Push, Pop) {
    let (push, pop) = mpsc::channel(limits::RPC_QUEUE_FRAMES);
    let room = Arc::new(Semaphore::new(limits::RPC_QUEUE_BYTES));
    (Push { frames: push, room: room.clone() }, Pop { frames: pop, room })
}

/// A frame's bytes. No body is over [`limits::RPC_BODY`], so it always fits an empty queue.
fn size(frame: &Frame) -> u32 {
    (HEAD + frame.body.len()) as u32
}

impl Push {
    /// Waits for room. If it is dropped while it waits, the frame is not in the queue.
    pub(super) async fn push(&self, frame: Frame) -> Result<(), Gone> {
        let _room = self.room.clone().acquire_many_owned(size(&frame)).await.map_err(|_| Gone)?;
        self.frames.send(Queued { frame, _room }).await.map_err(|_| Gone)
    }

    /// Pushes if there is room.
    pub(super) fn try_push(&self, frame: Frame) {
        if let Ok(_room) = self.room.clone().try_acquire_many_owned(size(&frame)) {
            let _ = self.frames.try_send(Queued { frame, _room });
        }
    }

    /// Whether the receiving end is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.frames.is_closed()
    }
}

impl Pop {
    /// The next frame, or `None` once every sending end is gone.
    pub(super) async fn pop(&mut self) -> Option<Frame> {
        self.frames.recv().await.map(|queued| queued.frame)
    }

    /// Waits for a frame and takes all that are queued; 0 once every sending end is gone.
    pub(super) async fn pop_all(&mut self, into: &mut Vec<Queued>) -> usize {
        self.frames.recv_many(into, limits::RPC_QUEUE_FRAMES).await
    }
}

impl Drop for Pop {
    fn drop(&mut self) {
        self.room.close();
    }
}
