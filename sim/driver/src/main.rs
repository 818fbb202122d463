//! `cargo sim`: builds the engines and runs them, as they are or with a known bug planted.
//!
//! What an engine understands is in its own command line (`sim/src/cli.rs`); here are only the verbs that need more than
//! one engine, or another build of it.

#![expect(clippy::disallowed_methods, reason = "a tool of the developer's, outside of every world")]

mod engines;
mod planted;
mod regressions;
mod tuned;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use engines::{Aim, ENGINES, Engine};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("planted") => planted::main(arguments.split_off(1)),
        Some("regressions") => regressions::main(),
        Some("list") => list(),
        _ => {
            let Some(wanted) = take_engine(&mut arguments) else { return ExitCode::from(2) };
            each(&wanted, &arguments)
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

/// What the engines know, which is the same for all of them, and the planted bugs.
fn list() -> io::Result<bool> {
    Ok(each(&ENGINES[..1], &["list".into()])? && {
        print!("{}", planted::list()?);
        true
    })
}

fn each(wanted: &[&Engine], arguments: &[String]) -> io::Result<bool> {
    // The engines' own programs do not know it, and repeat the name of a bug where they say how to run them again.
    let (tuned, arguments): (Vec<String>, Vec<String>) = arguments.iter().cloned().partition(|word| word == "--tuned");
    let sabotage = take(&mut arguments.clone(), "--sabotage");
    let programs = match (sabotage, tuned.is_empty()) {
        (None, true) => engines::build(&engines::workspace(), &engines::target()?, Aim::Fast, ENGINES)?,
        (None, false) => tuned::build()?,
        (Some(bug), true) => planted::build(&bug, wanted)?,
        (Some(_), false) => {
            return Err(io::Error::other("--tuned takes longer to build than a bug takes to be found: leave it out"));
        }
    };
    for engine in wanted {
        if !run(engine, &programs, &arguments)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run(engine: &Engine, programs: &Path, arguments: &[String]) -> io::Result<bool> {
    Ok(engines::program(programs, engine).args(arguments).status()?.success())
}

/// Takes `--engine NAME` out of the arguments; the engines' own programs do not know it.
fn take_engine(arguments: &mut Vec<String>) -> Option<Vec<&'static Engine>> {
    let name = take(arguments, "--engine");
    let name = name.as_deref().unwrap_or(ENGINES[0].name);
    let wanted: Vec<&Engine> = ENGINES.iter().copied().filter(|engine| name == "both" || name == engine.name).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        eprintln!("cargo sim: --engine {name:?} is not one of {}, both", names.join(", "));
        return None;
    }
    Some(wanted)
}

/// Takes `--flag VALUE` or `--flag=VALUE` out of the arguments.
fn take(arguments: &mut Vec<String>, flag: &str) -> Option<String> {
    let place = arguments.iter().position(|argument| argument.split('=').next() == Some(flag))?;
    let argument = arguments.remove(place);
    match argument.split_once('=') {
        Some((_, value)) => Some(value.to_owned()),
        None if place < arguments.len() => Some(arguments.remove(place)),
        None => Some(String::new()),
    }
}
