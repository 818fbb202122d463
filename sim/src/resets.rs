//! Connections that can be reset, on engines whose own cannot.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use quorate::world::{BoxStream, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::world::hold;

/// The connections of each host, to be reset together.
#[derive(Default)]
pub struct Resets(Mutex<BTreeMap<IpAddr, Vec<Arc<Line>>>>);

/// Whether one connection has been reset, and who waits on it.
#[derive(Default)]
struct Line(Mutex<(bool, Vec<Waker>)>);

impl Resets {
    /// A connection of this host that can be reset.
    pub fn stream<S: Stream + 'static>(&self, host: IpAddr, stream: S) -> BoxStream {
        Box::new(Resettable { stream, line: self.line(host) })
    }

    fn line(&self, host: IpAddr) -> Arc<Line> {
        let line = Arc::new(Line::default());
        let mut lines = hold(&self.0);
        let own = lines.entry(host).or_default();
        // Those that only this list knows are closed.
        own.retain(|line| Arc::strong_count(line) > 1);
        own.push(line.clone());
        line
    }

    /// Resets every connection of a host: both ends fail at their next use.
    pub fn reset(&self, host: IpAddr) {
        let lines = hold(&self.0).remove(&host).unwrap_or_default();
        for line in lines {
            let (_, waiting) = std::mem::replace(&mut *hold(&line.0), (true, Vec::new()));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Line {
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let (reset, waiting) = &mut *hold(&self.0);
        if *reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            // Reader and writer, and no more: an older waker belongs to a task that has handed the stream on.
            waiting.truncate(1);
            waiting.push(cx.waker().clone());
        }
        Ok(())
    }
}

/// A stream that its host's network may reset.
struct Resettable<S> {
    stream: S,
    line: Arc<Line>,
}

impl<S: Stream> AsyncRead for Resettable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.line.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Stream> AsyncWrite for Resettable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.line.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
