//! One keep-alive connection to an agent: sends requests one at a time, bounds every wait and every answer.
//!
//! An idle connection that the agent closed meanwhile is noticed when a request cannot be handed to it: then, and only
//! then, the request goes out again on a new one, because nothing was done.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::address::Address;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{BoxStream, Instant, World};

/// A client of one agent.
pub struct Http {
    world: World,
    address: Address,
    token: Option<HeaderValue>,
    /// Taken for the length of one exchange, so what waits for it is bounded by who shares this client.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// What to send.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, PUT, DELETE…
    pub method: Method,
    /// Percent-encoded, with its query: `/v1/kv/a%20b?raw`.
    pub path: String,
    /// Beside those that every request has.
    pub headers: HeaderMap,
    /// Empty if there is none.
    pub body: Bytes,
    /// How long the agent may take to answer; a blocking query needs its wait on top.
    pub patience: Duration,
}

impl Request {
    /// A request without a body that is answered at once.
    pub fn new(method: Method, path: String) -> Request {
        Request { method, path, headers: HeaderMap::new(), body: Bytes::new(), patience: limits::CLIENT_PATIENCE }
    }
}

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most [`limits::CLIENT_REPLY`].
    pub body: Bytes,
}

impl Reply {
    /// A header that holds a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.parse().ok()
    }

    /// The error of a reply that is none of the expected ones.
    pub fn error(&self, address: &Address) -> Error {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim();
        let text = text.char_indices().nth(MAX_ERROR_TEXT).map_or(text, |(cut, _)| &text[..cut]);
        let message = match text {
            "" => format!("{address} answered {}", self.status),
            text => format!("{address} answered {}: {text}", self.status.as_u16()),
        };
        match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(message),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Error::Retry(message),
            // Consul answers 500 for anything from a bad number to a lost leader: whether something was done is not
            // said.
            status if status.is_server_error() => Error::Unknown(message),
            _ => Error::Request(message),
        }
    }
}

/// What a request on a connection of its own gave.
pub(super) enum Opened {
    /// Its headers, and a body that comes piece by piece.
    Stream(HeaderMap, Incoming),
    /// Any status but 200.
    Reply(Reply),
}

/// Longer error texts are cut: a proxy's error page is no sentence.
const MAX_ERROR_TEXT: usize = 1000;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

impl Http {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// `Request` if the token holds bytes that no header may hold.
    pub fn new(world: World, address: Address, token: Option<&str>) -> Result<Http> {
        let token = token.map(|token| -> Result<HeaderValue> {
            let mut value = HeaderValue::from_str(token)
                .map_err(|_| Error::Request("the token holds characters that no token has".into()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Http { world, address, token: token.transpose()?, connection: Mutex::new(None) })
    }

    /// Whom this client talks to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A client of the same agent with a connection of its own: what waits on this one does not hold it up.
    pub fn another(&self) -> Http {
        let (world, address, token) = (self.world.clone(), self.address.clone(), self.token.clone());
        Http { world, address, token, connection: Mutex::new(None) }
    }

    /// What this client runs on.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The time by this client's monotonic clock.
    pub(super) fn now(&self) -> Instant {
        self.world.clock.now()
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// `Retry` if the agent could not be reached, so nothing was done. `Unknown` if it was reached and a write's reply
    /// did not come; the same of a read is `Retry`. `TooLarge` if the reply exceeds [`limits::CLIENT_REPLY`].
    pub async fn send(&self, request: Request) -> Result<Reply> {
        let mut connection = self.connection.lock().await;
        // Left empty while the exchange runs: if it fails or is cancelled, half a reply may be on the way.
        let reused = connection.take();
        let (mut sender, fresh) = match reused {
            Some(sender) if !sender.is_closed() => (sender, false),
            _ => (self.connect().await?, true),
        };
        let patience = request.patience;
        let exchange = async {
            match self.exchange(&mut sender, &request).await {
                Err(Failure::Unsent(_)) if !fresh => {
                    sender = self.connect().await.map_err(Failure::Known)?;
                    self.exchange(&mut sender, &request).await
                }
                outcome => outcome,
            }
        };
        let outcome = self.world.timeout(patience, exchange).await;
        let outcome = outcome.unwrap_or_else(|| Err(Failure::Lost(format!("no answer within {patience:?}"))));
        match outcome {
            Ok(reply) => {
                *connection = Some(sender);
                Ok(reply)
            }
            Err(failure) => Err(self.explain(failure, &request.method)),
        }
    }

    /// Sends a request on a connection of its own. A body that comes with status 200 is the caller's to read.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub(super) async fn open(&self, request: &Request) -> Result<Opened> {
        let mut sender = self.connect().await?;
        let opening = async {
            let response = self.begin(&mut sender, request).await?;
            let (head, body) = response.into_parts();
            if head.status == StatusCode::OK {
                return Ok(Opened::Stream(head.headers, body));
            }
            let body = self.body(body).await?;
            Ok(Opened::Reply(Reply { status: head.status, headers: head.headers, body }))
        };
        let patience = request.patience;
        let opened = self.world.timeout(patience, opening).await;
        let opened = opened.unwrap_or_else(|| Err(Failure::Lost(format!("no answer within {patience:?}"))));
        opened.map_err(|failure| self.explain(failure, &request.method))
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        request: &Request,
    ) -> std::result::Result<Reply, Failure> {
        let (head, body) = self.begin(sender, request).await?.into_parts();
        let body = self.body(body).await?;
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    /// Sends a request and waits for the head of its reply.
    async fn begin(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        request: &Request,
    ) -> std::result::Result<hyper::Response<Incoming>, Failure> {
        sender.ready().await.map_err(|e| Failure::Unsent(e.to_string()))?;
        let message = self.message(request).map_err(Failure::Known)?;
        sender.try_send_request(message).await.map_err(|mut e| match e.take_message() {
            Some(_) => Failure::Unsent(e.error().to_string()),
            None => Failure::Lost(e.error().to_string()),
        })
    }

    async fn body(&self, mut body: Incoming) -> std::result::Result<Bytes, Failure> {
        let too_large = || {
            let (address, most) = (&self.address, limits::CLIENT_REPLY / limits::MIB);
            Failure::Known(Error::TooLarge(format!("the answer of {address} is larger than {most} MiB: ask for less")))
        };
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limits::CLIENT_REPLY {
            return Err(too_large());
        }
        let mut all = BytesMut::with_capacity(announced.min(limits::MIB));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Failure::Lost(e.to_string()))?;
            let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
            if all.len() + data.len() > limits::CLIENT_REPLY {
                return Err(too_large());
            }
            all.extend_from_slice(data);
        }
        Ok(all.freeze())
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>> {
        let uri: Uri = request
            .path
            .parse()
            .map_err(|_| Error::Request(format!("the path is too long: {} bytes", request.path.len())))?;
        let mut builder =
            hyper::Request::builder().method(&request.method).uri(uri).header(HOST, self.address.to_string());
        if let Some(token) = &self.token {
            builder = builder.header(TOKEN, token);
        }
        if let Some(headers) = builder.headers_mut() {
            headers.extend(request.headers.clone());
        }
        let message = builder.body(Full::new(request.body.clone()));
        message.map_err(|e| Error::Request(format!("cannot be sent to {}: {e}", self.address)))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = connect(&self.world, &self.address).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::Retry(format!("cannot speak HTTP with {}: {e}", self.address)))?;
        // Each request learns of the connection's end by itself.
        drop(self.world.spawn(driver));
        Ok(sender)
    }

    fn explain(&self, failure: Failure, method: &Method) -> Error {
        let address = &self.address;
        match failure {
            Failure::Known(error) => error,
            Failure::Unsent(why) => Error::Retry(format!("cannot reach {address}: {why}")),
            Failure::Lost(why) if method.is_safe() => Error::Retry(format!("lost the answer of {address}: {why}")),
            Failure::Lost(why) => Error::Unknown(format!(
                "lost the answer of {address}: {why}; the write may or may not have been applied, read to find out"
            )),
        }
    }
}

/// Why an exchange has no reply.
enum Failure {
    /// Nothing was sent.
    Unsent(String),
    /// Something was sent, and no whole reply came.
    Lost(String),
    /// It has an error of its own.
    Known(Error),
}

/// Connects to the first of an address's IP addresses that answers.
///
/// # Errors
/// `Retry`, with the address and what to do about it: nothing was sent.
pub async fn connect(world: &World, address: &Address) -> Result<BoxStream> {
    let attempt = async {
        let ips = match address.host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => world.net.resolve(&address.host).await?,
        };
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for ip in ips {
            outcome = world.net.connect(SocketAddr::new(ip, address.port)).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    };
    match world.timeout(limits::CLIENT_CONNECT, attempt).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Err(Error::Retry(format!(
            "connection refused at {address}: is the agent running? Set -http-addr or CONSUL_HTTP_ADDR if it is elsewhere"
        ))),
        Some(Err(e)) => Err(Error::Retry(format!("cannot connect to {address}: {e}"))),
        None => Err(Error::Retry(format!("cannot connect to {address} within {:?}", limits::CLIENT_CONNECT))),
    }
}
