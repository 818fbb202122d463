//! The engines: built with the flags they need, and run.
//!
//! The flags are set here and nowhere else. In `.cargo/config.toml` they would apply to the product too, and a `RUSTFLAGS`
//! in the environment would silently replace them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tokio's randomness can be seeded, and madsim simulates.
const FLAGS: [&str; 4] = ["--cfg", "tokio_unstable", "--cfg", "madsim"];

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

/// The simulator's directory in the sources, as cargo says when it runs the driver: where the driver was built is no
/// answer, because cargo takes it for fresh in a clone that was moved, or that shares a target directory with another.
pub fn workspace() -> PathBuf {
    let driver = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(driver).parent().unwrap_or(Path::new(".")).to_path_buf()
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
pub enum Aim<'a> {
    /// Fast engines.
    Fast,
    /// Engines that are soon built again, after a small change: see `sim/Cargo.toml`.
    Again,
    /// Engines that write profiles of how they run into this directory.
    Watched(&'a Path),
    /// Engines that are fast where this profile says.
    Tuned(&'a Path),
}

/// An engine that was built, to be given arguments and run.
pub fn program(programs: &Path, engine: &Engine) -> Command {
    let mut program = Command::new(programs.join(engine.package));
    // The allocator gives memory back after a second, which in there is soon over, and then asks for it again.
    program.env("MIMALLOC_PURGE_DELAY", "-1");
    program
}

/// What the compiler says about itself.
///
/// # Errors
/// If there is none, or it is too old to know.
pub fn rustc(what: &str) -> io::Result<String> {
    let output = Command::new("rustc").args(["--print", what]).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("rustc does not print {what}; a newer one may: {}", text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds these engines of a workspace, at once, so that what they share is built once; returns where they are.
///
/// # Errors
/// If they do not build.
pub fn build(workspace: &Path, target: &Path, aim: Aim<'_>, engines: &[&Engine]) -> io::Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--release", "--locked"]);
    build.args(engines.iter().flat_map(|engine| ["--package", engine.package]));
    build.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
    build.env("CARGO_TARGET_DIR", target);
    let mut programs = target.to_owned();
    let mut flags = FLAGS.map(String::from).to_vec();
    match aim {
        Aim::Fast => {}
        Aim::Again => {
            build.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env("CARGO_PROFILE_RELEASE_LTO", "off");
        }
        Aim::Watched(profiles) => flags.push(format!("-Cprofile-generate={}", profiles.display())),
        Aim::Tuned(profile) => flags.push(format!("-Cprofile-use={}", profile.display())),
    }
    if matches!(aim, Aim::Watched(_) | Aim::Tuned(_)) {
        // As a whole, in both builds: names in a profile are those of the parts that a program was compiled in.
        build.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
        // With a target the flags are not those of build scripts, whose profiles nobody wants.
        let host = rustc("host-tuple")?;
        // They are for the machine that builds them.
        flags.push("-Ctarget-cpu=native".into());
        build.args(["--target", &host]);
        programs.push(host);
    }
    build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let output = build.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    if output.status.success() {
        return Ok(programs.join("release"));
    }
    // A linker's complaint goes on for pages.
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = text.lines().take(40).map(|line| line.chars().take(300).collect()).collect();
    Err(io::Error::other(format!("the engines do not build:\n{}", lines.join("\n"))))
}
