//! The servers of a run: the real node on simulated machines, started, stopped, cut off and started again.
//!
//! A [`Server`] is what its process and the run share; [`process`] is the process: the real `quorate::node`, configured as
//! an operator would. [`Cluster`] carries out faults on whatever engine runs the hosts. It knows what is wrong at any time,
//! so a server that ends without a reason is a violation.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
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
use crate::nemesis::{Fault, Nemesis, Planned, Step};
use crate::world::{Machine, hold};

/// Where servers keep everything.
const DATA: &str = "/data";
/// How soon a supervisor starts a process again that ended by itself.
const RESPAWN: Duration = Duration::from_millis(1000);
/// Port of the HTTP API.
const HTTP: u16 = 8500;
/// Port of the servers among themselves.
const RPC: u16 = 8300;

/// One server: its machine, and what its process and the run tell each other.
pub struct Server {
    /// Its machine.
    pub machine: Arc<Machine>,
    /// Its address.
    pub ip: IpAddr,
    /// The addresses of all servers.
    pub peers: Vec<IpAddr>,
    stop: Notify,
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

impl Server {
    /// A server with an empty data directory.
    pub fn new(machine: Arc<Machine>, ip: IpAddr, peers: Vec<IpAddr>) -> Arc<Self> {
        machine.disk.prepare(Path::new(DATA));
        Arc::new(Server { machine, ip, peers, stop: Notify::new(), exit: Mutex::default() })
    }

    /// Where its HTTP API listens.
    pub fn http_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, HTTP)
    }

    /// Where it listens for other servers.
    pub fn rpc_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, RPC)
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
            set("ports.server", json!(RPC)),
            set("retry_interval", json!("1s")),
        ];
        let mut lists = Vec::new();
        if self.peers.len() == 1 {
            scalars.push(set("bootstrap", json!(true)));
        } else {
            scalars.push(set("bootstrap_expect", json!(self.peers.len())));
            let others = self.peers.iter().filter(|ip| **ip != self.ip);
            let others: Vec<String> = others.map(|ip| format!("{ip}:{RPC}")).collect();
            lists.push(set("retry_join", json!(others)));
        }
        Flags { scalars, lists, ..Flags::default() }
    }
}

/// The process of a server, from its start. When the real one would exit, this leaves word of it and stays, for the run
/// to end it as an operating system would: at once, with all its tasks and sockets.
pub async fn process(server: Arc<Server>, engine: Primitives) {
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

/// What an engine does with hosts. Hosts are named by their addresses.
pub trait Hosts {
    /// Ends a host's process at once; its sockets are closed if the network lets them.
    fn crash(&mut self, host: IpAddr);
    /// Starts it again.
    fn start(&mut self, host: IpAddr);
    /// Loses messages in one direction.
    fn cut(&mut self, from: IpAddr, to: IpAddr);
    /// Ends that.
    fn heal(&mut self, from: IpAddr, to: IpAddr);
    /// Longest latency of a message.
    fn set_latency(&mut self, most: Duration);
    /// Resets the connections of a host.
    fn reset(&mut self, host: IpAddr);
}

/// Where a server's process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Up,
    /// Told to stop; it is started again at this time.
    Stopping(Duration),
    /// Started again at this time.
    Down(Duration),
}

/// All servers, and what is wrong with them.
pub struct Cluster {
    servers: Vec<Arc<Server>>,
    status: Vec<Status>,
    /// Whether the disk of a server may have given its process a reason to end, since the process started.
    excused: Vec<bool>,
    /// Everyone, servers and clients.
    everyone: Vec<IpAddr>,
    cuts: BTreeMap<(IpAddr, IpAddr), u32>,
    nemesis: Nemesis,
    usual_latency: Duration,
    /// Faults that came to pass, by kind.
    pub happened: BTreeMap<crate::nemesis::Kind, u64>,
    /// A line for each.
    pub lines: Vec<String>,
    /// A server that ended without a reason.
    pub violation: Option<String>,
}

impl Cluster {
    /// Servers that have just been started, among `everyone`.
    pub fn new(servers: Vec<Arc<Server>>, everyone: Vec<IpAddr>, plan: Vec<Planned>, usual_latency: Duration) -> Self {
        Cluster {
            status: vec![Status::Up; servers.len()],
            excused: vec![false; servers.len()],
            servers,
            everyone,
            cuts: BTreeMap::new(),
            nemesis: Nemesis::new(plan),
            usual_latency,
            happened: BTreeMap::new(),
            lines: Vec::new(),
            violation: None,
        }
    }

    /// Does what is due before the engine's next step.
    pub fn step(&mut self, hosts: &mut dyn Hosts, now: Duration) {
        for step in self.nemesis.due(now) {
            match step {
                Step::Begin(fault, until) => self.begin(hosts, now, &fault, until),
                Step::End(fault) => self.end(hosts, &fault),
            }
        }
        for node in 0..self.servers.len() {
            self.follow(hosts, now, node);
        }
    }

    /// Sets everything right that is wrong with machines and network. The plan must be over.
    pub fn calm(&mut self, hosts: &mut dyn Hosts) {
        for server in &self.servers {
            server.machine.disk.set_faults(|faults| *faults = Default::default());
            server.machine.checkpoint.set_errors(0);
            server.machine.gate.set_slow(None);
            server.machine.gate.resume();
        }
        hosts.set_latency(self.usual_latency);
    }

    /// The process's end, and its next start.
    fn follow(&mut self, hosts: &mut dyn Hosts, now: Duration, node: usize) {
        let server = self.servers[node].clone();
        let faults = server.machine.disk.faults();
        self.excused[node] |= faults.errors_per_mille > 0 || faults.full || faults.sync_failed;
        if let Some(exit) = hold(&server.exit).take() {
            let again = match self.status[node] {
                Status::Stopping(again) => again,
                _ => now + RESPAWN,
            };
            self.note(now, format!("{} ended: {exit:?}", server.machine.name));
            if let Exit::Failed(error) = &exit
                && !self.excused[node]
            {
                self.violation.get_or_insert(format!("{} ended without cause: {error}", server.machine.name));
            }
            hosts.crash(server.ip);
            server.machine.disk.end_process();
            server.machine.checkpoint.end_process();
            self.status[node] = Status::Down(again);
        }
        if let Status::Down(again) = self.status[node]
            && again <= now
        {
            self.status[node] = Status::Up;
            self.excused[node] = false;
            server.machine.disk.set_faults(|faults| faults.sync_failed = false);
            hosts.start(server.ip);
        }
    }

    fn begin(&mut self, hosts: &mut dyn Hosts, now: Duration, fault: &Fault, until: Duration) {
        if !self.applies(fault) {
            return;
        }
        let seconds = until.saturating_sub(now).as_secs_f64();
        self.note(now, format!("{fault} for {seconds:.3}s"));
        *self.happened.entry(fault.kind()).or_default() += 1;
        let machine = |node: &usize| &self.servers[*node].machine;
        match fault {
            Fault::Power(node) | Fault::Kill(node) => self.drop_process(hosts, *node, until, fault),
            Fault::Restart(node) => {
                self.status[*node] = Status::Stopping(until);
                self.servers[*node].stop.notify_one();
            }
            Fault::Pause(node) => machine(node).gate.pause(),
            Fault::Slow(node, by) => machine(node).gate.set_slow(Some(*by)),
            Fault::Partition(_, cuts) => cuts.iter().for_each(|(from, to)| self.cut(hosts, *from, *to)),
            Fault::Latency(most) => hosts.set_latency(*most),
            Fault::Reset(node) => hosts.reset(self.servers[*node].ip),
            Fault::Sync(node, by) => machine(node).disk.set_faults(|faults| faults.slow_sync = *by),
            Fault::Fsync(node) => machine(node).disk.set_faults(|faults| faults.fail_next_sync = true),
            Fault::Eio(node, rate) => machine(node).disk.set_faults(|faults| faults.errors_per_mille = *rate),
            Fault::Full(node) => machine(node).disk.set_faults(|faults| faults.full = true),
            Fault::Checkpoint(node, rate) => machine(node).checkpoint.set_errors(*rate),
            Fault::Clock(node, millis) => machine(node).drift.set_wall(*millis),
        }
    }

    /// Whether a fault makes a difference now: a process that does not run cannot be killed.
    fn applies(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Kill(node) | Fault::Restart(node) => self.status[*node] == Status::Up,
            Fault::Power(node) => !matches!(self.status[*node], Status::Down(_)),
            _ => true,
        }
    }

    fn end(&mut self, hosts: &mut dyn Hosts, fault: &Fault) {
        let machine = |node: &usize| &self.servers[*node].machine;
        match fault {
            // They are started again when their time has come: see `follow`.
            Fault::Power(_) | Fault::Kill(_) | Fault::Restart(_) => {}
            Fault::Pause(node) => machine(node).gate.resume(),
            Fault::Slow(node, _) => machine(node).gate.set_slow(None),
            Fault::Partition(_, cuts) => cuts.iter().for_each(|(from, to)| self.heal(hosts, *from, *to)),
            Fault::Latency(_) => hosts.set_latency(self.usual_latency),
            Fault::Sync(node, _) => machine(node).disk.set_faults(|faults| faults.slow_sync = Duration::ZERO),
            Fault::Eio(node, _) => machine(node).disk.set_faults(|faults| faults.errors_per_mille = 0),
            Fault::Full(node) => machine(node).disk.set_faults(|faults| faults.full = false),
            Fault::Checkpoint(node, _) => machine(node).checkpoint.set_errors(0),
            Fault::Clock(node, _) => machine(node).drift.set_wall(0),
            Fault::Reset(_) | Fault::Fsync(_) => {}
        }
    }

    fn drop_process(&mut self, hosts: &mut dyn Hosts, node: usize, until: Duration, fault: &Fault) {
        let server = self.servers[node].clone();
        let power = matches!(fault, Fault::Power(_));
        // A machine without power says no goodbye: the engine closes the sockets of dropped tasks, so nothing may get out.
        // Its kernel says it when only the process is gone.
        let others: Vec<IpAddr> = self.everyone.iter().copied().filter(|ip| power && *ip != server.ip).collect();
        others.iter().for_each(|other| hosts.cut(server.ip, *other));
        hosts.crash(server.ip);
        let healed = others.iter().filter(|other| !self.cuts.contains_key(&(server.ip, **other)));
        healed.for_each(|other| hosts.heal(server.ip, *other));
        server.machine.gate.resume();
        server.machine.checkpoint.end_process();
        if power {
            server.machine.disk.lose_power();
        } else {
            server.machine.disk.end_process();
        }
        hold(&server.exit).take();
        self.status[node] = Status::Down(until);
    }

    fn cut(&mut self, hosts: &mut dyn Hosts, from: usize, to: usize) {
        let link = (self.servers[from].ip, self.servers[to].ip);
        let cuts = self.cuts.entry(link).or_default();
        *cuts += 1;
        if *cuts == 1 {
            hosts.cut(link.0, link.1);
        }
    }

    fn heal(&mut self, hosts: &mut dyn Hosts, from: usize, to: usize) {
        let link = (self.servers[from].ip, self.servers[to].ip);
        let Some(cuts) = self.cuts.get_mut(&link) else { return };
        *cuts -= 1;
        if *cuts == 0 {
            self.cuts.remove(&link);
            hosts.heal(link.0, link.1);
        }
    }

    fn note(&mut self, now: Duration, line: String) {
        event!("fault", "{line}");
        self.lines.push(format!("{:>9.3}  {line}", now.as_secs_f64()));
    }
}
