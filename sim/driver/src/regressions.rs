//! `cargo sim regressions`: seeds that once found something, which must stay good.
//!
//! They are kept in `sim/regressions.txt`, a line each. A seed means another run as soon as the simulator draws otherwise,
//! so whatever a seed found has a test of its own beside the code as well.

use std::io;

use crate::engines::{self, Aim, ENGINES};

/// Runs all of them; returns whether all are good.
///
/// # Errors
/// If the list cannot be read, or an engine does not build.
pub fn main() -> io::Result<bool> {
    let list = std::fs::read_to_string(engines::workspace().join("regressions.txt"))?;
    let programs = engines::build(&engines::workspace(), &engines::target()?, Aim::Fast, ENGINES)?;
    let mut good = true;
    for line in list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (run, found) = line.split_once('#').unwrap_or((line, ""));
        let mut words = run.split_whitespace();
        let name = words.next().unwrap_or_default();
        let engine = ENGINES.iter().find(|engine| engine.name == name);
        let engine = engine.ok_or_else(|| io::Error::other(format!("regressions.txt names no engine: {line:?}")))?;
        let output = engines::program(&programs, engine).args(words).output()?;
        let passed = output.status.success();
        println!("{}  {:<32} {}", if passed { "ok  " } else { "FAIL" }, run.trim(), found.trim());
        if !passed {
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        good &= passed;
    }
    Ok(good)
}
