//! Prints what a run showed, for people or for programs.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::check::Verdict;
use super::load::{Tally, short};
use super::{Format, Plan, Spent};

/// Lost keys that are printed; more say nothing new.
const SHOWN: usize = 10;

/// The quantiles that are printed, with their names for people and for programs.
const QUANTILES: [(f64, &str, &str); 4] =
    [(0.5, "p50", "p50_us"), (0.99, "p99", "p99_us"), (0.999, "p99.9", "p999_us"), (1.0, "max", "max_us")];

/// Rates, latencies, errors and CPU time.
pub fn measured(out: &mut dyn Write, plan: &Plan, tally: &Tally, spent: &Spent, format: Format) -> io::Result<()> {
    let seconds = spent.wall.as_secs_f64();
    let kinds = [("write", &tally.writes), ("read", &tally.reads)];
    let used = kinds.into_iter().filter(|(_, histogram)| !histogram.is_empty());
    let per_operation = |cpu: Duration| cpu.as_secs_f64() * 1e6 / tally.operations().max(1) as f64;
    if format == Format::Json {
        let mut document = json!({
            "address": plan.address.to_string(),
            "clients": plan.clients,
            "value_size": plan.value_size,
            "keys": plan.keys,
            "seed": plan.seed,
            "seconds": seconds,
        });
        for (name, histogram) in used {
            document[name] = figures(histogram, seconds);
        }
        document["errors"] = json!(tally.errors);
        document["cpu_us_per_operation"] = json!({
            "bench": per_operation(spent.own_cpu),
            "servers": spent.server_cpu.iter().map(|cpu| per_operation(*cpu)).collect::<Vec<_>>(),
        });
        return writeln!(out, "{}", serde_json::to_string_pretty(&document)?);
    }
    let (clients, keys, size) = (plan.clients, plan.keys, plan.value_size);
    writeln!(out, "{}: {clients} clients, {keys} keys, {size}-byte values, {seconds:.1} s\n", plan.address)?;
    writeln!(out, "{:8}{:>12}{:>12}{:>12}{:>12}{:>12}", "", "rate/s", "p50", "p99", "p99.9", "max")?;
    for (name, histogram) in used {
        write!(out, "{name:8}{:>12.0}", histogram.len() as f64 / seconds)?;
        for (quantile, ..) in QUANTILES {
            write!(out, "{:>12}", short(Duration::from_nanos(histogram.value_at_quantile(quantile))))?;
        }
        writeln!(out)?;
    }
    write!(out, "\nCPU per operation: bench {:.1} µs", per_operation(spent.own_cpu))?;
    for cpu in &spent.server_cpu {
        write!(out, ", server {:.1} µs", per_operation(*cpu))?;
    }
    writeln!(out)?;
    if tally.errors.is_empty() {
        return writeln!(out, "Errors: none");
    }
    writeln!(out, "Errors:")?;
    tally.errors.iter().try_for_each(|(kind, count)| writeln!(out, "{count:>12}  {kind}"))
}

fn figures(histogram: &Histogram<u64>, seconds: f64) -> Value {
    let mut figures = Map::new();
    figures.insert("count".into(), histogram.len().into());
    figures.insert("rate".into(), (histogram.len() as f64 / seconds).into());
    for (quantile, _, name) in QUANTILES {
        figures.insert(name.into(), (histogram.value_at_quantile(quantile) as f64 / 1e3).into());
    }
    figures.into()
}

/// What the check found.
pub fn verdict(out: &mut dyn Write, plan: &Plan, verdict: &Verdict, format: Format) -> io::Result<()> {
    let Verdict { acknowledged, unknown, keys, lost } = verdict;
    if format == Format::Json {
        let document = json!({
            "address": plan.address.to_string(),
            "seed": plan.seed,
            "acknowledged": acknowledged,
            "unknown": unknown,
            "keys": keys,
            "lost": lost.len(),
            "examples": lost.iter().take(SHOWN).collect::<Vec<_>>(),
        });
        return writeln!(out, "{}", serde_json::to_string_pretty(&document)?);
    }
    writeln!(out, "{}: acknowledged {acknowledged}, lost {}", plan.address, lost.len())?;
    writeln!(out, "{keys} keys read back, {unknown} writes of unknown outcome, which may be there or not")?;
    lost.iter().take(SHOWN).try_for_each(|sentence| writeln!(out, "  {sentence}"))?;
    if lost.len() > SHOWN { writeln!(out, "  and {} more", lost.len() - SHOWN) } else { Ok(()) }
}
