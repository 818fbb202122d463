//! `cargo sim meta`: the same seed gives the same bytes, or nothing else that the simulator says means anything.
//!
//! Each seed runs four times: twice in this process, once in another, and once while a second thread runs other seeds. The
//! detailed traces, with every message and every step of raft, must be the same byte for byte.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::engine::Engine;
use crate::run;
use crate::scene::Options;
use crate::trace::Sink;
use crate::world::hold;

/// Seeds that two threads share at a time.
const BATCH: u64 = 8;

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
            same &= compare(seed, "a second run", &once, &trace_of::<E>(seed, options));
            same &= compare(seed, "another process", &once, &elsewhere(&replay(seed))?);
            println!("seed {seed}: {} lines", once.hashes.len());
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

fn trace_of<E: Engine>(seed: u64, options: &Options) -> Lines {
    let lines = Arc::new(Mutex::new(Lines::default()));
    let sink = Capture(lines.clone());
    run::run::<E>(seed, options, || Some(Box::new(sink) as Sink));
    std::mem::take(&mut *hold(&lines))
}

fn elsewhere(arguments: &[String]) -> io::Result<Lines> {
    let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
    let mut lines = Lines::default();
    if let Some(mut output) = child.stdout.take() {
        io::copy(&mut output, &mut lines)?;
    }
    child.wait()?;
    Ok(lines)
}

fn side_by_side<E: Engine>(from: u64, count: u64, options: &Options) -> Vec<Lines> {
    let next = AtomicU64::new(0);
    let traces = Mutex::new(vec![Lines::default(); count as usize]);
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

/// Says where two traces part: the line's text is what `--seed N --trace --detailed` prints there.
fn compare(seed: u64, with: &str, one: &Lines, other: &Lines) -> bool {
    if one == other {
        return true;
    }
    let place = one.hashes.iter().zip(&other.hashes).take_while(|(one, other)| one == other).count();
    let [one, other] = [one, other].map(|lines| lines.hashes.len());
    println!("seed {seed}: {with} parts at line {} of {one} and {other}", place + 1);
    false
}

/// A trace as the hashes of its lines: traces of gigabytes are compared, and none is kept.
#[derive(Debug, Clone, Default)]
struct Lines {
    hashes: Vec<u64>,
    line: DefaultHasher,
    bytes: u64,
}

impl PartialEq for Lines {
    fn eq(&self, other: &Self) -> bool {
        (self.bytes, &self.hashes) == (other.bytes, &other.hashes)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.write(part);
            if part.ends_with(b"\n") {
                self.hashes.push(std::mem::take(&mut self.line).finish());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Capture(Arc<Mutex<Lines>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        hold(&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&str]) -> Lines {
        let mut lines = Lines::default();
        parts.iter().for_each(|part| lines.write_all(part.as_bytes()).unwrap());
        lines
    }

    #[test]
    fn how_a_trace_is_cut_into_writes_does_not_matter_and_every_byte_does() {
        let whole = lines(&["one\ntwo\nthree\n"]);
        assert_eq!(whole.hashes.len(), 3);
        assert!(whole == lines(&["o", "ne\n", "two\nth", "ree\n"]));
        for other in ["one\ntwo\nthrie\n", "one\ntwo\n", "two\none\nthree\n", "one\ntwo\nthree\nfour", ""] {
            assert!(whole != lines(&[other]), "{other}");
        }
    }
}
