//! Registers under contention: clients put, read, compare-and-set and delete a few keys, and write down what they saw.
//!
//! No two writes have the same value, so a read tells which write it saw. Some clients give up early, hang up, and turn to
//! another server; some number their writes with `X-Quorate-Request-Id` and repeat them until they are answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::api::kv::KvEntry;
use quorate::world::World;
use uuid::Uuid;

use super::http::{Http, Reply};
use super::{Phase, Shared};
use crate::cluster::RESPAWN;
use crate::event;
use crate::history::{Call, Found, Outcome};
use crate::rng::Rng;
use crate::world::hold;

/// How long a patient client waits for an answer: longer than a server may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a read in calm is sent: a server that was told to stop in the storm may do so only now.
const AUDIT_ATTEMPTS: u32 = 4;
/// How often a write with a request id is sent before the client gives up.
const ATTEMPTS: u32 = 4;

/// What the seed drew for the clients.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Clients.
    pub clients: u32,
    /// Keys they share.
    pub keys: u64,
    /// Of a thousand operations, so many are reads.
    pub reads: u64,
    /// Of a thousand writes, so many are deletes.
    pub deletes: u64,
    /// Of a thousand writes, so many compare first.
    pub compares: u64,
    /// Of a thousand operations, so many are abandoned soon.
    pub abandons: u64,
    /// Longest pause between two operations of a client.
    pub pause: Duration,
    /// Bytes that values are padded to: large ones fill log segments, and make checkpoints and purges.
    pub padding: usize,
}

impl Mix {
    /// Draws a mix.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "mix");
        Mix {
            clients: rng.between(9, 16) as u32,
            keys: rng.between(1, 6),
            reads: rng.between(200, 700),
            deletes: rng.between(0, 300),
            compares: rng.between(0, 600),
            abandons: rng.between(0, 60),
            pause: Duration::from_millis(rng.between(5, 60)),
            padding: if rng.chance(150) { rng.between(20_000, 120_000) as usize } else { 0 },
        }
    }

    /// The keys.
    pub fn names(&self) -> Vec<String> {
        (0..self.keys).map(|number| format!("k{number}")).collect()
    }
}

/// One client, until the storm is over.
pub async fn client(number: u32, world: World, shared: Arc<Shared>, mix: Mix, rng: Rng) {
    let keys = mix.names();
    let mut client = Client::new(number, world, shared, rng);
    client.padding = mix.padding;
    while client.shared.phase() == Phase::Storm {
        let key = client.rng.pick(&keys).clone();
        let call = client.choose(&key, &mix);
        let patience =
            if client.rng.chance(mix.abandons) { Duration::from_millis(client.rng.below(200)) } else { PATIENCE };
        client.operate(&key, call, patience).await;
        if client.rng.chance(30) {
            client.turn();
        }
        let pause = Duration::from_micros(client.rng.below(mix.pause.as_micros() as u64));
        client.world.sleep(pause).await;
    }
}

/// Reads every key once through each of these servers: what the run left behind must be what the history says.
pub async fn audit(number: u32, world: World, shared: Arc<Shared>, servers: &[SocketAddr], keys: &[String]) -> bool {
    let mut client = Client::new(number, world, shared, Rng::new(0));
    let mut answered = true;
    for server in servers {
        client.http.turn_to(*server);
        for key in keys {
            let mut attempts = 0;
            while !matches!(client.operate(key, Call::Get, PATIENCE).await, Outcome::Read { .. }) {
                attempts += 1;
                if attempts == AUDIT_ATTEMPTS {
                    answered = false;
                    break;
                }
                client.http.turn_to(*server);
                client.world.sleep(RESPAWN * 2).await;
            }
        }
    }
    answered
}

struct Client {
    number: u32,
    world: World,
    shared: Arc<Shared>,
    rng: Rng,
    http: Http,
    /// The modify index last seen of each key: what a comparison asks for.
    seen: BTreeMap<String, u64>,
    /// Names this client in request ids.
    incarnation: Uuid,
    writes: u64,
    padding: usize,
}

impl Client {
    fn new(number: u32, world: World, shared: Arc<Shared>, mut rng: Rng) -> Self {
        let server = *rng.pick(&shared.servers);
        let http = Http::new(&world, server);
        let incarnation = world.entropy.uuid();
        Client { number, world, shared, rng, http, seen: BTreeMap::new(), incarnation, writes: 0, padding: 0 }
    }

    fn turn(&mut self) {
        let server = *self.rng.pick(&self.shared.servers);
        self.http.turn_to(server);
    }

    fn choose(&mut self, key: &str, mix: &Mix) -> Call {
        if self.rng.chance(mix.reads) {
            return Call::Get;
        }
        let seen = self.seen.get(key).copied().unwrap_or(0);
        let cas = self.rng.chance(mix.compares).then_some(seen);
        if self.rng.chance(mix.deletes) {
            // Deleting only what is not there asks for nothing.
            return Call::Delete { cas: cas.filter(|index| *index > 0) };
        }
        self.writes += 1;
        Call::Put { value: u64::from(self.number) * 1_000_000 + self.writes, cas }
    }

    async fn operate(&mut self, key: &str, call: Call, patience: Duration) -> Outcome {
        let place = hold(&self.shared.history).begin(self.number, key, call);
        event!("call", "{key} {call:?}");
        let outcome = match call {
            Call::Get => self.read(key, patience).await,
            _ => self.write(key, call, patience).await,
        };
        event!("outcome", "{key} {outcome:?}");
        hold(&self.shared.history).end(place, outcome);
        if matches!(outcome, Outcome::Unknown | Outcome::Failed) {
            self.turn();
            let pause = Duration::from_millis(self.rng.below(100));
            self.world.sleep(pause).await;
        }
        outcome
    }

    async fn read(&mut self, key: &str, patience: Duration) -> Outcome {
        let query = if self.rng.chance(300) { "?consistent" } else { "" };
        let path = format!("/v1/kv/{key}{query}");
        match self.http.send(Method::GET, &path, None, String::new(), patience).await {
            Reply::Answer { status: 200, index, body, .. } => {
                let Some(entry) = parse(&body) else {
                    event!("error", "unreadable answer {body:?}");
                    return Outcome::Unknown;
                };
                self.seen.insert(key.into(), entry.modify_index);
                Outcome::Read { found: Some(entry), index }
            }
            Reply::Answer { status: 404, index, .. } => {
                self.seen.insert(key.into(), 0);
                Outcome::Read { found: None, index }
            }
            // A read changes nothing, so one without an answer says nothing.
            _ => Outcome::Failed,
        }
    }

    async fn write(&mut self, key: &str, call: Call, patience: Duration) -> Outcome {
        let (method, mut path, cas, body) = match call {
            Call::Put { value, cas } => {
                (Method::PUT, format!("/v1/kv/{key}"), cas, value.to_string() + &" ".repeat(self.padding))
            }
            Call::Delete { cas } => (Method::DELETE, format!("/v1/kv/{key}"), cas, String::new()),
            Call::Get => unreachable!("reads go elsewhere"),
        };
        if let Some(index) = cas {
            path = format!("{path}?cas={index}");
        }
        // Only a numbered write may be repeated without risk.
        let id = self.rng.chance(500).then(|| self.next_id());
        let mut maybe_applied = false;
        for attempt in 1..=ATTEMPTS {
            let reply = self.http.send(method.clone(), &path, id.as_deref(), body.clone(), patience).await;
            match written(&reply) {
                Outcome::Failed if maybe_applied => {}
                Outcome::Unknown => maybe_applied = true,
                outcome => return outcome,
            }
            if id.is_none() || attempt == ATTEMPTS || patience < PATIENCE {
                break;
            }
            self.turn();
            let pause = Duration::from_millis(self.rng.between(10, 300));
            self.world.sleep(pause).await;
        }
        if maybe_applied { Outcome::Unknown } else { Outcome::Failed }
    }

    /// `<incarnation>/<sequence>/<acknowledged-below>`: it repeats only its last write.
    fn next_id(&mut self) -> String {
        self.writes += 1;
        format!("{}/{}/{}", self.incarnation, self.writes, self.writes)
    }
}

fn parse(body: &[u8]) -> Option<Found> {
    let [entry]: [KvEntry; 1] = serde_json::from_slice::<Vec<KvEntry>>(body).ok()?.try_into().ok()?;
    let value = std::str::from_utf8(&entry.value).ok()?.trim_end().parse().ok()?;
    Some(Found { value, modify_index: entry.modify_index, create_index: entry.create_index })
}

/// What a write's answer proves. In doubt: nothing.
fn written(reply: &Reply) -> Outcome {
    let Reply::Answer { status, body, .. } = reply else {
        return if matches!(reply, Reply::NotSent) { Outcome::Failed } else { Outcome::Unknown };
    };
    match (status, &body[..]) {
        (200, b"true") => Outcome::Written { applied: true },
        (200, b"false") => Outcome::Written { applied: false },
        (400 | 409 | 413 | 429 | 503, _) => Outcome::Failed,
        (500, text) if text.starts_with(b"No cluster leader") || text.starts_with(b"write refused") => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}
