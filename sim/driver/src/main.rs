//! `cargo sim`: builds the engines with the flags they need, and runs them.
//!
//! The flags are set here and nowhere else. In `.cargo/config.toml` they would apply to the product too, and a `RUSTFLAGS`
//! in the environment would silently replace them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Tokio's randomness can be seeded, and madsim simulates.
const FLAGS: &str = "--cfg tokio_unstable --cfg madsim";

/// What runs the hosts.
struct Engine {
    name: &'static str,
    package: &'static str,
}

const ENGINES: &[Engine] = &[
    Engine { name: "turmoil", package: "quorate-sim-turmoil" },
    Engine { name: "madsim", package: "quorate-sim-madsim" },
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(wanted) = take_engine(&mut arguments) else { return ExitCode::from(2) };
    for engine in wanted {
        match build().and_then(|target| run(engine, &target, &arguments)) {
            Ok(true) => {}
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("cargo sim: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Takes `--engine NAME` out of the arguments; the engines' own programs do not know it.
fn take_engine(arguments: &mut Vec<String>) -> Option<Vec<&'static Engine>> {
    let Some(place) = arguments.iter().position(|argument| argument.split('=').next() == Some("--engine")) else {
        return Some(vec![&ENGINES[0]]);
    };
    let flag = arguments.remove(place);
    let name = match flag.split_once('=') {
        Some((_, name)) => name.to_owned(),
        None if place < arguments.len() => arguments.remove(place),
        None => String::new(),
    };
    let wanted: Vec<&Engine> = ENGINES.iter().filter(|engine| name == "both" || name == engine.name).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        eprintln!("cargo sim: --engine {name:?} is not one of {}, both", names.join(", "));
        return None;
    }
    Some(wanted)
}

/// Builds all engines, so that what they share is built once; returns where they are.
fn build() -> std::io::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let target = std::path::absolute(target)?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--release", "--locked", "--workspace"]);
    build.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
    build.env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS").env("CARGO_TARGET_DIR", &target);
    let built = build.status()?.success();
    built.then(|| target.join("release")).ok_or_else(|| std::io::Error::other("the engines do not build"))
}

fn run(engine: &Engine, target: &Path, arguments: &[String]) -> std::io::Result<bool> {
    Ok(Command::new(target.join(engine.package)).args(arguments).status()?.success())
}
