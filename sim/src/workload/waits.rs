//! Watchers: each follows one register with blocking queries, as clients of Consul do.
//!
//! In the storm they are traffic, and what they see must never go back. In calm the register is overwritten many times in a
//! row while they wait, and each must soon know the last value: a change that falls between a look and the wait that
//! follows it must not be missed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate::world::World;

use super::http::Http;
use super::kv::Client;
use super::registers::Kind;
use super::{Phase, Shared};
use crate::event;
use crate::history::{Found, Outcome};
use crate::player::Player;
use crate::rng::Rng;
use crate::world::hold;

/// How long a query waits in calm: far longer than [`SOON`], so that only a wake-up is soon.
const LONG: Duration = Duration::from_secs(30);
/// How soon watchers must know a change in calm.
const SOON: Duration = Duration::from_secs(3);
/// How long what was asked in the storm may keep a watcher from asking in calm.
const ASKED: Duration = Duration::from_secs(10);
/// Writes in a row.
const BURST: u32 = 25;

/// What watchers are told, and what they saw.
#[derive(Debug, Default)]
pub struct Watched {
    /// In calm, the servers to watch at: until then watchers rest.
    at: Option<Vec<SocketAddr>>,
    /// What each saw last in calm, and of what.
    seen: BTreeMap<Player, (String, Option<Option<Found>>)>,
}

/// One watcher, until everything is over.
pub async fn watcher(player: Player, world: World, shared: Arc<Shared>, name: String, mut rng: Rng) {
    let mut http = Http::new(&world, *rng.pick(&shared.servers));
    let kind = Kind::of(&name);
    let (mut index, mut rested) = (0, false);
    hold(&shared.watched).seen.insert(player, (name.clone(), None));
    loop {
        let calm = shared.phase() != Phase::Storm;
        let at = hold(&shared.watched).at.clone();
        let servers = match (calm, at) {
            (false, _) => shared.servers.clone(),
            (true, Some(at)) => at,
            (true, None) => {
                world.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if calm && !rested {
            // What was last asked in the storm may never be answered.
            (rested, index) = (true, 0);
            http.turn_to(*rng.pick(&servers));
        }
        let wait = if calm { LONG } else { Duration::from_millis(rng.between(100, 3_000)) };
        let ask = kind.get(&name);
        let path = format!("{}&index={index}&wait={}ms", ask.path, wait.as_millis());
        let reply = http.send(ask.method, &path, None, ask.body, wait * 2).await;
        match kind.read(&reply) {
            Ok(Outcome::Read { found, index: now }) => {
                event!("watched", "{name} {found:?} at {now}");
                if now < index {
                    let sentence = format!("{player} watching {name}: the index went back from {index} to {now}");
                    shared.contradict("R4", sentence);
                }
                index = now;
                if calm {
                    hold(&shared.watched).seen.insert(player, (name.clone(), Some(found)));
                }
            }
            Err(sentence) => shared.contradict("R1", format!("{player} watching {name}: {sentence}")),
            _ => {
                http.turn_to(*rng.pick(&servers));
                let pause = Duration::from_millis(rng.between(50, 300));
                world.sleep(pause).await;
            }
        }
    }
}

/// In calm: every watcher learns soon of the last of many writes. Says what is not so.
pub async fn audit(player: Player, world: &World, shared: &Arc<Shared>, servers: &[SocketAddr]) -> Result<(), String> {
    if servers.is_empty() {
        return Ok(());
    }
    let names: Vec<(Player, String)> =
        hold(&shared.watched).seen.iter().map(|(watcher, (name, _))| (*watcher, name.clone())).collect();
    hold(&shared.watched).at = Some(servers.to_vec());
    let mut rng = Rng::named(player.number.into(), "burst");
    until(world, ASKED, || {
        let watched = hold(&shared.watched);
        let late = watched.seen.iter().find(|(_, (_, seen))| seen.is_none());
        late.map_or(Ok(()), |(watcher, (name, _))| Err(format!("{watcher} watching {name} is not answered in calm")))
    })
    .await?;
    let mut client =
        Client::new(servers, player, world.clone(), shared.clone(), Rng::named(player.number.into(), "writer"));
    for (watcher, name) in names {
        for _ in 0..BURST {
            client.put(&name).await;
            let pause = Duration::from_micros(rng.below(4_000));
            world.sleep(pause).await;
        }
        let last = match client.get(&name).await {
            Outcome::Read { found, .. } => found,
            _ => return Err(format!("a read of {name} in calm was not answered")),
        };
        until(world, SOON, || match hold(&shared.watched).seen.get(&watcher) {
            Some((_, Some(seen))) if *seen == last => Ok(()),
            seen => Err(format!("{watcher} watching {name} saw {seen:?}, and does not learn of {last:?}")),
        })
        .await?;
    }
    Ok(())
}

/// Waits until it is so, or says when time is up why not.
pub async fn until(world: &World, time: Duration, mut so: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let began = world.clock.now();
    loop {
        match so() {
            Ok(()) => return Ok(()),
            Err(why) if world.clock.now().since(began) > time => return Err(format!("after {time:?} {why}")),
            Err(_) => world.sleep(Duration::from_millis(20)).await,
        }
    }
}
