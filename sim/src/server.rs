//! One server: the real `quorate::node`, configured as an operator would, on a simulated machine.
//!
//! A [`Server`] is what its process and the run share; [`process`] is the process.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::config::{Config, FlagValue, Flags};
use quorate::error::{Error, Result};
use quorate::limits;
use quorate::storage::CheckpointStore;
use quorate::world::World;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::engine::{Primitives, Time};
use crate::event;
use crate::world::{Machine, hold};

/// Where servers keep everything.
const DATA: &str = "/data";
/// Port of the HTTP API.
const HTTP: u16 = 8500;
/// Port of the servers among themselves.
const RPC: u16 = 8300;

/// How all servers of a run are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// How many of them found the cluster; the others join it later.
    pub founders: usize,
    /// `raft_snapshot_interval`
    pub checkpoint_every: Duration,
    /// `raft_trailing_logs`
    pub trailing: u64,
    /// `history.revisions`
    pub history: u64,
}

/// One server: its machine, and what its process and the run tell each other.
pub struct Server {
    /// Its machine.
    pub machine: Arc<Machine>,
    /// Its address.
    pub ip: IpAddr,
    place: usize,
    setup: Setup,
    /// Where all servers listen for each other, as the operator would write it into their configuration.
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    enlisted: AtomicBool,
    stop: Notify,
    /// Whether it has come to serve since this was last asked.
    ready: AtomicBool,
    exit: Mutex<Option<Exit>>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// As it was told to.
    Stopped,
    /// With an error, as a process that prints it and exits with 1.
    Failed(Error),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Stopped => f.write_str("as it was told to"),
            Exit::Failed(error) => error.fmt(f),
        }
    }
}

impl Exit {
    /// Whether it says that what is on the disk is not what was written, and what to do about it.
    pub fn refuses_data(&self) -> bool {
        matches!(self, Exit::Failed(error) if error.to_string().contains("cannot be trusted"))
    }
}

impl Server {
    /// Servers with empty data directories. Those that do not found the cluster do not run yet.
    pub fn all(machines: &[Arc<Machine>], ips: &[IpAddr], setup: &Setup) -> Vec<Arc<Self>> {
        let addresses = Arc::new(Mutex::new(ips.iter().map(|ip| SocketAddr::new(*ip, RPC)).collect()));
        let servers = machines.iter().zip(ips).enumerate().map(|(place, (machine, ip))| {
            machine.disk.prepare(Path::new(DATA));
            Arc::new(Server {
                machine: machine.clone(),
                ip: *ip,
                place,
                setup: setup.clone(),
                addresses: Arc::clone(&addresses),
                enlisted: AtomicBool::new(place < setup.founders),
                stop: Notify::new(),
                ready: AtomicBool::new(false),
                exit: Mutex::default(),
            })
        });
        servers.collect()
    }

    /// Where its HTTP API listens.
    pub fn http_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, HTTP)
    }

    /// Where it listens for other servers.
    pub fn rpc_addr(&self) -> SocketAddr {
        hold(&self.addresses)[self.place]
    }

    /// From its next start it listens for other servers elsewhere.
    pub fn move_on(&self) {
        let mut addresses = hold(&self.addresses);
        let port = addresses[self.place].port() + 1;
        addresses[self.place].set_port(port);
    }

    /// Whether it is to be part of the cluster.
    pub fn enlisted(&self) -> bool {
        self.enlisted.load(Ordering::Relaxed)
    }

    /// From its next start it is.
    pub fn enlist(&self) {
        self.enlisted.store(true, Ordering::Relaxed);
    }

    /// Tells its process to stop.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Whether a process of it has come to serve since this was asked last.
    pub fn take_ready(&self) -> bool {
        self.ready.swap(false, Ordering::Relaxed)
    }

    /// How its process ended, once after it did.
    pub fn take_exit(&self) -> Option<Exit> {
        hold(&self.exit).take()
    }

    /// The machine is lost with all that it kept; a new one takes its place.
    pub fn replace_machine(&self) {
        self.machine.disk.wipe();
        self.machine.checkpoint.wipe();
        self.machine.disk.prepare(Path::new(DATA));
    }

    fn flags(&self) -> Flags {
        let set = |key, value: Value| FlagValue { flag: "-simulated", key, value };
        let mut scalars = vec![
            set("server", json!(true)),
            set("node_name", json!(self.machine.name)),
            set("data_dir", json!(DATA)),
            set("bind_addr", json!(self.ip.to_string())),
            set("client_addr", json!("0.0.0.0")),
            set("ports.http", json!(HTTP)),
            set("ports.server", json!(self.rpc_addr().port())),
            set("retry_interval", json!("1s")),
            // As small as may be: files are full and reused more often.
            set("raft_logstore.wal.segment_size_mb", json!(limits::MIN_SEGMENT_BYTES / limits::MIB)),
            set("raft_snapshot_interval", json!(format!("{}ms", self.setup.checkpoint_every.as_millis()))),
            set("raft_trailing_logs", json!(self.setup.trailing)),
            set("history.revisions", json!(self.setup.history)),
        ];
        if self.setup.founders == 1 && self.place == 0 {
            scalars.push(set("bootstrap", json!(true)));
        } else if self.place < self.setup.founders {
            scalars.push(set("bootstrap_expect", json!(self.setup.founders)));
        }
        // A new server names those that were there before it; they need not name it.
        let addresses = hold(&self.addresses);
        let known = addresses.iter().take(self.setup.founders).enumerate().filter(|(place, _)| *place != self.place);
        let others: Vec<String> = known.map(|(_, address)| address.to_string()).collect();
        let lists = if others.is_empty() { Vec::new() } else { vec![set("retry_join", json!(others))] };
        Flags { scalars, lists, ..Flags::default() }
    }
}

/// The process of a server, from its start. When the real one would exit, this leaves word of it and stays, for the run
/// to end it as an operating system would: at once, with all its tasks and sockets.
pub async fn process(server: Arc<Server>, engine: Primitives) {
    if !server.enlisted() {
        return std::future::pending().await;
    }
    let machine = server.machine.clone();
    let world = machine.boot(engine.clone());
    event!("start", "{}", machine.name);
    let life = world.clone().enter(life(server.clone(), world, engine.time.clone()));
    let exit = match machine.gate.guard(engine.time, life).await {
        Ok(()) => Exit::Stopped,
        Err(error) => Exit::Failed(error),
    };
    hold(&server.exit).get_or_insert(exit);
    std::future::pending().await
}

async fn life(server: Arc<Server>, world: World, time: Arc<dyn Time>) -> Result<()> {
    let config = Config::load(&world, &server.flags()).await?;
    let checkpoint = server.machine.checkpoint.clone();
    let open: quorate::node::OpenCheckpoint =
        Box::new(move |_, _| Box::pin(async move { Ok(Arc::new(checkpoint.open(time)) as Arc<dyn CheckpointStore>) }));
    let mut node = quorate::node::start_with(world.clone(), config, open).await?;
    event!("ready", "{} {}", server.machine.name, node.node_id());
    server.ready.store(true, Ordering::Relaxed);
    tokio::select! {
        biased;
        () = server.stop.notified() => {
            // As the command line does: a node that does not stop is ended.
            world.timeout(limits::LEAVE_WAIT, node.shutdown()).await;
            Ok(())
        }
        error = node.stopped() => Err(error),
    }
}
