//! One running node on one [`World`]: storage, raft, agent and HTTP, wired together.
//!
//! The command line starts it on the real world; a simulator starts the very same on its own. What it never does: decide
//! anything that a layer below could decide.
//!
//! Start with [`start`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::agent::{Agent, Bounds, Identity, Settings, Watches};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::{self, HttpConfig};
use crate::raft::{self, Checkpoints, Cluster, Finding, Member, Options, Raft};
use crate::rpc;
use crate::storage::checkpoint::{CheckpointStore, FjallCheckpoint, MemoryCheckpoint};
use crate::storage::{self, Wal};
use crate::world::{Lock, MemoryDisk, World};

/// Opens the checkpoint store in a directory. It is the one part of a node that a [`World`] cannot give, because fjall
/// opens files and runs threads itself.
pub type OpenCheckpoint =
    Box<dyn FnOnce(World, PathBuf) -> BoxFuture<'static, Result<Arc<dyn CheckpointStore>>> + Send>;

/// The port of other servers whose address names none.
const SERVER_PORT: u16 = 8300;

/// A node that runs.
pub struct Node {
    id: Uuid,
    raft: Raft,
    agent: Agent,
    http: http::Server,
    /// `None` if its port is switched off: then this server is alone.
    rpc: Option<rpc::Server>,
    /// Held until the node has stopped: no second process may use the directory.
    _lock: Box<dyn Lock>,
}

/// Starts a node: a durable one with its data in `config.data_dir`, or one in memory with `-dev`.
///
/// # Errors
/// [`Error::Operator`] with what to do: the directory is in use or cannot be trusted, a port is taken.
pub async fn start(world: World, config: Config) -> Result<Node> {
    let open: OpenCheckpoint = if config.data_dir.is_some() {
        Box::new(|world, dir| {
            Box::pin(
                async move { Ok(Arc::new(FjallCheckpoint::open(&world, &dir).await?) as Arc<dyn CheckpointStore>) },
            )
        })
    } else {
        Box::new(|_, _| Box::pin(async { Ok(Arc::new(MemoryCheckpoint::default()) as Arc<dyn CheckpointStore>) }))
    };
    Box::pin(start_with(world, config, open)).await
}

/// [`start`], with a checkpoint store of the caller's.
///
/// # Errors
/// As [`start`].
pub async fn start_with(mut world: World, config: Config, open_checkpoint: OpenCheckpoint) -> Result<Node> {
    if config.data_dir.is_none() {
        world.disk = Arc::new(MemoryDisk::default());
    }
    let dir = config.data_dir.clone().unwrap_or_default();
    let raft_dir = dir.join("raft");
    world
        .disk
        .create_dir_all(&raft_dir)
        .await
        .map_err(|e| Error::io(format!("cannot make {}", raft_dir.display()), &e))?;
    let lock = storage::lock(&world, &dir).await?;
    let (id, wal) = identity(&world, &dir, &raft_dir.join("wal"), &config).await?;
    let store = open_checkpoint(world.clone(), raft_dir.join("checkpoint")).await?;

    let interfaces = world.net.interfaces().map_err(|e| Error::io("cannot list this machine's addresses", &e))?;
    let advertise = config.advertise_addr(&interfaces)?;
    let cluster = Cluster::open(&world, &dir, id).await?;
    let service = raft::Service::default();
    let rpc = serve_rpc(&world, &config, &cluster, service.clone()).await?;
    // Switched off, it is shown as what it is: no port.
    let server_port = rpc.as_ref().map_or(0, |rpc| rpc.addr.port());
    let identity = Identity {
        id,
        name: config.node_name.clone(),
        datacenter: config.datacenter.clone(),
        server: config.server,
        advertise,
        server_port,
        version: env!("CARGO_PKG_VERSION"),
    };
    let watches = Watches::new(&world);
    let options = Options {
        cluster,
        member: Member { name: config.node_name.clone(), address: SocketAddr::new(advertise, server_port).to_string() },
        bootstrap: config.bootstrap || config.bootstrap_expect == 1,
        multiplier: config.performance.raft_multiplier,
        checkpoints: Checkpoints { interval: config.checkpoints.interval, trailing: config.checkpoints.trailing },
        finding: finding(&config),
    };
    let raft = Raft::start(&world, options, wal, store, watches.observer()).await?;
    service.open(raft.clone());
    let settings = Settings {
        default_query_time: config.default_query_time,
        max_query_time: config.max_query_time,
        session_ttl_min: config.session_ttl_min,
        history: Bounds { revisions: config.history.revisions, bytes: config.history.bytes },
    };
    let agent = Agent::new(&world, identity, settings, raft.clone(), watches);
    let http = http::serve(agent.clone(), http_config(&config)).await?;
    Ok(Node { id, raft, agent, http, rpc, _lock: lock })
}

/// Listens for other servers: on `bind_addr`, else on every IPv4 address, as Consul does; with `-dev` on loopback, because
/// nobody else is meant.
async fn serve_rpc(
    world: &World,
    config: &Config,
    cluster: &Cluster,
    service: raft::Service,
) -> Result<Option<rpc::Server>> {
    let Some(port) = config.ports.server else { return Ok(None) };
    let any = if config.dev { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let addr = SocketAddr::new(config.bind_addr.unwrap_or(any), port);
    if !addr.ip().is_loopback() {
        tracing::warn!(
            %addr,
            "the port for other servers listens beyond this machine without TLS: whoever reaches it can read and change \
             everything; let only the cluster's servers reach it"
        );
    }
    rpc::serve(world, addr, cluster.identity(), Arc::new(service)).await.map(Some)
}

fn finding(config: &Config) -> Finding {
    let join = &config.join;
    Finding {
        expect: config.bootstrap_expect,
        addresses: join.retry_join.iter().chain(&join.start_join).cloned().collect(),
        port: config.ports.server.unwrap_or(SERVER_PORT),
        interval: join.retry_interval,
        most: join.retry_max,
        rejoin: join.rejoin_after_leave,
    }
}

fn http_config(config: &Config) -> HttpConfig {
    let hosts: &[IpAddr] = if config.addresses.http.is_empty() { &config.client_addr } else { &config.addresses.http };
    let port = config.ports.http;
    HttpConfig {
        listen: port.map(|port| hosts.iter().map(|host| SocketAddr::new(*host, port)).collect()).unwrap_or_default(),
        max_value: config.limits.kv_max_value_size,
        max_body: config.limits.txn_max_req_len,
        connections_per_client: config.limits.http_max_conns_per_client,
        discovery_max_stale: config.discovery_max_stale,
        pretty: config.pretty_json,
        ..HttpConfig::default()
    }
}

impl Node {
    /// Its id.
    pub fn node_id(&self) -> Uuid {
        self.id
    }

    /// Where its HTTP API listens.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        self.http.addrs()
    }

    /// Where it listens for other servers; `None` if that is switched off.
    pub fn rpc_addr(&self) -> Option<SocketAddr> {
        self.rpc.as_ref().map(|rpc| rpc.addr)
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Why the node cannot go on, once it cannot; pends until then.
    pub async fn stopped(&mut self) -> Error {
        self.raft.failed().await
    }

    /// Gives up its place in the cluster, so that the others need it for no majority. Call [`Node::shutdown`] afterwards.
    ///
    /// # Errors
    /// As [`Raft::leave`].
    pub async fn leave(&self) -> Result<()> {
        self.raft.leave().await
    }

    /// Hands over the lead, stops taking requests, lets those under way finish, and stops.
    pub async fn shutdown(self) {
        // First, while clients are still served: what they ask for meanwhile goes to the next leader.
        self.raft.step_down().await;
        self.http.shutdown().await;
        self.agent.shutdown();
        self.raft.shutdown().await;
        if let Some(rpc) = self.rpc {
            rpc.shutdown().await;
        }
    }
}

/// The node's id and its log: those of the directory, or new ones.
///
/// The id is random and lives with the data: a rebuilt node is a new node, because the old one's votes are forgotten. It is
/// written only after its log exists; so where there is an id and no log, the log was lost, with votes and entries that
/// others rely on.
async fn identity(world: &World, dir: &Path, wal_dir: &Path, config: &Config) -> Result<(Uuid, Wal)> {
    let open = || Wal::open(world, wal_dir, config.log_segment_bytes);
    let kept = raft::read_id(world, dir, "node-id").await?;
    match (kept, config.node_id) {
        (Some(kept), Some(configured)) if kept != configured => Err(Error::Operator(format!(
            "node_id is configured as {configured}, but the data in {} belongs to node {kept}: remove the setting, or \
             start with an empty directory",
            dir.display()
        ))),
        (Some(kept), _) if !Wal::exists(world, wal_dir).await? => Err(Error::Operator(format!(
            "the log of node {kept} is gone: {} holds none. Put back the whole of {}, or move it away and start as a new \
             node",
            wal_dir.display(),
            dir.display()
        ))),
        (Some(kept), _) => Ok((kept, open().await?)),
        (None, configured) => {
            let wal = open().await?;
            let id = configured.unwrap_or_else(|| world.entropy.uuid());
            raft::write_id(world, dir, "node-id", id)
                .await
                .map_err(|e| Error::io(format!("cannot write the node's id in {}", dir.display()), &e))?;
            Ok((id, wal))
        }
    }
}
