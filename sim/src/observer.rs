//! One more client, which only looks: it asks every server for `/v1/agent/self` all the time, and once calm has come it
//! waits until all servers agree, and then reads every key through each of them.
//!
//! What it saw is for `check::raft`. The one thing it decides itself is liveness: within [`TOGETHER`] of calm all servers
//! answer, name one leader, and have the same state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::world::World;
use serde_json::Value;

use crate::check::NodeView;
use crate::event;
use crate::server::Server;
use crate::workload::http::{Http, Reply};
use crate::workload::{Phase, Shared, kv, locks, waits};
use crate::world::hold;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);
/// How long a server may take to answer a look.
const PATIENCE: Duration = Duration::from_millis(2_000);
/// How long calm may take to bring all servers together: twice a client's longest wait for an answer.
const TOGETHER: Duration = Duration::from_secs(60);

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

/// Looks until calm has brought all servers together, or should have; then audits the keys.
pub async fn observe(
    number: u32,
    world: World,
    shared: Arc<Shared>,
    servers: Vec<Arc<Server>>,
    keys: Vec<String>,
    locks: locks::Mix,
) {
    let mut lines: Vec<Http> = shared.servers.iter().map(|server| Http::new(&world, *server)).collect();
    let mut calm_since = None;
    while shared.phase() != Phase::Over {
        let calm = shared.phase() == Phase::Calm;
        let mut views = Vec::new();
        for (line, server) in lines.iter_mut().zip(&servers) {
            if !server.enlisted() {
                continue;
            }
            let view = look(line, server, &world).await;
            hold(&shared.observations).views.extend(view.clone());
            views.push(view);
        }
        if calm {
            let now = world.clock.now();
            let waited = now.since(*calm_since.get_or_insert(now));
            if together(&views) && !shared.errands.busy() {
                event!("together", "after {waited:?}");
                hold(&shared.observations).together_after = Some(waited);
                let answered = kv::audit(number, world.clone(), shared.clone(), &enlisted(&servers), &keys).await;
                fail(&shared, !answered, || "a read in calm was not answered".into());
                let free = locks::audit(&world, &shared, &enlisted(&servers), &locks).await;
                fail(&shared, free.is_err(), || free.unwrap_err());
                let told = waits::audit(number, &world, &shared, &enlisted(&servers)).await;
                fail(&shared, told.is_err(), || told.unwrap_err());
                shared.enter(Phase::Over);
            } else if waited > TOGETHER {
                let views: Vec<String> = views.iter().map(shown).collect();
                let errand = if shared.errands.busy() { " (the operator's errand does not end)" } else { "" };
                let text =
                    format!("after {TOGETHER:?} of calm the servers do not agree{errand}:\n  {}", views.join("\n  "));
                fail(&shared, true, || text);
                shared.enter(Phase::Over);
            }
        }
        world.sleep(INTERVAL).await;
    }
}

fn enlisted(servers: &[Arc<Server>]) -> Vec<SocketAddr> {
    servers.iter().filter(|server| server.enlisted()).map(|server| server.http_addr()).collect()
}

fn shown(view: &Option<NodeView>) -> String {
    view.as_ref().map_or_else(|| "no answer".into(), NodeView::to_string)
}

fn fail(shared: &Shared, failed: bool, why: impl FnOnce() -> String) {
    if failed {
        hold(&shared.observations).violation.get_or_insert_with(why);
    }
}

/// All answer, name the same leader, and have executed the same entries.
fn together(views: &[Option<NodeView>]) -> bool {
    let Some(Some(first)) = views.first() else { return false };
    let same = |view: &NodeView| view.entries == first.entries && view.leader == first.leader;
    first.leader.is_some() && views.iter().all(|view| view.as_ref().is_some_and(same))
}

/// What a server says about itself. An answer that was under way while the server was started again is of nobody.
async fn look(line: &mut Http, server: &Server, world: &World) -> Option<NodeView> {
    let incarnation = server.machine.boots();
    let reply = line.send(Method::GET, "/v1/agent/self", None, String::new(), PATIENCE).await;
    let Reply::Answer { status: 200, body, .. } = reply else { return None };
    if server.machine.boots() != incarnation {
        return None;
    }
    let body: Value = serde_json::from_slice(&body).ok()?;
    let text = |path: &str| Some(body.pointer(path)?.as_str()?.to_owned());
    let number = |path: &str| text(path)?.parse::<u64>().ok();
    let view = NodeView {
        // By their machines: servers move to other ports, and are replaced.
        node: server.ip.to_string(),
        incarnation,
        time: world.clock.now().0 / 1_000_000,
        term: number("/Stats/raft/term")?,
        leader: text("/Stats/consul/leader_addr")
            .and_then(|leader| Some(leader.parse::<SocketAddr>().ok()?.ip().to_string())),
        state: text("/Stats/raft/state")?,
        applied: number("/Stats/raft/applied_index")?,
        entries: number("/Stats/state/entries")?,
        revision: number("/Stats/state/revision")?,
        digest: text("/Stats/state/digest")?,
    };
    event!("view", "{view}");
    Some(view)
}
