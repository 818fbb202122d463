//! Accepting connections, a bounded number of them, and letting them go.
//!
//! hyper speaks HTTP over a connection of any world; the loop around it is ours, because a server that spawns or sleeps
//! behind our back could not run in a simulated world.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum_core::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::patience::{Patience, Watched};
use super::reply::Response;
use super::{Edge, HttpConfig, routes};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{BoxListener, BoxStream, World};

/// A running HTTP server. Dropping it stops it too, without waiting.
pub struct Server {
    addrs: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
}

/// Listens on every address and serves until the server is shut down.
///
/// # Errors
/// [`Error::Operator`] if an address cannot be listened on; none is then.
pub async fn serve(agent: Agent, config: HttpConfig) -> Result<Server> {
    let world = agent.world().clone();
    let mut listeners = Vec::new();
    let mut addrs = Vec::new();
    for addr in &config.listen {
        let failed = |error| Error::io(format!("cannot listen on {addr} for HTTP"), &error);
        let listener = world.net.listen(*addr).await.map_err(failed)?;
        addrs.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    let (stop, stopping) = watch::channel(false);
    let per_client = config.connections_per_client;
    let edge = Arc::new(Edge { agent, config, stopping: stopping.clone(), backups: Default::default() });
    let router = Arc::new(routes::Router::new(&edge));
    let acceptor = Acceptor { world: world.clone(), router, stopping, open: Open::new(per_client) };
    for listener in listeners {
        world.spawn(acceptor.clone().accept(listener));
    }
    Ok(Server { addrs, stop })
}

impl Server {
    /// The addresses listened on, with the ports that were given for port 0.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Stops accepting, answers blocking queries, lets other requests finish within [`limits::SHUTDOWN_GRACE`], and
    /// returns once every connection is closed.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        // Every task that serves holds a receiver.
        self.stop.closed().await;
    }
}

/// Whom a connection's requests are handed to: the router, or what a test puts in its place.
pub(super) trait Answers: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: hyper::Request<Body>) -> impl Future<Output = Response> + Send;
}

/// What it takes to accept connections.
struct Acceptor<R> {
    world: World,
    router: Arc<R>,
    stopping: watch::Receiver<bool>,
    open: Arc<Open>,
}

// By hand: a derive would ask for a router that can be cloned.
impl<R> Clone for Acceptor<R> {
    fn clone(&self) -> Self {
        let Acceptor { world, router, stopping, open } = self;
        Acceptor { world: world.clone(), router: router.clone(), stopping: stopping.clone(), open: open.clone() }
    }
}

impl<R: Answers> Acceptor<R> {
    async fn accept(mut self, listener: BoxListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    self.world.sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: BoxStream, peer: SocketAddr) {
        match self.open.admit(peer.ip()) {
            Admission::Granted(seat) => {
                let (world, router, stopping) = (self.world.clone(), self.router.clone(), self.stopping.clone());
                self.world.spawn(async move {
                    serve_connection(world, router, stopping, stream).await;
                    drop(seat);
                });
            }
            Admission::ClientFull(seat) => {
                let world = self.world.clone();
                self.world.spawn(async move {
                    world.timeout(limits::REFUSAL_TIME, refuse(stream)).await;
                    drop(seat);
                });
            }
            // There may be no descriptor left to say more with.
            Admission::Full => drop(stream),
        }
    }
}

/// One connection, from its first request to its end. The client's hanging up ends it at once, and with it the request
/// that is being handled: hyper reads on while a handler runs, and drops the handler's future when the stream ends.
async fn serve_connection<R: Answers>(
    world: World,
    router: Arc<R>,
    mut stopping: watch::Receiver<bool>,
    stream: BoxStream,
) {
    let patience = Patience::new(world.clone());
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        patience.busy();
        async {
            let answer = router.answer(request.map(Body::new)).await;
            patience.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = TokioIo::new(Watched::new(stream, patience.clone()));
    let connection = http1::Builder::new()
        // No wall clock on the wire; simulated runs compare bytes.
        .auto_date_header(false)
        // See `patience`.
        .header_read_timeout(None)
        .max_buf_size(limits::MAX_HEAD)
        // `X-Consul-Index`, as Go writes it: scripts grep for it.
        .title_case_headers(true)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    // How a connection ended is the client's business: nothing below is an error of ours.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = patience.exhausted() => return,
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    world.timeout(limits::SHUTDOWN_GRACE, connection).await;
}

/// Consul's answer to a client with too many connections. It does not wait for a request.
async fn refuse(mut stream: BoxStream) {
    const TEXT: &str = "Too many connections from this address (limits.http_max_conns_per_client)";
    let head = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{TEXT}", TEXT.len());
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _: Result<(), std::io::Error> = stream.shutdown().await;
    }
}

/// The connections that are open, by client address.
struct Open {
    per_client: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    /// Connections being served; an address with none is not here.
    clients: BTreeMap<IpAddr, usize>,
}

/// What becomes of a new connection.
enum Admission {
    Granted(Seat),
    /// It is only told that its client has too many. Telling takes a seat too, of the total.
    ClientFull(Seat),
    Full,
}

impl Open {
    fn new(per_client: usize) -> Arc<Self> {
        Arc::new(Open { per_client, counts: Mutex::default() })
    }

    fn admit(self: &Arc<Self>, client: IpAddr) -> Admission {
        // One client may come by IPv4 to an IPv6 socket.
        let client = client.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= limits::HTTP_CONNECTIONS {
            return Admission::Full;
        }
        counts.total += 1;
        let own = counts.clients.get(&client).copied().unwrap_or_default();
        if own >= self.per_client {
            return Admission::ClientFull(Seat { open: self.clone(), client: None });
        }
        counts.clients.insert(client, own + 1);
        Admission::Granted(Seat { open: self.clone(), client: Some(client) })
    }
}

/// A place among the open connections, given back when it is dropped.
struct Seat {
    open: Arc<Open>,
    /// The client that it counts for; None for one that is being refused.
    client: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        let Some(client) = self.client else { return };
        if let Some(own) = counts.clients.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                counts.clients.remove(&client);
            }
        }
    }
}
