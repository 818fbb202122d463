//! A client's connection: HTTP/1.1 over a world's network, one request at a time.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use quorate::world::World;

/// A connection to one server, opened when it is needed.
pub struct Http {
    world: World,
    server: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Reply {
    /// The server never had the request.
    NotSent,
    /// No whole answer came: the connection broke, or the client gave up.
    Lost,
    /// The server's answer.
    Answer {
        /// The status code.
        status: u16,
        /// `X-Consul-Index`, or 0.
        index: u64,
        /// `X-Quorate-Fence`.
        fence: Option<u64>,
        /// `X-Quorate-Lease-Ms`.
        lease: Option<Duration>,
        /// `X-Quorate-Epoch`, or 0.
        epoch: u64,
        /// The body.
        body: Bytes,
    },
}

impl Http {
    /// Speaks to this server.
    pub fn new(world: &World, server: SocketAddr) -> Self {
        Http { world: world.clone(), server, open: None }
    }

    /// Hangs up and speaks to another server.
    pub fn turn_to(&mut self, server: SocketAddr) {
        self.server = server;
        self.open = None;
    }

    /// Sends a request and waits for its answer, at most for `patience`. A request that is given up is hung up on.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        id: Option<&str>,
        body: impl Into<Bytes>,
        patience: Duration,
    ) -> Reply {
        let world = self.world.clone();
        let mut request = Request::builder().method(method).uri(path).header("Host", "simulated");
        if let Some(id) = id {
            request = request.header("X-Quorate-Request-Id", id);
        }
        let request = request.body(Full::new(body.into())).expect("the parts are well-formed");
        let mut sent = false;
        let answered = world.timeout(patience, self.exchange(request, &mut sent)).await.flatten();
        match answered {
            Some(answer) => answer,
            None => {
                self.open = None;
                if sent { Reply::Lost } else { Reply::NotSent }
            }
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>, sent: &mut bool) -> Option<Reply> {
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            self.open = None;
            let stream = self.world.net.connect(self.server).await.ok()?;
            let (open, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            self.world.spawn(async move {
                // It ends with an error when either side hangs up, which both may.
                let _ = connection.await;
            });
            self.open = Some(open);
        }
        let open = self.open.as_mut()?;
        open.ready().await.ok()?;
        *sent = true;
        let answer = open.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let number = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let [index, epoch] = ["X-Consul-Index", "X-Quorate-Epoch"].map(|name| number(name).unwrap_or(0));
        let (fence, lease) = (number("X-Quorate-Fence"), number("X-Quorate-Lease-Ms").map(Duration::from_millis));
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some(Reply::Answer { status, index, fence, lease, epoch, body })
    }
}
