//! The simulator on madsim, which picks a random ready task at every step and so finds other orders than turmoil does.
//!
//! It is a binary of its own because both engines define the same symbols of libc. Everything but this file and `net` is
//! the same: scenes, servers, clients, faults, checkers.

mod net;
mod time;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use quorate::world::{Abort, BoxTask};
use quorate_sim::cluster::Hosts;
use quorate_sim::engine::{Engine, Primitives, Time};
use quorate_sim::scene::Scene;
use quorate_sim::server;
use quorate_sim::stage::Stage;
use quorate_sim::trace;
use quorate_sim::wires::Wires;
use quorate_sim::world::Machine;
use tokio::runtime::RngSeed;

use crate::net::MadsimNet;
use crate::time::{MadsimTime, Timers};

/// With libc's a run takes an eighth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate_sim::cli::main::<Madsim>()
}

struct Madsim;

impl Engine for Madsim {
    const NAME: &'static str = "madsim";

    // madsim replaces the system calls itself, wherever its runtime is entered.
    fn enter(_seed: u64) {}

    fn run(scene: &Scene) -> Result<Stage, String> {
        let mut config = madsim::Config::default();
        config.net.send_latency = latency(scene.latency);
        let runtime = Runtime::with_seed_and_config(scene.seed, config);
        // Tokio's channels draw from tokio's randomness, which only a runtime of tokio's seeds. `unconstrained`, because
        // this task is polled once: its budget would never be filled up again.
        let tokio = tokio::runtime::Builder::new_current_thread()
            .rng_seed(RngSeed::from_bytes(&scene.seed.to_le_bytes()))
            .build()
            .map_err(|error| error.to_string())?;
        let run = || tokio.block_on(tokio::task::unconstrained(async { runtime.block_on(direct(scene.clone())) }));
        let outcome = catch_unwind(AssertUnwindSafe(run)).map_err(|_| "panicked".to_owned());
        if outcome.is_err() {
            // What the panic left behind may panic again when it is dropped, and that would end the process.
            std::mem::forget(runtime);
        }
        outcome
    }

    fn now() -> Duration {
        TimeHandle::try_current().map_or_else(trace::step_time, |time| time.elapsed())
    }
}

/// The run itself: a task beside all hosts.
async fn direct(scene: Scene) -> Stage {
    let handle = Handle::current();
    let ips: Vec<IpAddr> = (1..=scene.hosts().len() as u8).map(|number| [10, 0, 0, number].into()).collect();
    let mut stage = Stage::set(&scene, &ips);
    let wires = stage.cluster.wires();
    let timers = Arc::new(Timers::default());
    let driver = madsim::task::spawn(timers.clone().drive());
    let mut nodes = BTreeMap::new();
    for server in stage.servers.clone() {
        let (ip, wires, timers) = (server.ip, wires.clone(), timers.clone());
        let process = move || {
            let engine = primitives(server.ip, &server.machine, &wires, &timers);
            server::process(server.clone(), engine)
        };
        let node = handle.create_node().name(ip.to_string()).ip(ip).init(process).build();
        nodes.insert(ip, node.id());
    }
    for (ip, plays) in stage.sites() {
        let node = handle.create_node().name(ip.to_string()).ip(ip).build();
        nodes.insert(ip, node.id());
        for (machine, play) in plays {
            let engine = primitives(ip, &machine, &wires, &timers);
            let world = machine.boot(engine.clone());
            node.spawn(machine.gate.guard(engine.time, play(world)));
        }
    }
    let mut hosts = MadsimHosts { handle, net: NetSim::current(), nodes };
    loop {
        let now = TimeHandle::current().elapsed();
        trace::step(now);
        if stage.step(&mut hosts, now) {
            // Tasks that are not dropped here never are, and a sweep of a thousand seeds would fill the machine's memory.
            hosts.nodes.values().for_each(|node| hosts.handle.kill(*node));
            driver.abort();
            return stage;
        }
        madsim::time::sleep(scene.tick).await;
    }
}

/// Madsim draws evenly, turmoil mostly near the least: a third of the range makes the same mean.
fn latency(most: Duration) -> std::ops::Range<Duration> {
    let least = Duration::from_millis(1);
    least..(most / 3).max(least + least)
}

fn primitives(ip: IpAddr, machine: &Machine, wires: &Arc<Wires>, timers: &Arc<Timers>) -> Primitives {
    let time: Arc<dyn Time> = Arc::new(MadsimTime(timers.clone()));
    let net = MadsimNet::new(ip, &machine.name, wires.clone(), time.clone());
    Primitives { time, net: Arc::new(net), spawn }
}

fn spawn(task: BoxTask) -> Box<dyn Abort> {
    Box::new(MadsimTask(madsim::task::spawn(task).abort_handle()))
}

struct MadsimTask(madsim::task::AbortHandle);

impl Abort for MadsimTask {
    fn abort(&self) {
        self.0.abort();
    }
}

struct MadsimHosts {
    handle: Handle,
    net: Arc<NetSim>,
    nodes: BTreeMap<IpAddr, NodeId>,
}

impl Hosts for MadsimHosts {
    fn crash(&mut self, host: IpAddr) {
        self.handle.kill(self.nodes[&host]);
    }

    fn start(&mut self, host: IpAddr) {
        self.handle.restart(self.nodes[&host]);
    }

    fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.net.clog_link(self.nodes[&from], self.nodes[&to]);
    }

    fn heal(&mut self, from: IpAddr, to: IpAddr) {
        self.net.unclog_link(self.nodes[&from], self.nodes[&to]);
    }

    fn set_latency(&mut self, most: Duration) {
        self.net.update_config(|config| config.send_latency = latency(most));
    }
}
