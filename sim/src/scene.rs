//! What a seed draws before a run: servers, hosts, clients, faults.
//!
//! Everything that differs between two runs is in a [`Scene`], so it can be printed, set by hand, and cut down. Who plays in
//! it is its [cast](Scene::cast). Start with [`Scene::draw`].

use std::collections::BTreeSet;
use std::time::Duration;

use quorate::limits;

use clap::ValueEnum;

use crate::nemesis::{Draw, Kind, Size};
use crate::player::{Player, Role};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::server::Setup;
use crate::workload::kv::Mix;
use crate::workload::{counters, locks};

/// Cluster sizes, as often as they are to be drawn.
const DRAWN_NODES: &[usize] = &[1, 3, 3, 5];

/// What a person asked for. What is not said here, the seed draws; and it draws the same whatever is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The kind of run: its own choice of faults and clients.
    pub scenario: Option<&'static Scenario>,
    /// Servers.
    pub nodes: Option<usize>,
    /// Virtual time of the storm.
    pub span: Option<Duration>,
    /// Kinds of faults that may happen.
    pub faults: BTreeSet<Kind>,
    /// Of the faults that were drawn, the places of those that happen.
    pub only: Option<BTreeSet<usize>>,
    /// Clients that do nothing, by name.
    pub without: BTreeSet<String>,
    /// How many operations each client of registers runs at most.
    pub most: Option<u32>,
    /// The longest pause between two of them, in milliseconds.
    pub pause: Option<u64>,
    /// The bug that `cargo sim` planted into this build. A run does not ask: it is for the command that replays it.
    pub sabotage: Option<String>,
}

impl Options {
    /// Nothing is asked for: the seed draws all of it.
    pub fn of_everything() -> Self {
        Options {
            scenario: None,
            nodes: None,
            span: None,
            faults: Kind::value_variants().iter().copied().collect(),
            only: None,
            without: BTreeSet::new(),
            most: None,
            pause: None,
            sabotage: None,
        }
    }

    /// The command that runs this on an engine.
    pub fn command(&self, engine: &str, seed: u64) -> String {
        format!("cargo sim --engine {engine} {}", self.arguments(seed).join(" "))
    }

    /// The arguments that make an engine's own command line run this.
    pub fn arguments(&self, seed: u64) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        };
        add("--sabotage", self.sabotage.clone());
        add("--seed", Some(seed.to_string()));
        let list = |items: Vec<String>| Some(items.join(",")).filter(|list| !list.is_empty());
        add("--scenario", self.scenario.map(|scenario| scenario.name.into()));
        add("--nodes", self.nodes.map(|nodes| nodes.to_string()));
        add("--secs", self.span.map(|span| span.as_secs_f64().to_string()));
        let nothing = self.faults.is_empty() || self.only.as_ref().is_some_and(BTreeSet::is_empty);
        if self.faults.len() < Kind::value_variants().len() && !nothing {
            add("--faults", list(self.faults.iter().map(Kind::to_string).collect()));
        }
        if let Some(only) = self.only.as_ref().filter(|_| !nothing) {
            add("--only", list(only.iter().map(usize::to_string).collect()));
        }
        add("--without", list(self.without.iter().cloned().collect()));
        add("--most", self.most.map(|most| most.to_string()));
        add("--pause", self.pause.map(|pause| pause.to_string()));
        arguments.extend(nothing.then(|| "--no-faults".into()));
        arguments
    }
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
    /// How long half of the servers' new tasks may wait before they begin.
    pub late: Option<Duration>,
    /// What goes wrong.
    pub draw: Draw,
    /// What the clients do.
    pub mix: Mix,
    /// What the lockers do.
    pub locks: locks::Mix,
    /// What is counted under locks.
    pub counters: counters::Mix,
    /// Clients that follow a register.
    pub watchers: u32,
    /// Clients that read the event stream.
    pub readers: u32,
    /// Clients whose sessions live by checks.
    pub tenants: u32,
    /// Hosts that the clients share. A host costs an engine time at every step, whatever runs on it.
    pub sites: usize,
    /// Whether operator and observer have a host of their own, to which nothing happens, or share the last site.
    pub headquarters: bool,
    /// Clients that do nothing, by name.
    pub without: BTreeSet<String>,
    /// The kind of run, if it is one with a name.
    pub scenario: Option<&'static Scenario>,
}

impl Scene {
    /// Draws a scene.
    pub fn draw(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::named(seed, "scene");
        let (drawn_nodes, drawn_span) =
            (DRAWN_NODES[rng.below(DRAWN_NODES.len() as u64) as usize], rng.between(15, 45));
        let mut swarm = Rng::named(seed, "scenario");
        let drawn = swarm.chance(400).then(|| *swarm.pick(&Scenario::drawn()));
        let scenario = options.scenario.or(drawn);
        let nodes = options.nodes.or(scenario.and_then(|scenario| scenario.nodes)).unwrap_or(drawn_nodes);
        let span = options.span.unwrap_or(Duration::from_secs(drawn_span));
        let mut logs = Rng::named(seed, "logs");
        let often = logs.chance(700);
        let spare = logs.below(2) as usize;
        let setup = Setup {
            founders: nodes,
            checkpoint_every: Duration::from_millis(logs.between(200, if often { 3_000 } else { 60_000 })),
            trailing: logs.between(1, if often { 100 } else { 10_000 }),
            history: if logs.chance(400) { logs.between(20, 400) } else { limits::HISTORY_REVISIONS },
        };
        let mut scene = Scene {
            seed,
            nodes,
            spare,
            setup,
            span,
            tick: Duration::from_millis(*rng.pick(&[2, 3, 5, 10])),
            latency: Duration::from_millis(rng.between(2, 25)),
            jitter: if rng.chance(500) { rng.below(300) } else { 0 },
            late: None,
            draw: Draw::default(),
            mix: Mix::draw(seed),
            locks: locks::Mix::draw(seed),
            counters: counters::Mix::draw(seed),
            watchers: Rng::named(seed, "watchers").between(1, 3) as u32,
            readers: Rng::named(seed, "readers").below(3) as u32,
            tenants: Rng::named(seed, "tenants").below(3) as u32,
            sites: Rng::named(seed, "sites").between(1, 3) as usize,
            headquarters: true,
            without: options.without.clone(),
            scenario,
        };
        scene.mix.most = options.most;
        if let Some(scenario) = scenario {
            (scenario.shape)(&mut scene);
        }
        scene.mix.pause = options.pause.map_or(scene.mix.pause, Duration::from_millis);
        let mut faults = options.faults.clone();
        faults.retain(|kind| scenario.is_none_or(|scenario| scenario.faults.contains(kind)));
        scene.draw = Draw::new(seed, &scene.size(), span, &faults, scenario.is_some_and(Scenario::is_focused));
        if let Some(scenario) = scenario {
            (scenario.aim)(&mut scene.draw.plan, scene.nodes + scene.spare);
            scene.draw.end_by(span);
        }
        if let Some(only) = &options.only {
            scene.draw.keep(only);
        }
        scene
    }

    /// How many hosts of each kind there are.
    fn size(&self) -> Size {
        Size { founders: self.nodes, servers: self.servers(), sites: self.sites }
    }

    /// All servers.
    pub fn servers(&self) -> usize {
        self.nodes + self.spare
    }

    /// The hosts' names: servers, the clients' sites, headquarters.
    pub fn hosts(&self) -> Vec<String> {
        let servers = (1..=self.servers()).map(|number| format!("n{number}"));
        let sites = (1..=self.sites).map(|number| format!("s{number}"));
        servers.chain(sites).chain(self.headquarters.then(|| "hq".into())).collect()
    }

    /// The clients. Operator and observer come last.
    pub fn cast(&self) -> Vec<Player> {
        let roles = [
            (Role::Client, self.mix.clients),
            (Role::Locker, self.locks.lockers),
            (Role::Watcher, self.watchers),
            (Role::Reader, self.readers),
            (Role::Counter, self.counters.clients),
            (Role::Tenant, self.tenants),
            (Role::Operator, 1),
            (Role::Observer, 1),
        ];
        let all = roles.into_iter().flat_map(|(role, count)| (1..=count).map(move |nth| (role, nth)));
        let cast = all.zip(1..).map(|((role, nth), number)| Player { number, role, nth });
        cast.filter(|player| !self.without.contains(&player.to_string())).collect()
    }
}
