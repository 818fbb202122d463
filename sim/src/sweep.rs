//! Many runs: as many at a time as there are cores, with progress, and a table at the end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::Engine;
use crate::nemesis::Kind;
use crate::run::{self, Report};
use crate::scene::Options;
use crate::text::{self, Stopwatch, Took};
use crate::world::hold;

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
    counts: (u64, u64, u64),
    streams: (usize, usize),
    boots: u64,
    gave_up: usize,
    faults: BTreeMap<Kind, u64>,
    bad: u64,
    alarms: BTreeMap<&'static str, u64>,
    hashes: BTreeMap<u64, String>,
}

impl Totals {
    /// Adds a run; `replay` is the command that runs it again.
    fn add(&mut self, report: &Report, replay: &str) {
        self.runs += 1;
        self.time += report.time;
        self.operations += report.operations.all;
        self.answered += report.operations.answered;
        self.in_storm += report.operations.in_storm;
        self.storm += report.scene.span;
        self.locks.0 += report.locks.0;
        self.locks.1 += report.locks.1;
        self.counts.0 += report.counts.0;
        self.counts.1 += report.counts.1;
        self.counts.2 += report.counts.2;
        self.streams.0 += report.streams.0;
        self.streams.1 += report.streams.1;
        self.boots += u64::from(report.boots);
        self.gave_up += report.checks.gave_up();
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for alarm in &report.alarms {
            *self.alarms.entry(alarm.checker).or_default() += 1;
        }
        if !report.alarms.is_empty() {
            self.bad += 1;
            // At once: a long sweep may be ended early.
            println!("{}", text::alarms(report, replay).trim_end());
        }
        self.hashes.insert(report.scene.seed, text::hash_line(report));
    }
}

/// Runs `count` seeds, `jobs` at a time, and prints a table; returns whether all are good.
pub fn sweep<E: Engine>(options: &Options, from: u64, count: u64, jobs: usize, hashes: bool) -> bool {
    let began = Stopwatch::start();
    let next = AtomicU64::new(from);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let report = run::run::<E>(seed, options, || None);
                    let mut totals = hold(&totals);
                    totals.add(&report, &options.command(E::NAME, seed));
                    // On a terminal always; in a log now and then.
                    if io::stderr().is_terminal() {
                        eprint!("\r{} ", progress(&totals, count, began.took()));
                    } else if totals.runs.is_multiple_of(100) {
                        eprintln!("{}", progress(&totals, count, began.took()));
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if hashes {
        totals.hashes.values().for_each(|line| println!("{line}"));
    } else {
        println!("{}", table(&totals, began.took()));
    }
    totals.bad == 0
}

fn progress(totals: &Totals, count: u64, took: Took) -> String {
    let rate = totals.time.as_secs_f64() / took.time.as_secs_f64();
    format!("{}/{count} seeds, {} bad, {rate:.0} virtual seconds per second", totals.runs, totals.bad)
}

fn table(totals: &Totals, took: Took) -> String {
    let mut text = String::new();
    let rate = totals.time.as_secs_f64() / took.busy.as_secs_f64();
    let mut row = |name: &str, value: String| text += &format!("\n{name:<30}{value:>12}");
    row("seeds", totals.runs.to_string());
    row("virtual seconds", format!("{:.0}", totals.time.as_secs_f64()));
    row("  per second and core", format!("{rate:.0}"));
    row("operations", totals.operations.to_string());
    row("  per virtual second of storm", format!("{:.0}", totals.in_storm as f64 / totals.storm.as_secs_f64()));
    row("  answered", totals.answered.to_string());
    row("holds of locks", totals.locks.0.to_string());
    row("fenced writes", totals.locks.1.to_string());
    row("counts under a lock", totals.counts.0.to_string());
    row("  lost without a fence", totals.counts.1.to_string());
    row("  late writes outside", totals.counts.2.to_string());
    row("records of event streams", totals.streams.0.to_string());
    row("  readers who came too late", totals.streams.1.to_string());
    row("starts of servers", totals.boots.to_string());
    for (kind, count) in &totals.faults {
        row(&format!("fault {kind}"), count.to_string());
    }
    row("searches given up", totals.gave_up.to_string());
    for (checker, count) in &totals.alarms {
        row(&format!("violations {checker}"), count.to_string());
    }
    row("seeds that failed", totals.bad.to_string());
    text
}
