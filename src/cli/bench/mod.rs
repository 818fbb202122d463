//! `quorate bench`: measures any agent that speaks Consul's API, or checks that it loses nothing.
//!
//! Every client is a task with a connection of its own that sends its next request when the last was answered: a closed
//! loop, so the latency it prints is what such a client sees, and a stall shows as fewer operations with one long one
//! each.
//!
//! `load` measures, `check` checks, `report` prints, `connection` speaks HTTP.

mod check;
mod connection;
mod load;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::context::Context;
use super::http_flags::HttpFlags;
use crate::api::duration::GoDuration;
use crate::client::address::Address;
use crate::client::kv::{self, key_path};
use crate::limits;
use crate::world::World;
use crate::world::real::process::{cpu_of, own_cpu};
use connection::Common;

/// Measures an agent under load, or checks that it loses no acknowledged write
///
/// With -check each client writes rising numbers to keys of its own, goes on through failures, and at the end reads
/// every key back: kill and restart servers meanwhile.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate bench                                  writes from 64 clients for 10 seconds\n  \
    quorate bench -reads=90 -clients=256           mostly reads\n  \
    quorate bench -pid=$(pidof quorate) -format=json    with the server's CPU time, for programs\n  \
    quorate bench -check -duration=60s             exits with 1 if anything acknowledged is lost")]
pub struct Bench {
    /// Check that nothing acknowledged is lost
    #[arg(long, conflicts_with = "reads")]
    check: bool,
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 64, value_name = "NUMBER")]
    clients: usize,
    /// Stop after this many operations
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration")]
    count: Option<u64>,
    /// Stop after this time [default: 10s]
    #[arg(long, value_name = "DURATION")]
    duration: Option<GoDuration>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Leave the keys there afterwards
    #[arg(long)]
    keep: bool,
    /// Keys to spread operations over
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER")]
    keys: u64,
    /// The process id of a server on this machine, to print its CPU time per operation; may be repeated
    #[arg(long)]
    pid: Vec<u32>,
    /// Put keys below this
    #[arg(long, default_value = "bench/", value_name = "TEXT")]
    prefix: String,
    /// Percent of operations that read
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// Repeat a run's choices of keys and operations
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    value_size: usize,
    #[command(flatten)]
    http: HttpFlags,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What to do, checked and resolved.
#[derive(Clone)]
struct Plan {
    world: World,
    address: Address,
    common: Common,
    clients: usize,
    until: Until,
    keys: u64,
    /// Encoded path of the keys of this run, without their last part.
    path: String,
    /// What follows a read's path.
    read_query: &'static str,
    reads: u8,
    seed: u64,
    value_size: usize,
}

/// When a run ends.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Count(u64),
}

/// CPU time and wall time between two moments.
struct Spent {
    wall: Duration,
    own_cpu: Duration,
    /// Of each server that was named.
    server_cpu: Vec<Duration>,
}

/// Runs the load and prints what it showed.
pub async fn run(cx: &mut Context, bench: Bench) -> anyhow::Result<ExitCode> {
    let seed = bench.seed.unwrap_or_else(|| cx.world.entropy.u64());
    let folder = format!("{}{seed:016x}/", bench.prefix);
    let plan = plan(cx, &bench, seed, &folder).await?;
    if bench.seed.is_some() {
        // An earlier run with this seed may have kept its keys, and what it left is not what this one wrote.
        remove(cx, &bench, &folder).await?;
    }
    let bar = bar(cx.watched, plan.until);
    let kept = match bench.check {
        true => {
            let verdict = check::run(&plan, &bar).await?;
            bar.finish_and_clear();
            report::verdict(&mut cx.out, &plan, &verdict, bench.format)?;
            let fine = verdict.lost.is_empty();
            // What was lost is left for whoever looks into it.
            (bench.keep || !fine, fine)
        }
        false => {
            let (tally, spent) = load::run(&plan, &bench.pid, &bar).await?;
            bar.finish_and_clear();
            report::measured(&mut cx.out, &plan, &tally, &spent, bench.format)?;
            (bench.keep, tally.operations() > 0)
        }
    };
    let (keep, fine) = kept;
    if !keep {
        remove(cx, &bench, &folder).await.context("measured, but cannot clean up")?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn remove(cx: &Context, bench: &Bench, folder: &str) -> anyhow::Result<()> {
    let removed = bench.http.client(cx).await?.kv_delete(folder, &kv::Delete::Prefix, None, None).await;
    removed.with_context(|| format!("cannot remove the keys below {folder}")).map(drop)
}

async fn plan(cx: &Context, bench: &Bench, seed: u64, folder: &str) -> anyhow::Result<Plan> {
    let within = |flag: &str, value: u64, most: u64| match (1..=most).contains(&value) {
        true => Ok(()),
        false => bail!("{flag}: {value} is not between 1 and {most}"),
    };
    within("-clients", bench.clients as u64, limits::MAX_BENCH_CLIENTS as u64)?;
    within("-keys", bench.keys, limits::MAX_BENCH_KEYS)?;
    within("-value-size", bench.value_size as u64, limits::MAX_VALUE_CEILING as u64)?;
    if bench.check && bench.value_size < check::LEAST_VALUE {
        bail!("-value-size: -check needs at least {} bytes to recognize a value", check::LEAST_VALUE);
    }
    if bench.http.datacenter.is_some() {
        bail!("-datacenter: measure the agents of that datacenter by their own -http-addr");
    }
    let until = match (bench.count, bench.duration) {
        (Some(0), _) => bail!("-count: 0 operations measure nothing"),
        (Some(count), _) => Until::Count(count),
        (None, duration) => {
            let duration = duration.map_or(Some(Duration::from_secs(10)), GoDuration::to_std);
            Until::Time(duration.filter(|d| !d.is_zero()).context("-duration must be longer than nothing")?)
        }
    };
    let (address, token) = (bench.http.address(cx)?, bench.http.token(cx).await?);
    if token.as_ref().is_some_and(|token| token.contains(|c: char| c.is_ascii_control())) {
        bail!("the token holds characters that no token has");
    }
    Ok(Plan {
        world: cx.world.clone(),
        common: Common::new(&address, token.as_deref()),
        address,
        clients: bench.clients,
        until,
        keys: bench.keys,
        path: key_path(folder),
        read_query: if bench.http.stale { "?raw&stale" } else { "?raw" },
        reads: bench.reads,
        seed,
        value_size: bench.value_size,
    })
}

/// Hidden unless someone watches.
fn bar(watched: bool, until: Until) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let (length, unit) = match until {
        Until::Time(time) => (time.as_millis(), "{percent}%"),
        Until::Count(count) => (u128::from(count), "{pos}/{len}"),
    };
    let style =
        ProgressStyle::with_template(&format!("{{bar:40}} {unit} {{msg}}")).expect("the template is well-formed");
    ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX)).with_style(style)
}

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// Shows progress until it is dropped: how far the run is, and how many operations that makes a second.
async fn show(plan: &Plan, bar: &ProgressBar, operations: impl Fn() -> u64) -> std::convert::Infallible {
    let start = plan.world.clock.now();
    loop {
        plan.world.sleep(PROGRESS).await;
        let elapsed = plan.world.clock.now().since(start);
        let done = operations();
        bar.set_position(match plan.until {
            Until::Time(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            Until::Count(_) => done,
        });
        bar.set_message(format!("{:.0}/s", done as f64 / elapsed.as_secs_f64()));
    }
}

/// Reads the meters before and after.
struct Meter<'a> {
    plan: &'a Plan,
    pids: &'a [u32],
    start: crate::world::Instant,
    own: Duration,
    servers: Vec<Duration>,
}

impl Meter<'_> {
    fn start<'a>(plan: &'a Plan, pids: &'a [u32]) -> anyhow::Result<Meter<'a>> {
        Ok(Meter { plan, pids, start: plan.world.clock.now(), own: own_cpu(), servers: server_cpu(pids)? })
    }

    fn stop(self) -> anyhow::Result<Spent> {
        let servers = server_cpu(self.pids)?;
        Ok(Spent {
            wall: self.plan.world.clock.now().since(self.start),
            own_cpu: own_cpu().saturating_sub(self.own),
            server_cpu: servers
                .iter()
                .zip(&self.servers)
                .map(|(after, before)| after.saturating_sub(*before))
                .collect(),
        })
    }
}

fn server_cpu(pids: &[u32]) -> anyhow::Result<Vec<Duration>> {
    let cpu = |pid: &u32| cpu_of(*pid).with_context(|| format!("-pid: cannot read the CPU time of process {pid}"));
    pids.iter().map(cpu).collect()
}
