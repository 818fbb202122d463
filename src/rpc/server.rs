//! The listening side: greets who connects, runs what they call, and lets none of them harm another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::connection::{FrameReader, split, write_queue};
use super::error::{Lost, Refusal, encode};
use super::frame::{Frame, What};
use super::handshake::{Hello, Lane, answer, hear};
use super::queue::{Push, queue};
use super::stream::{Receiver, Sender, pair};
use super::tasks::{StopOnDrop, Tasks};
use super::{Identity, Peer, hold, strangers};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{BoxListener, BoxStream, Task, World};

/// What a node does for others. Bodies are not checked: what a peer sends may be anything.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one call, in a task of its own. It is dropped at any await if the caller gives up or is lost. If it panics,
    /// the caller gets [`Error::Unknown`].
    async fn call(&self, peer: Peer, kind: u8, body: Bytes) -> Result<Bytes>;

    /// Serves one stream, in a task of its own. The stream is over when this returns: complete if it called
    /// [`Sender::end`], cut if not. If the peer is lost, it sees that in `incoming` and is dropped after
    /// [`limits::RPC_LINGER`].
    async fn stream(&self, peer: Peer, kind: u8, incoming: Receiver, outgoing: Sender);
}

/// A listening server. Dropping it stops it.
pub struct Server {
    /// Where it listens, with the port that was given for port 0.
    pub addr: SocketAddr,
    accepting: Task<()>,
    node: Arc<Node>,
}

/// What all connections of a server share.
struct Node {
    world: World,
    identity: Identity,
    service: Arc<dyn Service>,
    connections: Arc<Tasks>,
    seats: Arc<Mutex<Seats>>,
    /// Calls, and bytes of calls, that are being worked on.
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Listens, and serves everyone who is welcome.
///
/// # Errors
/// [`Error::Operator`] if the address cannot be listened on.
pub async fn serve(world: &World, addr: SocketAddr, identity: &Identity, service: Arc<dyn Service>) -> Result<Server> {
    let failed = |e| Error::io(format_args!("cannot listen on {addr} for other nodes"), &e);
    let listener = world.net.listen(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let node = Arc::new(Node {
        world: world.clone(),
        identity: identity.clone(),
        service,
        connections: Tasks::new(),
        seats: Arc::default(),
        calls: Arc::new(Semaphore::new(limits::RPC_CALLS)),
        bytes: Arc::new(Semaphore::new(limits::RPC_CALL_BYTES)),
    });
    let accepting = world.spawn(node.clone().accept(listener));
    Ok(Server { addr, accepting, node })
}

impl Server {
    /// Stops listening, cuts every connection and aborts their calls. Returns when the port is free.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        for connection in self.node.connections.stop() {
            let _ = connection.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.node.connections.stop();
    }
}

impl Node {
    async fn accept(self: Arc<Self>, listener: BoxListener) {
        let handshakes = Arc::new(Semaphore::new(limits::RPC_HANDSHAKES));
        for number in 0.. {
            // More wait in the kernel's queue.
            let Ok(greeting) = handshakes.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, addr)) => {
                    self.connections.spawn(&self.world, number, self.clone().connection(stream, addr, greeting));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection from another node");
                    self.world.sleep(limits::RPC_ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, mut stream: BoxStream, address: SocketAddr, greeting: OwnedSemaphorePermit) {
        let greeted = self.world.timeout(limits::RPC_HANDSHAKE, self.greet(&mut stream, address)).await;
        drop(greeting);
        let lost = match greeted {
            Some(Ok(Some((hello, lane, _seat)))) => {
                let peer = Peer { node: hello.node, cluster: hello.cluster, address };
                match lane {
                    Lane::Calls => self.serve_calls(&peer, stream).await,
                    Lane::Stream(kind) => self.serve_stream(peer, kind, stream).await,
                }
            }
            // Refused, and logged.
            Some(Ok(None)) => return,
            Some(Err(lost)) => lost,
            None => Lost::Protocol("it did not greet in time"),
        };
        tracing::debug!(%address, %lost, "a connection from a node ended");
    }

    /// Who is there, in which lane, and its seat; or nothing if it was refused.
    async fn greet(&self, stream: &mut BoxStream, address: SocketAddr) -> Result<Option<(Hello, Lane, Seat)>, Lost> {
        let hello = hear(stream).await?;
        let seat = hello.judge(&self.identity).and_then(|()| Seat::take(&self.seats, hello.node));
        let (seat, verdict) = match seat {
            Ok(seat) => (Some(seat), Ok(())),
            Err(refusal) => {
                tracing::warn!(%address, node = %hello.node, %refusal, "refused a connection from a node");
                (None, Err(refusal))
            }
        };
        // A lane that does not exist is no reason to refuse but an error of the peer's, who was told the version.
        let lane = hello.lane();
        answer(stream, &hello, &self.identity, &verdict).await?;
        let Some(seat) = seat else { return Ok(None) };
        Ok(Some((hello, lane?, seat)))
    }

    /// Whether a peer is still of this node's cluster, which may have become known since the peer was greeted.
    fn welcome(&self, cluster: Option<Uuid>) -> bool {
        !strangers(self.identity.cluster(), cluster)
    }

    async fn serve_calls(self: &Arc<Self>, peer: &Peer, stream: BoxStream) -> Lost {
        let (mut reader, mut writer) = split(&self.world, stream);
        let (push, mut pop) = queue();
        let running = StopOnDrop(Tasks::new());
        tokio::select! {
            biased;
            lost = self.read_calls(peer, &mut reader, &push, &running.0) => lost,
            written = write_queue(&self.world, &mut writer, &mut pop) => written.err().unwrap_or(Lost::Left),
        }
    }

    async fn read_calls<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        peer: &Peer,
        reader: &mut FrameReader<R>,
        answers: &Push,
        running: &Arc<Tasks>,
    ) -> Lost {
        loop {
            let frame = match reader.next().await {
                Ok(_) if !self.welcome(peer.cluster) => return Lost::Stranger,
                Ok(frame) => frame,
                Err(lost) => return lost,
            };
            let number = u64::from(frame.id);
            match frame.what {
                What::Cancel => running.abort(number),
                What::Request if running.contains(number) => return Lost::Protocol("a call's number is in use"),
                What::Request => match self.admit(running, &frame) {
                    Some(admitted) => {
                        let call = self.clone().run(peer.clone(), frame, answers.clone(), admitted);
                        running.spawn(&self.world, number, call);
                    }
                    None => {
                        let busy = Error::Retry("the node works on as many calls as it can".into());
                        // Waiting here stops reading: who does not take refusals gets to make no more calls.
                        let _ = answers.push(Frame::new(What::Error, frame.id, encode(&busy).into())).await;
                    }
                },
                _ => return Lost::Protocol("a client sent what only servers send"),
            }
        }
    }

    /// A call's share of what the node can work on, or nothing if there is none left.
    fn admit(&self, running: &Tasks, request: &Frame) -> Option<[OwnedSemaphorePermit; 2]> {
        if running.len() >= limits::RPC_IN_FLIGHT {
            return None;
        }
        let call = self.calls.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(request.body.len() as u32).ok()?;
        Some([call, bytes])
    }

    async fn run(self: Arc<Self>, peer: Peer, request: Frame, answers: Push, _admitted: [OwnedSemaphorePermit; 2]) {
        let call = async { self.service.call(peer, request.kind, request.body).await };
        let answer = match AssertUnwindSafe(call).catch_unwind().await {
            Ok(Ok(body)) if body.len() > limits::RPC_BODY => {
                Err(Error::Unknown(format!("the answer of {} bytes is too large for one frame", body.len())))
            }
            Ok(answer) => answer,
            Err(_) => Err(Error::Unknown("the call failed on the way; the node's log says why".into())),
        };
        let frame = match answer {
            Ok(body) => Frame::new(What::Response, request.id, body),
            Err(error) => Frame::new(What::Error, request.id, encode(&error).into()),
        };
        // The call counts until its answer has a place in the queue, so that a slow reader cannot pile up answers.
        let _ = answers.push(frame).await;
    }

    async fn serve_stream(self: &Arc<Self>, peer: Peer, kind: u8, stream: BoxStream) -> Lost {
        let cluster = peer.cluster;
        let (sender, receiver, wire) = pair(&self.world, stream, peer.address);
        let handlers = StopOnDrop(Tasks::new());
        let service = self.service.clone();
        let (done, finished) = tokio::sync::oneshot::channel::<()>();
        handlers.0.spawn(&self.world, 0, async move {
            let _done = done;
            service.stream(peer, kind, receiver, sender).await;
        });
        wire.run_server(|| self.welcome(cluster)).await;
        // It has returned, or has its peer's loss to read; either way it gets no longer than this.
        let _ = self.world.timeout(limits::RPC_LINGER, finished).await;
        Lost::Left
    }
}

/// How many connections there are.
#[derive(Default)]
struct Seats {
    all: usize,
    of_peer: BTreeMap<Uuid, usize>,
}

/// One connection's place among [`limits::RPC_CONNECTIONS`].
struct Seat {
    seats: Arc<Mutex<Seats>>,
    node: Uuid,
}

impl Seat {
    fn take(seats: &Arc<Mutex<Seats>>, node: Uuid) -> Result<Seat, Refusal> {
        let mut held = hold(seats);
        let of_peer = held.of_peer.get(&node).copied().unwrap_or(0);
        if held.all >= limits::RPC_CONNECTIONS || of_peer >= limits::RPC_CONNECTIONS_PER_PEER {
            return Err(Refusal::TooManyConnections);
        }
        held.all += 1;
        held.of_peer.insert(node, of_peer + 1);
        Ok(Seat { seats: seats.clone(), node })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = hold(&self.seats);
        held.all -= 1;
        match held.of_peer.get_mut(&self.node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.of_peer.remove(&self.node)),
        }
    }
}
