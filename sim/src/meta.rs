//! `cargo sim meta`: the same seed gives the same bytes, or nothing else that the simulator says means anything.
//!
//! Each seed runs four times: twice in this process, once in another, and once while a second thread runs other seeds. The
//! detailed traces, with every message and every step of raft, must be the same byte for byte.

use std::io::{self, Write};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::engine::Engine;
use crate::run::{self, Options};
use crate::trace::Sink;
use crate::world::hold;

/// Seeds whose traces are kept at once: each has tens of megabytes.
const BATCH: u64 = 4;

/// Compares traces of `count` seeds; `replay` is what another process needs to run one of them. Says what it finds, and
/// returns whether all is well.
///
/// # Errors
/// If the other process cannot be started.
pub fn meta<E: Engine>(
    from: u64,
    count: u64,
    options: &Options,
    replay: impl Fn(u64) -> Vec<String>,
) -> io::Result<bool> {
    let mut same = true;
    for begin in (from..from + count).step_by(BATCH as usize) {
        let batch = begin..(begin + BATCH).min(from + count);
        let mut first = Vec::new();
        for seed in batch.clone() {
            let once = trace_of::<E>(seed, options);
            let lines = once.iter().filter(|byte| **byte == b'\n').count();
            same &= compare(seed, "a second run", &once, &trace_of::<E>(seed, options));
            same &= compare(seed, "another process", &once, &elsewhere(&replay(seed))?);
            println!("seed {seed}: {lines} events");
            first.push(once);
        }
        let beside = side_by_side::<E>(begin, first.len() as u64, options);
        for (seed, (once, beside)) in batch.zip(first.iter().zip(beside)) {
            same &= compare(seed, "two threads", once, &beside);
        }
    }
    println!("{}", if same { "the same seeds gave the same traces" } else { "NOT DETERMINISTIC" });
    Ok(same)
}

fn trace_of<E: Engine>(seed: u64, options: &Options) -> Vec<u8> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Capture(lines.clone());
    run::run::<E>(seed, options, || Some(Box::new(sink) as Sink));
    std::mem::take(&mut *hold(&lines))
}

fn elsewhere(arguments: &[String]) -> io::Result<Vec<u8>> {
    Ok(Command::new(std::env::current_exe()?).args(arguments).output()?.stdout)
}

fn side_by_side<E: Engine>(from: u64, count: u64, options: &Options) -> Vec<Vec<u8>> {
    let next = AtomicU64::new(0);
    let traces = Mutex::new(vec![Vec::new(); count as usize]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= count {
                        return;
                    }
                    let trace = trace_of::<E>(from + place, options);
                    hold(&traces)[place as usize] = trace;
                }
            });
        }
    });
    traces.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Says where two traces part.
fn compare(seed: u64, with: &str, one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let lines = |trace: &[u8]| String::from_utf8_lossy(trace).lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, other) = (lines(one), lines(other));
    let place = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    println!("seed {seed}: {with} parts at line {}:", place + 1);
    for lines in [&one, &other] {
        println!("  {}", lines.get(place).map_or("(the end)", String::as_str));
    }
    false
}

struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        hold(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
