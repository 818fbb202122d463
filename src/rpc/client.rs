//! Calls to one peer, many at once on one connection; and streams, each on its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use super::connection::{split, write_queue};
use super::dial::Dialer;
use super::error::{Lost, RpcError, decode};
use super::frame::{Frame, What};
use super::handshake::Lane;
use super::queue::{Pop, Push, queue};
use super::stream::{Receiver, Sender, pair};
use super::{Identity, hold};
use crate::error::Error;
use crate::limits;
use crate::world::{BoxStream, World};

/// The way to one peer. It connects when it is first used and again when a connection was lost; dropping it closes its
/// connection once the calls in flight have ended.
pub struct Client {
    dialer: Arc<Dialer>,
    slots: Semaphore,
    calls: Mutex<Option<Attempt>>,
}

/// A connection that is being made, was made, or could not be.
type Attempt = watch::Receiver<Option<Result<Arc<Calls>, RpcError>>>;

impl Client {
    /// A way to the node at an address; if a node id is given, only to that node.
    pub fn new(world: &World, identity: &Identity, address: SocketAddr, node: Option<Uuid>) -> Self {
        Client::with_slots(world, identity, address, node, limits::RPC_IN_FLIGHT)
    }

    pub(super) fn with_slots(
        world: &World,
        identity: &Identity,
        address: SocketAddr,
        node: Option<Uuid>,
        slots: usize,
    ) -> Self {
        let dialer = Arc::new(Dialer::new(world.clone(), identity.clone(), address, node));
        Client { dialer, slots: Semaphore::new(slots), calls: Mutex::default() }
    }

    /// Calls the peer's service and waits for its answer, at most until the deadline. Dropped while it waits, it tells the
    /// peer to stop, as it does when the deadline passes.
    ///
    /// # Errors
    /// [`RpcError`]; [`RpcError::nothing_was_done`] says whether it may be repeated as it is.
    pub async fn call(&self, kind: u8, body: Bytes, deadline: Duration) -> Result<Bytes, RpcError> {
        if body.len() > limits::RPC_BODY {
            return Err(RpcError::TooLarge(body.len()));
        }
        let mut sent = false;
        let answered = self.dialer.world.timeout(deadline, self.ask(kind, body, &mut sent)).await;
        answered.unwrap_or(Err(RpcError::TimedOut { peer: self.dialer.peer, after: deadline, sent }))
    }

    async fn ask(&self, kind: u8, body: Bytes, sent: &mut bool) -> Result<Bytes, RpcError> {
        let not_sent = |lost: Lost| self.dialer.not_sent(lost.to_string());
        let _slot = self.slots.acquire().await.map_err(|_| not_sent(Lost::Left))?;
        let calls = self.connection().await?;
        let (id, answer) = calls.begin().map_err(not_sent)?;
        let mut waiting = Waiting { calls: &calls, id, sent: false };
        let request = Frame { what: What::Request, kind, id, body };
        calls.queue.push(request).await.map_err(|_| not_sent(calls.why()))?;
        // From here on it may be done. That it may still be in the queue when the connection is lost does not help: it
        // may as well not.
        waiting.sent = true;
        *sent = true;
        match answer.await {
            Ok(answer) => answer.map_err(RpcError::Answered),
            Err(_) => Err(RpcError::Unknown { peer: self.dialer.peer, reason: calls.why().to_string() }),
        }
    }

    /// Opens a stream, on a connection of its own, within [`limits::RPC_CONNECT`].
    ///
    /// # Errors
    /// [`RpcError::NotSent`] or [`RpcError::Refused`]: nothing was done.
    pub async fn stream(&self, kind: u8) -> Result<(Sender, Receiver), RpcError> {
        self.dialer.gate()?;
        let stream = self.dialer.dial(&self.dialer.hello(Lane::Stream(kind))).await?;
        let (sender, receiver, wire) = pair(&self.dialer.world, stream, self.dialer.peer);
        self.dialer.world.spawn(wire.run_client());
        Ok((sender, receiver))
    }

    /// The connection for calls: the one there is, or a new one.
    async fn connection(&self) -> Result<Arc<Calls>, RpcError> {
        let mut attempt = self.attempt()?;
        let made = attempt.wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
        made.unwrap_or_else(|| Err(self.dialer.not_sent(Lost::Left.to_string())))
    }

    fn attempt(&self) -> Result<Attempt, RpcError> {
        let mut current = hold(&self.calls);
        if let Some(attempt) = current.as_ref() {
            let usable = match &*attempt.borrow() {
                Some(Ok(calls)) => calls.usable(&self.dialer.identity),
                Some(Err(_)) => false,
                None => attempt.has_changed().is_ok(),
            };
            if usable {
                return Ok(attempt.clone());
            }
        }
        self.dialer.gate()?;
        let (made, attempt) = watch::channel(None);
        let dialer = self.dialer.clone();
        // A task of its own, so that callers with deadlines shorter than a handshake still get a connection in the end.
        self.dialer.world.spawn(async move {
            let connected = connect(dialer).await;
            let _ = made.send(Some(connected));
        });
        Ok(current.insert(attempt).clone())
    }
}

async fn connect(dialer: Arc<Dialer>) -> Result<Arc<Calls>, RpcError> {
    let hello = dialer.hello(Lane::Calls);
    let stream = dialer.dial(&hello).await?;
    let (push, pop) = queue();
    let pending = Arc::new(Pending { answers: Mutex::new(Some(BTreeMap::new())), lost: OnceLock::new() });
    let calls = Calls { queue: push, pending: pending.clone(), cluster: hello.cluster, last: Mutex::new(0) };
    let world = dialer.world.clone();
    world.spawn(async move {
        let begun = dialer.world.clock.now();
        let lost = pending.run(&dialer.world, stream, pop).await;
        tracing::debug!(peer = %dialer.peer, %lost, "a connection to a node ended");
        // A peer that accepts and then hangs up is as dead as one that does not accept.
        if lost != Lost::Left && dialer.world.clock.now().since(begun) < limits::RPC_BACKOFF_CAP {
            dialer.failed(dialer.not_sent(lost.to_string()));
        }
        pending.end(lost);
    });
    Ok(Arc::new(calls))
}

/// A connection that carries calls. The connection ends when the last of these pointers goes.
struct Calls {
    queue: Push,
    pending: Arc<Pending>,
    /// The cluster that this node gave as its own.
    cluster: Option<Uuid>,
    last: Mutex<u32>,
}

type Answer = Result<Bytes, Error>;

/// Who waits for answers. The connection's task holds this, and not the queue that keeps it alive.
struct Pending {
    /// By stream id; `None` once the connection has ended.
    answers: Mutex<Option<BTreeMap<u32, oneshot::Sender<Answer>>>>,
    lost: OnceLock<Lost>,
}

impl Calls {
    /// Whether calls can still go this way. A node that has learned its cluster's id greets its peers again.
    fn usable(&self, identity: &Identity) -> bool {
        !self.queue.is_gone() && self.cluster == identity.cluster()
    }

    /// Takes a stream id that no call in flight has.
    fn begin(&self) -> Result<(u32, oneshot::Receiver<Answer>), Lost> {
        let mut answers = hold(&self.pending.answers);
        let answers = answers.as_mut().ok_or_else(|| self.why())?;
        let mut last = hold(&self.last);
        *last = last.wrapping_add(1);
        while answers.contains_key(&*last) {
            *last = last.wrapping_add(1);
        }
        let (send, receive) = oneshot::channel();
        answers.insert(*last, send);
        Ok((*last, receive))
    }

    fn why(&self) -> Lost {
        self.pending.lost.get().cloned().unwrap_or(Lost::Closed)
    }
}

impl Pending {
    async fn run(&self, world: &World, stream: BoxStream, mut queue: Pop) -> Lost {
        let (mut reader, mut writer) = split(world, stream);
        let reading = async {
            loop {
                let frame = match reader.next().await {
                    Ok(frame) => frame,
                    Err(lost) => return lost,
                };
                let answer = match frame.what {
                    What::Response => Ok(frame.body),
                    What::Error => Err(decode(&frame.body)),
                    _ => return Lost::Protocol("a server sent what only clients send"),
                };
                // Nobody waits if the call was cancelled meanwhile.
                if let Some(waiting) = hold(&self.answers).as_mut().and_then(|answers| answers.remove(&frame.id)) {
                    let _ = waiting.send(answer);
                }
            }
        };
        tokio::select! {
            biased;
            lost = reading => lost,
            written = write_queue(world, &mut writer, &mut queue) => written.err().unwrap_or(Lost::Left),
        }
    }

    /// Wakes everyone who waits, after the reason is there to be read.
    fn end(&self, lost: Lost) {
        let _ = self.lost.set(lost);
        hold(&self.answers).take();
    }
}

/// A call that waits for its answer. Dropped without one, it tells the server that nobody waits any more.
struct Waiting<'a> {
    calls: &'a Calls,
    id: u32,
    sent: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let unanswered = hold(&self.calls.pending.answers).as_mut().is_some_and(|all| all.remove(&self.id).is_some());
        if unanswered && self.sent {
            // Best effort: if the queue is full, the server works for nobody until it is done.
            self.calls.queue.try_push(Frame::empty(What::Cancel, self.id));
        }
    }
}
