//! A counter under a lock, incremented by clients that now and then stand still between the read and the write, as a paused
//! process does: it knows nothing of the time that has passed, and writes (L21).
//!
//! Each client increments two counters under the same hold: one with the fence of its lock, one without. Where two
//! acknowledged writes left the same number an update was lost. With a fence that must never be; without one it happens, or
//! the pauses prove nothing. It also writes to two resources outside of the store, of which one remembers the highest fence
//! that it has seen, and refuses a lower one: what it refuses, the other one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::api::kv::KvEntry;
use quorate::api::session::Created;
use quorate::world::{Instant, World};

use super::http::{Http, Reply};
use super::locks::{self, Grant};
use super::{Phase, Shared};
use crate::event;
use crate::player::Player;
use crate::rng::Rng;
use crate::trace;
use crate::world::hold;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// TTL of the sessions: shorter than the longest pause.
const TTL: Duration = Duration::from_secs(1);
/// The longest that a client stands still.
const PAUSE: Duration = Duration::from_secs(4);

/// Of a thousand holds, before so many the client looks who waits.
const GLIMPSES: u64 = 150;

/// What the seed drew.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Clients.
    pub clients: u32,
    /// Locks, each with its counters.
    pub locks: u64,
    /// Of a thousand holds, in so many the client stands still.
    pub pauses: u64,
}

impl Mix {
    /// Draws a mix.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "counters");
        Mix { clients: if rng.chance(400) { 3 } else { 0 }, locks: 1, pauses: rng.between(20, 200) }
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often a lock was granted.
    pub grants: u64,
    /// Updates that were lost without a fence.
    pub lost: u64,
    /// Writes to something outside, by a holder of the past after one of the present: refused by who checks, done by who does not.
    pub stale: u64,
    /// The highest fence that the resource behind a lock has seen.
    outside: BTreeMap<String, u64>,
    /// What acknowledged writes left in which counter, since which restore of a backup: one may bring back what was counted before.
    left: BTreeSet<(String, u64, usize)>,
}

impl Tally {
    /// Something outside is written to under this fence.
    fn write_outside(&mut self, lock: &str, fence: u64) {
        let highest = self.outside.entry(lock.into()).or_default();
        self.stale += u64::from(fence < *highest);
        *highest = fence.max(*highest);
    }
}

/// One client, until the storm is over.
pub async fn client(player: Player, world: World, shared: Arc<Shared>, mix: Mix, mut rng: Rng) {
    let http = Http::new(&world, *rng.pick(&shared.servers));
    let mut client = Client { player, world, shared, mix, rng, http, session: None };
    while client.shared.phase() == Phase::Storm {
        if client.increment().await.is_none() {
            let server = *client.rng.pick(&client.shared.servers);
            client.http.turn_to(server);
            let pause = Duration::from_millis(client.rng.between(20, 200));
            client.world.sleep(pause).await;
        }
    }
}

struct Client {
    player: Player,
    world: World,
    shared: Arc<Shared>,
    mix: Mix,
    rng: Rng,
    http: Http,
    /// With the time of its last renewal.
    session: Option<(String, Instant)>,
}

impl Client {
    /// One hold; `None` if something was not answered as it should.
    async fn increment(&mut self) -> Option<()> {
        let session = self.session().await?;
        let lock = format!("count/{}", self.rng.below(self.mix.locks));
        if self.rng.chance(GLIMPSES) {
            locks::glimpse(&mut self.http, &self.shared, &lock).await;
        }
        let path = format!("/v1/lock/{lock}?session={session}&wait=1500ms");
        let sent = trace::now();
        let Reply::Answer { status: 200, fence: Some(fence), .. } = self.send(Method::PUT, &path, String::new()).await
        else {
            // It may be granted yet: no other request is made for this session.
            self.session = None;
            return None;
        };
        hold(&self.shared.tally).grants += 1;
        let answered = trace::now();
        let grant = Grant { lock: lock.clone(), session: session.clone(), queued: true, sent, answered, fence };
        hold(&self.shared.book).grants.push(grant);
        let (fenced, loose) = self.counters(&lock).await?;
        if self.rng.chance(self.mix.pauses) {
            event!("paused", "{} under fence {fence} of {lock}", self.player);
            let pause = self.rng.within(PAUSE);
            self.world.sleep(pause).await;
        }
        hold(&self.shared.tally).write_outside(&lock, fence);
        let condition = format!("?lock={lock}&fence={fence}");
        self.write(&format!("{lock}/fenced"), &condition, fenced + 1).await?;
        self.write(&format!("{lock}/loose"), "", loose + 1).await?;
        let path = format!("/v1/lock/{lock}?session={session}&fence={fence}");
        self.send(Method::DELETE, &path, String::new()).await;
        Some(())
    }

    async fn session(&mut self) -> Option<String> {
        let now = self.world.clock.now();
        match self.session.clone() {
            Some((session, renewed)) if now.since(renewed) < TTL / 4 => return Some(session),
            Some((session, _)) => {
                let path = format!("/v1/session/renew/{session}");
                if let Reply::Answer { status: 200, .. } = self.send(Method::PUT, &path, String::new()).await {
                    self.session = Some((session.clone(), now));
                    return Some(session);
                }
                self.session = None;
            }
            None => {}
        }
        let body = format!(r#"{{"TTL": "{}ms", "LockDelay": "0s", "NodeChecks": []}}"#, TTL.as_millis());
        let reply = self.send(Method::PUT, "/v1/session/create", body).await;
        let Reply::Answer { status: 200, body, .. } = reply else { return None };
        let created: Created = serde_json::from_slice(&body).ok()?;
        self.session = Some((created.id.to_string(), now));
        Some(created.id.to_string())
    }

    /// What both counters say.
    async fn counters(&mut self, lock: &str) -> Option<(u64, u64)> {
        let entries: Vec<KvEntry> =
            match self.send(Method::GET, &format!("/v1/kv/{lock}/?recurse"), String::new()).await {
                Reply::Answer { status: 404, .. } => Vec::new(),
                Reply::Answer { status: 200, body, .. } => serde_json::from_slice(&body).ok()?,
                _ => return None,
            };
        let count = |name: &str| {
            let entry = entries.iter().find(|entry| entry.key.ends_with(name));
            entry.map_or(Some(0), |entry| std::str::from_utf8(&entry.value).ok()?.parse().ok())
        };
        Some((count("/fenced")?, count("/loose")?))
    }

    async fn write(&mut self, key: &str, condition: &str, count: u64) -> Option<()> {
        let generation = hold(&self.shared.restores).generation();
        let reply = self.send(Method::PUT, &format!("/v1/kv/{key}{condition}"), count.to_string()).await;
        let Reply::Answer { status, .. } = reply else { return None };
        // While a restore is under way nobody knows on which side of it a write is.
        let Some(generation) = generation else { return Some(()) };
        if status == 200 && !hold(&self.shared.tally).left.insert((key.into(), count, generation)) {
            if condition.is_empty() {
                hold(&self.shared.tally).lost += 1;
            } else {
                let sentence = format!("{}: {key} was set to {count} twice, each time under a fence", self.player);
                self.shared.contradict("G3", sentence);
            }
        }
        Some(())
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> Reply {
        self.http.send(method, path, None, body, PATIENCE).await
    }
}
