//! The engines: built with the flags they need, and run.
//!
//! The flags are set here and nowhere else. In `.cargo/config.toml` they would apply to the product too, and a `RUSTFLAGS`
//! in the environment would silently replace them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tokio's randomness can be seeded, and madsim simulates.
const FLAGS: &str = "--cfg tokio_unstable --cfg madsim";

/// What runs the hosts.
pub struct Engine {
    /// As `--engine` names it.
    pub name: &'static str,
    /// Its package and its program.
    pub package: &'static str,
}

/// All of them.
pub const ENGINES: &[&Engine] = &[
    &Engine { name: "turmoil", package: "quorate-sim-turmoil" },
    &Engine { name: "madsim", package: "quorate-sim-madsim" },
];

/// The simulator's directory in the sources.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where builds go.
///
/// # Errors
/// If there is no current directory.
pub fn target() -> io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    std::path::absolute(target)
}

/// What to build for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// Fast engines.
    Fast,
    /// Engines that are soon built again, after a small change: see `sim/Cargo.toml`.
    Again,
}

/// Builds these engines of a workspace, at once, so that what they share is built once; returns where they are.
///
/// # Errors
/// If they do not build.
pub fn build(workspace: &Path, target: &Path, aim: Aim, engines: &[&Engine]) -> io::Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--release", "--locked"]);
    build.args(engines.iter().flat_map(|engine| ["--package", engine.package]));
    build.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
    build.env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS").env("CARGO_TARGET_DIR", target);
    if aim == Aim::Again {
        build.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env("CARGO_PROFILE_RELEASE_LTO", "off");
    }
    let output = build.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    if output.status.success() {
        return Ok(target.join("release"));
    }
    // A linker's complaint goes on for pages.
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = text.lines().take(40).map(|line| line.chars().take(300).collect()).collect();
    Err(io::Error::other(format!("the engines do not build:\n{}", lines.join("\n"))))
}
