//! The agent: what the edges talk to. It writes, reads, waits and answers, for one node.
//!
//! An edge extracts a request, calls [`Agent`], and replies; everything between is here. What it never does: know HTTP or
//! DNS, touch the operating system, or change the state other than through the log.
//!
//! Start with [`Agent`], then `query.rs` for reads that wait and `watch.rs` for what wakes them.

mod authority;
mod duties;
pub mod leases;
mod lessor;
mod locks;
mod members;
mod query;
mod registrar;
mod restore;
mod sessions;
mod stream;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::Result;
use crate::limits;
use crate::raft::{Duties, Observer, Raft, View};
use crate::state::{Command, RequestId, Response, State, Touched};
use crate::world::{Task, World};

pub use crate::raft::Server;
pub use crate::state::history::Bounds;
pub use members::{Life, Member};
pub use query::{Answer, Consistency, Found, ReadOptions};
pub use restore::Backup;
pub use sessions::Alive;
pub use stream::{Event, Forgotten, Stream};
pub use watch::Scope;

use lessor::Lessor;
use watch::WatchIndex;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id: random, and as old as its data.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Whether it is a server.
    pub server: bool,
    /// The address that others reach it at.
    pub advertise: IpAddr,
    /// Its rpc port.
    pub server_port: u16,
    /// The program's version.
    pub version: &'static str,
}

/// What an operator may change about answering.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a blocking query waits if it names no time.
    pub default_query_time: Duration,
    /// The longest that it waits.
    pub max_query_time: Duration,
    /// The shortest TTL of a session that is taken.
    pub session_ttl_min: Duration,
    /// How much of what the keys were is kept, once this server leads.
    pub history: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            default_query_time: limits::DEFAULT_QUERY_TIME,
            max_query_time: limits::MAX_QUERY_TIME,
            session_ttl_min: limits::SESSION_TTL_MIN,
            history: Bounds::default(),
        }
    }
}

/// What follows every published state: made before raft is started, so that none is missed.
#[derive(Clone)]
pub struct Watches(Arc<Following>);

struct Following {
    waits: Arc<WatchIndex>,
    lessor: Arc<Lessor>,
    /// Something about locks has changed.
    locks: Arc<Notify>,
}

impl Observer for Following {
    fn published(&self, view: &Arc<View>, touched: Option<&[Touched]>) {
        self.waits.published(view, touched);
        self.lessor.published(view, touched);
        if locks::concerns(touched) {
            self.locks.notify_one();
        }
    }
}

impl Watches {
    /// Nothing is waited for yet.
    pub fn new(world: &World) -> Self {
        Watches(Arc::new(Following {
            waits: Arc::default(),
            lessor: Arc::new(Lessor::new(world)),
            locks: Arc::default(),
        }))
    }

    /// What raft tells of every published state.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.0.clone()
    }
}

/// One node's agent. Cloning gives another handle.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    identity: Identity,
    settings: Settings,
    raft: Raft,
    watch: Arc<WatchIndex>,
    lessor: Arc<Lessor>,
    /// What runs until the node stops.
    tasks: OnceLock<[Task<()>; 3]>,
}

impl Agent {
    /// The agent of a server.
    pub fn new(world: &World, identity: Identity, settings: Settings, raft: Raft, watches: Watches) -> Agent {
        let (watch, lessor) = (watches.0.waits.clone(), watches.0.lessor.clone());
        watch.starting_at(raft.view().state.revision());
        let tasks = OnceLock::new();
        let inner =
            Arc::new(Inner { world: world.clone(), identity, settings, raft, watch, lessor: lessor.clone(), tasks });
        let duties: Arc<dyn Duties> = inner.clone();
        inner.raft.serve(&duties);
        let leases = world.spawn(lessor.run(inner.raft.clone()));
        let queues = world.spawn(locks::keep_time(world.clone(), inner.raft.clone(), watches.0.locks.clone()));
        let _ = inner.tasks.set([leases, queues, world.spawn(registrar::run(inner.clone()))]);
        Agent { inner }
    }

    /// Stops what runs beside the requests.
    pub fn shutdown(&self) {
        self.inner.tasks.get().into_iter().flatten().for_each(Task::abort);
    }

    /// Has the cluster agree on a write; returns what came of it.
    ///
    /// # Errors
    /// As [`Raft::propose`]: `Retry` if it was certainly not applied, `Unknown` if it may have been (R3).
    pub async fn write(&self, request: Option<RequestId>, command: Command) -> Result<Response> {
        self.inner.raft.propose(request, command).await
    }

    /// `ip:port` of the leader's rpc port, if there is a leader.
    pub fn leader(&self) -> Option<String> {
        self.inner.raft.leader().map(|(_, member)| member.address)
    }

    /// `ip:port` of every voting server's rpc port.
    pub fn peers(&self) -> Vec<String> {
        self.inner.raft.voters().into_iter().map(|(_, member)| member.address).collect()
    }

    /// The servers of the cluster as its leader knows them; with `stale` as this node does.
    ///
    /// # Errors
    /// As [`Raft::servers`].
    pub async fn servers(&self, stale: bool) -> Result<Vec<Server>> {
        self.inner.raft.servers(stale).await
    }

    /// Removes a server from the cluster.
    ///
    /// # Errors
    /// As [`Raft::remove`].
    pub async fn remove_server(&self, id: Uuid) -> Result<()> {
        self.inner.raft.remove(id).await
    }

    /// Has another server lead: the one given, or the one that has most of the log.
    ///
    /// # Errors
    /// As [`Raft::hand_over`].
    pub async fn hand_over(&self, to: Option<Uuid>) -> Result<()> {
        self.inner.raft.hand_over(to).await
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// [`State::entries`](crate::state::State::entries) of this node's newest state: what a request id is born at.
    pub fn entries(&self) -> u64 {
        self.inner.raft.view().state.entries()
    }

    /// Figures for people, by section, by Consul's names where it has them.
    pub fn stats(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, String>> {
        let view = self.inner.raft.view();
        let leads = self.inner.raft.is_leader();
        let consul = BTreeMap::from([
            ("bootstrap", (self.inner.raft.voters().len() == 1).to_string()),
            ("known_datacenters", "1".into()),
            ("leader", leads.to_string()),
            ("leader_addr", self.leader().unwrap_or_default()),
            ("server", self.inner.identity.server.to_string()),
        ]);
        let state = BTreeMap::from([
            ("blocked_queries", self.inner.watch.waiting().to_string()),
            ("digest", view.state.digest().to_string()),
            ("entries", view.state.entries().to_string()),
            ("epoch", view.state.epoch().to_string()),
            ("history_bytes", view.state.kv().history().bytes().to_string()),
            ("history_changes", view.state.kv().history().len().to_string()),
            ("history_floor", view.state.kv().history().floor().to_string()),
            ("keys", view.state.kv().len().to_string()),
            ("log_time_ms", view.state.log_time().0.to_string()),
            ("revision", view.state.revision().to_string()),
            ("sessions", view.state.sessions().len().to_string()),
            ("lock_waiters", view.state.queues().len().to_string()),
            ("leases", self.inner.lessor.count().to_string()),
        ]);
        let build = BTreeMap::from([("version", self.inner.identity.version.to_string())]);
        BTreeMap::from([("build", build), ("consul", consul), ("raft", self.inner.raft.stats()), ("state", state)])
    }

    /// A state for a read that waits for nothing: linearizable, unless `options` ask for less.
    ///
    /// # Errors
    /// As [`Agent::read`].
    pub async fn glance<T>(&self, options: &ReadOptions, look: impl Fn(&State) -> T) -> Result<Answer<T>> {
        let (view, consistency) = self.view(options).await?;
        let found = Found { value: Some(look(&view.state)), index: view.state.revision() };
        Ok(self.answer(found, consistency, &view.state))
    }

    /// The node's world.
    pub fn world(&self) -> &World {
        &self.inner.world
    }
}
