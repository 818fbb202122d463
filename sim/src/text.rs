//! What a person reads of one run: what was drawn, what happened, what came of it.

use std::time::Duration;

use crate::run::{Operations, Report};
use crate::scene::Scene;
use crate::server::Setup;
use crate::workload::kv::Mix;
use crate::workload::locks;

/// What the seed drew.
pub fn drawn(engine: &str, scene: &Scene) -> String {
    let Scene {
        seed,
        nodes,
        spare,
        setup,
        span,
        tick,
        latency,
        jitter,
        late,
        draw,
        mix,
        locks,
        watchers,
        readers,
        tenants,
        ..
    } = scene;
    let Mix {
        clients, keys, pairs, machines, reads, deletes, compares, abandons, waits, doomed, pause, padding, ..
    } = mix;
    let locks::Mix { lockers, locks, ttl } = locks;
    let Setup { checkpoint_every, trailing, history, .. } = setup;
    let mut text = String::new();
    let mut line = |name: &str, words: String| text += &format!("{name:<9}{words}\n");
    let scenario = scene.scenario.map(|scenario| format!(", scenario {}", scenario.name)).unwrap_or_default();
    line("seed", format!("{seed}{scenario}"));
    line("cluster", format!("{nodes} servers and {spare} to join, {span:?} of storm, then calm"));
    line(
        "engine",
        format!(
            "{engine}, steps of {tick:?}, latency to {latency:?}, jitter {jitter}‰, tasks late by {:?}, clients on {} hosts",
            late.unwrap_or_default(),
            scene.sites
        ),
    );
    line(
        "log",
        format!(
            "a checkpoint every {checkpoint_every:?}, {trailing} entries behind it, {history} revisions of history"
        ),
    );
    line("clients", format!("{clients} on {keys} keys, {pairs} pairs, {machines} machines, pause to {pause:?}"));
    line("", format!("reads {reads}‰ ({waits}‰ of them wait), deletes {deletes}‰, compares {compares}‰"));
    line("", format!("abandoned {abandons}‰, doomed {doomed}‰, values of {padding} bytes"));
    line(
        "others",
        format!(
            "{lockers} lockers on {locks} locks, sessions of up to {ttl} s; {watchers} watchers; {readers} readers; {tenants} tenants"
        ),
    );
    line("faults", draw.to_string());
    text.trim_end().to_owned()
}

/// The trace's hash and its number of events.
pub fn hash_line(report: &Report) -> String {
    let (hash, events) = report.trace;
    format!("{} {hash:016x} {events}", report.scene.seed)
}

/// What came of it, and how long it took.
pub fn summary(report: &Report, took: Took) -> String {
    let Operations { all, answered, .. } = report.operations;
    let ((holds, fenced), (records, gone), (counts, lost, stale)) = (report.locks, report.streams, report.counts);
    let (hash, events) = report.trace;
    let seconds = report.time.as_secs_f64();
    let together = report.together_after.map_or_else(|| "never".into(), |after| format!("after {after:?}"));
    let (took, busy) = (took.time.as_secs_f64(), took.busy.as_secs_f64());
    let rate = report.operations.in_storm as f64 / report.scene.span.as_secs_f64();
    let mut text = String::new();
    let mut line = |name: &str, words: String| text += &format!("{name:<9}{words}\n");
    line("result", format!("{seconds:.1} virtual seconds in {took:.2} s ({:.0} per second and core)", seconds / busy));
    line("", format!("{all} operations ({rate:.0} per virtual second of storm), {answered} answered"));
    line("", format!("{holds} holds of locks, {fenced} fenced writes; {} starts; together {together}", report.boots));
    line("", format!("{counts} counts under a lock, {lost} updates lost without a fence, {stale} late writes outside"));
    line("", format!("{records} records of event streams, {gone} readers came too late"));
    line("trace", format!("{hash:016x} of {events} events"));
    format!("{text}\n{}", report.checks)
}

/// What was wrong, and the command that shows it again.
pub fn alarms(report: &Report, replay: &str) -> String {
    let mut text = String::new();
    for alarm in &report.alarms {
        text += &format!("\nVIOLATION [{}] {}\n", alarm.checker, alarm.text);
    }
    if !report.alarms.is_empty() {
        text += &format!("\nreplay   {replay}\n");
    }
    text
}

/// Real time and the processor's, for saying how fast it was; nothing in a run sees them.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    began: std::time::Instant,
    busy: Duration,
}

/// How long something took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From its beginning to its end.
    pub time: Duration,
    /// Of all cores, whatever else the machine does.
    pub busy: Duration,
}

impl Stopwatch {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "the command line is outside of every world")]
    pub fn start() -> Self {
        Stopwatch { began: std::time::Instant::now(), busy: busy() }
    }

    /// Since it began.
    pub fn took(&self) -> Took {
        Took { time: self.began.elapsed(), busy: busy() - self.busy }
    }
}

/// Processor time of this process.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
