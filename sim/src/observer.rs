//! One more client, which only looks: it asks every server for `/v1/agent/self` all the time, and once calm has come it
//! waits until all servers agree, and then reads every key through each of them.
//!
//! What it saw is for `check::raft`. The one thing it decides itself is liveness: within [`TOGETHER`] of calm all servers
//! answer, name one leader, and have the same state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::world::{Instant, World};
use serde::Deserialize;

use crate::check::NodeView;
use crate::event;
use crate::player::Player;
use crate::server::Server;
use crate::trace;
use crate::workload::http::{Http, Reply};
use crate::workload::{Phase, Shared, kv, locks, streams, waits};
use crate::world::hold;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);
/// How long a server may take to answer a look.
const PATIENCE: Duration = Duration::from_millis(2_000);
/// How long calm may take to bring all servers together: twice a client's longest wait for an answer.
const TOGETHER: Duration = Duration::from_secs(60);

/// Tasks that a server has when nobody asks it for anything, and for each other server.
const TASKS: usize = 20;
const TASKS_FOR_EACH: usize = 7;
/// How long servers may take to let go of what clients left behind.
const LET_GO: Duration = Duration::from_secs(10);

/// What has been seen.
#[derive(Debug, Default)]
pub struct Observations {
    /// What the servers said, in the order of time.
    pub views: Vec<NodeView>,
    /// How long it took to come together once nothing went wrong any more.
    pub together_after: Option<Duration>,
    /// What did not come to pass in calm.
    pub violation: Option<String>,
}

/// Looks until calm has brought all servers together, or should have; then audits what the run left behind.
pub async fn observe(
    player: Player,
    world: World,
    shared: Arc<Shared>,
    servers: Vec<Arc<Server>>,
    keys: Vec<String>,
    locks: locks::Mix,
) {
    let verdict = match come_together(&world, &shared, &servers).await {
        Ok(()) => audit(player, &world, &shared, &servers, &keys, &locks).await,
        apart => apart,
    };
    shared.enter(Phase::Quiet);
    let verdict = match verdict {
        Ok(()) => let_go(&world, &servers).await,
        bad => bad,
    };
    hold(&shared.observations).violation = verdict.err();
    shared.enter(Phase::Over);
}

async fn come_together(world: &World, shared: &Shared, servers: &[Arc<Server>]) -> Result<(), String> {
    let mut lines: Vec<Http> = servers.iter().map(|server| Http::new(world, server.http_addr())).collect();
    let mut calm_since = None;
    loop {
        let calm = shared.phase() == Phase::Calm;
        let mut views = Vec::new();
        for (line, server) in lines.iter_mut().zip(servers) {
            if !server.enlisted() {
                continue;
            }
            let view = look(line, server).await;
            hold(&shared.observations).views.extend(view.clone());
            views.push(view);
        }
        if calm {
            let now = world.clock.now();
            let waited = now.since(*calm_since.get_or_insert(now));
            if together(&views) && !shared.errands.busy() {
                event!("together", "after {waited:?}");
                hold(&shared.observations).together_after = Some(waited);
                return Ok(());
            }
            if waited > TOGETHER {
                let views: Vec<String> = views.iter().map(shown).collect();
                let errand = if shared.errands.busy() { " (the operator's errand does not end)" } else { "" };
                let views = views.join("\n  ");
                return Err(format!("after {TOGETHER:?} of calm the servers do not agree{errand}:\n  {views}"));
            }
        }
        world.sleep(INTERVAL).await;
    }
}

/// What the run left behind must be what its history says, and everybody who waits must be served.
async fn audit(
    player: Player,
    world: &World,
    shared: &Arc<Shared>,
    servers: &[Arc<Server>],
    keys: &[String],
    locks: &locks::Mix,
) -> Result<(), String> {
    let enlisted = servers.iter().filter(|server| server.enlisted());
    let enlisted: Vec<SocketAddr> = enlisted.map(|server| server.http_addr()).collect();
    if !kv::audit(player, world.clone(), shared.clone(), &enlisted, keys).await {
        return Err("a read in calm was not answered".into());
    }
    locks::audit(world, shared, &enlisted, locks).await?;
    waits::audit(player, world, shared, &enlisted).await?;
    streams::audit(player, world, shared, &enlisted).await
}

/// Once all clients have hung up, servers have nothing left but what they always have: no connection, no wait, no task.
async fn let_go(world: &World, servers: &[Arc<Server>]) -> Result<(), String> {
    let began = world.clock.now();
    let servers: Vec<&Arc<Server>> = servers.iter().filter(|server| server.enlisted()).collect();
    let most = TASKS + TASKS_FOR_EACH * servers.len().saturating_sub(1);
    for server in servers {
        // First the queries, because asking for them takes a connection.
        loop {
            let waits = blocked(world, server).await;
            if waits == Some(0) {
                break;
            }
            held(world, began, || format!("{} still holds {waits:?} blocking queries", server.machine.name))?;
            world.sleep(INTERVAL).await;
        }
        while server.machine.gate.tasks() > most {
            let tasks = server.machine.gate.tasks();
            held(world, began, || format!("{} still has {tasks} tasks, above {most}", server.machine.name))?;
            world.sleep(INTERVAL).await;
        }
    }
    Ok(())
}

/// Says what is still held, once it should have been let go of.
fn held(world: &World, began: Instant, what: impl FnOnce() -> String) -> Result<(), String> {
    let late = world.clock.now().since(began) > LET_GO;
    if late { Err(format!("{LET_GO:?} after all clients have hung up, {}", what())) } else { Ok(()) }
}

fn shown(view: &Option<NodeView>) -> String {
    view.as_ref().map_or_else(|| "no answer".into(), NodeView::to_string)
}

/// All answer, name the same leader, and have executed the same entries.
fn together(views: &[Option<NodeView>]) -> bool {
    let Some(Some(first)) = views.first() else { return false };
    let same = |view: &NodeView| view.entries == first.entries && view.leader == first.leader;
    first.leader.is_some() && views.iter().all(|view| view.as_ref().is_some_and(same))
}

/// The blocking queries that a server says it holds.
async fn blocked(world: &World, server: &Server) -> Option<u64> {
    let mut line = Http::new(world, server.http_addr());
    let reply = line.send(Method::GET, "/v1/agent/self", None, String::new(), PATIENCE).await;
    let Reply::Answer { status: 200, body, .. } = reply else { return None };
    let Shown { stats } = serde_json::from_slice(&body).ok()?;
    stats.get("state")?.get("blocked_queries")?.parse().ok()
}

/// What `/v1/agent/self` says, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    stats: BTreeMap<String, BTreeMap<String, String>>,
}

/// What a server says about itself. An answer that was under way while the server was started again is of nobody.
async fn look(line: &mut Http, server: &Server) -> Option<NodeView> {
    let incarnation = server.machine.boots();
    let reply = line.send(Method::GET, "/v1/agent/self", None, String::new(), PATIENCE).await;
    let Reply::Answer { status: 200, body, .. } = reply else { return None };
    if server.machine.boots() != incarnation {
        return None;
    }
    let Shown { stats } = serde_json::from_slice(&body).ok()?;
    let text = |section: &str, name: &str| stats.get(section)?.get(name).cloned();
    let number = |section: &str, name: &str| text(section, name)?.parse::<u64>().ok();
    let view = NodeView {
        // By their machines: servers move to other ports, and are replaced.
        node: server.ip.to_string(),
        incarnation,
        time: trace::now().as_millis() as u64,
        term: number("raft", "term")?,
        leader: text("consul", "leader_addr")
            .and_then(|leader| Some(leader.parse::<SocketAddr>().ok()?.ip().to_string())),
        state: text("raft", "state")?,
        applied: number("raft", "applied_index")?,
        entries: number("state", "entries")?,
        revision: number("state", "revision")?,
        digest: text("state", "digest")?,
    };
    event!("view", "{view}");
    Some(view)
}
