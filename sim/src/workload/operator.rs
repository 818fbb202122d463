//! The operator: a client who changes the cluster itself, over `/v1/operator/raft`, as a person or a script would.
//!
//! The nemesis asks for an errand; the operator runs it when the cluster is able to, and says when machines may go. Only
//! one server is ever on its way out or in, and a machine is lost only while all others are voters who have everything:
//! what a cluster may not lose (R2 says: a majority) is never taken from it. While a new server looks for the cluster no
//! other one moves, or it might look where nobody is any more.
//!
//! Start with [`run`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use quorate::api::operator::{RaftConfiguration, RaftServer};
use quorate::world::World;
use uuid::Uuid;

use super::http::{Http, Reply};
use super::{Phase, Shared};
use crate::nemesis::{Fault, Kind};
use crate::player::Player;
use crate::rng::Rng;
use crate::server::Server;
use crate::world::hold;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one call may take: longer than a server takes to say "unknown".
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Attempts to find the cluster able to lose a machine, before the errand is dropped.
const ATTEMPTS: u32 = 10;

/// What the run and the operator tell each other.
#[derive(Debug, Default)]
pub struct Errands {
    asked: Mutex<VecDeque<Fault>>,
    done: Mutex<Vec<Fault>>,
    /// What became of the disk that was damaged last: whether its data were lost.
    damage: Mutex<Option<bool>>,
    busy: AtomicBool,
}

impl Errands {
    /// Takes on what only the cluster can do to itself; false if that is not this fault.
    pub fn ask(&self, fault: &Fault) -> bool {
        let ours = fault.kind.is_errand();
        if ours {
            hold(&self.asked).push_back(fault.clone());
        }
        ours
    }

    /// What has come to pass since this was asked last: the machines in it may go now.
    pub fn take_done(&self) -> Vec<Fault> {
        std::mem::take(&mut *hold(&self.done))
    }

    /// A damaged disk's server has started again, or has refused to and was given an empty disk.
    pub fn damage_is_over(&self, lost: bool) {
        *hold(&self.damage) = Some(lost);
    }

    /// Whether an errand is under way.
    pub fn busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn next(&self) -> Option<Fault> {
        hold(&self.asked).pop_front()
    }

    fn done(&self, fault: Fault) {
        hold(&self.done).push(fault);
    }
}

/// Runs errands until the run is over. What was begun in the storm is finished in calm.
pub async fn run(
    player: Player,
    world: World,
    shared: Arc<Shared>,
    servers: Vec<Arc<Server>>,
    registers: Vec<String>,
    rng: Rng,
) {
    let http = Http::new(&world, shared.servers[0]);
    let mut operator = Operator { player, world, shared, servers, registers, http, rng };
    loop {
        let storm = operator.shared.phase() == Phase::Storm;
        let errand = operator.shared.errands.next().filter(|_| storm);
        match errand {
            Some(fault) => {
                operator.shared.errands.busy.store(true, Ordering::Relaxed);
                operator.carry_out(fault).await;
                operator.shared.errands.busy.store(false, Ordering::Relaxed);
            }
            None => operator.world.sleep(PAUSE).await,
        }
    }
}

pub(super) struct Operator {
    pub player: Player,
    pub world: World,
    pub shared: Arc<Shared>,
    servers: Vec<Arc<Server>>,
    /// What the clients write.
    pub registers: Vec<String>,
    pub http: Http,
    pub rng: Rng,
}

impl Operator {
    async fn carry_out(&mut self, fault: Fault) {
        let place = fault.place;
        match fault.kind {
            Kind::Transfer => self.transfer(fault).await,
            Kind::Restore => self.turn_back(fault).await,
            Kind::Replace => {
                let Some(server) = self.expendable(place).await else { return };
                self.remove(&server).await;
                self.shared.errands.done(fault);
                self.joined(place, Some(server.id)).await;
            }
            Kind::Destroy => {
                let Some(server) = self.expendable(place).await else { return };
                self.shared.errands.done(fault);
                self.joined(place, Some(server.id)).await;
                self.remove(&server).await;
            }
            Kind::Rot | Kind::Misdirect => {
                let Some(server) = self.expendable(place).await else { return };
                self.shared.errands.done(fault);
                if self.damaged().await {
                    self.joined(place, Some(server.id)).await;
                    self.remove(&server).await;
                }
            }
            Kind::Grow => {
                let Some(spare) = self.servers.iter().position(|server| !server.enlisted()) else { return };
                self.shared.errands.done(fault);
                self.joined(spare, None).await;
            }
            _ => {}
        }
    }

    /// Waits until it is known what became of a damaged disk; whether its data were lost.
    async fn damaged(&self) -> bool {
        loop {
            if let Some(lost) = hold(&self.shared.errands.damage).take() {
                return lost;
            }
            self.pause().await;
        }
    }

    async fn turn_back(&mut self, fault: Fault) {
        if self.restore(fault.time()).await {
            self.shared.errands.done(fault);
        }
    }

    async fn transfer(&mut self, fault: Fault) {
        let query = if fault.size == 0 {
            String::new()
        } else {
            let servers = self.configuration().await.unwrap_or_default();
            let Some(server) = self.at(fault.place, &servers) else { return };
            format!("?id={}", server.id)
        };
        let path = format!("/v1/operator/raft/transfer-leader{query}");
        if self.call(Method::POST, &path).await.is_some() {
            self.shared.errands.done(fault);
        }
    }

    /// The server on this machine, once the cluster can do without it: all servers vote, and that is agreed upon.
    async fn expendable(&mut self, node: usize) -> Option<RaftServer> {
        for _ in 0..ATTEMPTS {
            if let Some(servers) = self.agreed().await
                && servers.len() > 2
                && servers.iter().all(|server| server.voter)
                && let Some(server) = self.at(node, &servers)
            {
                return Some(server);
            }
            self.pause().await;
        }
        None
    }

    /// The membership, if a majority has it. A leader shows what it has proposed; but what it showed before a write that
    /// was acknowledged, and shows after it, came before that write in the log.
    async fn agreed(&mut self) -> Option<Vec<RaftServer>> {
        let before = self.configuration().await?;
        self.call(Method::PUT, "/v1/kv/operator").await?;
        let after = self.configuration().await?;
        let who = |servers: &[RaftServer]| -> Vec<_> {
            servers.iter().map(|server| (server.id, server.voter, server.address.clone())).collect()
        };
        (who(&before) == who(&after)).then_some(after)
    }

    /// Removes a server, however long it takes.
    async fn remove(&mut self, server: &RaftServer) {
        let path = format!("/v1/operator/raft/peer?id={}", server.id);
        loop {
            if self.call(Method::DELETE, &path).await.is_some() {
                return;
            }
            // It may have been done all the same.
            let gone = self.agreed().await.is_some_and(|servers| servers.iter().all(|other| other.id != server.id));
            if gone {
                return;
            }
            self.pause().await;
        }
    }

    /// Waits until a server other than the lost one votes on this machine.
    async fn joined(&mut self, node: usize, lost: Option<Uuid>) {
        loop {
            let mut servers = self.agreed().await.unwrap_or_default();
            servers.retain(|server| Some(server.id) != lost && server.voter);
            if self.at(node, &servers).is_some() {
                return;
            }
            self.pause().await;
        }
    }

    /// The server at a machine's address.
    fn at(&self, node: usize, servers: &[RaftServer]) -> Option<RaftServer> {
        let address = self.servers[node].rpc_addr().to_string();
        servers.iter().find(|server| server.address == address).cloned()
    }

    async fn configuration(&mut self) -> Option<Vec<RaftServer>> {
        let body = self.call(Method::GET, "/v1/operator/raft/configuration").await?;
        serde_json::from_slice::<RaftConfiguration>(&body).ok().map(|configuration| configuration.servers)
    }

    /// Calls any server; the body of a 200.
    async fn call(&mut self, method: Method, path: &str) -> Option<bytes::Bytes> {
        match self.http.send(method, path, None, String::new(), PATIENCE).await {
            Reply::Answer { status: 200, body, .. } => Some(body),
            _ => {
                self.turn();
                None
            }
        }
    }

    /// Goes on with another server.
    pub fn turn(&mut self) {
        let server = *self.rng.pick(&self.shared.servers);
        self.http.turn_to(server);
    }

    pub async fn pause(&self) {
        self.world.sleep(PAUSE).await;
    }
}
