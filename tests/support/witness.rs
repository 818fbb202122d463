//! Clients that write and read through every server in turn, and witness what they may see.
//!
//! Each key has one writer, which writes rising numbers, the next when the last was acknowledged. For such a key
//! linearizability is two comparisons, and no history has to be searched: a read may return nothing older than the last
//! number that was acknowledged, or returned by any read, before it began; and nothing that was not begun when it ended.
//! A write without an answer may be applied late, even after a later one; so its writer turns to a new key, and the old
//! one has one more number that it may come to hold.
//!
//! The same goes for X-Consul-Index: what any client saw of a key or a prefix before a request began is the least that
//! its answer may carry, from whichever server (R4).

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::support::{Connection, Response, wait_until};

/// Where all the keys are.
const FOLDER: &str = "/v1/kv/witness/";

/// A key with one writer.
struct Register {
    path: String,
    begun: AtomicU64,
    /// The highest number that was acknowledged or read.
    known: AtomicU64,
    /// The highest index that was seen.
    index: AtomicU64,
}

/// What the clients share.
struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    /// The key of each writer.
    current: Vec<Mutex<Arc<Register>>>,
    retired: Mutex<Vec<Arc<Register>>>,
    folder: AtomicU64,
    acknowledged: Mutex<Vec<(Instant, Duration)>>,
    reads: AtomicU64,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Writers and readers at work.
pub struct Witness {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Acknowledged writes of some time.
#[derive(Debug)]
pub struct Pace {
    /// How many.
    pub writes: usize,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// The longest time without an acknowledgement.
    pub gap: Duration,
}

impl Witness {
    /// Starts as many writers, and as many readers, on these servers.
    pub fn start(servers: Vec<SocketAddr>, writers: usize) -> Witness {
        let shared = Arc::new(Shared {
            servers: Mutex::new(servers),
            current: (0..writers).map(|number| Mutex::new(Register::new(number, 0))).collect(),
            retired: Mutex::default(),
            folder: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            reads: AtomicU64::new(0),
            wrong: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let spawn = |number, work: fn(&Shared, usize)| {
            let shared = shared.clone();
            thread::spawn(move || work(&shared, number))
        };
        let threads = (0..writers).flat_map(|number| [spawn(number, write), spawn(number, read)]).collect();
        Witness { shared, threads }
    }

    /// Has the clients use these servers from now on.
    pub fn use_servers(&self, servers: Vec<SocketAddr>) {
        *self.shared.servers.lock().unwrap() = servers;
    }

    /// Waits until so many more writes were acknowledged.
    pub fn wait_for(&self, more: usize) {
        let count = || self.shared.acknowledged.lock().unwrap().len();
        let before = count();
        wait_until("writes to flow", || count() >= before + more);
    }

    /// How writes went in that time.
    pub fn pace(&self, from: Instant, to: Instant) -> Pace {
        let all = self.shared.acknowledged.lock().unwrap().clone();
        let within: Vec<_> = all.into_iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let mut latencies: Vec<_> = within.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        // The list is in order of time, because each client appends under the lock when it has its answer.
        let moments: Vec<_> = std::iter::once(from).chain(within.iter().map(|(at, _)| *at)).chain([to]).collect();
        let gap = moments.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max();
        Pace { writes: within.len(), p50: at(50), p99: at(99), gap: gap.unwrap_or_default() }
    }

    /// Stops the clients, reads every key back from every server, and fails if anything that was seen may not be.
    pub fn finish(self) -> String {
        self.shared.stop.store(true, SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let shared = &*self.shared;
        let mut keys = std::mem::take(&mut *shared.retired.lock().unwrap());
        let retired = keys.len();
        keys.extend(shared.current.iter().map(|key| key.lock().unwrap().clone()));
        let servers = shared.servers.lock().unwrap().clone();
        for server in &servers {
            let mut turn = Turn::default();
            for key in &keys {
                wait_until("every key to be read back", || shared.look(&mut turn, *server, key));
            }
        }
        let wrong = shared.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
        format!(
            "{} writes acknowledged, {retired} of unknown outcome, {} reads; {} keys read back from {} servers: nothing \
             lost, no read stale, no index went back",
            shared.acknowledged.lock().unwrap().len(),
            shared.reads.load(SeqCst),
            keys.len(),
            servers.len(),
        )
    }
}

impl Register {
    fn new(writer: usize, generation: u64) -> Arc<Register> {
        let zero = || AtomicU64::new(0);
        let path = format!("{FOLDER}{writer}/{generation}");
        Arc::new(Register { path, begun: zero(), known: zero(), index: zero() })
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    fn wrong(&self, sentence: String) {
        self.wrong.lock().unwrap().push(sentence);
    }

    /// The server after `last` in turn.
    fn after(&self, last: Option<SocketAddr>) -> SocketAddr {
        let servers = self.servers.lock().unwrap();
        let at = last.and_then(|last| servers.iter().position(|server| *server == last));
        servers[at.map_or(0, |at| at + 1) % servers.len()]
    }

    /// Reads a key and judges the answer; `false` if there is none.
    fn look(&self, turn: &mut Turn, server: SocketAddr, key: &Register) -> bool {
        let (least, index) = (key.known.load(SeqCst), key.index.load(SeqCst));
        let Some(answer) = turn.request(server, "GET", &format!("{}?raw", key.path), b"") else { return false };
        let number = match answer.status {
            200 => answer.text().parse().unwrap_or(u64::MAX),
            404 => 0,
            _ => return false,
        };
        let most = key.begun.load(SeqCst);
        if !(least..=most).contains(&number) {
            self.wrong(format!("{server} {}: {number} read, between {least} and {most} is right", key.path));
        }
        if answer.index() < index {
            self.wrong(format!("{server} {}: index {} after {index}", key.path, answer.index()));
        }
        key.known.fetch_max(number.min(most), SeqCst);
        key.index.fetch_max(answer.index(), SeqCst);
        self.reads.fetch_add(1, SeqCst);
        true
    }

    /// Lists the folder, for its index.
    fn list(&self, turn: &mut Turn, server: SocketAddr) {
        let least = self.folder.load(SeqCst);
        let answer = turn.request(server, "GET", &format!("{FOLDER}?keys"), b"");
        let Some(answer) = answer.filter(|answer| matches!(answer.status, 200 | 404)) else { return };
        if answer.index() < least {
            self.wrong(format!("{server} {FOLDER}: index {} after {least}", answer.index()));
        }
        self.folder.fetch_max(answer.index(), SeqCst);
    }
}

fn write(shared: &Shared, number: usize) {
    let mut turn = Turn::default();
    let (mut server, mut generation) = (None, 0);
    while shared.goes_on() {
        let to = shared.after(server);
        server = Some(to);
        // Nothing was sent if this fails.
        if !turn.connect(to) {
            continue;
        }
        let key = shared.current[number].lock().unwrap().clone();
        let next = key.begun.fetch_add(1, SeqCst) + 1;
        let began = Instant::now();
        let answer = turn.request(to, "PUT", &key.path, next.to_string().as_bytes());
        if answer.is_some_and(|answer| answer.status == 200 && answer.text().trim() == "true") {
            key.known.fetch_max(next, SeqCst);
            let mut acknowledged = shared.acknowledged.lock().unwrap();
            let now = Instant::now();
            acknowledged.push((now, now - began));
            drop(acknowledged);
            // The next write would hide that this one was lost.
            if next.is_multiple_of(2) {
                shared.look(&mut turn, shared.after(server), &key);
            }
        } else {
            generation += 1;
            *shared.current[number].lock().unwrap() = Register::new(number, generation);
            shared.retired.lock().unwrap().push(key);
        }
    }
}

fn read(shared: &Shared, number: usize) {
    let mut turn = Turn::default();
    let mut server = None;
    for round in number.. {
        if !shared.goes_on() {
            return;
        }
        let to = shared.after(server);
        server = Some(to);
        // Now and then a key that its writer has left: its last write may yet appear, but not disappear.
        let key = match round % 8 {
            0 => shared.retired.lock().unwrap().last().cloned(),
            _ => None,
        };
        let key = key.unwrap_or_else(|| shared.current[round % shared.current.len()].lock().unwrap().clone());
        shared.look(&mut turn, to, &key);
        if round % 16 == 0 {
            shared.list(&mut turn, to);
        }
    }
}

/// One client's connections, which it takes in turn.
#[derive(Default)]
struct Turn(BTreeMap<SocketAddr, Connection>);

impl Turn {
    fn connect(&mut self, to: SocketAddr) -> bool {
        if self.0.contains_key(&to) {
            return true;
        }
        match Connection::open(to) {
            Ok(connection) => self.0.insert(to, connection).is_none(),
            Err(_) => {
                // A server that is down must not cost a core.
                thread::sleep(Duration::from_millis(5));
                false
            }
        }
    }

    fn request(&mut self, to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<Response> {
        if !self.connect(to) {
            return None;
        }
        let answer = self.0.get_mut(&to)?.request(method, path, body);
        if answer.is_err() {
            self.0.remove(&to);
        }
        answer.ok()
    }
}
