//! Registers under contention: clients put, read, compare-and-set and delete a few of them, and write down what they saw.
//!
//! No two writes have the same value, so a read tells which write it saw. Some clients give up early, hang up, and turn to
//! another server; some number their writes with `X-Quorate-Request-Id`, repeat them until they are answered, and now and
//! then once more (L13). Some reads wait for what comes after the last one. What registers are made of is in `registers.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::world::World;
use uuid::Uuid;

use super::http::{Http, Reply};
use super::registers::{Ask, Kind, Put};
use super::{Phase, Shared};
use crate::cluster::RESPAWN;
use crate::event;
use crate::history::{Call, Outcome};
use crate::player::Player;
use crate::rng::Rng;
use crate::world::hold;

/// How long a patient client waits for an answer: longer than a server may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a thousand operations, so many list keys.
const LISTS: u64 = 60;
/// Under which name a list of keys is in the history: no register has it.
const LIST: &str = "list";
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
    /// Pairs of keys, written in transactions.
    pub pairs: u64,
    /// Machines in the catalog.
    pub machines: u64,
    /// Of a thousand operations, so many are reads.
    pub reads: u64,
    /// Of a thousand writes, so many are deletes.
    pub deletes: u64,
    /// Of a thousand writes, so many compare first.
    pub compares: u64,
    /// Of a thousand operations, so many are abandoned if they take longer than some time below `hurry`.
    pub abandons: u64,
    /// See `abandons`.
    pub hurry: Duration,
    /// Of a thousand reads, so many wait for a change.
    pub waits: u64,
    /// Of a thousand puts of pairs, so many must fail as a whole.
    pub doomed: u64,
    /// After so many of a thousand operations, a client goes on with another server.
    pub turns: u64,
    /// Longest pause between two operations of a client.
    pub pause: Duration,
    /// Bytes that values are padded to: large ones fill log segments, and make checkpoints and purges.
    pub padding: usize,
    /// How many operations a client runs at most.
    pub most: Option<u32>,
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
            hurry: Duration::from_millis(200),
            pause: Duration::from_millis(rng.between(5, 60)),
            padding: if rng.chance(150) { rng.between(20_000, 120_000) as usize } else { 0 },
            pairs: rng.below(3),
            machines: rng.below(3),
            waits: rng.below(200),
            doomed: rng.below(300),
            turns: 30,
            most: None,
        }
    }

    /// The registers.
    pub fn names(&self) -> Vec<String> {
        let all = |letter, count| (0..count).map(move |number| format!("{letter}{number}"));
        all('k', self.keys).chain(all('p', self.pairs)).chain(all('m', self.machines)).collect()
    }
}

/// One client, until the storm is over.
pub async fn client(player: Player, world: World, shared: Arc<Shared>, mix: Mix, rng: Rng) {
    let keys = mix.names();
    let mut client = Client::new(&shared.servers.clone(), player, world, shared, rng);
    (client.padding, client.waits, client.doomed) = (mix.padding, mix.waits, mix.doomed);
    let mut left = mix.most.unwrap_or(u32::MAX);
    while client.shared.phase() == Phase::Storm && left > 0 {
        left -= 1;
        if client.rng.chance(LISTS) {
            client.list().await;
            continue;
        }
        let key = client.rng.pick(&keys).clone();
        let call = client.choose(&key, &mix);
        let hurried = client.rng.chance(mix.abandons);
        let patience = if hurried { client.rng.within(mix.hurry) } else { PATIENCE };
        client.operate(&key, call, patience).await;
        if client.rng.chance(mix.turns) {
            client.turn();
        }
        let pause = client.rng.within(mix.pause);
        client.world.sleep(pause).await;
    }
}

/// Reads every key once through each of these servers: what the run left behind must be what the history says.
pub async fn audit(player: Player, world: World, shared: Arc<Shared>, servers: &[SocketAddr], keys: &[String]) -> bool {
    let mut client = Client::new(servers, player, world, shared, Rng::new(0));
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

/// One client of registers.
pub(super) struct Client {
    player: Player,
    world: World,
    shared: Arc<Shared>,
    rng: Rng,
    http: Http,
    /// Whom it turns to.
    servers: Vec<SocketAddr>,
    /// Of each register the modify index last seen, which a comparison asks for, and the index to wait after.
    seen: BTreeMap<String, (u64, u64)>,
    /// Names this client in request ids.
    incarnation: Uuid,
    writes: u64,
    padding: usize,
    waits: u64,
    doomed: u64,
}

impl Client {
    /// A client of these servers that does nothing out of the ordinary.
    pub(super) fn new(servers: &[SocketAddr], player: Player, world: World, shared: Arc<Shared>, mut rng: Rng) -> Self {
        let servers = servers.to_vec();
        let http = Http::new(&world, *rng.pick(&servers));
        let incarnation = world.entropy.uuid();
        let (seen, writes) = (BTreeMap::new(), 0);
        Client { player, world, shared, rng, http, servers, seen, incarnation, writes, padding: 0, waits: 0, doomed: 0 }
    }

    /// A value that nobody else writes.
    fn fresh_value(&mut self) -> u64 {
        self.writes += 1;
        u64::from(self.player.number) * 1_000_000 + self.writes
    }

    /// Overwrites a register.
    pub(super) async fn put(&mut self, name: &str) -> Outcome {
        let call = Call::Put { value: self.fresh_value(), cas: None };
        self.operate(name, call, PATIENCE).await
    }

    /// Reads a register.
    pub(super) async fn get(&mut self, name: &str) -> Outcome {
        self.operate(name, Call::Get, PATIENCE).await
    }

    /// Goes on with another server.
    fn turn(&mut self) {
        let server = *self.rng.pick(&self.servers);
        self.http.turn_to(server);
    }

    fn choose(&mut self, key: &str, mix: &Mix) -> Call {
        if self.rng.chance(mix.reads) {
            return Call::Get;
        }
        let seen = self.seen.get(key).map_or(0, |(modified, _)| *modified);
        let cas = (Kind::of(key).compares() && self.rng.chance(mix.compares)).then_some(seen);
        if self.rng.chance(mix.deletes) {
            // Deleting only what is not there asks for nothing.
            return Call::Delete { cas: cas.filter(|index| *index > 0) };
        }
        Call::Put { value: self.fresh_value(), cas }
    }

    async fn operate(&mut self, key: &str, call: Call, patience: Duration) -> Outcome {
        let place = hold(&self.shared.history).begin(self.player, key, call);
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

    /// Lists keys. What it looks at is the index alone, which must never go back, whatever was deleted meanwhile (R4).
    async fn list(&mut self) {
        let place = hold(&self.shared.history).begin(self.player, LIST, Call::Get);
        let reply = self.http.send(Method::GET, "/v1/kv/k?keys", None, String::new(), PATIENCE).await;
        let outcome = match reply {
            Reply::Answer { status: 200 | 404, index, .. } => Outcome::Read { found: None, index },
            _ => Outcome::Failed,
        };
        event!("outcome", "{LIST} {outcome:?}");
        hold(&self.shared.history).end(place, outcome);
        if outcome == Outcome::Failed {
            self.turn();
        }
    }

    async fn read(&mut self, key: &str, patience: Duration) -> Outcome {
        let kind = Kind::of(key);
        let mut ask = kind.get(key);
        let (_, seen) = self.seen.get(key).copied().unwrap_or_default();
        if kind == Kind::Pair && self.rng.chance(300) {
            ask = Kind::get_in_transaction(key);
        } else if patience == PATIENCE && seen > 0 && self.rng.chance(self.waits) {
            ask.path += &format!("&index={seen}&wait={}ms", self.rng.between(10, 500));
        }
        if self.rng.chance(300) {
            ask.path += "&consistent";
        }
        let reply = self.http.send(ask.method, &ask.path, None, ask.body, patience).await;
        let outcome = kind.read(&reply).unwrap_or_else(|sentence| {
            self.shared.contradict("R1", format!("{} read {key}: {sentence}", self.player));
            Outcome::Failed
        });
        if let Outcome::Read { found, index } = outcome {
            self.seen.insert(key.into(), (found.map_or(0, |found| found.modify_index), index));
        }
        outcome
    }

    async fn write(&mut self, key: &str, call: Call, patience: Duration) -> Outcome {
        let kind = Kind::of(key);
        let late = self.rng.chance(500);
        let (ask, doomed) = match call {
            Call::Put { value, cas } => {
                let doomed = kind == Kind::Pair && self.rng.chance(self.doomed);
                (kind.put(key, Put { value, padding: self.padding, cas, late, doomed }), doomed)
            }
            Call::Delete { cas } => (kind.delete(key, cas, late), false),
            Call::Get => unreachable!("reads go elsewhere"),
        };
        let outcome = self.send(kind, &ask, patience).await;
        if !doomed {
            return outcome;
        }
        // Whatever the answer was: it can never be applied, so nobody may ever read it.
        if outcome == (Outcome::Written { applied: true }) {
            let sentence = format!("{} wrote {key}, although a part of it could not be done", self.player);
            self.shared.contradict("R1", sentence);
        }
        Outcome::Failed
    }

    async fn send(&mut self, kind: Kind, ask: &Ask, patience: Duration) -> Outcome {
        // Only a numbered write may be repeated without risk.
        let id = self.rng.chance(500).then(|| self.next_id());
        let mut maybe_applied = false;
        for attempt in 1..=ATTEMPTS {
            let outcome = self.send_once(kind, ask, id.as_deref(), patience).await;
            match outcome {
                Outcome::Failed if maybe_applied => {}
                Outcome::Unknown => maybe_applied = true,
                Outcome::Written { .. } if id.is_some() && self.rng.chance(50) => {
                    self.turn();
                    let again = self.send_once(kind, ask, id.as_deref(), patience).await;
                    if matches!(again, Outcome::Written { .. }) && again != outcome {
                        let sentence = format!("{id:?} was answered with {outcome}, then with {again}: {}", ask.path);
                        self.shared.contradict("L13", sentence);
                    }
                    return outcome;
                }
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

    async fn send_once(&mut self, kind: Kind, ask: &Ask, id: Option<&str>, patience: Duration) -> Outcome {
        let reply = self.http.send(ask.method.clone(), &ask.path, id, ask.body.clone(), patience).await;
        kind.written(&reply)
    }

    /// `<incarnation>/<sequence>/<acknowledged-below>`: it repeats only its last write.
    fn next_id(&mut self) -> String {
        self.writes += 1;
        format!("{}/{}/{}", self.incarnation, self.writes, self.writes)
    }
}
