//! Locks: clients make sessions, hold locks, renew them or let them run out, and believe in them exactly as long as G1 allows.
//!
//! A holder counts its lease from before it sent the create or renewal that was answered, on its own clock, which runs up to
//! 1 % fast or slow. While it believes, it writes fenced by its lock and looks who holds it; after it has stopped it tries once
//! more, which nobody may see. What it believed and when, in true time, is for `check::locks`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use quorate::world::{Instant, World};
use serde_json::Value;

use super::http::{Http, Reply};
use super::{Phase, Shared};
use crate::event;
use crate::player::Player;
use crate::rng::Rng;
use crate::trace;
use crate::world::{Machine, hold};

/// How long one request of a holder may take: beyond its lease an answer is of no use.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for those that make and end sessions.
const LONG: Duration = Duration::from_secs(15);
/// How long calm may take to end every session and grant every lock: the longest TTL and delay, and an election.
const FREE: Duration = Duration::from_secs(20);

/// What the seed drew for the lockers.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Clients that take locks.
    pub lockers: u32,
    /// Locks they share.
    pub locks: u64,
    /// Longest TTL, in seconds.
    pub ttl: u64,
}

impl Mix {
    /// Draws a mix.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "locks");
        Mix { lockers: rng.between(2, 4) as u32, locks: rng.between(1, 2), ttl: rng.between(1, 4) }
    }
}

/// What the lockers did and believed, in true time.
#[derive(Debug, Default)]
pub struct Book {
    /// Every hold, from the answer that granted it to the end of the belief.
    pub claims: Vec<Claim>,
    /// Every fenced write that was done.
    pub writes: Vec<FencedWrite>,
    /// Holds that were ended by destroying their session, while its lease ran.
    pub destroyed: Vec<Destroyed>,
    /// Every acquisition of a client of whom no earlier request for the lock may still be on its way.
    pub grants: Vec<Grant>,
    /// Who was seen waiting.
    pub glimpses: Vec<Glimpse>,
}

/// A request for a lock that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lock.
    pub lock: String,
    /// Who asked.
    pub session: String,
    /// Whether it was ready to wait.
    pub queued: bool,
    /// When it asked.
    pub sent: Duration,
    /// When it was answered.
    pub answered: Duration,
    /// The fence.
    pub fence: u64,
}

/// A look at a lock's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// The lock.
    pub lock: String,
    /// When it was looked at, from the question to the answer.
    pub seen: (Duration, Duration),
    /// The sessions that waited.
    pub queue: Vec<String>,
}

/// A client's belief that it holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub client: Player,
    /// What.
    pub lock: String,
    /// Under which fence.
    pub fence: u64,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        write!(f, "{} held {} under fence {} from {from:.3} to {until:.3} s", self.client, self.lock, self.fence)
    }
}

/// A write that was allowed because a lock was held under a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedWrite {
    /// The lock.
    pub lock: String,
    /// The fence.
    pub fence: u64,
    /// The revision of the write.
    pub revision: u64,
}

/// The end of a hold that puts the lock under a delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroyed {
    /// The lock.
    pub lock: String,
    /// The fence it was held under.
    pub fence: u64,
    /// For how long nobody may have it.
    pub delay: Duration,
    /// When the session's end was asked for: it did not end earlier.
    pub sent: Duration,
}

/// One locker, until the storm is over.
pub async fn locker(player: Player, world: World, machine: Arc<Machine>, shared: Arc<Shared>, mix: Mix, mut rng: Rng) {
    let http = Http::new(&world, *rng.pick(&shared.servers));
    let mut locker =
        Locker { player, world, machine, shared, rng, http, session: None, former: Vec::new(), astray: Vec::new() };
    while locker.shared.phase() == Phase::Storm {
        if !locker.has_session() && !locker.create(mix.ttl).await {
            locker.turn();
            locker.pause(50, 400).await;
            continue;
        }
        let lock = format!("lock/{}", locker.rng.below(mix.locks));
        if let Some(fence) = locker.acquire(&lock).await {
            locker.hold(&lock, fence).await;
        } else if locker.rng.chance(500) {
            locker.wait_for(&lock).await;
        } else {
            locker.pause(20, 400).await;
        }
        locker.renew().await;
    }
}

struct Locker {
    player: Player,
    world: World,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    rng: Rng,
    http: Http,
    session: Option<Session>,
    /// Holds that it has released: session, lock, fence.
    former: Vec<(String, String, u64)>,
    /// Sessions and locks of requests that were not answered: they may be granted at any later time.
    astray: Vec<(String, String)>,
}

#[derive(Clone)]
struct Session {
    id: String,
    /// When it was asked for.
    born: Duration,
    delay: Duration,
    /// How much of its lease is left when it is to be renewed.
    margin: Duration,
    /// Until when its holder may believe in it, on its own clock.
    until: Instant,
}

impl Locker {
    fn now(&self) -> Instant {
        self.world.clock.now()
    }

    fn turn(&mut self) {
        let server = *self.rng.pick(&self.shared.servers);
        self.http.turn_to(server);
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let pause = Duration::from_millis(self.rng.between(least, most));
        self.world.sleep(pause).await;
    }

    /// Whether it has a session that it believes in. One whose lease has run out is gone for it.
    fn has_session(&mut self) -> bool {
        let now = self.now();
        self.session.take_if(|session| session.until <= now);
        self.session.is_some()
    }

    /// Whether it is right to: what servers say is held against this.
    fn is_leased(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.until > self.now())
    }

    async fn create(&mut self, most: u64) -> bool {
        let ttl = Duration::from_millis(self.rng.between(1_000, most * 1_000));
        let delay = Duration::from_millis(*self.rng.pick(&[0, 0, 500, 2_000]));
        let behavior = if self.rng.chance(200) { "delete" } else { "release" };
        let body = format!(
            r#"{{"TTL": "{}ms", "LockDelay": "{}ms", "Behavior": "{behavior}"}}"#,
            ttl.as_millis(),
            delay.as_millis()
        );
        let (born, sent) = (trace::now(), self.now());
        let reply = self.http.send(Method::PUT, "/v1/session/create", None, body, LONG).await;
        let Reply::Answer { status: 200, body, lease: Some(lease), .. } = reply else { return false };
        let Some(id) =
            serde_json::from_slice::<Value>(&body).ok().and_then(|body| Some(body["ID"].as_str()?.to_owned()))
        else {
            return false;
        };
        event!("session", "{id} of {ttl:?}, lock-delay {delay:?}, {behavior}, lease {lease:?}");
        // Some renew in good time, some when it is nearly too late.
        let margin = if self.rng.chance(700) { ttl * 2 / 3 } else { Duration::from_millis(self.rng.between(1, 150)) };
        self.session = Some(Session { id, born, delay, margin, until: sent + lease });
        self.has_session()
    }

    /// Renews the session when it is due, mostly.
    async fn renew(&mut self) {
        let now = self.now();
        let due = |session: &Session| session.until.since(now) <= session.margin;
        let Some(session) = self.session.clone().filter(due) else { return };
        if self.rng.chance(150) {
            return;
        }
        let sent = self.now();
        let path = format!("/v1/session/renew/{}", session.id);
        match self.http.send(Method::PUT, &path, None, String::new(), PATIENCE).await {
            Reply::Answer { status: 200, lease: Some(lease), .. } => {
                // Also when the answer comes late: a session that could be renewed had not ended.
                self.session = Some(Session { until: session.until.max(sent + lease), ..session });
            }
            Reply::Answer { status: 404, .. } => self.refused(&session.id).await,
            _ => self.turn(),
        }
    }

    /// A renewal was refused: the session is gone, or its node is, which ends it only when its lease has run out (G1.7).
    async fn refused(&mut self, id: &str) {
        let path = format!("/v1/session/info/{id}");
        let reply = self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await;
        if matches!(&reply, Reply::Answer { status: 200, body, .. } if &body[..] == b"[]") {
            self.lost("its session is gone");
        }
    }

    /// The session is said to be gone.
    fn lost(&mut self, how: &str) {
        if self.is_leased()
            && let Some(session) = self.session.take()
        {
            let (now, left) = (self.true_time(self.now()), session.until.since(self.now()));
            let text = format!("{}: {how}, at {now:?}, with {left:?} of its lease left: {}", self.player, session.id);
            self.shared.contradict_since(session.born, "L6", text);
        }
        self.session = None;
    }

    /// Asks once, or in the lock's queue. Some hang up before their turn.
    async fn acquire(&mut self, lock: &str) -> Option<u64> {
        let session = self.session.clone()?;
        let queues = self.rng.chance(500);
        let path = match queues {
            true => format!("/v1/lock/{lock}?session={}&wait={}ms", session.id, self.rng.between(0, 2_500)),
            false => format!("/v1/kv/{lock}?acquire={}", session.id),
        };
        let body = if queues { String::new() } else { format!("client {}", self.player.number) };
        if queues && self.rng.chance(300) {
            glimpse(&mut self.http, &self.shared, lock).await;
        }
        let (sent, strayed) = (trace::now(), (session.id.clone(), lock.to_owned()));
        let reply = self.http.send(Method::PUT, &path, None, body, PATIENCE).await;
        let clean = !self.astray.contains(&strayed);
        match reply {
            Reply::Answer { status: 200, fence: Some(fence), .. } => {
                let (lock, session, answered) = (lock.to_owned(), session.id, trace::now());
                let grant = Grant { lock, session, queued: queues, sent, answered, fence };
                hold(&self.shared.book).grants.extend(clean.then_some(grant));
                return Some(fence);
            }
            Reply::Answer { status: 200 | 423, .. } => {}
            Reply::Answer { status: 500, body, .. } if body.starts_with(b"invalid session") => {
                self.lost("an acquisition was answered that its session is gone");
            }
            _ => {
                self.astray.push(strayed);
                self.turn();
            }
        }
        None
    }

    /// Waits until the lock's key changes, as clients of Consul do.
    async fn wait_for(&mut self, lock: &str) {
        let path = format!("/v1/kv/{lock}");
        let Reply::Answer { index, .. } = self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await
        else {
            return self.turn();
        };
        let path = format!("{path}?index={index}&wait=700ms");
        self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await;
    }

    /// Holds a lock that was granted, and ends the hold in one of the ways there are.
    async fn hold(&mut self, lock: &str, fence: u64) {
        let from = self.now();
        // Half of the holders do nothing but renew, as who leads and has no work to do: nothing else tells them the truth.
        let idle = self.rng.chance(500);
        let stop = from + Duration::from_millis(self.rng.below(if idle { 9_000 } else { 3_000 }));
        let mut until = from;
        let mut number = 0;
        while self.has_session() && self.now() < stop && self.shared.phase() == Phase::Storm {
            until = self.session.as_ref().map_or(until, |session| session.until);
            number += 1;
            if idle {
                self.rest(stop).await;
                self.renew().await;
                continue;
            }
            if self.rng.chance(300) {
                self.look(lock, fence).await;
            } else if self.rng.chance(100) {
                self.release_again(lock, fence).await;
            }
            self.write(lock, fence, number).await;
            self.pause(10, 200).await;
            self.renew().await;
        }
        // Between two of the steps above the belief may have ended: at the lease that was known then.
        let end = if self.has_session() { self.now() } else { until };
        let (from, until) = (self.true_time(from), self.true_time(end));
        if from < until {
            event!("claim", "{lock} fence {fence} {from:?} to {until:?}");
            let claim = Claim { client: self.player, lock: lock.into(), fence, from, until };
            hold(&self.shared.book).claims.push(claim);
        }
        self.let_go(lock, fence).await;
        self.write(lock, fence, 0).await;
    }

    /// Sleeps until the session is to be renewed, at most until then.
    async fn rest(&self, stop: Instant) {
        let Some(session) = &self.session else { return };
        let (now, left) = (self.now(), session.until.since(self.now()));
        let due = left.saturating_sub(session.margin).max(Duration::from_millis(1));
        self.world.sleep(due.min(stop.since(now)).max(Duration::from_millis(1))).await;
    }

    /// Releases the lock, or destroys its session, or just stops: then the belief goes on to the end of the lease.
    async fn let_go(&mut self, lock: &str, fence: u64) {
        let Some(session) = self.session.clone() else { return };
        if self.rng.chance(400) {
            self.release(&session.id, lock, fence).await;
            self.former.push((session.id, lock.into(), fence));
        } else if self.rng.chance(200) {
            self.delete(lock, fence).await;
        } else if self.rng.chance(500) {
            let sent = self.true_time(self.now());
            let path = format!("/v1/session/destroy/{}", session.id);
            let reply = self.http.send(Method::PUT, &path, None, String::new(), LONG).await;
            let done = matches!(&reply, Reply::Answer { status: 200, body, .. } if &body[..] == b"true");
            // Only a session that cannot have run out before, or have ended by a restore, is known to have ended then.
            let restored = hold(&self.shared.restores).since(session.born);
            if done && !restored && self.is_leased() {
                let destroyed = Destroyed { lock: lock.into(), fence, delay: session.delay, sent };
                hold(&self.shared.book).destroyed.push(destroyed);
            }
            if done {
                self.gone(&session.id, lock).await;
            }
            self.session = None;
        } else {
            let (from, until) = (self.true_time(self.now()), self.true_time(session.until));
            let claim = Claim { client: self.player, lock: lock.into(), fence, from, until };
            hold(&self.shared.book).claims.push(claim);
            self.session = None;
            // It is silent for about as long as its lease lasts.
            self.pause(100, 3_000).await;
        }
    }

    /// Whether the server says that this hold has ended now.
    async fn release(&mut self, session: &str, lock: &str, fence: u64) -> bool {
        let path = format!("/v1/kv/{lock}?release={session}&fence={fence}");
        let reply = self.http.send(Method::PUT, &path, None, String::new(), PATIENCE).await;
        matches!(&reply, Reply::Answer { status: 200, body, .. } if &body[..] == b"true")
    }

    /// Releases once more what it has released before: late, and of no effect on what it holds now.
    async fn release_again(&mut self, lock: &str, fence: u64) {
        let Some((session, lock, former)) = self.former.iter().find(|former| former.1 == lock).cloned() else { return };
        if former < fence && self.release(&session, &lock, former).await {
            let sentence = format!("a late release of {lock} under fence {former} ended something: {fence} is held");
            self.shared.contradict("L12", sentence);
        }
    }

    /// Deletes the lock's key, if it is held under this fence: its next fence must be larger all the same (L16).
    async fn delete(&mut self, lock: &str, fence: u64) {
        let body = format!(
            r#"[{{"KV": {{"Verb": "check-fence", "Key": "{lock}", "Index": {fence}}}}},
                {{"KV": {{"Verb": "delete", "Key": "{lock}"}}}}]"#
        );
        self.http.send(Method::PUT, "/v1/txn", None, body, PATIENCE).await;
    }

    /// Looks who holds the lock: while it believes, it must be this session under this fence.
    async fn look(&mut self, lock: &str, fence: u64) {
        let Some(session) = self.session.clone() else { return };
        let path = format!("/v1/kv/{lock}");
        let Reply::Answer { status, fence: shown, body, .. } =
            self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await
        else {
            return self.turn();
        };
        let own = status == 200 && shown == Some(fence) && holder(&body).as_deref() == Some(&session.id);
        if matches!(status, 200 | 404) && !own && self.is_leased() {
            let body = String::from_utf8_lossy(&body);
            let sentence = format!("{} holds {lock} under {fence}, and reads {status} {shown:?} {body}", self.player);
            self.shared.contradict_since(session.born, "L19", sentence);
        }
    }

    /// The end of a session was acknowledged: it holds nothing any more, and is granted nothing.
    async fn gone(&mut self, session: &str, lock: &str) {
        let path = format!("/v1/kv/{lock}");
        let reply = self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await;
        if matches!(&reply, Reply::Answer { status: 200, body, .. } if holder(body).as_deref() == Some(session)) {
            self.shared.contradict("L9", format!("{lock} is held by session {session} after its end"));
        }
        let path = format!("{path}?acquire={session}");
        let reply = self.http.send(Method::PUT, &path, None, String::new(), PATIENCE).await;
        if matches!(&reply, Reply::Answer { status: 200, body, .. } if &body[..] == b"true") {
            self.shared.contradict("L8", format!("{lock} was granted to session {session} after its end"));
        }
    }

    /// Writes beside the lock, if it is held under this fence.
    async fn write(&mut self, lock: &str, fence: u64, number: u64) {
        let value = format!("{fence} {number}");
        if self.rng.chance(500) {
            let path = format!("/v1/kv/guarded/{lock}?lock={lock}&fence={fence}");
            self.http.send(Method::PUT, &path, None, value, PATIENCE).await;
            return self.witness(lock).await;
        }
        let value = STANDARD.encode(value);
        let body = format!(
            r#"[{{"KV": {{"Verb": "check-fence", "Key": "{lock}", "Index": {fence}}}}},
                {{"KV": {{"Verb": "set", "Key": "guarded/{lock}", "Value": "{value}"}}}}]"#
        );
        let reply = self.http.send(Method::PUT, "/v1/txn", None, body, PATIENCE).await;
        let Reply::Answer { status: 200, body, .. } = reply else { return };
        let answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let revision = answer.pointer("/Results/1/KV/ModifyIndex").and_then(Value::as_u64).unwrap_or_default();
        hold(&self.shared.book).writes.push(FencedWrite { lock: lock.into(), fence, revision });
    }

    /// Reads what stands beside the lock: whoever wrote it, and whenever, it says under which fence.
    async fn witness(&mut self, lock: &str) {
        let path = format!("/v1/kv/guarded/{lock}?raw");
        let reply = self.http.send(Method::GET, &path, None, String::new(), PATIENCE).await;
        let Reply::Answer { status: 200, index: revision, body, .. } = reply else { return };
        let text = String::from_utf8_lossy(&body);
        if let Some(fence) = text.split(' ').next().and_then(|fence| fence.parse().ok()) {
            hold(&self.shared.book).writes.push(FencedWrite { lock: lock.into(), fence, revision });
        }
    }

    /// A moment of this client's clock in true time.
    fn true_time(&self, local: Instant) -> Duration {
        self.machine.drift.true_time(local)
    }
}

/// Looks who waits for a lock (L11).
pub async fn glimpse(http: &mut Http, shared: &Shared, lock: &str) {
    let sent = trace::now();
    let reply = http.send(Method::GET, &format!("/v1/lock/{lock}"), None, String::new(), PATIENCE).await;
    let Reply::Answer { status: 200, body, .. } = reply else { return };
    let Ok(shown) = serde_json::from_slice::<quorate::api::lock::Lock>(&body) else { return };
    let queue = shown.queue.iter().map(|waiting| waiting.session.to_string()).collect();
    let glimpse = Glimpse { lock: lock.into(), seen: (sent, trace::now()), queue };
    hold(&shared.book).glimpses.push(glimpse);
}

/// The session that holds a key.
fn holder(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.pointer("/0/Session")?.as_str()?.to_owned())
}

/// In calm: every session ends, and every lock is granted. Says what is not so.
pub async fn audit(world: &World, shared: &Shared, servers: &[std::net::SocketAddr], mix: &Mix) -> Result<(), String> {
    let Some(server) = servers.first() else { return Ok(()) };
    let mut http = Http::new(world, *server);
    let began = world.clock.now();
    let late = |what: &str| match world.clock.now().since(began) > FREE {
        true => Err(format!("after {FREE:?} of calm {what}")),
        false => Ok(()),
    };
    loop {
        let reply = http.send(Method::GET, "/v1/session/list", None, String::new(), LONG).await;
        match reply {
            Reply::Answer { status: 200, body, .. } if &body[..] == b"[]" => break,
            Reply::Answer { body, .. } => {
                late(&format!("sessions live on that nobody renews: {}", String::from_utf8_lossy(&body)))?
            }
            _ => late("a server does not list its sessions")?,
        }
        world.sleep(Duration::from_millis(250)).await;
    }
    for lock in (0..mix.locks).map(|number| format!("lock/{number}")) {
        let mut session = None;
        loop {
            if session.is_none() {
                let body = r#"{"TTL": "60s", "LockDelay": "0s"}"#.to_string();
                let reply = http.send(Method::PUT, "/v1/session/create", None, body, LONG).await;
                if let Reply::Answer { status: 200, body, .. } = reply {
                    let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
                    session = body["ID"].as_str().map(str::to_owned);
                }
            }
            if let Some(session) = &session {
                // Whoever waited before has no session any more.
                let path = format!("/v1/lock/{lock}?session={session}&wait=10s");
                let reply = http.send(Method::PUT, &path, None, String::new(), LONG).await;
                if let Reply::Answer { status: 200, fence: Some(fence), .. } = reply {
                    let from = shared.lasts(&lock);
                    if fence <= from {
                        return Err(format!("L2: {lock} was granted under fence {from}, and later under {fence}"));
                    }
                    let path = format!("/v1/session/destroy/{session}");
                    http.send(Method::PUT, &path, None, String::new(), LONG).await;
                    break;
                }
            }
            late(&format!("{lock} is not granted"))?;
            world.sleep(Duration::from_millis(250)).await;
        }
    }
    Ok(())
}
