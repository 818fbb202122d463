//! One run: what the seed drew, the scene on the stage, and what became of it.
//!
//! First a storm: clients work, and the nemesis does what it planned. Then calm: nothing goes wrong any more, the clients
//! have stopped, and the servers must come together. Then the checkers look at all that was seen.
//!
//! Start with [`run`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate::world::World;

use crate::check;
use crate::cluster::{Cluster, Hosts};
use crate::engine::Engine;
use crate::nemesis::{Draw, Kind};
use crate::observer;
use crate::rng::Rng;
use crate::server::{Server, Setup};
use crate::trace;
use crate::workload::kv::{self, Mix};
use crate::workload::{Phase, Shared, locks, operator, tenants, waits};
use crate::world::{Machine, hold};

/// How long calm may last before the run is ended: the observer should have ended it long before.
const PATIENCE: Duration = Duration::from_secs(300);

/// Stack of a run's thread, in bytes: the futures of a whole server are polled on it.
const STACK: usize = 16 << 20;

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Servers; drawn if not said.
    pub nodes: Option<usize>,
    /// Virtual time of the storm; drawn if not said.
    pub span: Option<Duration>,
    /// Kinds of faults that may happen.
    pub faults: BTreeSet<Kind>,
}

/// What the seed drew.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The seed.
    pub seed: u64,
    /// Servers that found the cluster.
    pub nodes: usize,
    /// Servers that may join it later.
    pub spare: usize,
    /// How often servers shorten their log, and what they keep of it.
    pub setup: Setup,
    /// Virtual time of the storm.
    pub span: Duration,
    /// The engine's step: how coarse the network's time is.
    pub tick: Duration,
    /// Longest latency of a message, while nothing is wrong with the network.
    pub latency: Duration,
    /// Of a thousand polls of servers' tasks, how many let others go first.
    pub jitter: u64,
    /// What goes wrong.
    pub draw: Draw,
    /// What the clients do.
    pub mix: Mix,
    /// What the lockers do.
    pub locks: locks::Mix,
    /// Clients that follow a register.
    pub watchers: u32,
    /// Clients whose sessions live by checks.
    pub tenants: u32,
}

impl Scene {
    /// Draws a scene.
    pub fn draw(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::named(seed, "scene");
        let (drawn_nodes, drawn_span) =
            (DRAWN_NODES[rng.below(DRAWN_NODES.len() as u64) as usize], rng.between(15, 45));
        let nodes = options.nodes.unwrap_or(drawn_nodes);
        let span = options.span.unwrap_or(Duration::from_secs(drawn_span));
        let mut logs = Rng::named(seed, "logs");
        let often = logs.chance(700);
        let spare = logs.below(2) as usize;
        let setup = Setup {
            founders: nodes,
            checkpoint_every: Duration::from_millis(logs.between(200, if often { 3_000 } else { 60_000 })),
            trailing: logs.between(1, if often { 100 } else { 10_000 }),
        };
        Scene {
            seed,
            nodes,
            spare,
            setup,
            span,
            tick: Duration::from_millis(*rng.pick(&[2, 3, 5, 10])),
            latency: Duration::from_millis(rng.between(2, 25)),
            jitter: if rng.chance(500) { rng.below(300) } else { 0 },
            draw: Draw::new(seed, nodes + spare, spare, span, &options.faults),
            mix: Mix::draw(seed),
            locks: locks::Mix::draw(seed),
            watchers: Rng::named(seed, "watchers").between(1, 3) as u32,
            tenants: Rng::named(seed, "tenants").below(3) as u32,
        }
    }

    /// All servers.
    pub fn servers(&self) -> usize {
        self.nodes + self.spare
    }

    /// The hosts' names: servers, clients, lockers, watchers, tenants, the operator, the observer.
    pub fn names(&self) -> Vec<String> {
        let servers = (1..=self.servers()).map(|number| format!("n{number}"));
        let clients = (1..=self.mix.clients).map(|number| format!("c{number}"));
        let lockers = (1..=self.locks.lockers).map(|number| format!("l{number}"));
        let watchers = (1..=self.watchers).map(|number| format!("w{number}"));
        let tenants = (1..=self.tenants).map(|number| format!("t{number}"));
        let rest = ["op".into(), "obs".into()];
        servers.chain(clients).chain(lockers).chain(watchers).chain(tenants).chain(rest).collect()
    }

    /// Sets the scene up on hosts with these addresses, in the order of [`Self::names`].
    pub fn stage(&self, ips: &[IpAddr]) -> Stage {
        let machines: Vec<Arc<Machine>> = self.names().iter().map(|name| Machine::new(self.seed, name)).collect();
        let count = self.servers();
        let mut rng = Rng::named(self.seed, "machines");
        // Up to ρ = 1 % either way.
        let mut drift = |machine: &Machine| machine.drift.set_rate(rng.between(0, 20_000) as i64 - 10_000);
        for machine in &machines[..count] {
            drift(machine);
            machine.gate.set_jitter(self.jitter);
        }
        for machine in machines.iter().filter(|machine| machine.name.starts_with('l')) {
            drift(machine);
        }
        let servers = Server::all(&machines[..count], &ips[..count], &self.setup);
        let shared = Shared::new(servers.iter().map(|server| server.http_addr()).collect());
        let (plan, errands) = (self.draw.plan.clone(), shared.errands.clone());
        Stage {
            scene: self.clone(),
            cluster: Cluster::new(servers.clone(), ips.to_vec(), plan, errands, self.latency),
            shared,
            clients: ips.iter().copied().zip(machines).skip(count).collect(),
            servers,
            violation: None,
            in_storm: 0,
            ended: Duration::ZERO,
        }
    }
}

/// Cluster sizes, as often as they are to be drawn.
const DRAWN_NODES: &[usize] = &[1, 3, 3, 5];

/// A run while it runs.
pub struct Stage {
    scene: Scene,
    /// The servers.
    pub servers: Vec<Arc<Server>>,
    cluster: Cluster,
    shared: Arc<Shared>,
    clients: Vec<(IpAddr, Arc<Machine>)>,
    violation: Option<String>,
    in_storm: usize,
    ended: Duration,
}

/// What runs on a client host, given its world.
pub type Client = Box<dyn FnOnce(World) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

impl Stage {
    /// The client hosts: address, machine, and what runs there.
    pub fn clients(&self) -> Vec<(IpAddr, Arc<Machine>, Client)> {
        let last = self.clients.len() - 1;
        let each = self.clients.iter().enumerate().map(|(number, (ip, machine))| {
            let (shared, mix, seed) = (self.shared.clone(), self.scene.mix.clone(), self.scene.seed);
            let (locks, machine_of) = (self.scene.locks.clone(), machine.clone());
            let (servers, id) = (self.servers.clone(), number as u32 + 1);
            let client: Client = if number == last {
                Box::new(move |world| Box::pin(observer::observe(id, world, shared, servers, mix.names(), locks)))
            } else if number == last - 1 {
                let rng = Rng::named(seed, "operator");
                Box::new(move |world| Box::pin(operator::run(world, shared, servers, rng)))
            } else if id > mix.clients + locks.lockers + self.scene.watchers {
                let rng = Rng::named(seed, &format!("tenant/{id}"));
                Box::new(move |world| Box::pin(tenants::tenant(id, world, shared, rng)))
            } else if id > mix.clients + locks.lockers {
                let mut rng = Rng::named(seed, &format!("watcher/{id}"));
                let name = rng.pick(&mix.names()).clone();
                Box::new(move |world| Box::pin(waits::watcher(id, world, shared, name, rng)))
            } else if id > mix.clients {
                let rng = Rng::named(seed, &format!("locker/{id}"));
                Box::new(move |world| Box::pin(locks::locker(id, world, machine_of, shared, locks, rng)))
            } else {
                let rng = Rng::named(seed, &format!("client/{id}"));
                Box::new(move |world| Box::pin(kv::client(id, world, shared, mix, rng)))
            };
            (*ip, machine.clone(), client)
        });
        each.collect()
    }

    /// Does what is due before the engine's next step; returns whether the run is over.
    pub fn step(&mut self, hosts: &mut dyn Hosts, now: Duration) -> bool {
        self.ended = now;
        self.cluster.step(hosts, now);
        if self.shared.phase() == Phase::Storm && now >= self.scene.span {
            crate::event!("calm", "");
            self.cluster.calm(hosts);
            self.in_storm = hold(&self.shared.history).history().operations().len();
            self.shared.enter(Phase::Calm);
        }
        self.violation = self.cluster.violation.take();
        if now > self.scene.span + PATIENCE {
            self.violation = Some("the observer does not come to an end".into());
        }
        self.violation.is_some() || self.shared.phase() == Phase::Over
    }
}

/// Operations of clients, counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Operations {
    /// All of them.
    pub all: usize,
    /// Those that were answered.
    pub answered: usize,
    /// Those that began in the storm.
    pub in_storm: usize,
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the seed drew.
    pub scene: Scene,
    /// Hash and number of the trace's events: the same for the same seed, always.
    pub trace: (u64, u64),
    /// Virtual time.
    pub time: Duration,
    /// What clients did with registers.
    pub operations: Operations,
    /// Holds of locks, and writes fenced by them.
    pub locks: (usize, usize),
    /// Faults that came to pass.
    pub faults: BTreeMap<Kind, u64>,
    /// A line for each.
    pub lines: Vec<String>,
    /// How long calm took to bring the servers together.
    pub together_after: Option<Duration>,
    /// Starts of servers.
    pub boots: u32,
    /// The checkers' verdicts.
    pub checks: check::Report,
    /// What was wrong, each with its name: none, if all is well.
    pub violations: Vec<(&'static str, String)>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of runs are violations, and say nothing by themselves.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if std::env::var_os("SIM_BACKTRACE").is_some() {
            eprintln!("{text}\n{}", std::backtrace::Backtrace::force_capture());
        }
        // The first one counts: others follow from it.
        PANIC.with_borrow_mut(|panic| {
            panic.get_or_insert(text);
        });
    }));
}

/// Runs a seed, on a thread of its own.
///
/// # Panics
/// If the operating system gives no thread.
pub fn run<E: Engine>(
    seed: u64,
    options: &Options,
    sink: impl FnOnce() -> Option<trace::Sink> + Send + 'static,
) -> Report {
    let scene = Scene::draw(seed, options);
    let on_thread = scene.clone();
    // A fresh thread: std counts the keys of its hash maps up per thread.
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK).spawn(move || {
        E::enter(seed);
        trace::start(sink(), E::now);
        let outcome = E::run(&on_thread);
        let trace = trace::finish();
        (outcome.map(|stage| report(stage, trace)), PANIC.take())
    });
    let (outcome, panic) = match thread.expect("a thread").join() {
        Ok((outcome, panic)) => (outcome, panic),
        Err(_) => (Err("the engine's thread panicked".into()), None),
    };
    let mut report = outcome.unwrap_or_else(|error| failed(scene, error));
    if let Some(panic) = panic {
        report.violations.insert(0, ("panic", panic));
    }
    report
}

fn report(stage: Stage, trace: (u64, u64)) -> Report {
    let history = hold(&stage.shared.history).history().clone();
    let observations = std::mem::take(&mut *hold(&stage.shared.observations));
    let book = std::mem::take(&mut *hold(&stage.shared.book));
    let checks = check::run(&history, &book, &observations.views, check::linear::BUDGET);
    let mut violations: Vec<(&'static str, String)> = Vec::new();
    violations.extend(stage.violation.map(|text| ("process", text)));
    violations.extend(observations.violation.map(|text| ("liveness", text)));
    let contradictions = std::mem::take(&mut *hold(&stage.shared.contradictions));
    violations.extend(contradictions.into_iter().map(|(id, text)| ("contradiction", format!("{id}: {text}"))));
    violations.extend(checks.violations().map(|(checker, violation)| (checker, violation.to_string())));
    let operations = history.operations();
    // Tasks and their worlds hold each other, and an engine may not drop them all: what is large is let go of here.
    stage.servers.iter().for_each(|server| server.replace_machine());
    Report {
        trace,
        time: stage.ended,
        operations: Operations {
            all: operations.len(),
            answered: operations.iter().filter(|operation| operation.end.is_some()).count(),
            in_storm: stage.in_storm,
        },
        locks: (book.claims.len(), book.writes.len()),
        faults: stage.cluster.happened,
        lines: stage.cluster.lines,
        together_after: observations.together_after,
        boots: stage.servers.iter().map(|server| server.machine.boots()).sum(),
        checks,
        violations,
        scene: stage.scene,
    }
}

/// A run that the engine could not finish.
fn failed(scene: Scene, error: String) -> Report {
    Report {
        scene,
        trace: (0, 0),
        time: Duration::ZERO,
        operations: Operations::default(),
        locks: (0, 0),
        faults: BTreeMap::new(),
        lines: Vec::new(),
        together_after: None,
        boots: 0,
        checks: check::Report::default(),
        violations: vec![("engine", error)],
    }
}
