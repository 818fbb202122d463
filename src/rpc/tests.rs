//! Two sides over real loopback sockets, and hand-made peers that break the rules.
//!
//! Tests wait for conditions; the one hang guard is in [`run`]. Those about silence run on a clock that is faster.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::error::Lost;
use super::frame::{Frame, HEAD, What};
use super::handshake::{HELLO, Hello, Lane, REPLY, answer, greet, hear};
use super::{Client, Identity, Peer, Pool, Receiver, Refusal, RpcError, Sender, Server, Service, serve};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{BoxListener, BoxStream, Clock, Instant, Interface, Network, Sleep, WallTime, World, real};

const LONG: Duration = Duration::from_secs(3600);
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Kinds of calls: answered at once; when the gate opens; never; with an error; with a panic.
const ECHO: u8 = 1;
const GATE: u8 = 2;
const HOLD: u8 = 3;
const FAIL: u8 = 4;
const PANIC: u8 = 5;
/// Kinds of streams: each item sent back; items counted once the gate is open; one item and then cut.
const BACK: u8 = 1;
const SINK: u8 = 2;
const CUT: u8 = 3;

#[derive(Default)]
struct Double {
    gate: Option<Semaphore>,
    running: AtomicUsize,
    /// Streams whose handler has read an error.
    cut: AtomicUsize,
}

/// Counts a handler while it runs, however it ends.
struct Running<'a>(&'a AtomicUsize);
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Double {
    async fn pass(&self) {
        let _ = self.gate.as_ref().unwrap().acquire().await.unwrap();
    }

    fn open(&self) {
        self.gate.as_ref().unwrap().add_permits(1);
    }
}

#[async_trait]
impl Service for Double {
    async fn call(&self, _peer: Peer, kind: u8, body: Bytes) -> Result<Bytes> {
        self.running.fetch_add(1, SeqCst);
        let _running = Running(&self.running);
        match kind {
            ECHO => {}
            GATE => self.pass().await,
            HOLD => std::future::pending().await,
            FAIL => return Err(Error::Request("no".into())),
            _ => panic!("a handler that panics on purpose"),
        }
        Ok(body)
    }

    async fn stream(&self, _peer: Peer, kind: u8, mut incoming: Receiver, outgoing: Sender) {
        if kind == SINK {
            self.pass().await;
        }
        loop {
            match incoming.receive().await {
                Ok(Some(body)) if kind != SINK => outgoing.send(body).await.unwrap(),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.cut.fetch_add(1, SeqCst);
                    return;
                }
            }
            if kind == CUT {
                return;
            }
        }
        outgoing.end().await.unwrap();
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let guarded = |world: World| async move {
        let real = world.clone();
        real.timeout(Duration::from_secs(120), test(world)).await.expect("the test hangs");
    };
    real::block_on(guarded).unwrap();
}

async fn until(world: &World, condition: impl Fn() -> bool) {
    while !condition() {
        world.sleep(Duration::from_millis(1)).await;
    }
}

fn me(node: u128) -> Identity {
    Identity::new(Uuid::from_u128(node))
}

fn of(node: u128, cluster: u128) -> Identity {
    let identity = me(node);
    identity.cluster.set(Uuid::from_u128(cluster)).unwrap();
    identity
}

async fn start(world: &World, identity: &Identity) -> (Arc<Double>, Server) {
    let service = Arc::new(Double { gate: Some(Semaphore::new(0)), ..Double::default() });
    let server = serve(world, ANY, identity, service.clone()).await.unwrap();
    (service, server)
}

async fn echo(client: &Client) -> Result<Bytes, RpcError> {
    client.call(ECHO, Bytes::from_static(b"hello"), LONG).await
}

/// Asks until the backoff lets it through.
async fn echo_again(world: &World, client: &Client) -> Result<Bytes, RpcError> {
    loop {
        match echo(client).await {
            Err(RpcError::NotSent { .. } | RpcError::Unknown { .. }) => world.sleep(Duration::from_millis(5)).await,
            other => return other,
        }
    }
}

/// A hand-made client that was greeted.
async fn raw(world: &World, server: &Server, lane: Lane) -> BoxStream {
    let mut stream = world.net.connect(server.addr).await.unwrap();
    greet(&mut stream, &Hello::new(&me(9), None, lane), server.addr).await.unwrap();
    stream
}

fn bytes(frame: &Frame) -> Vec<u8> {
    [&frame.head()[..], &frame.body].concat()
}

fn request(id: u32, kind: u8, body: &'static [u8]) -> Frame {
    Frame { what: What::Request, kind, id, body: Bytes::from_static(body) }
}

/// Waits until the other side hangs up, whatever it says before. A server whose clock stands still does not do so for
/// silence.
async fn hangs_up(stream: &mut BoxStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

/// A clock that runs some times faster than the machine's, or at 0 stands still.
struct Fast(Arc<dyn Clock>, u64);
impl Clock for Fast {
    fn now(&self) -> Instant {
        Instant(self.0.now().0 * self.1)
    }
    fn wall(&self) -> WallTime {
        self.0.wall()
    }
    fn sleep_until(&self, deadline: Instant) -> Sleep {
        match self.1 {
            0 => Box::pin(std::future::pending()),
            times => self.0.sleep_until(Instant(deadline.0.div_ceil(times))),
        }
    }
}

fn faster(world: &World, times: u64) -> World {
    World { clock: Arc::new(Fast(world.clock.clone(), times)), ..world.clone() }
}

/// A network that counts attempts to connect.
struct Counting(Arc<dyn Network>, Arc<AtomicUsize>);
#[async_trait]
impl Network for Counting {
    async fn listen(&self, addr: SocketAddr) -> io::Result<BoxListener> {
        self.0.listen(addr).await
    }
    async fn connect(&self, addr: SocketAddr) -> io::Result<BoxStream> {
        self.1.fetch_add(1, SeqCst);
        self.0.connect(addr).await
    }
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.resolve(host).await
    }
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        self.0.interfaces()
    }
    fn host_name(&self) -> String {
        self.0.host_name()
    }
}

fn counting(world: &World) -> (World, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (World { net: Arc::new(Counting(world.net.clone(), count.clone())), ..world.clone() }, count)
}

// --- Calls ------------------------------------------------------------------------------------------------------------

#[test]
fn a_slow_call_holds_up_no_other() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let client = Client::new(&world, &me(2), server.addr, Some(Uuid::from_u128(1)));
        let slow = client.call(GATE, Bytes::from_static(b"slow"), LONG);
        let others = async {
            until(&world, || service.running.load(SeqCst) == 1).await;
            let answer = echo(&client).await;
            service.open();
            answer
        };
        let (slow, quick) = futures_util::join!(slow, others);
        assert_eq!((slow.unwrap(), quick.unwrap()), (Bytes::from("slow"), Bytes::from("hello")));
    });
}

#[test]
fn a_thousand_calls_at_once_share_a_connection_and_get_each_its_own_answer() {
    run(|world| async move {
        let (_, server) = start(&world, &me(1)).await;
        let (world, connects) = counting(&world);
        let client = Client::new(&world, &me(2), server.addr, None);
        let body = |n: usize| Bytes::from(format!("{n}").repeat(n * 20));
        let answers = join_all((0..1000).map(|n| client.call(ECHO, body(n), LONG))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Ok(body(n)), "call {n}");
        }
        assert_eq!(connects.load(SeqCst), 1);
    });
}

#[test]
fn a_deadline_or_a_drop_stops_the_handler_and_frees_the_slot() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let client = Client::with_slots(&world, &me(2), server.addr, None, 1);
        echo(&client).await.unwrap();

        let deadline = Duration::from_millis(50);
        let late = client.call(HOLD, Bytes::new(), deadline).await.unwrap_err();
        assert_eq!(late, RpcError::TimedOut { peer: server.addr, after: deadline, sent: true });
        assert!(!late.nothing_was_done());
        until(&world, || service.running.load(SeqCst) == 0).await;

        tokio::select! {
            biased;
            _ = client.call(HOLD, Bytes::new(), LONG) => unreachable!("it is held"),
            () = until(&world, || service.running.load(SeqCst) == 1) => {}
        }
        until(&world, || service.running.load(SeqCst) == 0).await;
        assert_eq!(echo(&client).await.unwrap(), "hello");
    });
}

#[test]
fn a_call_that_waits_for_a_slot_past_its_deadline_was_not_sent() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let client = Client::with_slots(&world, &me(2), server.addr, None, 1);
        let second = async {
            until(&world, || service.running.load(SeqCst) == 1).await;
            let late = client.call(ECHO, Bytes::new(), Duration::from_millis(20)).await.unwrap_err();
            assert!(matches!(late, RpcError::TimedOut { sent: false, .. }));
            assert!(late.nothing_was_done());
            service.open();
        };
        futures_util::join!(client.call(GATE, Bytes::new(), LONG), second).0.unwrap();
    });
}

#[test]
fn a_dead_peer_costs_one_attempt_and_nothing_was_done() {
    run(|world| async move {
        let (_, server) = start(&world, &me(1)).await;
        let addr = server.addr;
        server.shutdown().await;
        // A clock that stands still keeps the first pause from ending.
        let (world, connects) = counting(&faster(&world, 0));
        let client = Client::new(&world, &me(2), addr, None);
        for _ in 0..100 {
            let error = echo(&client).await.unwrap_err();
            assert!(matches!(error, RpcError::NotSent { .. }), "{error}");
            assert!(error.nothing_was_done());
        }
        assert!(client.stream(BACK).await.is_err());
        assert_eq!(connects.load(SeqCst), 1);
    });
}

#[test]
fn a_call_whose_server_dies_is_unknown_and_the_client_finds_the_next_server() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let addr = server.addr;
        let client = Pool::new(&world, &me(2)).get(addr, Some(Uuid::from_u128(1)));
        let kill = async {
            until(&world, || service.running.load(SeqCst) == 1).await;
            server.shutdown().await;
        };
        let error = futures_util::join!(client.call(HOLD, Bytes::new(), LONG), kill).0.unwrap_err();
        assert!(matches!(error, RpcError::Unknown { .. }), "{error}");
        assert!(!error.nothing_was_done());
        until(&world, || service.running.load(SeqCst) == 0).await;

        let again = serve(&world, addr, &me(1), service).await.unwrap();
        assert_eq!(echo_again(&world, &client).await.unwrap(), "hello");
        again.shutdown().await;
    });
}

#[test]
fn an_error_or_a_panic_of_one_call_is_its_own() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let client = Client::new(&world, &me(2), server.addr, None);
        let others = async {
            until(&world, || service.running.load(SeqCst) == 1).await;
            let failed = client.call(FAIL, Bytes::new(), LONG).await.unwrap_err();
            assert_eq!(failed, RpcError::Answered(Error::Request("no".into())));
            let panicked = client.call(PANIC, Bytes::new(), LONG).await.unwrap_err();
            assert!(matches!(&panicked, RpcError::Answered(Error::Unknown(_))), "{panicked}");
            assert!(!panicked.nothing_was_done());
            service.open();
        };
        futures_util::join!(client.call(GATE, Bytes::new(), LONG), others).0.unwrap();
    });
}

// --- Who is welcome ---------------------------------------------------------------------------------------------------

#[test]
fn strangers_are_refused_with_the_reason() {
    run(|world| async move {
        let (_, server) = start(&world, &of(1, 7)).await;
        let (seven, eight) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let refused = |reason| Err(RpcError::Refused { peer: server.addr, reason });

        let other_cluster = Client::new(&world, &of(2, 8), server.addr, None);
        let reason = Refusal::WrongCluster { server: seven, client: eight };
        assert_eq!(echo(&other_cluster).await, refused(reason.clone()));
        let (wanted, is) = (Uuid::from_u128(5), Uuid::from_u128(1));
        let other_node = Client::new(&world, &of(2, 7), server.addr, Some(wanted));
        assert_eq!(echo(&other_node).await, refused(Refusal::WrongNode { wanted, is }));
        assert!(other_node.stream(BACK).await.is_err_and(|error| error.to_string().contains(&is.to_string())));

        let newcomer = me(3);
        let client = Client::new(&world, &newcomer, server.addr, None);
        echo(&client).await.unwrap();
        newcomer.cluster.set(eight).unwrap();
        assert_eq!(echo(&client).await, refused(reason));
    });
}

#[test]
fn a_server_that_learns_its_cluster_ends_connections_from_others() {
    run(|world| async move {
        let bootstrapping = me(1);
        let (_, server) = start(&world, &bootstrapping).await;
        let client = Client::new(&world, &of(2, 8), server.addr, None);
        let (sender, mut receiver) = client.stream(BACK).await.unwrap();
        echo(&client).await.unwrap();
        bootstrapping.cluster.set(Uuid::from_u128(7)).unwrap();
        assert!(matches!(echo(&client).await, Err(RpcError::Unknown { .. })));
        sender.send(Bytes::new()).await.unwrap();
        assert!(receiver.receive().await.is_err());
        let refused = echo_again(&world, &client).await;
        assert!(matches!(refused, Err(RpcError::Refused { reason: Refusal::WrongCluster { .. }, .. })));
    });
}

#[test]
fn one_peer_has_a_bounded_number_of_connections() {
    run(|world| async move {
        let (_, server) = start(&world, &me(1)).await;
        let client = Client::new(&world, &me(2), server.addr, None);
        let mut streams = Vec::new();
        for _ in 0..limits::RPC_CONNECTIONS_PER_PEER {
            streams.push(client.stream(BACK).await.unwrap());
        }
        let refused = echo(&client).await.unwrap_err();
        assert!(matches!(refused, RpcError::Refused { reason: Refusal::TooManyConnections, .. }), "{refused}");
        echo(&Client::new(&world, &me(3), server.addr, None)).await.unwrap();
        streams.pop();
        while echo(&client).await.is_err() {
            world.sleep(Duration::from_millis(5)).await;
        }
    });
}

// --- Broken and hostile peers -----------------------------------------------------------------------------------------

#[test]
fn a_length_over_the_limit_ends_the_connection_before_the_body() {
    run(|world| async move {
        let (_, server) = start(&faster(&world, 0), &me(1)).await;
        let body = Bytes::from(vec![0; limits::RPC_BODY + 1]);
        let client = Client::new(&world, &me(2), server.addr, None);
        let error = client.call(ECHO, body.clone(), LONG).await.unwrap_err();
        assert_eq!(error, RpcError::TooLarge(body.len()));
        let largest = client.call(ECHO, body.slice(1..), LONG).await.unwrap();
        assert_eq!(largest.len(), limits::RPC_BODY);

        let mut stream = raw(&world, &server, Lane::Calls).await;
        stream.write_all(&Frame::new(What::Request, 1, body).head()).await.unwrap();
        hangs_up(&mut stream).await;
    });
}

#[test]
fn a_changed_bit_or_a_broken_rule_ends_that_connection_alone() {
    run(|world| async move {
        let (_, server) = start(&faster(&world, 0), &me(1)).await;
        let client = Client::new(&world, &me(2), server.addr, None);
        echo(&client).await.unwrap();
        let mut changed = bytes(&request(1, ECHO, b"body"));
        changed[HEAD] ^= 1;
        let twice = [bytes(&request(1, HOLD, b"")), bytes(&request(1, HOLD, b""))].concat();
        let item = bytes(&Frame::empty(What::Item, 0));
        let call = bytes(&request(0, ECHO, b""));
        let streaming = Lane::Stream(BACK);
        for (lane, bad) in [(Lane::Calls, changed), (Lane::Calls, twice), (Lane::Calls, item), (streaming, call)] {
            let mut stream = raw(&world, &server, lane).await;
            stream.write_all(&bad).await.unwrap();
            hangs_up(&mut stream).await;
        }
        let mut stream = world.net.connect(server.addr).await.unwrap();
        stream.write_all(&[b'G'; HELLO]).await.unwrap();
        hangs_up(&mut stream).await;
        echo(&client).await.unwrap();
    });
}

#[test]
fn a_version_in_common_is_needed_and_the_reason_reaches_both() {
    run(|world| async move {
        let (_, server) = start(&world, &me(1)).await;
        let mut stream = world.net.connect(server.addr).await.unwrap();
        let hello = Hello { versions: (8, 9), ..Hello::new(&me(2), None, Lane::Calls) };
        let reason = Refusal::Version { server: (1, 1), client: (8, 9) };
        let refused = greet(&mut stream, &hello, server.addr).await;
        assert_eq!(refused, Err(RpcError::Refused { peer: server.addr, reason }));
    });
}

#[test]
fn an_answer_with_a_changed_bit_is_unknown() {
    run(|world| async move {
        let listener = world.net.listen(ANY).await.unwrap();
        let client = Client::new(&world, &me(2), listener.local_addr().unwrap(), None);
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello = hear(&mut stream).await.unwrap();
            answer(&mut stream, &hello, &me(1), &Ok(())).await.unwrap();
            stream.read_exact(&mut [0; HEAD]).await.unwrap();
            let mut bad = bytes(&Frame::new(What::Response, 1, Bytes::from_static(b"yes")));
            bad[HEAD + 1] ^= 4;
            stream.write_all(&bad).await.unwrap();
            stream
        };
        let (answer, _stream) = futures_util::join!(echo(&client), peer);
        let error = answer.unwrap_err();
        assert!(matches!(&error, RpcError::Unknown { reason, .. } if reason.contains("checksum")), "{error}");
    });
}

#[test]
fn calls_beyond_the_limit_are_put_off_and_nothing_was_done() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let mut stream = raw(&world, &server, Lane::Calls).await;
        let most = u32::try_from(limits::RPC_IN_FLIGHT).unwrap();
        let requests: Vec<u8> = (0..=most).flat_map(|id| bytes(&request(id, HOLD, b""))).collect();
        stream.write_all(&requests).await.unwrap();
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!((head[4], &head[6..10]), (What::Error as u8, &most.to_le_bytes()[..]));
        until(&world, || service.running.load(SeqCst) == limits::RPC_IN_FLIGHT).await;
        drop(stream);
        until(&world, || service.running.load(SeqCst) == 0).await;
    });
}

// --- Streams ----------------------------------------------------------------------------------------------------------

#[test]
fn a_stream_keeps_its_order_both_ways_and_ends() {
    run(|world| async move {
        let (_, server) = start(&world, &me(1)).await;
        let (sender, mut receiver) = Client::new(&world, &me(2), server.addr, None).stream(BACK).await.unwrap();
        let body = |n: usize| Bytes::from(format!("{n}").repeat(n % 900));
        let sending = async {
            for n in 0..3000 {
                sender.send(body(n)).await.unwrap();
            }
            sender.end().await.unwrap();
        };
        let receiving = async {
            for n in 0..3000 {
                assert_eq!(receiver.receive().await, Ok(Some(body(n))), "item {n}");
            }
            assert_eq!(receiver.receive().await, Ok(None));
            assert_eq!(receiver.receive().await, Ok(None));
        };
        futures_util::join!(sending, receiving);
    });
}

#[test]
fn a_stream_that_is_not_read_holds_up_its_sender() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let (sender, mut receiver) = Client::new(&world, &me(2), server.addr, None).stream(SINK).await.unwrap();
        let item = Bytes::from(vec![1; limits::MIB]);
        let mut queued = 0;
        while world.timeout(Duration::from_millis(300), sender.send(item.clone())).await.is_some() {
            queued += 1;
            assert!(queued < 100, "{queued} MiB are queued");
        }
        assert!(queued >= limits::RPC_QUEUE_BYTES / limits::MIB - 1, "only {queued} MiB are queued");
        service.open();
        sender.end().await.unwrap();
        assert_eq!(receiver.receive().await, Ok(None));
    });
}

#[test]
fn a_stream_that_is_cut_does_not_look_complete() {
    run(|world| async move {
        let (service, server) = start(&world, &me(1)).await;
        let client = Client::new(&world, &me(2), server.addr, None);
        let (sender, mut receiver) = client.stream(CUT).await.unwrap();
        sender.send(Bytes::from_static(b"half")).await.unwrap();
        assert_eq!(receiver.receive().await, Ok(Some(Bytes::from("half"))));
        assert!(matches!(receiver.receive().await, Err(RpcError::Unknown { .. })));
        assert!(matches!(sender.send(Bytes::new()).await, Err(RpcError::NotSent { .. })));

        drop(client.stream(BACK).await.unwrap());
        until(&world, || service.cut.load(SeqCst) == 1).await;
    });
}

// --- Silence ----------------------------------------------------------------------------------------------------------

#[test]
fn a_quiet_connection_is_kept_and_a_silent_one_is_not() {
    run(|world| async move {
        let fast = faster(&world, 20);
        let (service, server) = start(&fast, &me(1)).await;
        let client = Client::new(&fast, &me(2), server.addr, None);
        let (sender, mut receiver) = client.stream(BACK).await.unwrap();
        let wait = async {
            fast.sleep(3 * limits::RPC_SILENCE).await;
            service.open();
        };
        futures_util::join!(client.call(GATE, Bytes::new(), LONG), wait).0.unwrap();
        sender.send(Bytes::new()).await.unwrap();
        assert_eq!(receiver.receive().await, Ok(Some(Bytes::new())));

        let mut silent = raw(&world, &server, Lane::Calls).await;
        hangs_up(&mut silent).await;
        let mut never_greets = world.net.connect(server.addr).await.unwrap();
        hangs_up(&mut never_greets).await;
    });
}

#[test]
fn a_call_to_a_server_that_falls_silent_is_unknown() {
    run(|world| async move {
        let listener = world.net.listen(ANY).await.unwrap();
        let client = Client::new(&faster(&world, 50), &me(2), listener.local_addr().unwrap(), None);
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello = hear(&mut stream).await.unwrap();
            answer(&mut stream, &hello, &me(1), &Ok(())).await.unwrap();
            stream
        };
        let (answer, _stream) = futures_util::join!(echo(&client), peer);
        let reason = Lost::Silent.to_string();
        assert_eq!(answer, Err(RpcError::Unknown { peer: listener.local_addr().unwrap(), reason }));
    });
}

#[test]
fn a_server_that_never_greets_back_is_given_up() {
    run(|world| async move {
        let listener = world.net.listen(ANY).await.unwrap();
        let client = Client::new(&faster(&world, 50), &me(2), listener.local_addr().unwrap(), None);
        assert!(matches!(echo(&client).await, Err(RpcError::NotSent { .. })));
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; HELLO]).await.unwrap();
        assert_eq!(stream.read(&mut [0; REPLY]).await.unwrap(), 0, "the client has closed the connection");
    });
}

#[test]
fn a_reader_that_takes_no_answers_is_cut_off() {
    run(|world| async move {
        let (service, server) = start(&faster(&world, 50), &me(1)).await;
        let mut stream = raw(&world, &server, Lane::Calls).await;
        let body = Bytes::from(vec![0; limits::MIB]);
        for id in 0.. {
            let big = Frame { what: What::Request, kind: ECHO, id, body: body.clone() };
            if stream.write_all(&bytes(&big)).await.is_err() {
                break;
            }
        }
        until(&world, || service.running.load(SeqCst) == 0).await;
    });
}
