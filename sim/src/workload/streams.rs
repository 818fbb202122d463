//! Readers of the event stream: each follows the keys under a prefix with the product's own client, over lost connections
//! and from server to server, and writes down what it was told and up to where. Now and then one begins anew from an earlier
//! index, which must give the same again. What the tapes prove is for `check::stream`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate::client::address::Address;
use quorate::client::http::Http;
use quorate::client::kv::Pair;
use quorate::client::stream::follow::{Follower, Step};
use quorate::client::stream::{Event, WatchOptions};
use quorate::world::World;

use super::kv::Client;
use super::waits::until;
use super::{Phase, Shared};
use crate::event;
use crate::history::Outcome;
use crate::player::Player;
use crate::rng::Rng;
use crate::world::hold;

/// How often a reader looks up from its stream.
const GLANCE: Duration = Duration::from_millis(500);
/// How long a reader rests, now and then, while the stream goes on.
const REST: Duration = Duration::from_secs(3);
/// How long a reader that has lost its connection waits for the next.
const PAUSE: Duration = Duration::from_millis(150);
/// How soon readers must have read all there is, in calm: what they began in the storm may be lost.
const SOON: Duration = Duration::from_secs(15);
/// A key that all readers read.
const KEY: &str = "k0";

/// What a reader was told without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tape {
    /// Who.
    pub client: Player,
    /// What the keys begin with.
    pub prefix: String,
    /// Every change after this index is here…
    pub begin: u64,
    /// …up to this one.
    pub end: u64,
    /// The changes of each revision, in the order in which they came.
    pub records: Vec<(u64, Vec<Change>)>,
}

/// A change of a key, as the stream told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// What was there before.
    pub before: Option<Row>,
    /// What is there since.
    pub after: Option<Row>,
}

/// A row of the store, as the stream told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Without the padding.
    pub value: String,
    /// The revision that created it.
    pub create_index: u64,
    /// The revision that changed it last.
    pub modify_index: u64,
    /// Acquisitions, and who holds it.
    pub lock: (u64, Option<String>),
}

impl From<Pair> for Row {
    fn from(pair: Pair) -> Self {
        Row {
            value: String::from_utf8_lossy(&pair.value).trim_end().to_owned(),
            create_index: pair.create_index,
            modify_index: pair.modify_index,
            lock: (pair.lock_index, pair.session),
        }
    }
}

/// What all readers were told.
#[derive(Debug, Default)]
pub struct Tapes {
    /// In the order of their beginnings.
    pub tapes: Vec<Tape>,
    /// How often a reader came too late.
    pub gone: usize,
    /// In calm, the servers to read at.
    pub at: Option<Vec<SocketAddr>>,
    /// The reader's tape that is being written.
    current: BTreeMap<Player, usize>,
}

impl Tapes {
    fn begin(&mut self, client: Player, prefix: &str, begin: u64) {
        self.current.insert(client, self.tapes.len());
        self.tapes.push(Tape { client, prefix: prefix.into(), begin, end: begin, records: Vec::new() });
    }

    fn current(&mut self, client: Player) -> Option<&mut Tape> {
        self.current.get(&client).map(|place| &mut self.tapes[*place])
    }

    /// Readers that have not come to an index.
    pub fn behind(&self, index: u64) -> Vec<&Tape> {
        let current = self.current.values().map(|place| &self.tapes[*place]);
        current.filter(|tape| tape.end < index).collect()
    }
}

/// One reader, until all is quiet.
pub async fn reader(player: Player, world: World, shared: Arc<Shared>, mut rng: Rng) {
    let prefix = *rng.pick(&["", "k", "k0"]);
    // Readers that have read nothing yet are behind, too.
    hold(&shared.streams).begin(player, prefix, 0);
    let mut since = Some(0);
    let mut settled = false;
    loop {
        let at = hold(&shared.streams).at.clone();
        settled |= at.is_some();
        let server = *rng.pick(&at.unwrap_or_else(|| shared.servers.clone()));
        let Ok(address) = server.to_string().parse::<Address>() else { return };
        let Ok(http) = Http::new(world.clone(), address, None) else { return };
        let mut reader = Reader { player, prefix, shared: &shared };
        let turn = world.clock.now() + Duration::from_millis(rng.between(1_000, 8_000));
        since = reader.follow(&world, &http, since, |now| now >= turn && !settled, settled, &mut rng).await;
        if !settled && rng.chance(250) {
            since = reader.again(&mut rng);
        }
    }
}

struct Reader<'a> {
    player: Player,
    prefix: &'static str,
    shared: &'a Shared,
}

impl Reader<'_> {
    /// Reads at one server until it is time to turn to another, or there is nothing to read; says where to go on.
    async fn follow(
        &mut self,
        world: &World,
        http: &Http,
        since: Option<u64>,
        turn: impl Fn(quorate::world::Instant) -> bool,
        settled: bool,
        rng: &mut Rng,
    ) -> Option<u64> {
        let options = WatchOptions { prefix: self.prefix.into(), since, prev: true, datacenter: None };
        let mut follower = Follower::new(http, options);
        loop {
            let told = world.timeout(GLANCE, follower.next()).await;
            let news = !settled && self.shared.phase() != Phase::Storm && hold(&self.shared.streams).at.is_some();
            match told {
                None => {}
                Some(Ok(Step::Record(record))) => {
                    if let Some(oldest) = self.told(record.event) {
                        return Some(oldest);
                    }
                    if !settled && rng.chance(20) {
                        let rest = rng.within(REST);
                        world.sleep(rest).await;
                    }
                }
                // In calm the server that was asked is there: the pause is the client's own.
                Some(Ok(Step::Lost { .. })) if settled => {}
                Some(Ok(Step::Lost { why, .. })) => {
                    event!("stream", "{} lost: {why}", self.player);
                    // Each connection takes a port, of which a host has so many.
                    world.sleep(PAUSE).await;
                    return follower.index();
                }
                Some(Err(refused)) => {
                    let sentence = format!("{} after {:?}: {refused}", self.player, follower.index());
                    self.shared.contradict("R5", sentence);
                    return None;
                }
            }
            if news || turn(world.clock.now()) {
                return follower.index();
            }
        }
    }

    /// Writes down what was told; where to begin anew, if changes are gone.
    fn told(&self, event: Event) -> Option<u64> {
        let mut streams = hold(&self.shared.streams);
        let tape = streams.current(self.player)?;
        match event {
            Event::Changes { index, changes } => {
                event!("stream", "{} {index}: {} changes", self.player, changes.len());
                let row = |pair: Option<Pair>| pair.map(Row::from);
                let changes = changes.into_iter().map(|change| Change {
                    key: change.key,
                    before: row(change.prev),
                    after: row(change.entry),
                });
                tape.records.push((index, changes.collect()));
                tape.end = index;
            }
            Event::Bookmark { index } => {
                event!("stream", "{} bookmark {index}", self.player);
                tape.end = index;
            }
            Event::Gone { index, oldest } => {
                event!("stream", "{} at {index}: gone up to {oldest}", self.player);
                // Where nothing happened under the prefix, the server may have come further than it had told.
                if index < tape.end || oldest <= index {
                    let sentence = format!(
                        "{} has come to {}, and is told that changes from {index} to {oldest} are gone",
                        self.player, tape.end
                    );
                    self.shared.contradict("R5", sentence);
                }
                streams.gone += 1;
                streams.begin(self.player, self.prefix, oldest);
                return Some(oldest);
            }
            Event::Epoch { index, oldest, epoch } => {
                event!("stream", "{} at {index}: a backup was restored at {epoch}", self.player);
                if index < tape.end
                    || epoch <= index
                    || oldest < epoch
                    || !hold(&self.shared.restores).since(Duration::ZERO)
                {
                    let sentence = format!(
                        "{} has come to {}, and is told at {index} of a restore at {epoch}, and to begin at {oldest}",
                        self.player, tape.end
                    );
                    self.shared.contradict("R5", sentence);
                }
                streams.begin(self.player, self.prefix, oldest);
                return Some(oldest);
            }
        }
        None
    }

    /// Begins a new tape at an earlier index.
    fn again(&self, rng: &mut Rng) -> Option<u64> {
        let mut streams = hold(&self.shared.streams);
        let end = streams.current(self.player)?.end;
        let begin = end.saturating_sub(rng.below(60));
        streams.begin(self.player, self.prefix, begin);
        Some(begin)
    }
}

/// In calm: every reader comes to the end soon. Says what is not so.
pub async fn audit(player: Player, world: &World, shared: &Arc<Shared>, servers: &[SocketAddr]) -> Result<(), String> {
    if servers.is_empty() || hold(&shared.streams).tapes.is_empty() {
        return Ok(());
    }
    hold(&shared.streams).at = Some(servers.to_vec());
    let rng = Rng::named(player.number.into(), "last");
    // Its values are its own: the watchers' audit has written with the player's number.
    let player = Player { number: player.number + 1, ..player };
    let mut client = Client::new(servers, player, world.clone(), shared.clone(), rng);
    client.put(KEY).await;
    let Outcome::Read { found: Some(last), .. } = client.get(KEY).await else {
        return Err(format!("a read of {KEY} in calm was not answered"));
    };
    until(world, SOON, || {
        let streams = hold(&shared.streams);
        let behind = streams.behind(last.modify_index);
        let Some(tape) = behind.first() else { return Ok(()) };
        Err(format!("{} has come to {}, and not to {}", tape.client, tape.end, last.modify_index))
    })
    .await
}
