//! The measured load: reads and writes in a given share, on random keys.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use super::connection::{Common, Connection, Reply};
use super::{Meter, Plan, Spent, Until, show};
use crate::error::Error;
use crate::limits;
use crate::world::{Instant, Sleep, World};

/// What came of all operations.
pub struct Tally {
    /// Latencies of writes, in nanoseconds.
    pub writes: Histogram<u64>,
    /// Latencies of reads, in nanoseconds.
    pub reads: Histogram<u64>,
    /// What failed, by kind.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Operations that succeeded.
    pub fn operations(&self) -> u64 {
        self.writes.len() + self.reads.len()
    }
}

/// Kinds of errors that are told apart; the rest is counted together, so that a server's texts cannot fill memory.
const ERROR_KINDS: usize = 32;

/// What the clients share. On one thread the lock is never contended; the alternative, a histogram for each client,
/// would be a quarter of a megabyte each.
struct Shared {
    plan: Plan,
    tally: Mutex<Tally>,
    /// Operations begun, for runs that end by count.
    begun: AtomicU64,
    deadline: Option<Instant>,
}

impl Shared {
    fn tally<T>(&self, with: impl FnOnce(&mut Tally) -> T) -> T {
        with(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error(&self, kind: String) {
        self.tally(|tally| {
            let full = tally.errors.len() >= ERROR_KINDS && !tally.errors.contains_key(&kind);
            *tally.errors.entry(if full { "other errors".into() } else { kind }).or_default() += 1;
        });
    }

    /// Whether there is another operation to do at `now`.
    fn goes_on(&self, now: Instant) -> bool {
        match (self.deadline, self.plan.until) {
            (Some(deadline), _) => now < deadline,
            (None, Until::Count(count)) => self.begun.fetch_add(1, Ordering::Relaxed) < count,
            (None, Until::Time(_)) => false,
        }
    }
}

/// Connects every client, writes every key once if there are reads, then measures.
pub async fn run(plan: &Plan, pids: &[u32], bar: &ProgressBar) -> anyhow::Result<(Tally, Spent)> {
    let mut clients = Vec::with_capacity(plan.clients);
    for number in 0..plan.clients {
        clients.push(Client::open(plan, number).await?);
    }
    if plan.reads > 0 {
        bar.set_message("writing the keys to read");
        fill(plan, &mut clients).await?;
    }
    let latencies = || Histogram::new_with_bounds(LEAST, MOST, 3);
    let tally = Tally { writes: latencies()?, reads: latencies()?, errors: BTreeMap::new() };
    let meter = Meter::start(plan, pids)?;
    let deadline = match plan.until {
        Until::Time(time) => Some(plan.world.clock.now() + time),
        Until::Count(_) => None,
    };
    let shared = Arc::new(Shared { plan: plan.clone(), tally: Mutex::new(tally), begun: AtomicU64::new(0), deadline });
    let tasks: Vec<_> = clients.into_iter().map(|c| plan.world.spawn(c.work(shared.clone()))).collect();
    tokio::select! {
        // Only a panic loses a task, and its message has been printed by then.
        done = futures_util::future::try_join_all(tasks) => drop(done?),
        never = show(plan, bar, || shared.tally(|tally| tally.operations())) => match never {},
    }
    let spent = meter.stop()?;
    let shared = Arc::into_inner(shared).expect("every client that shared it has ended");
    Ok((shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner), spent))
}

/// A microsecond: nothing over a socket is faster.
const LEAST: u64 = 1_000;
/// Longer than any wait of a client.
const MOST: u64 = 600_000_000_000;

/// Writes all keys once, shared among the clients, not measured.
async fn fill(plan: &Plan, clients: &mut [Client]) -> anyhow::Result<()> {
    let count = clients.len() as u64;
    let parts = clients.iter_mut().zip(0..).map(|(client, number): (_, u64)| async move {
        for key in (number..plan.keys).step_by(count as usize) {
            client.write(key).await.map_err(|kind| anyhow::anyhow!("cannot write the keys to read: {kind}"))?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(parts).await?;
    Ok(())
}

/// One client.
struct Client {
    world: World,
    plan: Plan,
    link: Link,
    random: Random,
    path: String,
    value: Vec<u8>,
}

impl Client {
    async fn open(plan: &Plan, number: usize) -> Result<Client, Error> {
        let mut link = Link::new(plan);
        link.connect().await?;
        Ok(Client {
            world: plan.world.clone(),
            plan: plan.clone(),
            link,
            random: Random(plan.seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            path: String::new(),
            value: vec![b'x'; plan.value_size],
        })
    }

    async fn work(mut self, shared: Arc<Shared>) {
        let mut now = self.world.clock.now();
        while shared.goes_on(now) {
            let key = self.random.below(self.plan.keys);
            let reads = self.random.below(100) < u64::from(self.plan.reads);
            let outcome = if reads { self.read(key).await } else { self.write(key).await };
            let end = self.world.clock.now();
            match outcome {
                Ok(()) => shared.tally(|tally| {
                    let nanos = u64::try_from(end.since(now).as_nanos()).unwrap_or(MOST);
                    if reads { &mut tally.reads } else { &mut tally.writes }.saturating_record(nanos);
                }),
                Err(kind) => {
                    shared.error(kind);
                    self.world.sleep(limits::BENCH_RECONNECT).await;
                }
            }
            now = self.world.clock.now();
        }
    }

    async fn write(&mut self, key: u64) -> Result<(), String> {
        self.set_path(key, "");
        // A write of what is there already is no change, so that each must be another: as many letters as fit of a
        // number.
        let number = self.random.next();
        for (i, byte) in self.value.iter_mut().take(16).enumerate() {
            *byte = b'a' + (number >> (4 * i) & 15) as u8;
        }
        match self.link.exchange("PUT", &self.path, &self.value).await? {
            Reply { status: 200, body } if body.trim_ascii() == b"true" => Ok(()),
            reply => Err(refusal(&reply)),
        }
    }

    async fn read(&mut self, key: u64) -> Result<(), String> {
        self.set_path(key, self.plan.read_query);
        match self.link.exchange("GET", &self.path, b"").await? {
            Reply { status: 200, .. } => Ok(()),
            reply => Err(refusal(&reply)),
        }
    }

    fn set_path(&mut self, key: u64, query: &str) {
        use std::fmt::Write;
        self.path.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "{}{key:08}{query}", self.plan.path);
    }
}

/// What an answer that is no success is counted as.
pub fn refusal(reply: &Reply<'_>) -> String {
    let text = String::from_utf8_lossy(reply.body);
    let line: String = text.trim().lines().next().unwrap_or_default().chars().take(80).collect();
    format!("answered {} {line}", reply.status).trim_end().to_owned()
}

/// A connection that is made anew when it breaks, and a bound on every wait.
pub struct Link {
    world: World,
    address: crate::client::address::Address,
    common: Common,
    connection: Option<Connection>,
    /// One sleep for many exchanges: to make one for each would cost more than the rest of the client.
    alarm: Sleep,
}

impl Link {
    /// Not connected yet.
    pub fn new(plan: &Plan) -> Link {
        Link {
            world: plan.world.clone(),
            address: plan.address.clone(),
            common: plan.common.clone(),
            connection: None,
            alarm: plan.world.sleep(limits::BENCH_PATIENCE),
        }
    }

    /// Connects if there is no connection. Nothing that a server could act on has been sent if this fails.
    pub async fn connect(&mut self) -> Result<&mut Connection, Error> {
        let usable = self.connection.take().filter(|connection| !connection.closing);
        let connection = match usable {
            Some(connection) => connection,
            None => Connection::open(&self.world, &self.address).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// A kind to count. The connection is given up, because half a reply may be on the way.
    pub async fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Reply<'_>, String> {
        self.connect().await.map_err(|_| "cannot connect".to_owned())?;
        let Link { world, connection, alarm, common, .. } = self;
        let outcome = {
            let taken = connection.as_mut().expect("connected just now");
            bounded(world, alarm, taken.exchange(method, path, common, body)).await.map(|reply| reply.status)
        };
        match outcome {
            Ok(status) => Ok(Reply { status, body: connection.as_ref().map(Connection::body).unwrap_or_default() }),
            Err(error) => {
                *connection = None;
                Err(match error.kind() {
                    io::ErrorKind::TimedOut => format!("no answer within {:?}", limits::BENCH_PATIENCE),
                    io::ErrorKind::InvalidData => error.to_string(),
                    _ => "lost the connection".to_owned(),
                })
            }
        }
    }
}

/// The future's result, or `TimedOut` after one to two times [`limits::BENCH_PATIENCE`].
async fn bounded<T>(world: &World, alarm: &mut Sleep, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut future = std::pin::pin!(future);
    let mut rung = false;
    loop {
        tokio::select! {
            biased;
            output = future.as_mut() => return output,
            () = alarm.as_mut() => {
                *alarm = world.sleep(limits::BENCH_PATIENCE);
                if rung {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                rung = true;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough to pick keys.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A latency for people: three figures and a unit.
pub fn short(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        m if m < 1_000.0 => format!("{m:.0} µs"),
        m if m < 100_000.0 => format!("{:.2} ms", m / 1e3),
        m if m < 1_000_000.0 => format!("{:.0} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}
