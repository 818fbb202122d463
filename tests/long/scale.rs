//! Many at once: 10,000 blocked queries on one server, 100,000 sessions that are renewed on three.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::{Cluster, stat};
use super::support::{Agent, wait_until};
use super::{durable, resident};

/// Blocked queries.
const QUERIES: usize = 10_000;
/// Sessions, and how long each lives without a renewal.
const SESSIONS: usize = 100_000;
const TTL: Duration = Duration::from_secs(15);
/// Connections that the sessions share, and how many requests each keeps under way.
const LINES: usize = 64;
/// How long all are renewed while nothing happens, and how often the leader is killed after that.
const QUIET: Duration = Duration::from_secs(30);
const ELECTIONS: usize = 3;

/// A connection that is kept.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    async fn open(to: SocketAddr) -> io::Result<Line> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Line { stream, read: Vec::new() })
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<()> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes()).await
    }

    /// The next answer: status and body.
    async fn answer(&mut self) -> io::Result<(u16, String)> {
        loop {
            let text = String::from_utf8_lossy(&self.read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let field = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok();
                let length: usize = head.lines().find_map(field).unwrap_or(0);
                if body.len() >= length {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                    let (answer, whole) = (body[..length].to_string(), head.len() + 4 + length);
                    self.read.drain(..whole);
                    return Ok((status, answer));
                }
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.read.extend_from_slice(&part[..count]),
            }
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        self.send(method, path, body).await?;
        self.answer().await
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn ten_thousand_queries_wait_cheaply_wake_together_and_are_free_when_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = durable(dir.path());
    args.push("-hcl=limits { http_max_conns_per_client = 16384 }".into());
    let agent = Agent::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    agent.put("/v1/kv/watched", "0");
    let before = resident(&agent);
    let blocked = || stat(agent.http, "state", "blocked_queries").parse::<usize>().unwrap_or(0);
    block_on(async {
        let mut lines = Vec::new();
        let index = agent.get("/v1/kv/watched").index();
        for _ in 0..QUERIES {
            let mut line = Line::open(agent.http).await.unwrap();
            line.send("GET", &format!("/v1/kv/watched?index={index}&wait=300s"), "").await.unwrap();
            lines.push(line);
        }
        wait_until("all to be blocked", || blocked() == QUERIES);
        println!("{QUERIES} blocked: {} MB, {} MB before", resident(&agent) / 1000, before / 1000);

        let waiting: Vec<_> = lines
            .into_iter()
            .map(|mut line| {
                tokio::task::spawn(async move {
                    let (status, body) = line.answer().await.unwrap();
                    assert!(status == 200 && body.contains("MQ=="), "{status} {body}");
                    (line, Instant::now())
                })
            })
            .collect();
        let mut writer = Line::open(agent.http).await.unwrap();
        let began = Instant::now();
        writer.ask("PUT", "/v1/kv/watched", "1").await.unwrap();
        let (mut lines, mut times) = (Vec::new(), Vec::new());
        for task in waiting {
            let (line, at) = task.await.unwrap();
            lines.push(line);
            times.push(at - began);
        }
        times.sort_unstable();
        println!("all know after {:?}, half of them after {:?}", times[QUERIES - 1], times[QUERIES / 2]);
        assert_eq!(blocked(), 0);

        let index = agent.get("/v1/kv/watched").index();
        for line in &mut lines {
            line.send("GET", &format!("/v1/kv/watched?index={index}&wait=300s"), "").await.unwrap();
        }
        wait_until("all to be blocked again", || blocked() == QUERIES);
        let began = Instant::now();
        lines.truncate(QUERIES / 2);
        wait_until("half of the waits to be free", || blocked() == QUERIES / 2);
        println!("{} hung up, free after {:?}", QUERIES / 2, began.elapsed());
    });
}

#[test]
fn a_hundred_thousand_sessions_are_renewed_and_none_ends_early_while_leaders_are_killed() {
    let mut cluster = Cluster::found();
    let all = cluster.all();
    let (stop, renewals, repeats) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (told, made) = std::sync::mpsc::channel();
    let clients = thread::spawn({
        let (stop, renewals, repeats) = (stop.clone(), renewals.clone(), repeats.clone());
        move || {
            block_on(async move {
                let tasks: Vec<_> = (0..LINES)
                    .map(|number| {
                        let renewer = Renewer {
                            all: all.clone(),
                            number,
                            stop: stop.clone(),
                            renewals: renewals.clone(),
                            repeats: repeats.clone(),
                        };
                        tokio::task::spawn(renewer.run(told.clone()))
                    })
                    .collect();
                let mut all = Share::default();
                for task in tasks {
                    let Share { early, late, fresh } = task.await.unwrap();
                    all.early.extend(early);
                    (all.late, all.fresh) = (all.late + late, all.fresh + fresh);
                }
                all
            })
        }
    });
    let began = Instant::now();
    let whole = |_| made.recv_timeout(Duration::from_secs(300)).expect("this machine is too slow to make all sessions");
    (0..LINES).for_each(whole);
    println!("{SESSIONS} sessions made in {:?}", began.elapsed());

    let leader = cluster.leader();
    let cpu = |number: usize| cpu(cluster.agents[&number].pid());
    // The first renewals follow the creations at once.
    thread::sleep(TTL / 2);
    let before: Vec<Duration> = (0..3).map(cpu).collect();
    let (count, began) = (renewals.load(Ordering::Relaxed), Instant::now());
    thread::sleep(QUIET);
    let (count, took) = (renewals.load(Ordering::Relaxed) - count, began.elapsed());
    let share = |number: usize| (cpu(number) - before[number]).as_secs_f64() / took.as_secs_f64();
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "{rate:.0} renewals/s; cores: leader {:.2} ({:.0} µs per renewal), others {:.2} and {:.2}; leader {} MB",
        share(leader),
        share(leader) * 1e6 / rate,
        share((leader + 1) % 3),
        share((leader + 2) % 3),
        resident(&cluster.agents[&leader]) / 1000,
    );
    for _ in 0..ELECTIONS {
        let leader = cluster.leader();
        cluster.kill(leader);
        thread::sleep(Duration::from_secs(3));
        cluster.start(leader);
        cluster.wait_for_leader();
        // Every session is renewed at least once under every leader.
        thread::sleep(TTL);
    }
    let alive = stat(cluster.http(cluster.leader()), "state", "sessions");
    stop.store(true, Ordering::Relaxed);
    let Share { early, late, fresh } = clients.join().unwrap();
    println!(
        "{ELECTIONS} elections: {} of {SESSIONS} sessions ended early, {late} were renewed too late, {alive} alive; \
         {} requests sent again",
        early.len(),
        repeats.load(Ordering::Relaxed)
    );
    assert!(early.is_empty(), "{:?}", &early[..early.len().min(5)]);
    assert!(alive.parse::<usize>().unwrap() >= fresh, "{alive} alive, and {fresh} were renewed in time");
    assert!(fresh > SESSIONS / 2, "this machine is too slow: it renewed only {fresh} of {SESSIONS} sessions in time");
    wait_until_ended(&cluster);
}

/// Nobody renews any more: all of them end, and not before their time.
fn wait_until_ended(cluster: &Cluster) {
    let began = Instant::now();
    let left = || stat(cluster.http(cluster.leader()), "state", "sessions");
    while left() != "0" {
        assert!(began.elapsed() < Duration::from_secs(300), "{} sessions live on", left());
        thread::sleep(Duration::from_millis(200));
    }
    println!("all ended {:?} after the last renewal, with a TTL of {TTL:?}", began.elapsed());
}

/// What became of one connection's sessions.
#[derive(Default)]
struct Share {
    /// Gone although renewed in time: none may be.
    early: Vec<String>,
    /// Gone because this machine was too slow to renew them in time.
    late: usize,
    /// Renewed less than a TTL ago when all was over.
    fresh: usize,
}

/// One connection's share of the sessions.
struct Renewer {
    all: Vec<SocketAddr>,
    number: usize,
    stop: Arc<AtomicBool>,
    renewals: Arc<AtomicU64>,
    repeats: Arc<AtomicU64>,
}

impl Renewer {
    /// Makes its sessions, and renews each twice in its TTL, from the first one on.
    async fn run(self, made: std::sync::mpsc::Sender<()>) -> Share {
        let count = SESSIONS / LINES + usize::from(self.number < SESSIONS % LINES);
        let mut server = self.number;
        let mut line = None;
        let mut share = Share::default();
        // In the order of their last renewal: the first is due first.
        let mut sessions = VecDeque::with_capacity(count);
        let mut created = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let due = |(_, renewed): &(String, Instant)| *renewed + TTL / 2;
            let first = sessions.front().map(due).unwrap_or_else(Instant::now);
            if created < count && (sessions.is_empty() || first > Instant::now()) {
                let body = format!(r#"{{"TTL": "{}s"}}"#, TTL.as_secs());
                let (asked, status, answer) = self.ask(&mut line, &mut server, "/v1/session/create", &body).await;
                let id = serde_json::from_str::<serde_json::Value>(&answer)
                    .ok()
                    .and_then(|answer| Some(answer["ID"].as_str()?.to_owned()));
                // One of them may have been made without an answer; it ends by itself.
                if let Some(id) = id.filter(|_| status == 200) {
                    sessions.push_back((id, asked));
                    created += 1;
                }
                if created == count {
                    made.send(()).unwrap();
                }
                continue;
            }
            tokio::time::sleep_until(first.into()).await;
            let Some((id, renewed)) = sessions.pop_front() else { continue };
            let path = format!("/v1/session/renew/{id}");
            match self.ask(&mut line, &mut server, &path, "").await {
                (asked, 200, _) => {
                    self.renewals.fetch_add(1, Ordering::Relaxed);
                    sessions.push_back((id, asked));
                }
                (_, status, answer) if renewed.elapsed() < TTL => {
                    share.early.push(format!("{path}: {status} {answer} {:?} after a renewal", renewed.elapsed()));
                }
                _ => share.late += 1,
            }
        }
        share.fresh = sessions.iter().filter(|(_, renewed)| renewed.elapsed() < TTL).count();
        share
    }

    /// Asks until there is an answer that says something, and says when that was asked; a renewal may be repeated.
    async fn ask(&self, line: &mut Option<Line>, server: &mut usize, path: &str, body: &str) -> (Instant, u16, String) {
        loop {
            let asked = Instant::now();
            let ask = async {
                if line.is_none() {
                    *line = Some(Line::open(self.all[*server % self.all.len()]).await?);
                }
                line.as_mut().unwrap().ask("PUT", path, body).await
            };
            match tokio::time::timeout(Duration::from_secs(3), ask).await {
                Ok(Ok((status, answer))) if status == 200 || status == 404 => return (asked, status, answer),
                _ => {
                    (*line, *server) = (None, *server + 1);
                    self.repeats.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// CPU time of a process.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
