//! The servers of a run: started, stopped, cut off, replaced and started again.
//!
//! [`Cluster`] carries out faults on whatever engine runs the hosts. It knows what is wrong at any time, so a server that
//! ends without a reason is a violation. What only the cluster itself can do, such as removing a server, it leaves to the
//! [operator](crate::workload::operator), a client.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::event;
use crate::nemesis::{Fault, Host, Kind, Nemesis, Planned, Step};
use crate::server::{Exit, Server};
use crate::stage::Site;
use crate::wires::{Which, Wires};
use crate::workload::Shared;
use crate::world::disk::{Damage, DiskFaults};
use crate::world::{Machine, hold};

/// How soon a supervisor starts a process again that ended by itself.
pub const RESPAWN: Duration = Duration::from_millis(1000);

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
}

/// Something that went wrong, or a process that ended.
#[derive(Debug, Clone)]
pub struct Happening {
    /// When.
    pub at: Duration,
    /// When it is set right, if it lasts.
    pub until: Option<Duration>,
    /// What.
    pub what: String,
}

impl Happening {
    fn words(&self) -> String {
        let lasts = |until: Duration| format!(" for {:.3}s", until.saturating_sub(self.at).as_secs_f64());
        format!("{}{}", self.what, self.until.map(lasts).unwrap_or_default())
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}  {}", self.at.as_secs_f64(), self.words())
    }
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
    /// Whether a server's disk was damaged, and its process has not been started on it since.
    damaged: Vec<bool>,
    sites: Vec<Site>,
    wires: Arc<Wires>,
    cuts: BTreeMap<(IpAddr, IpAddr), u32>,
    nemesis: Nemesis,
    shared: Arc<Shared>,
    usual_latency: Duration,
    /// Faults that came to pass, by kind.
    pub happened: BTreeMap<Kind, u64>,
    /// What happened, in order.
    pub happenings: Vec<Happening>,
    /// A server that ended without a reason.
    pub violation: Option<String>,
}

impl Cluster {
    /// Servers that have just been started, and the sites of their clients.
    pub fn new(
        servers: Vec<Arc<Server>>,
        sites: Vec<Site>,
        plan: Vec<Planned>,
        shared: Arc<Shared>,
        usual_latency: Duration,
    ) -> Self {
        let status = |server: &Arc<Server>| if server.enlisted() { Status::Up } else { Status::Down(Duration::MAX) };
        Cluster {
            status: servers.iter().map(status).collect(),
            excused: vec![false; servers.len()],
            damaged: vec![false; servers.len()],
            wires: Arc::new(Wires::new(servers.iter().map(|server| server.ip))),
            servers,
            sites,
            shared,
            cuts: BTreeMap::new(),
            nemesis: Nemesis::new(plan),
            usual_latency,
            happened: BTreeMap::new(),
            happenings: Vec::new(),
            violation: None,
        }
    }

    /// What all connections go through.
    pub fn wires(&self) -> Arc<Wires> {
        self.wires.clone()
    }

    /// Does what is due before the engine's next step.
    pub fn step(&mut self, hosts: &mut dyn Hosts, now: Duration) {
        // Before a fault ends, so that a server that fails in its last step has its excuse.
        (0..self.servers.len()).for_each(|node| self.excuse(node));
        for Machine { name, checkpoint, .. } in self.servers.iter().map(|server| &*server.machine) {
            if let Some((before, after)) = checkpoint.fell() {
                let text = format!("R2: {name}'s checkpoint went back, from entry {before} to {after}");
                self.violation.get_or_insert(text);
            }
        }
        self.wires.step(now);
        let leader = || leader(&self.shared, &self.servers);
        for step in self.nemesis.due(now, self.servers.len(), leader) {
            match step {
                Step::Begin(fault, until) => self.begin(hosts, now, &fault, until),
                Step::End(fault) => self.end(hosts, now, &fault),
            }
        }
        for fault in self.shared.errands.take_done() {
            self.carry_out(hosts, now, &fault);
        }
        for node in 0..self.servers.len() {
            self.follow(hosts, now, node);
        }
    }

    /// Sets everything right that is wrong with machines and network. The plan must be over.
    pub fn calm(&mut self, hosts: &mut dyn Hosts, now: Duration) {
        for server in &self.servers {
            server.machine.disk.set_faults(|faults| *faults = Default::default());
            server.machine.checkpoint.set_errors(0);
            server.machine.gate.set_slow(None);
            server.machine.gate.set_late(None);
            server.machine.gate.set_paused(false);
            self.wires.thaw(server.ip, Which::All, now, Duration::ZERO, 0);
        }
        hosts.set_latency(self.usual_latency);
    }

    /// The engines do not send again what was lost, so a server that was cut off may not know that a client has hung up.
    /// Where that can be, all connections end now.
    pub fn repeat_goodbyes(&self) {
        let lossy = [Kind::Partition, Kind::Power, Kind::Brownout, Kind::Replace, Kind::Destroy, Kind::Reset];
        if lossy.iter().any(|kind| self.happened.contains_key(kind)) {
            self.servers.iter().for_each(|server| self.wires.reset(server.ip));
        }
    }

    /// A disk that fails is reason enough for a server to end, until its next start.
    fn excuse(&mut self, node: usize) {
        let faults = self.servers[node].machine.disk.faults();
        self.excused[node] |= faults.errors_per_mille > 0 || faults.full || faults.sync_failed;
    }

    /// The process's end, and its next start.
    fn follow(&mut self, hosts: &mut dyn Hosts, now: Duration, node: usize) {
        let server = self.servers[node].clone();
        self.excuse(node);
        if let Some(exit) = server.take_exit() {
            let again = match self.status[node] {
                Status::Stopping(again) => again,
                _ => now + RESPAWN,
            };
            self.note(now, None, format!("{} ended: {exit}", server.machine.name));
            let refused = self.damaged[node] && exit.refuses_data();
            if let Exit::Failed(error) = &exit
                && !self.excused[node]
                && !refused
            {
                self.violation.get_or_insert(format!("{} ended without cause: {error}", server.machine.name));
            }
            hosts.crash(server.ip);
            server.machine.disk.end_process();
            server.machine.checkpoint.end_process();
            self.status[node] = Status::Down(again);
            if refused {
                // What it says is what the operator does.
                self.damaged[node] = false;
                server.replace_machine();
                self.shared.errands.damage_is_over(true);
            }
        }
        if self.damaged[node] && server.take_ready() {
            self.damaged[node] = false;
            self.shared.errands.damage_is_over(false);
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
        if self.shared.errands.ask(fault) {
            // It has happened when it is done: `carry_out`.
            return;
        }
        self.note(now, Some(until), fault.to_string());
        self.happens(fault);
        let place = fault.place;
        match fault.kind {
            Kind::Power | Kind::Kill => self.drop_process(hosts, place, until, fault.kind),
            Kind::Restart => {
                self.status[place] = Status::Stopping(until);
                self.servers[place].stop();
            }
            Kind::Move => {
                self.servers[place].move_on();
                self.drop_process(hosts, place, until, fault.kind);
            }
            Kind::Partition => fault.cuts.iter().for_each(|(from, to)| self.cut(hosts, *from, *to)),
            Kind::Latency => hosts.set_latency(fault.time()),
            Kind::Reset => self.wires.reset(self.servers[place].ip),
            Kind::Hold => self.wires.hold(self.servers[place].ip, which(fault)),
            Kind::Fsync => self.servers[place].machine.disk.set_faults(|faults| faults.fail_next_sync = true),
            _ => self.set(fault, true),
        }
    }

    /// Sets what has a beginning and an end.
    fn set(&self, fault: &Fault, on: bool) {
        let server = || &self.servers[fault.place];
        let disk = |change: &dyn Fn(&mut DiskFaults)| server().machine.disk.set_faults(|faults| change(faults));
        let (size, time) = (if on { fault.size } else { 0 }, on.then(|| fault.time()));
        match fault.kind {
            Kind::Pause => server().machine.gate.set_paused(on),
            Kind::Slow => server().machine.gate.set_slow(time),
            Kind::Late => server().machine.gate.set_late(time),
            Kind::Sync => disk(&|faults| faults.slow_sync = time.unwrap_or_default()),
            Kind::Stuck | Kind::Brownout => disk(&|faults| faults.stuck = on),
            Kind::Eio => disk(&|faults| faults.errors_per_mille = size.unsigned_abs()),
            Kind::Full => disk(&|faults| faults.full = on),
            Kind::Checkpoint => server().machine.checkpoint.set_errors(size.unsigned_abs()),
            Kind::Clock => server().machine.drift.set_wall(size),
            Kind::Trickle => self.wires.trickle(self.sites[fault.place].ip, time),
            Kind::Freeze => {
                self.sites[fault.place].players.iter().for_each(|(machine, _)| machine.gate.set_paused(on));
            }
            Kind::Power | Kind::Kill | Kind::Restart | Kind::Move | Kind::Partition | Kind::Latency => {}
            Kind::Reset | Kind::Hold | Kind::Fsync | Kind::Rot | Kind::Misdirect | Kind::Transfer => {}
            Kind::Replace | Kind::Destroy | Kind::Grow | Kind::Restore => {}
        }
    }

    /// Whether a fault makes a difference now: a process that does not run cannot be killed.
    fn applies(&self, fault: &Fault) -> bool {
        match fault.kind {
            Kind::Move => self.status[fault.place] == Status::Up && !self.shared.errands.busy(),
            Kind::Kill | Kind::Restart => self.status[fault.place] == Status::Up,
            Kind::Power | Kind::Brownout => !matches!(self.status[fault.place], Status::Down(_)),
            // Nobody leads yet who could be alone.
            Kind::Partition => !fault.cuts.is_empty(),
            _ => true,
        }
    }

    fn end(&mut self, hosts: &mut dyn Hosts, now: Duration, fault: &Fault) {
        match fault.kind {
            Kind::Brownout => {
                if !matches!(self.status[fault.place], Status::Down(_)) {
                    self.drop_process(hosts, fault.place, now + fault.time(), Kind::Power);
                }
                self.set(fault, false);
            }
            Kind::Partition => fault.cuts.iter().for_each(|(from, to)| self.heal(hosts, *from, *to)),
            Kind::Latency => hosts.set_latency(self.usual_latency),
            Kind::Hold => {
                self.wires.thaw(self.servers[fault.place].ip, which(fault), now, fault.apart(), fault.order());
            }
            // Processes that are down are started again when their time has come: see `follow`.
            _ => self.set(fault, false),
        }
    }

    /// What the operator did, or has prepared: a machine is lost and an empty one starts in its place after a while, a disk
    /// is damaged, or a server starts that was not there before.
    fn carry_out(&mut self, hosts: &mut dyn Hosts, now: Duration, fault: &Fault) {
        self.note(now, None, fault.to_string());
        self.happens(fault);
        let place = fault.place;
        match fault.kind {
            Kind::Replace | Kind::Destroy => {
                self.drop_process(hosts, place, now + fault.time(), fault.kind);
                self.servers[place].replace_machine();
            }
            Kind::Rot | Kind::Misdirect => {
                self.drop_process(hosts, place, now + fault.time(), fault.kind);
                let damage = if fault.kind == Kind::Rot { Damage::Rot } else { Damage::Misdirected };
                let what = self.servers[place].machine.disk.damage(damage);
                self.note(now, None, format!("damaged: {}", what.as_deref().unwrap_or("nothing")));
                self.servers[place].take_ready();
                self.damaged[place] = true;
            }
            Kind::Grow => {
                if let Some(spare) = self.servers.iter().position(|server| !server.enlisted()) {
                    self.servers[spare].enlist();
                    self.status[spare] = Status::Down(now);
                }
            }
            _ => {}
        }
    }

    fn happens(&mut self, fault: &Fault) {
        *self.happened.entry(fault.kind).or_default() += 1;
    }

    fn drop_process(&mut self, hosts: &mut dyn Hosts, node: usize, until: Duration, how: Kind) {
        let server = self.servers[node].clone();
        let power = matches!(how, Kind::Power | Kind::Replace | Kind::Destroy);
        // A machine without power says no goodbye: the engine closes the sockets of dropped tasks, so nothing may get out.
        // Its kernel says it when only the process is gone.
        let everyone = self.servers.iter().map(|server| server.ip).chain(self.sites.iter().map(|site| site.ip));
        let others: Vec<IpAddr> = everyone.filter(|ip| power && *ip != server.ip).collect();
        others.iter().for_each(|other| hosts.cut(server.ip, *other));
        hosts.crash(server.ip);
        let healed = others.iter().filter(|other| !self.cuts.contains_key(&(server.ip, **other)));
        healed.for_each(|other| hosts.heal(server.ip, *other));
        server.machine.gate.set_paused(false);
        server.machine.checkpoint.end_process();
        if power {
            server.machine.disk.lose_power();
        } else {
            server.machine.disk.end_process();
        }
        server.take_exit();
        self.status[node] = Status::Down(until);
    }

    fn ip(&self, host: Host) -> IpAddr {
        match host {
            Host::Server(place) => self.servers[place].ip,
            Host::Site(place) => self.sites[place].ip,
        }
    }

    fn cut(&mut self, hosts: &mut dyn Hosts, from: Host, to: Host) {
        let link = (self.ip(from), self.ip(to));
        let cuts = self.cuts.entry(link).or_default();
        *cuts += 1;
        if *cuts == 1 {
            hosts.cut(link.0, link.1);
        }
    }

    fn heal(&mut self, hosts: &mut dyn Hosts, from: Host, to: Host) {
        let link = (self.ip(from), self.ip(to));
        let Some(cuts) = self.cuts.get_mut(&link) else { return };
        *cuts -= 1;
        if *cuts == 0 {
            self.cuts.remove(&link);
            hosts.heal(link.0, link.1);
        }
    }

    fn note(&mut self, at: Duration, until: Option<Duration>, what: String) {
        let happening = Happening { at, until, what };
        event!("fault", "{}", happening.words());
        self.happenings.push(happening);
    }
}

fn which(fault: &Fault) -> Which {
    if fault.is_among_servers() { Which::Servers } else { Which::All }
}

/// Who said last that it leads.
fn leader(shared: &Shared, servers: &[Arc<Server>]) -> Option<usize> {
    let observations = hold(&shared.observations);
    let leads = observations.views.iter().rev().find(|view| view.state == "Leader")?;
    servers.iter().position(|server| server.ip.to_string() == leads.node)
}
