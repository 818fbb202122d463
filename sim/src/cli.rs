//! The command line, and what a person sees of one run or of many.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, IsTerminal};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;

use crate::engine::Engine;
use crate::meta;
use crate::nemesis::Kind;
use crate::run::{self, Operations, Options, Report, Scene};
use crate::trace;
use crate::world::hold;

/// Runs whole clusters in virtual time, with clients and faults, and says whether all promises were kept.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim")]
struct Args {
    /// Something else than running seeds
    #[arg(value_enum)]
    verb: Option<Verb>,
    /// The seed of one run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this many seeds and prints a table
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs at a time; as many as there are cores
    #[arg(long)]
    jobs: Option<usize>,
    /// Servers; drawn from the seed if not set
    #[arg(long)]
    nodes: Option<usize>,
    /// Virtual seconds of faults; drawn from the seed if not set
    #[arg(long)]
    secs: Option<u64>,
    /// Kinds of faults that may happen, with commas between them
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// Nothing goes wrong
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Prints a line for each event
    #[arg(long)]
    trace: bool,
    /// Traces every message and every step of raft as well
    #[arg(long)]
    detailed: bool,
    /// Runs seeds until one fails or this many seconds are over, and prints one line: what `planted` reads
    #[arg(long, hide = true)]
    hunt: Option<u64>,
    /// Prints each seed's hash and number of events, and nothing else
    #[arg(long, conflicts_with = "trace")]
    hash: bool,
    /// Prints the trace and nothing else
    #[arg(long, hide = true, requires = "trace")]
    bare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verb {
    /// Runs seeds again and again, and compares their traces byte for byte
    Meta,
}

impl Args {
    fn options(&self) -> Options {
        let faults = match (&self.faults, self.no_faults) {
            (_, true) => BTreeSet::new(),
            (Some(kinds), _) => kinds.iter().copied().collect(),
            (None, _) => Kind::ALL.into(),
        };
        Options { nodes: self.nodes, span: self.secs.map(Duration::from_secs), faults }
    }

    /// The arguments that repeat one of these runs.
    fn replay(&self, seed: u64) -> Vec<String> {
        let mut arguments = vec!["--seed".into(), seed.to_string()];
        if let Some(nodes) = self.nodes {
            arguments.extend(["--nodes".into(), nodes.to_string()]);
        }
        if let Some(secs) = self.secs {
            arguments.extend(["--secs".into(), secs.to_string()]);
        }
        if let Some(faults) = &self.faults {
            let names: Vec<String> = faults.iter().map(Kind::to_string).collect();
            arguments.extend(["--faults".into(), names.join(",")]);
        }
        arguments.extend(self.no_faults.then(|| "--no-faults".into()));
        arguments
    }
}

/// The program.
pub fn main<E: Engine>() -> ExitCode {
    let args = Args::parse();
    trace::install(args.detailed || args.verb == Some(Verb::Meta));
    run::catch_panics();
    if let Some(seconds) = args.hunt {
        println!("{}", hunt::<E>(&args, Duration::from_secs(seconds)));
        return ExitCode::SUCCESS;
    }
    let good = match (args.verb, args.seeds) {
        (Some(Verb::Meta), count) => meta::<E>(&args, count.unwrap_or(5)),
        (None, None) => one::<E>(&args),
        (None, Some(count)) => many::<E>(&args, count),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn meta<E: Engine>(args: &Args, count: u64) -> bool {
    let replay = |seed| {
        let mut arguments = args.replay(seed);
        arguments.extend(["--trace", "--detailed", "--bare"].map(String::from));
        arguments
    };
    meta::meta::<E>(args.from, count, &args.options(), replay).unwrap_or_else(|error| {
        eprintln!("cargo sim: {error}");
        false
    })
}

/// `found SEED RUNS SECONDS CHECKER`, or `missed RUNS SECONDS`.
fn hunt<E: Engine>(args: &Args, most: Duration) -> String {
    let (began, options) = (stopwatch(), args.options());
    let mut runs = 0;
    for seed in args.from.. {
        let report = run::run::<E>(seed, &options, || None);
        runs += 1;
        let seconds = began.elapsed().as_secs();
        if let Some((checker, _)) = report.violations.first() {
            return format!("found {seed} {runs} {seconds} {checker}");
        }
        if began.elapsed() >= most {
            break;
        }
    }
    format!("missed {runs} {}", began.elapsed().as_secs())
}

fn one<E: Engine>(args: &Args) -> bool {
    let traced = args.trace;
    let began = stopwatch();
    let scene = Scene::draw(args.seed, &args.options());
    if !args.hash && !args.bare {
        println!("engine   {}\n{}", E::NAME, drawn(&scene));
    }
    let sink = move || traced.then(|| Box::new(BufWriter::new(io::stdout())) as trace::Sink);
    let report = run::run::<E>(args.seed, &args.options(), sink);
    if args.hash {
        println!("{}", hash_line(&report));
    } else if !args.bare {
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("{}", summary(&report, began.elapsed()));
        print!("{}", verdicts(&report, args));
    }
    report.violations.is_empty()
}

fn drawn(scene: &Scene) -> String {
    let Scene { seed, nodes, spare, setup, span, tick, latency, jitter, draw, mix, locks, watchers, tenants } = scene;
    let crate::workload::locks::Mix { lockers, locks, ttl } = locks;
    let crate::server::Setup { checkpoint_every, trailing, .. } = setup;
    let crate::workload::kv::Mix {
        clients,
        keys,
        pairs,
        machines,
        reads,
        deletes,
        compares,
        abandons,
        waits,
        doomed,
        pause,
        padding,
    } = mix;
    format!(
        "seed     {seed}\ncluster  {nodes} servers and {spare} to join, {span:?} of storm, steps of {tick:?}, latency to {latency:?}, \
         jitter {jitter}‰\nlog      a checkpoint every {checkpoint_every:?}, {trailing} entries behind it\n\
         clients  {clients} on {keys} keys, {pairs} pairs, {machines} machines, pause to {pause:?}; {reads}‰ reads ({waits}‰ of \
         them wait), {deletes}‰ deletes, {compares}‰ compares, {abandons}‰ abandoned, {doomed}‰ doomed, values of {padding} \
         bytes\n\
         others   {lockers} lockers on {locks} locks, sessions of up to {ttl} s; {watchers} watchers; {tenants} tenants\n\
         faults   {draw}"
    )
}

fn hash_line(report: &Report) -> String {
    let (hash, events) = report.trace;
    format!("{} {hash:016x} {events}", report.scene.seed)
}

fn summary(report: &Report, took: Duration) -> String {
    let Operations { all, answered, .. } = report.operations;
    let (holds, fenced) = report.locks;
    let (hash, events) = report.trace;
    let seconds = report.time.as_secs_f64();
    let together = report.together_after.map_or_else(|| "never".into(), |after| format!("after {after:?}"));
    format!(
        "result   {seconds:.1} virtual seconds in {:.2} s ({:.0} per second); {all} operations ({:.0} per virtual second of storm), {answered} answered; \
         {holds} holds of locks, {fenced} fenced writes; {} starts; together {together}\ntrace    {hash:016x} of {events} events\n\n{}",
        took.as_secs_f64(),
        seconds / took.as_secs_f64(),
        report.operations.in_storm as f64 / report.scene.span.as_secs_f64(),
        report.boots,
        report.checks
    )
}

/// What was wrong, and how to see it again.
fn verdicts(report: &Report, args: &Args) -> String {
    let mut text = String::new();
    for (checker, violation) in &report.violations {
        text += &format!("\nVIOLATION [{checker}] {violation}\n");
    }
    if !report.violations.is_empty() {
        text += &format!("\nreplay   cargo sim {}\n", args.replay(report.scene.seed).join(" "));
    }
    text
}

/// Real time, for saying how fast it was; nothing in a run sees it.
#[expect(clippy::disallowed_methods, reason = "the command line is outside of every world")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

/// Sums over many runs.
#[derive(Default)]
struct Totals {
    runs: u64,
    time: Duration,
    operations: usize,
    in_storm: usize,
    storm: Duration,
    answered: usize,
    locks: (usize, usize),
    boots: u64,
    gave_up: usize,
    faults: BTreeMap<Kind, u64>,
    bad: u64,
    violations: BTreeMap<&'static str, u64>,
    hashes: BTreeMap<u64, String>,
}

impl Totals {
    fn add(&mut self, report: &Report, args: &Args) {
        self.runs += 1;
        self.time += report.time;
        self.operations += report.operations.all;
        self.answered += report.operations.answered;
        self.in_storm += report.operations.in_storm;
        self.storm += report.scene.span;
        self.locks.0 += report.locks.0;
        self.locks.1 += report.locks.1;
        self.boots += u64::from(report.boots);
        self.gave_up += report.checks.gave_up();
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (checker, _) in &report.violations {
            *self.violations.entry(checker).or_default() += 1;
        }
        if !report.violations.is_empty() {
            self.bad += 1;
            // At once: a long sweep may be ended early.
            println!("{}", verdicts(report, args).trim_end());
        }
        self.hashes.insert(report.scene.seed, hash_line(report));
    }
}

fn many<E: Engine>(args: &Args, count: u64) -> bool {
    let began = stopwatch();
    let options = args.options();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(args.from);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.unwrap_or(cores) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + count {
                        return;
                    }
                    let report = run::run::<E>(seed, &options, || None);
                    let mut totals = hold(&totals);
                    totals.add(&report, args);
                    // On a terminal always; in a log now and then.
                    if io::stderr().is_terminal() {
                        eprint!("\r{} ", progress(&totals, count, began.elapsed()));
                    } else if totals.runs.is_multiple_of(100) {
                        eprintln!("{}", progress(&totals, count, began.elapsed()));
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if args.hash {
        totals.hashes.values().for_each(|line| println!("{line}"));
    } else {
        println!("{}", table(&totals, began.elapsed()));
    }
    totals.bad == 0
}

fn progress(totals: &Totals, count: u64, took: Duration) -> String {
    let rate = totals.time.as_secs_f64() / took.as_secs_f64();
    format!("{}/{count} seeds, {} bad, {rate:.0} virtual seconds per second", totals.runs, totals.bad)
}

fn table(totals: &Totals, took: Duration) -> String {
    let mut text = String::new();
    let rate = totals.time.as_secs_f64() / took.as_secs_f64();
    let mut row = |name: &str, value: String| text += &format!("\n{name:<22}{value:>14}");
    row("seeds", totals.runs.to_string());
    row("virtual seconds", format!("{:.0}", totals.time.as_secs_f64()));
    row("  per second", format!("{rate:.0}"));
    row("operations", totals.operations.to_string());
    row("  per virtual second of storm", format!("{:.0}", totals.in_storm as f64 / totals.storm.as_secs_f64()));
    row("  answered", totals.answered.to_string());
    row("holds of locks", totals.locks.0.to_string());
    row("fenced writes", totals.locks.1.to_string());
    row("starts of servers", totals.boots.to_string());
    for (kind, count) in &totals.faults {
        row(&format!("fault {kind}"), count.to_string());
    }
    row("searches given up", totals.gave_up.to_string());
    for (checker, count) in &totals.violations {
        row(&format!("violations {checker}"), count.to_string());
    }
    row("seeds that failed", totals.bad.to_string());
    text
}
