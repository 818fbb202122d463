//! The command line: which runs, and what to do with them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::check;
use crate::engine::Engine;
use crate::meta;
use crate::minimize;
use crate::nemesis::Kind;
use crate::page;
use crate::run;
use crate::scenario::{SCENARIOS, Scenario};
use crate::scene::{Options, Scene};
use crate::sweep;
use crate::text::{self, Stopwatch};
use crate::trace;

/// Runs whole clusters in virtual time, with clients and faults, and says whether all promises were kept.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", after_help = EXAMPLES)]
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
    /// A kind of run with a name: see `cargo sim list`
    #[arg(long, value_parser = Scenario::find)]
    scenario: Option<&'static Scenario>,
    /// Servers; drawn from the seed if not set
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// Virtual seconds of faults; drawn from the seed if not set
    #[arg(long, value_parser = seconds)]
    secs: Option<Duration>,
    /// Kinds of faults that may happen, with commas between them
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// Nothing goes wrong
    #[arg(long, conflicts_with_all = ["faults", "only"])]
    no_faults: bool,
    /// Of the faults that were drawn, those at these places happen; the first is 0
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Clients that do nothing: c1,l2
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// How many operations each client of registers runs at most
    #[arg(long)]
    most: Option<u32>,
    /// The longest pause of a client of registers between two operations, in milliseconds
    #[arg(long, value_name = "N")]
    pause: Option<u64>,
    /// Runs engines into which this known bug was planted: see `cargo sim list`
    #[arg(long, value_name = "BUG")]
    sabotage: Option<String>,
    /// Writes a page with a timeline: servers, faults, operations, where it broke
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
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

const EXAMPLES: &str = "Examples:
  cargo sim --seed 7                            one run
  cargo sim --seed 7 --report seven.html        … and a page to look at
  cargo sim --seeds 1000 --engine both          many
  cargo sim --tuned --seeds 5000                with engines that take longer to build and run faster
  cargo sim --scenario bad-disks --seeds 100    of one kind
  cargo sim minimize --seed 7                   the fewest faults and operations that still fail
  cargo sim list                                scenarios, faults, checkers
  cargo sim planted                             is the simulator good enough?
  cargo sim --sabotage fence-restarts           a run of a product with a known bug";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Runs seeds again and again, and compares their traces byte for byte
    Meta,
    /// Looks for the fewest faults, clients and operations with which a seed still fails
    Minimize,
    /// Prints scenarios, faults and checkers
    List,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted: 12, or 7.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Args {
    fn options(&self) -> Options {
        let faults = match (&self.faults, self.no_faults) {
            (_, true) => BTreeSet::new(),
            (Some(kinds), _) => kinds.iter().copied().collect(),
            (None, _) => Kind::value_variants().iter().copied().collect(),
        };
        Options {
            scenario: self.scenario,
            nodes: self.nodes.map(usize::from),
            span: self.secs,
            faults,
            only: self.only.clone().map(BTreeSet::from_iter),
            without: self.without.iter().cloned().collect(),
            most: self.most,
            pause: self.pause,
            sabotage: self.sabotage.clone(),
        }
    }
}

/// The program.
pub fn main<E: Engine>() -> ExitCode {
    let args = Args::parse();
    trace::install(args.detailed || args.verb == Some(Verb::Meta));
    run::catch_panics();
    let done = match (args.verb, args.seeds) {
        (Some(Verb::Meta), count) => meta::<E>(&args, count.unwrap_or(5)),
        (Some(Verb::Minimize), _) => Ok(minimize::minimize::<E>(args.seed, &args.options())),
        (Some(Verb::List), _) => {
            print!("{}", list());
            Ok(true)
        }
        (None, _) if args.hunt.is_some() => {
            println!("{}", hunt::<E>(&args, Duration::from_secs(args.hunt.unwrap_or_default())));
            Ok(true)
        }
        (None, None) => one::<E>(&args),
        (None, Some(count)) => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let jobs = args.jobs.unwrap_or(cores).max(1);
            Ok(sweep::sweep::<E>(&args.options(), args.from, count, jobs, args.hash))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn meta<E: Engine>(args: &Args, count: u64) -> io::Result<bool> {
    let options = args.options();
    let replay = |seed| {
        let mut arguments = options.arguments(seed);
        arguments.extend(["--trace", "--detailed", "--bare"].map(String::from));
        arguments
    };
    meta::meta::<E>(args.from, count, &options, replay)
}

/// `found SEED RUNS SECONDS CHECKER`, or `missed RUNS SECONDS`.
fn hunt<E: Engine>(args: &Args, most: Duration) -> String {
    let (began, options) = (Stopwatch::start(), args.options());
    let mut runs = 0;
    for seed in args.from.. {
        let report = run::run::<E>(seed, &options, || None);
        runs += 1;
        let seconds = began.took().time.as_secs();
        if let Some(alarm) = report.alarms.first() {
            return format!("found {seed} {runs} {seconds} {}", alarm.checker);
        }
        if began.took().time >= most {
            break;
        }
    }
    format!("missed {runs} {}", began.took().time.as_secs())
}

#[expect(clippy::disallowed_methods, reason = "a file for a person, outside of every world")]
fn one<E: Engine>(args: &Args) -> io::Result<bool> {
    let (traced, options) = (args.trace, args.options());
    let quiet = args.hash || args.bare;
    let began = Stopwatch::start();
    if !quiet {
        println!("{}\n", text::drawn(E::NAME, &Scene::draw(args.seed, &options)));
    }
    let sink = move || traced.then(|| Box::new(BufWriter::new(io::stdout())) as trace::Sink);
    let report = run::run::<E>(args.seed, &options, sink);
    let replay = options.command(E::NAME, args.seed);
    if args.hash {
        println!("{}", text::hash_line(&report));
    } else if !args.bare {
        report.film.happenings.iter().for_each(|happening| println!("{happening}"));
        println!("\n{}", text::summary(&report, began.took()));
        print!("{}", text::alarms(&report, &replay));
    }
    if let Some(path) = &args.report {
        let page = page::page(E::NAME, &report, &replay);
        fs::write(path, page).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if !quiet {
            println!("\nreport   {}", path.display());
        }
    }
    Ok(report.alarms.is_empty())
}

/// What there is to choose from.
fn list() -> String {
    let mut text = String::new();
    let mut section = |title: &str, rows: Vec<(String, String)>| {
        text += &format!("{title}\n");
        rows.iter().for_each(|(name, about)| text += &format!("  {name:<22}{about}\n"));
        text += "\n";
    };
    let scenarios = SCENARIOS.iter().map(|scenario| (scenario.name.to_owned(), scenario.about.to_owned()));
    section("scenarios (--scenario)", scenarios.collect());
    let about = |kind: &Kind| kind.to_possible_value().and_then(|value| Some(value.get_help()?.to_string()));
    let faults = Kind::value_variants().iter().map(|kind| (kind.to_string(), about(kind).unwrap_or_default()));
    section("faults (--faults)", faults.collect());
    let checkers = check::CHECKERS.iter().map(|(name, about)| ((*name).to_owned(), (*about).to_owned()));
    section("checkers", checkers.collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_run_make_the_same_run() {
        let lines = [
            "--seed 7",
            "--seed 7 --no-faults",
            "--seed 7 --scenario bad-disks --nodes 5 --secs 6.25 --faults eio,rot --only 0,3 --without c1,l2 --most 4 --pause 9",
            "--sabotage some-bug --seed 7 --no-faults",
        ];
        for line in lines {
            let options = Args::parse_from(format!("sim {line}").split_whitespace()).options();
            assert_eq!(options.arguments(7).join(" "), line);
            assert_eq!(options.command("madsim", 7), format!("cargo sim --engine madsim {line}"));
        }
    }

    #[test]
    fn a_run_whose_last_fault_was_cut_away_can_be_replayed() {
        let mut options = Args::parse_from("sim --faults partition --only 2".split_whitespace()).options();
        options.only = Some(BTreeSet::new());
        let again = Args::parse_from(std::iter::once("sim".into()).chain(options.arguments(7))).options();
        assert!(Scene::draw(7, &again).draw.plan.is_empty());
    }
}
