//! What goes wrong, and when: drawn from the seed before the run begins.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each run has only some kinds of faults, each at a rate of its own, because
//! faults that always come together hide each other. The whole schedule exists before the first step, so it can be
//! printed, and cut down to the faults that matter.
//!
//! Start with [`Kind`], then [`Draw`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::rng::Rng;

/// A kind of fault, as `--faults` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A machine loses power; of what was not synced a random half of the sectors and names is kept
    Power,
    /// A machine's syncs stand still, and then it loses power: what it was about to keep is lost
    Brownout,
    /// A process is killed; its machine keeps what was written, and closes its sockets
    Kill,
    /// A process is told to stop, and is started again
    Restart,
    /// A server's tasks stand still while messages and timers pile up; then all of them go on
    Pause,
    /// A tenth of all polls of a server wait for some milliseconds
    Slow,
    /// Messages are lost: the leader or another server alone, halves, ring, bridge, one way, or clients and some servers
    Partition,
    /// Messages take long
    Latency,
    /// All connections of a server are reset
    Reset,
    /// The connections of a server, or those with other servers, stand still; then what was sent arrives at once
    Hold,
    /// A site of clients reads its answers a few hundred bytes at a time
    Trickle,
    /// A site of clients stands still, as in a long garbage collection
    Freeze,
    /// Syncs take longer
    Sync,
    /// Syncs do not return
    Stuck,
    /// One sync fails and loses sectors; the next one succeeds
    Fsync,
    /// Calls to the disk fail
    Eio,
    /// Nothing on the disk can grow
    Full,
    /// Writes of the checkpoint fail, kept or not
    Checkpoint,
    /// A bit of a synced record turns over
    Rot,
    /// A synced record is where another one was, and not where it should be
    Misdirect,
    /// The wall clock jumps by hours
    Clock,
    /// The lead is handed over, to somebody or to whom the leader picks
    Transfer,
    /// A server is removed, its machine is wiped, and a new one joins in its place
    Replace,
    /// A machine is lost for good; a new one joins in its place, and then the lost one is removed
    Destroy,
    /// A server is stopped, and comes back with another address
    Move,
    /// One more server joins
    Grow,
    /// A backup is taken, and restored a while later; now and then as if it were another cluster's
    Restore,
    /// New tasks of a server wait before they begin, as on busy threads
    Late,
}

/// Whom a kind of fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Server,
    Site,
    Everyone,
}

/// What a fault's size means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    Millis,
    PerMille,
}

/// What a kind draws from.
struct Spec {
    target: Target,
    /// Its longest duration in milliseconds; 1 for what is over at once. Elections take 1 to 2 s: both shorter and longer.
    longest: u64,
    /// The least and the largest size.
    sizes: (i64, i64),
    unit: Unit,
}

impl Kind {
    fn spec(self) -> Spec {
        use Target::{Everyone, Server, Site};
        let spec = |target, longest, sizes, unit| Spec { target, longest, sizes, unit };
        const HOURS: i64 = 10 * 3_600_000;
        match self {
            Kind::Power | Kind::Kill | Kind::Restart | Kind::Move => spec(Server, 4_000, (0, 0), Unit::None),
            // Of one server, or of whoever leads; of connections all, or those between servers; how far apart they go on.
            Kind::Pause => spec(Server, 8_000, (0, 1), Unit::None),
            Kind::Hold => spec(Server, 8_000, (0, 15), Unit::None),
            Kind::Stuck | Kind::Full => spec(Server, 8_000, (0, 0), Unit::None),
            Kind::Slow => spec(Server, 8_000, (2, 40), Unit::Millis),
            Kind::Late => spec(Server, 8_000, (10, 400), Unit::Millis),
            Kind::Sync => spec(Server, 8_000, (20, 2_000), Unit::Millis),
            Kind::Reset | Kind::Fsync => spec(Server, 1, (0, 0), Unit::None),
            Kind::Eio => spec(Server, 1_000, (5, 500), Unit::PerMille),
            Kind::Checkpoint => spec(Server, 8_000, (100, 900), Unit::PerMille),
            Kind::Clock => spec(Server, 8_000, (-HOURS, HOURS), Unit::Millis),
            // How long the machine is away.
            Kind::Brownout => spec(Server, 4_000, (10, 2_000), Unit::Millis),
            Kind::Replace | Kind::Destroy | Kind::Rot | Kind::Misdirect => spec(Server, 1, (10, 3_000), Unit::Millis),
            // To this server, or to anyone.
            Kind::Transfer => spec(Server, 1, (0, 1), Unit::None),
            Kind::Grow => spec(Everyone, 1, (0, 0), Unit::None),
            // How old the backup is.
            Kind::Restore => spec(Everyone, 1, (0, 4_000), Unit::Millis),
            // The longest outlast an election and a lease after it.
            Kind::Partition => spec(Everyone, 12_000, (0, 0), Unit::None),
            Kind::Latency => spec(Everyone, 8_000, (50, 800), Unit::Millis),
            Kind::Trickle => spec(Site, 8_000, (1, 30), Unit::Millis),
            Kind::Freeze => spec(Site, 8_000, (0, 0), Unit::None),
        }
    }

    /// Whether the operator must do it, or begin it.
    pub fn is_errand(self) -> bool {
        use Kind::{Destroy, Grow, Misdirect, Replace, Restore, Rot, Transfer};
        matches!(self, Transfer | Replace | Destroy | Rot | Misdirect | Grow | Restore)
    }

    fn possible(self, size: &Size) -> bool {
        match self {
            Kind::Transfer => size.servers > 1,
            // Someone must be left who knows everything.
            Kind::Replace | Kind::Destroy | Kind::Rot | Kind::Misdirect => size.founders > 2,
            Kind::Move => size.founders > 1,
            Kind::Grow => size.servers > size.founders,
            _ => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// A host, counted from 0 among its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// `n1`
    Server(usize),
    /// `s1`
    Site(usize),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Server(place) => write!(f, "n{}", place + 1),
            Host::Site(place) => write!(f, "s{}", place + 1),
        }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// The place of the server or the site that it strikes.
    pub place: usize,
    /// How bad it is, in the unit of its kind.
    pub size: i64,
    /// Of a partition: who no longer reaches whom. None: whoever leads when it begins is alone.
    pub cuts: Vec<(Host, Host)>,
}

impl Fault {
    /// Nobody reaches whoever leads when it begins, nor is reached.
    pub fn leader_alone() -> Self {
        Fault { kind: Kind::Partition, place: 0, size: 0, cuts: Vec::new() }
    }

    /// Nobody reaches this one of so many servers, nor is reached.
    pub fn alone(place: usize, servers: usize) -> Self {
        Fault { cuts: alone(place, servers), ..Fault::leader_alone() }
    }

    /// This server's syncs take so long.
    pub fn slow_sync(place: usize, time: Duration) -> Self {
        Fault { kind: Kind::Sync, place, size: time.as_millis() as i64, cuts: Vec::new() }
    }

    /// Whether it strikes whoever leads when it begins, if anybody is known to.
    pub fn is_for_leader(&self) -> bool {
        matches!(self.kind, Kind::Pause | Kind::Hold) && self.size & 1 == 1
    }

    /// Of a hold: it strikes whoever leads and spares clients, and connections go on soon after one another in this order.
    pub fn hold_leader(&mut self, order: u64) {
        self.size = 0b0111 | order.cast_signed() << 4;
    }

    /// Whether clients are spared by connections that stand still.
    pub fn is_among_servers(&self) -> bool {
        self.kind == Kind::Hold && self.size & 2 == 2
    }

    /// How far apart connections go on that stood still.
    pub fn apart(&self) -> Duration {
        Duration::from_millis(20 * (self.size.unsigned_abs() / 4 % 4))
    }

    /// In which order: 0 is that in which they were made; each other number is one in which those that the server opened, on
    /// which its answers come, go before those on which others tell it news.
    pub fn order(&self) -> u64 {
        self.size.unsigned_abs() >> 4
    }

    /// A size that is a time.
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.size.unsigned_abs())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spec { target, unit, .. } = self.kind.spec();
        write!(f, "{}", self.kind)?;
        match target {
            Target::Server if self.kind == Kind::Transfer && self.size == 0 => {}
            Target::Server => write!(f, " {}", Host::Server(self.place))?,
            Target::Site => write!(f, " {}", Host::Site(self.place))?,
            Target::Everyone => {}
        }
        if self.is_among_servers() {
            write!(f, " servers only")?;
        }
        match unit {
            Unit::Millis => write!(f, " {} ms", self.size)?,
            Unit::PerMille => write!(f, " {}‰", self.size)?,
            Unit::None => {}
        }
        self.cuts.iter().try_for_each(|(from, to)| write!(f, " {from}→{to}"))
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub at: Duration,
    /// When it is set right again: a node that is down is started.
    pub until: Duration,
    /// What.
    pub fault: Fault,
}

/// How many hosts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Servers that found the cluster.
    pub founders: usize,
    /// All servers: the others are no part of the cluster until they join.
    pub servers: usize,
    /// The clients' sites.
    pub sites: usize,
}

/// What the seed drew, for people.
#[derive(Debug, Clone, Default)]
pub struct Draw {
    /// The mean time from the end of a fault to the next of its kind. Kinds that are not here do not happen.
    pub every: BTreeMap<Kind, Duration>,
    /// The faults, by time.
    pub plan: Vec<Planned>,
}

impl Draw {
    /// Draws the faults of a run that lasts `span`, from the kinds that are allowed. With a `focus` there are few of them,
    /// most of which happen, and often.
    pub fn new(seed: u64, size: &Size, span: Duration, allowed: &BTreeSet<Kind>, focus: bool) -> Self {
        let (odds, rarest) = if focus { (700, 8_000) } else { (450, 20_000) };
        let mut every = BTreeMap::new();
        let mut plan = Vec::new();
        for &kind in Kind::value_variants() {
            // Every kind draws for itself, allowed or not: so `--faults` takes some away and leaves the others as they were.
            let mut rng = Rng::named(seed, &format!("nemesis/{kind}"));
            let (drawn, pace) = (rng.chance(odds), Duration::from_millis(rng.between(2_000, rarest)));
            let wanted = (drawn || allowed.len() == 1) && allowed.contains(&kind);
            if !wanted || !kind.possible(size) {
                continue;
            }
            every.insert(kind, pace);
            let mut at = Duration::from_millis(500);
            loop {
                at += Duration::from_millis(rng.between(100, 2 * pace.as_millis() as u64));
                if at >= span {
                    break;
                }
                // The square of an even draw: many short ones, some long.
                let draw = rng.between(1, 1000);
                let lasts = Duration::from_millis(kind.spec().longest * draw * draw / 1_000_000);
                let until = (at + lasts).min(span);
                plan.push(Planned { at, until, fault: draw_fault(kind, size, &mut rng) });
                // One at a time of each kind: the end of one must not end another.
                at = until;
                let grown = plan.iter().filter(|planned| planned.fault.kind == Kind::Grow).count();
                if kind == Kind::Grow && size.founders + grown == size.servers {
                    break;
                }
            }
        }
        plan.sort_by_key(|planned| planned.at);
        Draw { every, plan }
    }

    /// Nothing begins when the storm is over, and everything ends with it.
    pub fn end_by(&mut self, span: Duration) {
        self.plan.retain(|planned| planned.at < span);
        self.plan.iter_mut().for_each(|planned| planned.until = planned.until.min(span));
    }

    /// Only the faults at these places of the plan happen.
    pub fn keep(&mut self, places: &BTreeSet<usize>) {
        let mut place = 0..;
        self.plan.retain(|_| place.next().is_some_and(|place| places.contains(&place)));
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.every.is_empty() {
            return f.write_str("none");
        }
        let kinds: Vec<String> =
            self.every.iter().map(|(kind, pace)| format!("{kind} every {:.1}s", pace.as_secs_f64())).collect();
        f.write_str(&kinds.join(", "))
    }
}

fn draw_fault(kind: Kind, size: &Size, rng: &mut Rng) -> Fault {
    let Spec { target, sizes: (least, most), .. } = kind.spec();
    let among = if target == Target::Site { size.sites } else { size.servers };
    let place = rng.below(among as u64) as usize;
    let drawn = least + rng.below((most - least + 1) as u64) as i64;
    let cuts = if kind == Kind::Partition { partition(size, rng) } else { Vec::new() };
    Fault { kind, place, size: drawn, cuts }
}

/// The pairs of servers for which it is so.
fn pairs(nodes: usize, cut: &dyn Fn(usize, usize) -> bool) -> Vec<(Host, Host)> {
    let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
    all.filter(|(a, b)| a != b && cut(*a, *b)).map(|(a, b)| (Host::Server(a), Host::Server(b))).collect()
}

fn alone(node: usize, nodes: usize) -> Vec<(Host, Host)> {
    pairs(nodes, &|a, b| (a == node) != (b == node))
}

/// Who no longer reaches whom (Jepsen's shapes, and clients that reach only some servers).
fn partition(size: &Size, rng: &mut Rng) -> Vec<(Host, Host)> {
    let nodes = size.servers;
    let node = rng.below(nodes as u64) as usize;
    let pairs = |cut: &dyn Fn(usize, usize) -> bool| pairs(nodes, cut);
    match if nodes > 1 { rng.below(9) } else { 8 } {
        0 => alone(node, nodes),
        1 => {
            let sides: Vec<bool> = (0..nodes).map(|_| rng.chance(500)).collect();
            pairs(&|a, b| sides[a] != sides[b])
        }
        2 => pairs(&|a, b| (a + 1) % nodes != b && (b + 1) % nodes != a),
        3 => pairs(&|a, b| a != node && b != node && (a < node) != (b < node)),
        4 => {
            let deaf = rng.chance(500);
            pairs(&|a, b| if deaf { b == node } else { a == node })
        }
        5..=7 => Vec::new(),
        _ => {
            let site = Host::Site(rng.below(size.sites as u64) as usize);
            let (there, back) = *rng.pick(&[(true, true), (true, false), (false, true)]);
            let servers: Vec<Host> =
                (0..nodes).filter(|place| *place == node || rng.chance(400)).map(Host::Server).collect();
            let out = servers.iter().filter(|_| there).map(|server| (site, *server));
            out.chain(servers.iter().filter(|_| back).map(|server| (*server, site))).collect()
        }
    }
}

/// The plan while it is carried out.
pub struct Nemesis {
    plan: std::vec::IntoIter<Planned>,
    next: Option<Planned>,
    running: Vec<(Duration, Fault)>,
}

/// What to do now.
#[derive(Debug, Clone)]
pub enum Step {
    /// It goes wrong, until then.
    Begin(Fault, Duration),
    /// It is set right.
    End(Fault),
}

impl Nemesis {
    /// Carries out a plan.
    pub fn new(plan: Vec<Planned>) -> Self {
        let mut plan = plan.into_iter();
        Nemesis { next: plan.next(), plan, running: Vec::new() }
    }

    /// What is due by now, on this many servers. `leader` says which of them leads, as far as is known; who that is takes
    /// time to find out, and the answer is seldom needed.
    pub fn due(&mut self, now: Duration, nodes: usize, leader: impl Fn() -> Option<usize>) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(Planned { at: _, until, mut fault }) = self.next.take_if(|planned| planned.at <= now) {
            if fault.kind == Kind::Partition && fault.cuts.is_empty() {
                fault.cuts = leader().map(|leader| alone(leader, nodes)).unwrap_or_default();
            }
            if fault.is_for_leader() {
                fault.place = leader().unwrap_or(fault.place);
            }
            steps.push(Step::Begin(fault.clone(), until));
            self.running.push((until, fault));
            self.next = self.plan.next();
        }
        let (over, running) = std::mem::take(&mut self.running).into_iter().partition(|(until, _)| *until <= now);
        self.running = running;
        let over: Vec<(Duration, Fault)> = over;
        steps.extend(over.into_iter().map(|(_, fault)| Step::End(fault)));
        steps
    }
}
