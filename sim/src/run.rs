//! One run: what the seed drew, the scene on the stage, and what became of it.
//!
//! First a storm: clients work, and the nemesis does what it planned. Then calm: nothing goes wrong any more, the clients
//! have stopped, and the servers must come together. Then the checkers look at all that was seen.
//!
//! Start with [`run`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::{self, NodeView};
use crate::cluster::Happening;
use crate::engine::Engine;
use crate::history::Operation;
use crate::nemesis::Kind;
use crate::scene::{Options, Scene};
use crate::stage::Stage;
use crate::trace;
use crate::workload::locks::Claim;
use crate::world::hold;

/// Stack of a run's thread, in bytes: the futures of a whole server are polled on it.
const STACK: usize = 16 << 20;

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
    /// Grants of locks that something was counted under, updates that were lost without a fence, and writes outside under a fence of
    /// the past.
    pub counts: (u64, u64, u64),
    /// Records of event streams, and how often a reader came too late.
    pub streams: (usize, usize),
    /// Faults that came to pass.
    pub faults: BTreeMap<Kind, u64>,
    /// How long calm took to bring the servers together.
    pub together_after: Option<Duration>,
    /// Starts of servers.
    pub boots: u32,
    /// The checkers' verdicts.
    pub checks: check::Report,
    /// What was wrong: nothing, if all is well.
    pub alarms: Vec<Alarm>,
    /// What happened, for those who want to see it.
    pub film: Film,
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// Who found it.
    pub checker: &'static str,
    /// What it is.
    pub text: String,
    /// When it was seen, if that was at some time.
    pub at: Option<Duration>,
}

/// What happened in a run, with times.
#[derive(Debug, Clone, Default)]
pub struct Film {
    /// Faults, and processes that ended.
    pub happenings: Vec<Happening>,
    /// What the servers said about themselves.
    pub views: Vec<NodeView>,
    /// What the clients of registers did.
    pub shots: Vec<Shot>,
    /// What the lockers believed.
    pub claims: Vec<Claim>,
}

/// An operation with its times.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The operation.
    pub operation: Operation,
    /// When it was sent.
    pub from: Duration,
    /// When it was answered.
    pub until: Option<Duration>,
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
    if let Some(text) = panic {
        report.alarms.insert(0, Alarm { checker: "panic", text, at: None });
    }
    report
}

fn report(stage: Stage, trace: (u64, u64)) -> Report {
    let mut recorder = std::mem::take(&mut *hold(&stage.shared.history));
    let restores = std::mem::take(&mut *hold(&stage.shared.restores));
    recorder.rename(&restores);
    let observations = std::mem::take(&mut *hold(&stage.shared.observations));
    let book = std::mem::take(&mut *hold(&stage.shared.book));
    let streams = std::mem::take(&mut *hold(&stage.shared.streams));
    let tally = std::mem::take(&mut *hold(&stage.shared.tally));
    let (history, views) = (recorder.history(), &observations.views);
    let checks = check::run(history, &book, &restores, &streams.tapes, views, check::linear::BUDGET);
    let mut alarms = Vec::new();
    let now = Some(stage.ended);
    alarms.extend(stage.violation.map(|text| Alarm { checker: "process", text, at: now }));
    alarms.extend(observations.violation.map(|text| Alarm { checker: "liveness", text, at: now }));
    alarms.extend(std::mem::take(&mut *hold(&stage.shared.contradictions)));
    alarms.extend(checks.violations().map(|(checker, violation)| {
        let last = violation.proof.iter().map(|operation| operation.end.unwrap_or(operation.start)).max();
        Alarm { checker, text: violation.to_string(), at: last.map(|event| recorder.time_of(event)) }
    }));
    let shot = |operation: &Operation| Shot {
        from: recorder.time_of(operation.start),
        until: operation.end.map(|end| recorder.time_of(end)),
        operation: operation.clone(),
    };
    let operations = recorder.history().operations();
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
        counts: (tally.grants, tally.lost, tally.stale),
        streams: (streams.tapes.iter().map(|tape| tape.records.len()).sum(), streams.gone),
        faults: stage.cluster.happened,
        together_after: observations.together_after,
        boots: stage.servers.iter().map(|server| server.machine.boots()).sum(),
        checks,
        alarms,
        film: Film {
            happenings: stage.cluster.happenings,
            views: observations.views,
            shots: operations.iter().map(shot).collect(),
            claims: book.claims,
        },
        scene: stage.scene,
    }
}

/// A run that the engine could not finish.
pub(crate) fn failed(scene: Scene, text: String) -> Report {
    Report {
        scene,
        trace: (0, 0),
        time: Duration::ZERO,
        operations: Operations::default(),
        locks: (0, 0),
        counts: (0, 0, 0),
        streams: (0, 0),
        faults: BTreeMap::new(),
        together_after: None,
        boots: 0,
        checks: check::Report::default(),
        alarms: vec![Alarm { checker: "engine", text, at: None }],
        film: Film::default(),
    }
}
