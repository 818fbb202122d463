//! The connection loop over streams in memory and a clock moved by hand.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::{Mutex, Notify, mpsc};

use super::*;
use crate::http::testing::{HandClock, test_world};
use crate::world::{Listener, real};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";

/// Accepts what the test connects.
struct Queue(Mutex<mpsc::UnboundedReceiver<(BoxStream, SocketAddr)>>);

#[async_trait]
impl Listener for Queue {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        self.0.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 80).into())
    }
}

/// A server with two paths: `/` answers at once, `/slow` when it is told to.
struct Bench {
    clock: Arc<HandClock>,
    connect: mpsc::UnboundedSender<(BoxStream, SocketAddr)>,
    server: Server,
    slow: Arc<Slow>,
}

#[derive(Default)]
struct Slow {
    started: Notify,
    release: Notify,
    dropped: Notify,
}

/// Tells that a handler's future is gone.
struct Running(Arc<Slow>);
impl Drop for Running {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

fn bench(per_client: usize) -> Bench {
    let (world, clock) = test_world();
    let slow = Arc::new(Slow::default());
    let handler = {
        let slow = slow.clone();
        async move || {
            let _running = Running(slow.clone());
            slow.started.notify_one();
            slow.release.notified().await;
            "slow"
        }
    };
    let router = Router::new().route("/", get(async || "hello")).route("/slow", get(handler));
    let (connect, queue) = mpsc::unbounded_channel();
    let (stop, stopping) = watch::channel(false);
    let acceptor = Acceptor { world: world.clone(), router: Arc::new(router), stopping, open: Open::new(per_client) };
    world.spawn(acceptor.accept(Box::new(Queue(Mutex::new(queue)))));
    Bench { clock, connect, server: Server { addrs: Vec::new(), stop }, slow }
}

impl Bench {
    fn client(&self, ip: &str) -> DuplexStream {
        let (ours, theirs) = duplex(64 * limits::KIB);
        self.connect.send((Box::new(theirs), (ip.parse::<IpAddr>().unwrap(), 1).into())).unwrap();
        ours
    }

    /// Lets virtual time pass in small steps, so that every timer fires in its turn.
    async fn pass(&self, duration: Duration) {
        let end = self.clock_now() + duration;
        while self.clock_now() < end {
            self.clock.advance(Duration::from_millis(500));
            settle().await;
        }
    }

    fn clock_now(&self) -> crate::world::Instant {
        crate::world::Clock::now(&*self.clock)
    }
}

/// Handlers of the tests' own in the router's place.
impl Answers for Router {
    async fn answer(&self, request: hyper::Request<Body>) -> Response {
        tower::ServiceExt::oneshot(self.clone(), request).await.unwrap_or_else(|never| match never {})
    }
}

/// Lets every task run until none has anything to do: they are few, and each step of theirs is one poll.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A guard against hanging, in real time; no test depends on its length.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    real::world().timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

async fn answer(client: &mut DuplexStream, end: &str) -> String {
    soon(async {
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            let read = client.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "closed after {}", answer.escape_ascii());
        }
        String::from_utf8(answer).unwrap()
    })
    .await
}

/// Whether the server has closed the connection.
async fn closed(client: &mut DuplexStream) -> bool {
    settle().await;
    let mut byte = [0];
    matches!(futures_util::FutureExt::now_or_never(client.read(&mut byte)), Some(Ok(0) | Err(_)))
}

#[tokio::test]
async fn answers_show_go_style_header_names_and_no_date() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    client.write_all(GET).await.unwrap();
    let answer = answer(&mut client, "hello").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello");
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_request_at_once() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    client.write_all(SLOW).await.unwrap();
    soon(bench.slow.started.notified()).await;
    drop(client);
    soon(bench.slow.dropped.notified()).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let bench = bench(2);
    let mut silent = bench.client("10.0.0.1");
    let mut trickling = bench.client("10.0.0.2");
    let half = limits::HEAD_TIMEOUT / 2;
    trickling.write_all(&GET[..4]).await.unwrap();
    bench.pass(half).await;
    trickling.write_all(&GET[4..6]).await.unwrap();
    assert!(!closed(&mut silent).await && !closed(&mut trickling).await);
    bench.pass(half + Duration::from_secs(3)).await;
    assert!(closed(&mut silent).await && closed(&mut trickling).await);
}

#[tokio::test]
async fn a_trickled_head_after_an_answer_has_no_more_time_than_the_first() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    client.write_all(GET).await.unwrap();
    answer(&mut client, "hello").await;
    client.write_all(b"G").await.unwrap();
    bench.pass(limits::HEAD_TIMEOUT + Duration::from_secs(3)).await;
    assert!(closed(&mut client).await);
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_but_not_for_ever() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        answer(&mut client, "hello").await;
        bench.pass(limits::IDLE_TIMEOUT - Duration::from_secs(1)).await;
        assert!(!closed(&mut client).await);
    }
    bench.pass(Duration::from_secs(4)).await;
    assert!(closed(&mut client).await);
}

#[tokio::test]
async fn a_request_being_handled_is_never_cut() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    client.write_all(SLOW).await.unwrap();
    soon(bench.slow.started.notified()).await;
    bench.pass(2 * limits::IDLE_TIMEOUT).await;
    bench.slow.release.notify_one();
    answer(&mut client, "slow").await;
}

#[tokio::test]
async fn a_client_with_too_many_connections_is_told_so_and_others_are_served() {
    let bench = bench(1);
    let mut first = bench.client("10.0.0.1");
    first.write_all(GET).await.unwrap();
    answer(&mut first, "hello").await;
    // The same client, by IPv4 over IPv6.
    let mut second = bench.client("::ffff:10.0.0.1");
    let refusal = answer(&mut second, "http_max_conns_per_client)").await;
    assert!(refusal.starts_with("HTTP/1.1 429 "), "{refusal}");
    let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(closed(&mut second).await);
    let mut other = bench.client("10.0.0.2");
    other.write_all(GET).await.unwrap();
    answer(&mut other, "hello").await;
    drop(first);
    settle().await;
    let mut third = bench.client("10.0.0.1");
    third.write_all(GET).await.unwrap();
    answer(&mut third, "hello").await;
}

#[tokio::test]
async fn seats_are_given_back_until_nothing_is_left_to_count() {
    let open = Open::new(1);
    let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let seats = [open.admit(a), open.admit(b), open.admit(a)];
    assert!(matches!(seats, [Admission::Granted(_), Admission::Granted(_), Admission::ClientFull(_)]));
    assert_eq!(open.counts.lock().unwrap().total, 3);
    drop(seats);
    let counts = open.counts.lock().unwrap();
    assert!(counts.total == 0 && counts.clients.is_empty());
}

#[tokio::test]
async fn connections_over_all_clients_are_bounded() {
    let open = Open::new(1);
    let seats: Vec<Admission> =
        (0..limits::HTTP_CONNECTIONS as u32).map(|n| open.admit(IpAddr::from(n.to_be_bytes()))).collect();
    assert!(seats.iter().all(|seat| matches!(seat, Admission::Granted(_))));
    assert!(matches!(open.admit([255, 0, 0, 1].into()), Admission::Full));
    assert!(matches!(open.admit([0, 0, 0, 1].into()), Admission::Full));
}

#[tokio::test]
async fn shutdown_closes_resting_connections_and_lets_requests_finish() {
    let bench = bench(2);
    let mut resting = bench.client("10.0.0.1");
    resting.write_all(GET).await.unwrap();
    answer(&mut resting, "hello").await;
    let mut working = bench.client("10.0.0.1");
    working.write_all(SLOW).await.unwrap();
    soon(bench.slow.started.notified()).await;
    let mut stopped = pin!(bench.server.shutdown());
    assert!(futures_util::FutureExt::now_or_never(stopped.as_mut()).is_none());
    assert!(closed(&mut resting).await);
    bench.slow.release.notify_one();
    answer(&mut working, "slow").await;
    soon(stopped).await;
    assert!(closed(&mut working).await);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    client.write_all(SLOW).await.unwrap();
    soon(bench.slow.started.notified()).await;
    let stopped = tokio::join!(soon(bench.server.shutdown()), async {
        settle().await;
        bench.clock.advance(limits::SHUTDOWN_GRACE);
    });
    assert_eq!(stopped, ((), ()));
    assert!(closed(&mut client).await);
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let Bench { connect, server, .. } = bench(1);
    drop(server);
    soon(connect.closed()).await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let bench = bench(1);
    let mut client = bench.client("10.0.0.1");
    let long = [&GET[..GET.len() - 2], b"X-Long: ", &vec![b'h'; 4 * limits::MAX_HEAD]].concat();
    // The server stops reading, so not all of it can be written.
    assert!(soon(client.write_all(&long)).await.is_err());
    let mut refusal = Vec::new();
    soon(client.read_to_end(&mut refusal)).await.unwrap();
    assert!(refusal.starts_with(b"HTTP/1.1 431 "), "{}", refusal.escape_ascii());
}

#[tokio::test]
async fn no_bytes_bring_a_connection_down() {
    let (world, _clock) = test_world();
    let (_stop, stopping) = watch::channel(false);
    let router = Router::new().route("/", get(async || "hello").put(async |body: String| body));
    let router = Arc::new(router);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..1000_usize {
        let put = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let mut bytes = if round % 2 == 0 { GET.to_vec() } else { put.to_vec() };
        for _ in 0..1 + round % 4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] = (random >> 24) as u8;
        }
        let (mut client, stream) = duplex(64 * limits::KIB);
        client.write_all(&bytes).await.unwrap();
        drop(client);
        // Not spawned: a panic fails the test.
        soon(serve_connection(world.clone(), router.clone(), stopping.clone(), Box::new(stream))).await;
    }
}

/// Counts the vectored writes of a stream; a plain one counts a hundred.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A flattened answer is copied first: it should have come in slices.
        self.writes.fetch_add(100, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn an_answer_leaves_in_one_vectored_write() {
    let bench = bench(1);
    let (mut client, stream) = duplex(64 * limits::KIB);
    let writes = Arc::new(AtomicUsize::new(0));
    let counting = Counting { stream, writes: writes.clone() };
    bench.connect.send((Box::new(counting), ([10, 0, 0, 1], 1).into())).unwrap();
    for answered in 1..4 {
        client.write_all(GET).await.unwrap();
        answer(&mut client, "hello").await;
        assert_eq!(writes.load(Ordering::Relaxed), answered);
    }
}
