//! A run while it runs: the servers, the clients on their sites, and what goes wrong.
//!
//! [`Stage::set`] makes the machines; an engine starts the servers and what [`Stage::sites`] says, and calls
//! [`Stage::step`] before each step of its own.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate::world::World;

use crate::cluster::{Cluster, Hosts};
use crate::observer;
use crate::player::{Player, Role};
use crate::rng::Rng;
use crate::scene::Scene;
use crate::server::Server;
use crate::workload::{Phase, Shared, counters, kv, locks, operator, streams, tenants, waits};
use crate::world::{Machine, hold};

/// How long calm may last before the run is ended: the observer should have ended it long before.
const PATIENCE: Duration = Duration::from_secs(300);

/// How soon after all clients have hung up the network repeats what it lost.
const GOODBYES: Duration = Duration::from_secs(3);

/// What is on the stage.
pub struct Stage {
    /// What the seed drew.
    pub scene: Scene,
    /// The servers.
    pub servers: Vec<Arc<Server>>,
    /// What is wrong with them.
    pub cluster: Cluster,
    /// What the clients saw.
    pub shared: Arc<Shared>,
    /// Why the run was ended before its time.
    pub violation: Option<String>,
    /// Operations that began in the storm.
    pub in_storm: usize,
    /// Virtual time.
    pub ended: Duration,
    sites: Vec<Site>,
    /// When the network repeats what it lost, once it is quiet; and whether it has.
    goodbyes: Option<Duration>,
    repeated: bool,
}

/// A host of clients.
#[derive(Clone)]
pub struct Site {
    /// Its address.
    pub ip: IpAddr,
    /// The clients there, each on a machine of its own as far as clocks and pauses go.
    pub players: Vec<(Arc<Machine>, Player)>,
}

/// What a client does.
pub type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The same, before it has a world.
pub type Play = Box<dyn FnOnce(World) -> Life>;

/// What an engine starts on one host: its address, and the machines and what runs on them.
pub type Start = (IpAddr, Vec<(Arc<Machine>, Play)>);

impl Stage {
    /// Sets a scene up on hosts with these addresses, in the order of [`Scene::hosts`].
    pub fn set(scene: &Scene, ips: &[IpAddr]) -> Self {
        let machine = |name: &str| Machine::new(scene.seed, name);
        let machines: Vec<Arc<Machine>> = scene.hosts()[..scene.servers()].iter().map(|name| machine(name)).collect();
        // Up to ρ = 1 % either way.
        let drift = |machine: &Machine| {
            let ppm = Rng::named(scene.seed, &format!("{}/drift", machine.name)).between(0, 20_000) as i64 - 10_000;
            machine.drift.set_rate(ppm);
        };
        for machine in &machines {
            drift(machine);
            machine.gate.set_jitter(scene.jitter);
            machine.gate.set_late(scene.late);
        }
        let (of_servers, of_sites) = ips.split_at(scene.servers());
        let mut sites: Vec<Site> = of_sites.iter().map(|ip| Site { ip: *ip, players: Vec::new() }).collect();
        for player in scene.cast() {
            let machine = machine(&player.to_string());
            if player.role == Role::Locker {
                drift(&machine);
            }
            let staff = matches!(player.role, Role::Operator | Role::Observer);
            let site = if staff { sites.len() - 1 } else { player.number as usize % scene.sites };
            sites[site].players.push((machine, player));
        }
        let servers = Server::all(&machines, of_servers, &scene.setup);
        let shared = Shared::new(servers.iter().map(|server| server.http_addr()).collect());
        Stage {
            cluster: Cluster::new(
                servers.clone(),
                sites.clone(),
                scene.draw.plan.clone(),
                shared.clone(),
                scene.latency,
            ),
            scene: scene.clone(),
            servers,
            shared,
            sites,
            violation: None,
            goodbyes: None,
            repeated: false,
            in_storm: 0,
            ended: Duration::ZERO,
        }
    }

    /// The clients' hosts.
    pub fn sites(&self) -> Vec<Start> {
        let plays = |site: &Site| {
            let plays = site.players.iter().map(|(machine, player)| (machine.clone(), self.play(machine, *player)));
            (site.ip, plays.collect())
        };
        self.sites.iter().map(plays).collect()
    }

    fn play(&self, machine: &Arc<Machine>, player: Player) -> Play {
        let Scene { seed, mix, locks, counters, .. } = self.scene.clone();
        let (machine, shared, servers) = (machine.clone(), self.shared.clone(), self.servers.clone());
        Box::new(move |world| {
            let mut rng = Rng::named(seed, &format!("{player}/choices"));
            let all = shared.clone();
            let life: Life = match player.role {
                Role::Client => Box::pin(kv::client(player, world, shared, mix, rng)),
                Role::Locker => Box::pin(locks::locker(player, world, machine, shared, locks, rng)),
                Role::Watcher => {
                    let name = rng.pick(&mix.names()).clone();
                    Box::pin(waits::watcher(player, world, shared, name, rng))
                }
                Role::Counter => Box::pin(counters::client(player, world, shared, counters, rng)),
                Role::Reader => Box::pin(streams::reader(player, world, shared, rng)),
                Role::Tenant => Box::pin(tenants::tenant(player, world, shared, rng)),
                Role::Operator => Box::pin(operator::run(player, world, shared, servers, mix.names(), rng)),
                Role::Observer => {
                    return Box::pin(observer::observe(player, world, shared, servers, mix.names(), locks));
                }
            };
            Box::pin(async move { all.until_quiet(life).await })
        })
    }

    /// Does what is due before the engine's next step; returns whether the run is over.
    pub fn step(&mut self, hosts: &mut dyn Hosts, now: Duration) -> bool {
        self.ended = now;
        self.cluster.step(hosts, now);
        if self.shared.phase() == Phase::Storm && now >= self.scene.span {
            crate::event!("calm", "");
            self.cluster.calm(hosts, now);
            self.in_storm = hold(&self.shared.history).history().operations().len();
            self.shared.enter(Phase::Calm);
        }
        if self.shared.phase() == Phase::Quiet
            && now > *self.goodbyes.get_or_insert(now + GOODBYES)
            && !std::mem::replace(&mut self.repeated, true)
        {
            self.cluster.repeat_goodbyes();
        }
        self.violation = self.cluster.violation.take();
        if now > self.scene.span + PATIENCE {
            self.violation = Some("the observer does not come to an end".into());
        }
        self.violation.is_some() || self.shared.phase() == Phase::Over
    }
}
