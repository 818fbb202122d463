//! How long a connection may take: one deadline that moves as bytes do.
//!
//! hyper's own head timeout cannot be used: it also ends a connection that merely rests between two requests, which
//! breaks every client's connection pool, and it allocates and arms a timer for each request. Here each connection has
//! one timer that looks at the deadline every few seconds, and a request only stores numbers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;
use crate::world::{BoxStream, Instant, World};

/// Between requests: nothing of the next head has come. The last answer may still be on its way.
const RESTING: u8 = 0;
/// Some bytes of a head have come.
const HEAD: u8 = 1;
/// A request is being handled: it has time limits of its own.
const BUSY: u8 = 2;

/// How often the deadline is looked at; it is missed by no more than this.
const TICK: Duration = Duration::from_millis(limits::HEAD_TIMEOUT.as_millis() as u64 / 4);

/// The deadline of one connection. All of a connection runs in one task: the atomics are there for `Send`.
pub struct Patience {
    world: World,
    phase: AtomicU8,
    /// An [`Instant`]'s nanoseconds.
    deadline: AtomicU64,
}

impl Patience {
    /// A connection that has just been accepted. Its first head is awaited with the patience for any head.
    pub fn new(world: World) -> Arc<Self> {
        let deadline = world.clock.now() + limits::HEAD_TIMEOUT;
        Arc::new(Patience { world, phase: AtomicU8::new(HEAD), deadline: AtomicU64::new(deadline.0) })
    }

    /// A whole head has come and its handler is running.
    pub fn busy(&self) {
        self.enter(BUSY, Instant(u64::MAX));
    }

    /// The handler has answered; the answer is still to be sent.
    pub fn answered(&self) {
        self.enter(RESTING, self.world.clock.now() + limits::IDLE_TIMEOUT);
    }

    /// Waits until the deadline has passed.
    pub async fn exhausted(&self) {
        loop {
            let (now, deadline) = (self.world.clock.now(), Instant(self.deadline.load(Relaxed)));
            if now >= deadline {
                return;
            }
            // The deadline may have moved closer by the time we look again, so never sleep for long.
            self.world.clock.sleep_until(deadline.min(now + TICK)).await;
        }
    }

    fn enter(&self, phase: u8, deadline: Instant) {
        self.phase.store(phase, Relaxed);
        self.deadline.store(deadline.0, Relaxed);
    }

    fn has_read(&self) {
        if self.phase.load(Relaxed) == RESTING {
            self.enter(HEAD, self.world.clock.now() + limits::HEAD_TIMEOUT);
        }
    }

    /// A client that takes a long answer slowly is served as long as it takes something.
    fn has_written(&self) {
        if self.phase.load(Relaxed) == RESTING {
            self.enter(RESTING, self.world.clock.now() + limits::IDLE_TIMEOUT);
        }
    }
}

/// A stream that tells its [`Patience`] when bytes move. Vectored writes go through, so that the head and the body of
/// an answer leave in one system call.
pub struct Watched {
    stream: BoxStream,
    patience: Arc<Patience>,
}

impl Watched {
    /// Watches a stream.
    pub fn new(stream: BoxStream, patience: Arc<Patience>) -> Self {
        Watched { stream, patience }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.patience.has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.patience.has_written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.patience.has_written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
