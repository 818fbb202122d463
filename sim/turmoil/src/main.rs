//! The simulator on turmoil: hosts with a tokio runtime each, whose time is paused, and TCP between them.
//!
//! `det` makes a thread deterministic; `net` is `quorate::world::Network` over turmoil's TCP. Everything else that a run
//! needs is the library's.

mod det;
mod net;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate::world::{Abort, BoxTask, Sleep};
use quorate_sim::cluster::Hosts;
use quorate_sim::engine::{Engine, Primitives, Time};
use quorate_sim::scene::Scene;
use quorate_sim::server;
use quorate_sim::stage::Stage;
use quorate_sim::trace;
use quorate_sim::wires::Wires;
use quorate_sim::world::Machine;

use crate::net::TurmoilNet;

/// With libc's a run takes an eighth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate_sim::cli::main::<Turmoil>()
}

struct Turmoil;

impl Engine for Turmoil {
    const NAME: &'static str = "turmoil";

    fn enter(seed: u64) {
        det::enter(seed);
    }

    fn run(scene: &Scene) -> Result<Stage, String> {
        run(scene)
    }

    fn now() -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(trace::step_time)
    }
}

fn run(scene: &Scene) -> Result<Stage, String> {
    let names: Vec<String> = scene.hosts();
    let mut sim = turmoil::Builder::new()
        .rng_seed(scene.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        // The scene decides when it is over.
        .simulation_duration(Duration::from_secs(1_000_000))
        .tick_duration(scene.tick)
        .min_message_latency(scene.latency.min(Duration::from_millis(1)))
        .max_message_latency(scene.latency)
        // A full queue panics, and ports are never scarce.
        .tcp_capacity(4096)
        .ephemeral_ports(10_000..=65_535)
        .enable_random_order()
        .build();
    let ips: Vec<IpAddr> = names.iter().map(|name| sim.lookup(name.as_str())).collect();
    let mut stage = Stage::set(scene, &ips);
    let wires = stage.cluster.wires();
    for server in stage.servers.clone() {
        let wires = wires.clone();
        sim.host(server.ip, move || {
            let (server, wires) = (server.clone(), wires.clone());
            async move {
                let engine = primitives(server.ip, &server.machine, &wires);
                server::process(server, engine).await;
                Ok(())
            }
        });
    }
    for (ip, plays) in stage.sites() {
        let wires = wires.clone();
        sim.client(ip, async move {
            for (machine, play) in plays {
                let engine = primitives(ip, &machine, &wires);
                let world = machine.boot(engine.clone());
                spawn(Box::pin(machine.gate.guard(engine.time, play(world))));
            }
            // The host is there as long as the run.
            std::future::pending().await
        });
    }
    let mut hosts = TurmoilHosts { sim };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        loop {
            let now = hosts.sim.elapsed();
            det::set_now(now);
            trace::step(now);
            if stage.step(&mut hosts, now) {
                return Ok(());
            }
            hosts.sim.step().map_err(|error| error.to_string())?;
        }
    }));
    if outcome.is_err() {
        // What the panic left behind may panic again when it is dropped, and that would end the process.
        std::mem::forget(hosts);
        return Err("panicked".into());
    }
    outcome.unwrap_or(Ok(())).map(|()| stage)
}

fn primitives(ip: IpAddr, machine: &Machine, wires: &Arc<Wires>) -> Primitives {
    let time: Arc<dyn Time> = Arc::new(TokioTime { at: trace::step_time(), then: tokio::time::Instant::now() });
    let net = TurmoilNet::new(ip, &machine.name, wires.clone(), time.clone());
    Primitives { time, net: Arc::new(net), spawn }
}

/// On the host's `LocalSet`: it keeps tasks in one list, so a crash drops them in the same order in every run. Tokio's
/// other tasks are kept in shards, by an id that counts through the process.
#[expect(clippy::disallowed_methods, reason = "this is where a world's tasks come from")]
fn spawn(task: BoxTask) -> Box<dyn Abort> {
    Box::new(LocalTask(tokio::task::spawn_local(task).abort_handle()))
}

struct LocalTask(tokio::task::AbortHandle);

impl Abort for LocalTask {
    fn abort(&self) {
        self.0.abort();
    }
}

/// Paused tokio time, which begins anew with each start of a host.
struct TokioTime {
    at: Duration,
    then: tokio::time::Instant,
}

impl Time for TokioTime {
    fn elapsed(&self) -> Duration {
        self.at + tokio::time::Instant::now().saturating_duration_since(self.then)
    }

    #[expect(clippy::disallowed_methods, reason = "this is where a world's sleep comes from")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct TurmoilHosts<'a> {
    sim: turmoil::Sim<'a>,
}

impl Hosts for TurmoilHosts<'_> {
    fn crash(&mut self, host: IpAddr) {
        self.sim.crash(host);
    }

    fn start(&mut self, host: IpAddr) {
        self.sim.bounce(host);
    }

    fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.sim.partition_oneway(from, to);
    }

    fn heal(&mut self, from: IpAddr, to: IpAddr) {
        self.sim.repair_oneway(from, to);
    }

    fn set_latency(&mut self, most: Duration) {
        self.sim.set_max_message_latency(most);
    }
}
