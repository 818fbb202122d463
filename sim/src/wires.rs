//! Connections that can be reset, held up and slowed down, on engines whose own cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use quorate::world::{BoxStream, Sleep, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::Time;
use crate::rng::Rng;
use crate::world::hold;

/// What a slow reader takes at a time, in bytes.
const SIP: usize = 400;

/// The connections of all hosts, and what is wrong with them.
pub struct Wires {
    servers: BTreeSet<IpAddr>,
    hosts: Mutex<BTreeMap<IpAddr, Host>>,
    /// Those that are held until then.
    thawing: Mutex<Vec<(Duration, Arc<Wire>)>>,
}

/// Which connections of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those with servers.
    Servers,
}

impl Which {
    fn sides(self) -> Range<usize> {
        if self == Which::All { 0..2 } else { 1..2 }
    }
}

/// What is wrong with the connections of a host, those to come as well: with others, and with servers.
#[derive(Default)]
struct Host {
    trouble: [Trouble; 2],
    wires: [Vec<Arc<Wire>>; 2],
}

/// What is wrong with a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    reset: bool,
    /// Nothing passes, in either direction.
    held: bool,
    /// How long a reader rests after each sip.
    rest: Option<Duration>,
}

/// One end of a connection.
struct Wire {
    /// Whether this host opened it.
    opened: bool,
    /// Its trouble, and who waits on it.
    state: Mutex<(Trouble, Vec<Waker>)>,
}

impl Wires {
    /// No connection yet. The servers are at these addresses.
    pub fn new(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Wires { servers: servers.into_iter().collect(), hosts: Mutex::default(), thawing: Mutex::default() }
    }

    /// This host's end of a connection that it opened.
    pub fn opened<S: Stream + 'static>(
        &self,
        host: IpAddr,
        peer: IpAddr,
        time: &Arc<dyn Time>,
        stream: S,
    ) -> BoxStream {
        self.stream(host, peer, true, time, stream)
    }

    /// This host's end of a connection that its peer opened.
    pub fn accepted<S: Stream + 'static>(
        &self,
        host: IpAddr,
        peer: IpAddr,
        time: &Arc<dyn Time>,
        stream: S,
    ) -> BoxStream {
        self.stream(host, peer, false, time, stream)
    }

    fn stream<S: Stream + 'static>(
        &self,
        host: IpAddr,
        peer: IpAddr,
        opened: bool,
        time: &Arc<dyn Time>,
        stream: S,
    ) -> BoxStream {
        let side = usize::from(self.servers.contains(&peer));
        let mut hosts = hold(&self.hosts);
        let Host { trouble, wires } = hosts.entry(host).or_default();
        let wire = Arc::new(Wire { opened, state: Mutex::new((trouble[side], Vec::new())) });
        // Those that only this list knows are closed.
        wires[side].retain(|wire| Arc::strong_count(wire) > 1);
        wires[side].push(wire.clone());
        Box::new(End { stream, wire, time: time.clone(), rest: None, written: false })
    }

    /// Resets every connection of a host: both ends fail at their next use.
    pub fn reset(&self, host: IpAddr) {
        let wires = hold(&self.hosts).get_mut(&host).map(|host| std::mem::take(&mut host.wires)).unwrap_or_default();
        wires.iter().flatten().for_each(|wire| wire.change(|trouble| trouble.reset = true));
    }

    /// Holds connections of a host, those to come as well.
    pub fn hold(&self, host: IpAddr, which: Which) {
        self.change(host, which, |trouble| trouble.held = true);
        // Those that an earlier hold was about to let go.
        let hosts = hold(&self.hosts);
        let held =
            |wire: &Arc<Wire>| hosts[&host].wires[which.sides()].iter().flatten().any(|other| Arc::ptr_eq(wire, other));
        hold(&self.thawing).retain(|(_, wire)| !held(wire));
    }

    /// Lets connections go on, one after the other, this far apart: what was sent on one arrives at once. They go in the
    /// order in which they were made, or in another one (see [`Fault::order`](crate::nemesis::Fault::order)).
    pub fn thaw(&self, host: IpAddr, which: Which, now: Duration, apart: Duration, order: u64) {
        let mut hosts = hold(&self.hosts);
        let Host { trouble, wires } = hosts.entry(host).or_default();
        trouble[which.sides()].iter_mut().for_each(|trouble| trouble.held = false);
        let times = (0..).map(|place| now + apart * place);
        let mut held: Vec<_> = wires[which.sides()].iter().flatten().cloned().collect();
        if order > 0 {
            let mut rng = Rng::new(order);
            held.sort_by_cached_key(|wire| (!wire.opened, rng.u64()));
        }
        hold(&self.thawing).extend(times.zip(held));
        drop(hosts);
        self.step(now);
    }

    /// Lets those go on whose time has come.
    pub fn step(&self, now: Duration) {
        let due: Vec<_> = hold(&self.thawing).extract_if(.., |(at, _)| *at <= now).collect();
        due.iter().for_each(|(_, wire)| wire.change(|trouble| trouble.held = false));
    }

    /// Makes a host read a few bytes at a time, with a rest after each.
    pub fn trickle(&self, host: IpAddr, rest: Option<Duration>) {
        self.change(host, Which::All, |trouble| trouble.rest = rest);
    }

    fn change(&self, host: IpAddr, which: Which, change: impl Fn(&mut Trouble)) {
        let mut hosts = hold(&self.hosts);
        let Host { trouble, wires } = hosts.entry(host).or_default();
        trouble[which.sides()].iter_mut().for_each(&change);
        wires[which.sides()].iter().flatten().for_each(|wire| wire.change(&change));
    }
}

impl Wire {
    fn change(&self, change: impl FnOnce(&mut Trouble)) {
        let waiting = {
            let (trouble, waiting) = &mut *hold(&self.state);
            change(trouble);
            std::mem::take(waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// How long to rest after each sip, once something may pass.
    fn pass(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Duration>>> {
        let (trouble, waiting) = &mut *hold(&self.state);
        if trouble.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            // Reader and writer, and no more: an older waker belongs to a task that has handed the stream on.
            if waiting.len() > 1 {
                waiting.remove(0);
            }
            waiting.push(cx.waker().clone());
        }
        if trouble.held { Poll::Pending } else { Poll::Ready(Ok(trouble.rest)) }
    }
}

/// One end of a connection.
struct End<S> {
    stream: S,
    wire: Arc<Wire>,
    time: Arc<dyn Time>,
    rest: Option<Sleep>,
    /// Whether there is anything to flush. Madsim sends a message for each flush, and a message without bytes wakes the
    /// other end, which flushes: two ends would go on like that for ever.
    written: bool,
}

impl<S: Stream> AsyncRead for End<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let slow = ready!(self.wire.pass(cx))?;
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        let Some(rest) = slow else { return Pin::new(&mut self.stream).poll_read(cx, buffer) };
        let mut sip = vec![0; buffer.remaining().min(SIP)];
        let mut part = ReadBuf::new(&mut sip);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        self.rest = Some(self.time.sleep(rest));
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for End<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.wire.pass(cx))?;
        self.written = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.written = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;
    use crate::engine::StandingStill;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
    const LATER: Duration = Duration::from_millis(20);

    fn connect(wires: &Wires, peer: IpAddr) -> (BoxStream, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let time: Arc<dyn Time> = Arc::new(StandingStill);
        (wires.opened(HOST, peer, &time, near), far)
    }

    fn passes((stream, _far): &mut (BoxStream, DuplexStream)) -> bool {
        let written = Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), b"x");
        matches!(written, Poll::Ready(Ok(1)))
    }

    #[test]
    fn connections_with_servers_are_held_and_others_are_not() {
        let wires = Wires::new([HOST, SERVER]);
        let (mut server, mut client) = (connect(&wires, SERVER), connect(&wires, CLIENT));
        wires.hold(HOST, Which::Servers);
        assert_eq!((passes(&mut server), passes(&mut client)), (false, true));
        assert!(!passes(&mut connect(&wires, SERVER)), "one that begins meanwhile is held as well");
        wires.hold(HOST, Which::All);
        assert!(!passes(&mut client));
    }

    #[test]
    fn connections_go_on_one_after_the_other() {
        let wires = Wires::new([HOST, SERVER]);
        let (mut one, mut other) = (connect(&wires, SERVER), connect(&wires, SERVER));
        wires.hold(HOST, Which::All);
        wires.thaw(HOST, Which::All, LATER, LATER, 0);
        assert_eq!((passes(&mut one), passes(&mut other)), (true, false));
        assert!(passes(&mut connect(&wires, SERVER)), "one that begins now was never held");
        wires.step(LATER);
        assert!(!passes(&mut other));
        wires.step(2 * LATER);
        assert!(passes(&mut other));
    }

    #[test]
    fn connections_that_the_host_opened_go_on_in_any_order_before_the_others() {
        let first = |order| {
            let wires = Wires::new([HOST, SERVER]);
            let (near, far) = tokio::io::duplex(64);
            let time: Arc<dyn Time> = Arc::new(StandingStill);
            let mut all = vec![(wires.accepted(HOST, SERVER, &time, near), far)];
            all.extend((0..4).map(|_| connect(&wires, SERVER)));
            wires.hold(HOST, Which::All);
            wires.thaw(HOST, Which::All, LATER, LATER, order);
            all.iter_mut().position(passes)
        };
        let seen: BTreeSet<_> = (1..50).map(first).collect();
        assert_eq!(seen, (1..5).map(Some).collect());
        assert_eq!(first(0), Some(0));
    }

    #[test]
    fn a_connection_that_is_held_again_does_not_go_on_for_the_first_time() {
        let wires = Wires::new([HOST, SERVER]);
        let (_one, mut other) = (connect(&wires, SERVER), connect(&wires, SERVER));
        wires.hold(HOST, Which::All);
        wires.thaw(HOST, Which::All, LATER, LATER, 0);
        wires.hold(HOST, Which::Servers);
        wires.step(2 * LATER);
        assert!(!passes(&mut other));
        wires.thaw(HOST, Which::Servers, 2 * LATER, Duration::ZERO, 0);
        assert!(passes(&mut other));
    }

    #[test]
    fn a_connection_that_was_reset_fails() {
        let wires = Wires::new([SERVER]);
        let mut server = connect(&wires, SERVER);
        wires.reset(HOST);
        assert!(!passes(&mut server));
    }
}
