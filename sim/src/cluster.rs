//! The servers of a run: started, stopped, cut off, replaced and started again.
//!
//! [`Cluster`] carries out faults on whatever engine runs the hosts. It knows what is wrong at any time, so a server that
//! ends without a reason is a violation. What only the cluster itself can do, such as removing a server, it leaves to the
//! [operator](crate::workload::operator), a client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::event;
use crate::nemesis::{Fault, Nemesis, Planned, Step};
use crate::server::{Exit, Server};
use crate::workload::operator::Errands;

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
    errands: Arc<Errands>,
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
    pub fn new(
        servers: Vec<Arc<Server>>,
        everyone: Vec<IpAddr>,
        plan: Vec<Planned>,
        errands: Arc<Errands>,
        usual_latency: Duration,
    ) -> Self {
        let status = |server: &Arc<Server>| if server.enlisted() { Status::Up } else { Status::Down(Duration::MAX) };
        Cluster {
            status: servers.iter().map(status).collect(),
            excused: vec![false; servers.len()],
            servers,
            everyone,
            errands,
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
        // Before a fault ends, so that a server that fails in its last step has its excuse.
        (0..self.servers.len()).for_each(|node| self.excuse(node));
        for step in self.nemesis.due(now) {
            match step {
                Step::Begin(fault, until) => self.begin(hosts, now, &fault, until),
                Step::End(fault) => self.end(hosts, &fault),
            }
        }
        for fault in self.errands.take_done() {
            self.carry_out(hosts, now, &fault);
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
        if self.errands.ask(fault) {
            // It has happened when it is done: `carry_out`.
            return;
        }
        let seconds = until.saturating_sub(now).as_secs_f64();
        self.note(now, format!("{fault} for {seconds:.3}s"));
        self.happens(fault);
        let machine = |node: &usize| &self.servers[*node].machine;
        match fault {
            Fault::Power(node) | Fault::Kill(node) => self.drop_process(hosts, *node, until, fault),
            Fault::Restart(node) => {
                self.status[*node] = Status::Stopping(until);
                self.servers[*node].stop();
            }
            Fault::Move(node) => {
                self.servers[*node].move_on();
                self.drop_process(hosts, *node, until, fault);
            }
            Fault::Transfer(_) | Fault::Replace(..) | Fault::Destroy(..) | Fault::Grow => {}
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
            Fault::Move(node) => self.status[*node] == Status::Up && !self.errands.busy(),
            Fault::Kill(node) | Fault::Restart(node) => self.status[*node] == Status::Up,
            Fault::Power(node) => !matches!(self.status[*node], Status::Down(_)),
            _ => true,
        }
    }

    fn end(&mut self, hosts: &mut dyn Hosts, fault: &Fault) {
        let machine = |node: &usize| &self.servers[*node].machine;
        match fault {
            // They are started again when their time has come: see `follow`.
            Fault::Power(_) | Fault::Kill(_) | Fault::Restart(_) | Fault::Move(_) => {}
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
            Fault::Transfer(_) | Fault::Replace(..) | Fault::Destroy(..) | Fault::Grow => {}
        }
    }

    /// What the operator did, or has prepared: a machine is lost and an empty one starts in its place after a while, or one
    /// starts that was not there before.
    fn carry_out(&mut self, hosts: &mut dyn Hosts, now: Duration, fault: &Fault) {
        self.note(now, fault.to_string());
        self.happens(fault);
        match fault {
            Fault::Replace(node, away) | Fault::Destroy(node, away) => {
                self.drop_process(hosts, *node, now + *away, fault);
                self.servers[*node].replace_machine();
            }
            Fault::Grow => {
                if let Some(spare) = self.servers.iter().position(|server| !server.enlisted()) {
                    self.servers[spare].enlist();
                    self.status[spare] = Status::Down(now);
                }
            }
            _ => {}
        }
    }

    fn happens(&mut self, fault: &Fault) {
        *self.happened.entry(fault.kind()).or_default() += 1;
    }

    fn drop_process(&mut self, hosts: &mut dyn Hosts, node: usize, until: Duration, fault: &Fault) {
        let server = self.servers[node].clone();
        let power = matches!(fault, Fault::Power(_) | Fault::Replace(..) | Fault::Destroy(..));
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
        server.take_exit();
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
