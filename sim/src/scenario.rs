//! Kinds of runs with a name: each chooses among the faults and shapes the clients; the seed draws the rest.

use std::time::Duration;

use crate::nemesis::{Fault, Kind, Planned};
use crate::scene::Scene;
use crate::workload::counters;

/// A kind of run.
#[derive(Debug)]
pub struct Scenario {
    /// As `--scenario` names it.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Servers, unless somebody says otherwise.
    pub nodes: Option<usize>,
    /// Kinds of faults that may happen.
    pub faults: &'static [Kind],
    /// What else is not left to the seed.
    pub shape: fn(&mut Scene),
    /// Which of the faults that were drawn happen, and how exactly, on so many servers.
    pub aim: fn(&mut Vec<Planned>, usize),
    /// Whether a seed draws it by itself. Some are for one question, for which they leave out nearly all others.
    pub drawn: bool,
}

/// The faults happen as they were drawn.
const AS_DRAWN: fn(&mut Vec<Planned>, usize) = |_, _| {};

/// Faults of networks and machines that are over soon.
const USUAL: &[Kind] =
    &[Kind::Power, Kind::Kill, Kind::Restart, Kind::Pause, Kind::Partition, Kind::Latency, Kind::Reset, Kind::Clock];

/// The scenario for measuring the simulator, at the pace of a run without a name.
const SPEED: &str = "speed";

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lock-under-partition",
        about: "many lockers on one lock, while servers are cut off, stand still and hand over the lead",
        nodes: Some(3),
        faults: &[
            Kind::Partition,
            Kind::Hold,
            Kind::Pause,
            Kind::Freeze,
            Kind::Kill,
            Kind::Transfer,
            Kind::Clock,
            Kind::Restore,
        ],
        shape: |scene| {
            (scene.locks.lockers, scene.locks.locks) = (8, 1);
            (scene.mix.clients, scene.watchers, scene.tenants, scene.spare) = (2, 1, 0, 0);
        },
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: "elections",
        about: "whoever leads is cut off, and machines lose power while their votes and entries are not synced",
        nodes: Some(3),
        faults: &[Kind::Partition, Kind::Brownout, Kind::Power, Kind::Sync, Kind::Transfer],
        shape: |scene| {
            (scene.mix.clients, scene.mix.padding) = (6, 0);
            (scene.locks.lockers, scene.watchers, scene.tenants, scene.spare) = (2, 1, 0, 0);
        },
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: "hand-overs",
        about: "counters under locks that pass on all the time, from clients that stand still between read and write",
        nodes: Some(3),
        faults: &[Kind::Partition, Kind::Pause, Kind::Kill, Kind::Power, Kind::Transfer, Kind::Clock],
        shape: |scene| {
            scene.counters = counters::Mix { clients: 24, locks: 8, pauses: 10 };
            (scene.mix.clients, scene.mix.padding) = (1, 0);
            (scene.locks.lockers, scene.watchers, scene.readers, scene.tenants, scene.spare) = (0, 0, 0, 0, 0);
            scene.latency = Duration::from_millis(2);
        },
        aim: AS_DRAWN,
        drawn: false,
    },
    Scenario {
        name: "held-leaders",
        about: "whoever leads is held up while somebody else is elected, and readers come to it before it learns of that",
        nodes: Some(3),
        faults: &[Kind::Hold],
        shape: |scene| {
            (scene.mix.clients, scene.mix.keys, scene.mix.pairs, scene.mix.machines) = (12, 1, 0, 0);
            // An entry must be on its way when the connections stop, but a write to the held leader would hide what it does not
            // know; a reader must be there in time to find out.
            (scene.mix.reads, scene.mix.waits, scene.mix.turns) = (700, 0, 200);
            (scene.mix.pause, scene.mix.padding) = (Duration::from_millis(10), 0);
            (scene.locks.lockers, scene.watchers, scene.readers, scene.tenants, scene.spare) = (0, 0, 0, 0, 0);
            scene.counters.clients = 0;
            // Many answers are on their way when the connections stop; and once they go on, answers to what is sent then, which
            // bring the news, are not back before those that were held.
            (scene.latency, scene.late) = (Duration::from_millis(100), None);
        },
        aim: |plan, _| {
            // Longer than an election takes, and not so long that the leader gives up waiting.
            let (least, most) = (Duration::from_millis(2_000), Duration::from_millis(4_500));
            plan.retain(|planned| planned.until - planned.at >= least);
            for planned in plan {
                // The answers must come before the news of who leads now.
                planned.fault.hold_leader(1 + u64::from(planned.at.subsec_millis()));
                planned.until = planned.until.min(planned.at + most);
            }
        },
        drawn: false,
    },
    Scenario {
        name: "forgotten-votes",
        about: "whoever leads is cut off while a voter's disk stands still; who was elected is cut off when the voter loses power",
        nodes: Some(3),
        faults: &[Kind::Brownout],
        shape: |scene| {
            (scene.mix.clients, scene.mix.padding) = (6, 0);
            (scene.locks.lockers, scene.watchers, scene.tenants, scene.spare) = (0, 0, 0, 0);
            scene.counters.clients = 0;
        },
        aim: |plan, servers| {
            // Longer than an election takes, and than the old leader and the voter take to acknowledge something.
            const TERM: Duration = Duration::from_secs(3);
            let mut free = Duration::ZERO;
            for voter in std::mem::take(plan) {
                let (at, turn) = (voter.at, voter.at + TERM);
                if at < free {
                    continue;
                }
                let others = [1, 2].map(|step| (voter.fault.place + step) % servers);
                let elected = others[at.subsec_millis() as usize % 2];
                plan.extend([
                    Planned { at, until: turn, fault: Fault::leader_alone() },
                    Planned { until: turn, ..voter },
                    Planned { at: turn, until: turn + TERM, fault: Fault::alone(elected, servers) },
                ]);
                free = turn + 2 * TERM;
            }
        },
        drawn: false,
    },
    Scenario {
        name: "slow-restores",
        about: "backups are restored while syncs take long, under locks that many want as soon as syncs are fast again",
        nodes: Some(1),
        faults: &[Kind::Restore],
        shape: |scene| {
            (scene.locks.lockers, scene.locks.locks) = (6, 1);
            (scene.mix.clients, scene.mix.padding) = (1, 0);
            (scene.watchers, scene.readers, scene.tenants, scene.spare) = (0, 0, 0, 0);
            scene.counters.clients = 0;
        },
        aim: |plan, _| {
            let mut free = Duration::ZERO;
            for restore in std::mem::take(plan) {
                let at = restore.at + restore.fault.time();
                if restore.at < free {
                    continue;
                }
                // A restore is four entries, each of which may wait for the one before it and then for its own sync: whichever
                // of them is on its way when syncs are fast again, the others have taken long.
                let drawn = restore.at.subsec_millis();
                let sync = Duration::from_millis(300 + u64::from(drawn) % 700);
                let until = at + sync * (3 + drawn / 7 % 6);
                plan.extend([restore, Planned { at, until, fault: Fault::slow_sync(0, sync) }]);
                free = until + Duration::from_secs(2);
            }
        },
        drawn: false,
    },
    Scenario {
        name: "restores",
        about: "backups are taken and restored, under locks and readers, while servers fail and hand over the lead",
        nodes: None,
        faults: &[
            Kind::Restore,
            Kind::Restart,
            Kind::Kill,
            Kind::Power,
            Kind::Pause,
            Kind::Partition,
            Kind::Transfer,
            Kind::Sync,
        ],
        shape: |scene| {
            scene.mix.padding = 0;
            scene.locks.lockers = 4;
            scene.readers = scene.readers.max(1);
        },
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: "catch-up",
        about: "servers fall behind again and again, and come back by snapshot while they take checkpoints of their own",
        nodes: Some(3),
        faults: &[
            Kind::Partition,
            Kind::Pause,
            Kind::Slow,
            Kind::Hold,
            Kind::Kill,
            Kind::Power,
            Kind::Sync,
            Kind::Checkpoint,
        ],
        shape: |scene| {
            // Seldom enough that a server that was away for a moment has one to take when the leader's snapshot comes.
            (scene.setup.checkpoint_every, scene.setup.trailing) = (Duration::from_millis(1_000), 1);
            scene.late = Some(Duration::from_millis(400));
            (scene.mix.pause, scene.mix.padding) = (Duration::from_millis(5), 0);
        },
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: "bad-disks",
        about: "large values, short logs, and everything that a disk does to them",
        nodes: None,
        faults: &[
            Kind::Power,
            Kind::Kill,
            Kind::Sync,
            Kind::Stuck,
            Kind::Brownout,
            Kind::Fsync,
            Kind::Eio,
            Kind::Full,
            Kind::Checkpoint,
            Kind::Rot,
            Kind::Misdirect,
        ],
        shape: |scene| {
            scene.mix.padding = 60_000;
            scene.setup.checkpoint_every = Duration::from_millis(800);
            scene.setup.trailing = 20;
        },
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: "new-servers",
        about: "servers are removed, lost, moved and added, while the usual things go wrong",
        nodes: None,
        faults: &[
            Kind::Replace,
            Kind::Destroy,
            Kind::Move,
            Kind::Grow,
            Kind::Transfer,
            Kind::Kill,
            Kind::Power,
            Kind::Partition,
            Kind::Rot,
        ],
        shape: |scene| scene.spare = 1,
        aim: AS_DRAWN,
        drawn: true,
    },
    Scenario {
        name: SPEED,
        about: "three servers and four clients, to measure the simulator itself",
        nodes: Some(3),
        faults: USUAL,
        shape: |scene| {
            (scene.mix.clients, scene.mix.pause, scene.mix.padding) = (4, Duration::from_millis(2), 0);
            (scene.mix.abandons, scene.mix.hurry) = (1000, Duration::from_secs(1));
            (scene.mix.reads, scene.mix.waits, scene.mix.pairs, scene.mix.machines) = (800, 0, 0, 0);
            (scene.locks.lockers, scene.watchers, scene.readers, scene.tenants) = (0, 0, 0, 0);
            scene.counters.clients = 0;
            (scene.sites, scene.headquarters, scene.spare) = (1, false, 0);
            // A message to a host whose turn in a step is still to come arrives in the same step: as many operations with half
            // the steps. The receiver's clock may then be behind the sender's by a step, which no client of this scenario can
            // tell: all of them are on one host.
            (scene.tick, scene.latency, scene.jitter) = (Duration::from_millis(7), Duration::ZERO, 0);
        },
        aim: AS_DRAWN,
        drawn: false,
    },
];

impl PartialEq for Scenario {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Scenario {
    /// Those that a seed may draw by itself.
    pub fn drawn() -> Vec<&'static Self> {
        SCENARIOS.iter().filter(|scenario| scenario.drawn).collect()
    }

    /// Whether its faults come more often than in a run without a name.
    pub fn is_focused(&self) -> bool {
        self.name != SPEED
    }

    /// The one of this name.
    ///
    /// # Errors
    /// With the names that there are.
    pub fn find(name: &str) -> Result<&'static Self, String> {
        let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| format!("there are: {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Host;
    use crate::scene::Options;

    #[test]
    fn what_goes_wrong_strikes_whom_there_is_while_the_storm_lasts() {
        for scenario in SCENARIOS {
            for (seed, nodes) in (1..10).flat_map(|seed| (1..=9).map(move |nodes| (seed, nodes))) {
                let options = Options { scenario: Some(scenario), nodes: Some(nodes), ..Options::of_everything() };
                let scene = Scene::draw(seed, &options);
                let is_there = |host: &Host| match *host {
                    Host::Server(place) => place < scene.servers(),
                    Host::Site(place) => place < scene.sites,
                };
                let mut before = Duration::ZERO;
                for planned in &scene.draw.plan {
                    let Planned { at, until, fault } = planned;
                    let struck = match fault.kind {
                        Kind::Trickle | Kind::Freeze => Host::Site(fault.place),
                        _ => Host::Server(fault.place),
                    };
                    assert!(
                        is_there(&struck) && fault.cuts.iter().all(|(a, b)| is_there(a) && is_there(b)),
                        "{planned:?}"
                    );
                    assert!(before <= *at && at <= until && *until <= scene.span, "{}: {planned:?}", scenario.name);
                    before = *at;
                }
            }
        }
    }
}
