//! What goes wrong, and when: drawn from the seed before the run begins.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each run has only some kinds of faults, each at a rate of its own, because
//! faults that always come together hide each other. The whole schedule exists before the first step, so it can be
//! printed, and later cut down to the faults that matter.
//!
//! Start with [`Draw`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::rng::Rng;

/// A kind of fault, as `--faults` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A machine loses power, and with it what was not synced.
    Power,
    /// A process is killed; its machine keeps what was written.
    Kill,
    /// A process is told to stop, and is started again.
    Restart,
    /// A process stands still, then goes on.
    Pause,
    /// A process lets time pass before it does things.
    Slow,
    /// Messages between some nodes are lost, in one direction or both.
    Partition,
    /// Messages take long.
    Latency,
    /// Connections of a node are reset.
    Reset,
    /// Syncs take up to seconds.
    Sync,
    /// A sync fails and loses what it should have kept.
    Fsync,
    /// Calls to the disk fail.
    Eio,
    /// The disk is full for a while.
    Full,
    /// The checkpoint's writes fail, kept or not.
    Checkpoint,
    /// The wall clock jumps by hours.
    Clock,
    /// The lead is handed over.
    Transfer,
    /// A server is removed from the cluster, its machine is wiped, and it joins as a new server.
    Replace,
    /// A machine is lost for good, one at a time; a new one joins in its place, and then the lost server is removed.
    Destroy,
    /// A server is stopped, and comes back at another address.
    Move,
    /// A server more joins.
    Grow,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 19] = [
        Kind::Power,
        Kind::Kill,
        Kind::Restart,
        Kind::Pause,
        Kind::Slow,
        Kind::Partition,
        Kind::Latency,
        Kind::Reset,
        Kind::Sync,
        Kind::Fsync,
        Kind::Eio,
        Kind::Full,
        Kind::Checkpoint,
        Kind::Clock,
        Kind::Transfer,
        Kind::Replace,
        Kind::Destroy,
        Kind::Move,
        Kind::Grow,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// One thing that goes wrong. Nodes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// See [`Kind::Power`].
    Power(usize),
    /// See [`Kind::Kill`].
    Kill(usize),
    /// See [`Kind::Restart`].
    Restart(usize),
    /// See [`Kind::Pause`].
    Pause(usize),
    /// See [`Kind::Slow`]; the longest delay.
    Slow(usize, Duration),
    /// See [`Kind::Partition`]: a name, and who no longer reaches whom.
    Partition(&'static str, Vec<(usize, usize)>),
    /// See [`Kind::Latency`]; the longest.
    Latency(Duration),
    /// See [`Kind::Reset`].
    Reset(usize),
    /// See [`Kind::Sync`]; how much longer.
    Sync(usize, Duration),
    /// See [`Kind::Fsync`].
    Fsync(usize),
    /// See [`Kind::Eio`]; of a thousand calls.
    Eio(usize, u64),
    /// See [`Kind::Full`].
    Full(usize),
    /// See [`Kind::Checkpoint`]; of a thousand writes.
    Checkpoint(usize, u64),
    /// See [`Kind::Clock`]; milliseconds ahead.
    Clock(usize, i64),
    /// See [`Kind::Transfer`]; to this server, or to whom the leader picks.
    Transfer(Option<usize>),
    /// See [`Kind::Replace`]; how long it is away.
    Replace(usize, Duration),
    /// See [`Kind::Destroy`]; how long it is away.
    Destroy(usize, Duration),
    /// See [`Kind::Move`].
    Move(usize),
    /// See [`Kind::Grow`].
    Grow,
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Power(_) => Kind::Power,
            Fault::Kill(_) => Kind::Kill,
            Fault::Restart(_) => Kind::Restart,
            Fault::Pause(_) => Kind::Pause,
            Fault::Slow(..) => Kind::Slow,
            Fault::Partition(..) => Kind::Partition,
            Fault::Latency(_) => Kind::Latency,
            Fault::Reset(_) => Kind::Reset,
            Fault::Sync(..) => Kind::Sync,
            Fault::Fsync(_) => Kind::Fsync,
            Fault::Eio(..) => Kind::Eio,
            Fault::Full(_) => Kind::Full,
            Fault::Checkpoint(..) => Kind::Checkpoint,
            Fault::Clock(..) => Kind::Clock,
            Fault::Transfer(_) => Kind::Transfer,
            Fault::Replace(..) => Kind::Replace,
            Fault::Destroy(..) => Kind::Destroy,
            Fault::Move(_) => Kind::Move,
            Fault::Grow => Kind::Grow,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        let name = |node: &usize| format!("n{}", node + 1);
        match self {
            Fault::Power(n) | Fault::Kill(n) | Fault::Restart(n) | Fault::Pause(n) => write!(f, "{kind} {}", name(n)),
            Fault::Reset(n) | Fault::Fsync(n) | Fault::Full(n) | Fault::Move(n) => write!(f, "{kind} {}", name(n)),
            Fault::Replace(n, _) | Fault::Destroy(n, _) => write!(f, "{kind} {}", name(n)),
            Fault::Transfer(Some(n)) => write!(f, "{kind} to {}", name(n)),
            Fault::Transfer(None) | Fault::Grow => write!(f, "{kind}"),
            Fault::Slow(n, by) | Fault::Sync(n, by) => write!(f, "{kind} {} by {by:?}", name(n)),
            Fault::Latency(most) => write!(f, "{kind} up to {most:?}"),
            Fault::Eio(n, rate) | Fault::Checkpoint(n, rate) => write!(f, "{kind} {} {rate} per mille", name(n)),
            Fault::Clock(n, millis) => write!(f, "{kind} {} {millis:+} ms", name(n)),
            Fault::Partition(shape, cuts) => {
                let cuts: Vec<String> = cuts.iter().map(|(from, to)| format!("{}→{}", name(from), name(to))).collect();
                write!(f, "{kind} {shape} {}", cuts.join(" "))
            }
        }
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

/// What the seed drew, for people.
#[derive(Debug, Clone, Default)]
pub struct Draw {
    /// The mean time from the end of a fault to the next of its kind. Kinds that are not here do not happen.
    pub every: BTreeMap<Kind, Duration>,
    /// The faults, by time.
    pub plan: Vec<Planned>,
}

impl Draw {
    /// Draws the faults of a run of `nodes` nodes that lasts `span`, from the kinds that are allowed. `spare` of the nodes
    /// are not part of the cluster until they join.
    pub fn new(seed: u64, nodes: usize, spare: usize, span: Duration, allowed: &BTreeSet<Kind>) -> Self {
        let mut rng = Rng::named(seed, "nemesis");
        let founders = nodes - spare;
        let mut every = BTreeMap::new();
        for kind in Kind::ALL {
            // Every kind draws, allowed or not: so `--faults` takes some away and leaves the others as they were.
            let (drawn, pace) = (rng.chance(500), Duration::from_millis(rng.between(2_000, 20_000)));
            let possible = match kind {
                Kind::Partition | Kind::Transfer => nodes > 1,
                // Someone must be left who knows everything.
                Kind::Replace | Kind::Destroy => founders > 2,
                Kind::Move => founders > 1,
                Kind::Grow => spare > 0,
                _ => true,
            };
            if (drawn || allowed.len() == 1) && possible && allowed.contains(&kind) {
                every.insert(kind, pace);
            }
        }
        let mut plan = Vec::new();
        for (&kind, &pace) in &every {
            let mut rng = Rng::named(seed, &format!("nemesis/{kind}"));
            let mut at = Duration::from_millis(500);
            loop {
                at += Duration::from_millis(rng.between(100, 2 * pace.as_millis() as u64));
                if at >= span {
                    break;
                }
                let until = (at + lasts(kind, &mut rng)).min(span);
                plan.push(Planned { at, until, fault: draw(kind, nodes, &mut rng) });
                // One at a time of each kind: the end of one must not end another.
                at = until;
                if kind == Kind::Grow && plan.iter().filter(|planned| planned.fault == Fault::Grow).count() == spare {
                    break;
                }
            }
        }
        plan.sort_by_key(|planned| planned.at);
        Draw { every, plan }
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

/// How long a fault lasts. Shorter and longer than an election (1–2 s), on purpose.
fn lasts(kind: Kind, rng: &mut Rng) -> Duration {
    let most = match kind {
        Kind::Reset | Kind::Fsync | Kind::Transfer | Kind::Replace | Kind::Destroy | Kind::Grow => 1,
        Kind::Eio => 1_000,
        Kind::Power | Kind::Kill | Kind::Restart | Kind::Move => 4_000,
        _ => 8_000,
    };
    // The square of an even draw: many short ones, some long.
    let draw = rng.between(1, 1000);
    Duration::from_millis(most * draw * draw / 1_000_000)
}

fn draw(kind: Kind, nodes: usize, rng: &mut Rng) -> Fault {
    let node = rng.below(nodes as u64) as usize;
    let millis = |rng: &mut Rng, low, high| Duration::from_millis(rng.between(low, high));
    match kind {
        Kind::Power => Fault::Power(node),
        Kind::Kill => Fault::Kill(node),
        Kind::Restart => Fault::Restart(node),
        Kind::Pause => Fault::Pause(node),
        Kind::Slow => Fault::Slow(node, millis(rng, 2, 40)),
        Kind::Partition => partition(node, nodes, rng),
        Kind::Latency => Fault::Latency(millis(rng, 50, 800)),
        Kind::Reset => Fault::Reset(node),
        Kind::Sync => Fault::Sync(node, millis(rng, 20, 2_000)),
        Kind::Fsync => Fault::Fsync(node),
        Kind::Eio => Fault::Eio(node, rng.between(5, 500)),
        Kind::Full => Fault::Full(node),
        Kind::Checkpoint => Fault::Checkpoint(node, rng.between(100, 900)),
        Kind::Clock => Fault::Clock(node, rng.between(0, 20 * 3_600_000) as i64 - 10 * 3_600_000),
        Kind::Transfer => Fault::Transfer(rng.chance(500).then_some(node)),
        Kind::Replace => Fault::Replace(node, millis(rng, 10, 3_000)),
        Kind::Destroy => Fault::Destroy(node, millis(rng, 10, 3_000)),
        Kind::Move => Fault::Move(node),
        Kind::Grow => Fault::Grow,
    }
}

/// Who no longer reaches whom (Jepsen's shapes).
fn partition(node: usize, nodes: usize, rng: &mut Rng) -> Fault {
    let all = || 0..nodes;
    let pairs = |cut: &dyn Fn(usize, usize) -> bool| -> Vec<(usize, usize)> {
        all().flat_map(|a| all().map(move |b| (a, b))).filter(|(a, b)| a != b && cut(*a, *b)).collect()
    };
    match rng.below(5) {
        0 => Fault::Partition("alone", pairs(&|a, b| (a == node) != (b == node))),
        1 => {
            let sides: Vec<bool> = all().map(|_| rng.chance(500)).collect();
            Fault::Partition("halves", pairs(&|a, b| sides[a] != sides[b]))
        }
        2 => Fault::Partition("ring", pairs(&|a, b| (a + 1) % nodes != b && (b + 1) % nodes != a)),
        3 => Fault::Partition("bridge", pairs(&|a, b| a != node && b != node && (a < node) != (b < node))),
        _ => {
            let deaf = rng.chance(500);
            Fault::Partition("one-way", pairs(&|a, b| if deaf { b == node } else { a == node }))
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

    /// What is due by now.
    pub fn due(&mut self, now: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(planned) = self.next.take_if(|planned| planned.at <= now) {
            steps.push(Step::Begin(planned.fault.clone(), planned.until));
            self.running.push((planned.until, planned.fault));
            self.next = self.plan.next();
        }
        let (over, running) = std::mem::take(&mut self.running).into_iter().partition(|(until, _)| *until <= now);
        self.running = running;
        let over: Vec<(Duration, Fault)> = over;
        steps.extend(over.into_iter().map(|(_, fault)| Step::End(fault)));
        steps
    }
}
