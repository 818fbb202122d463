//! `--tuned`: engines that are built twice, the second time by a compiler that knows how they run.
//!
//! No function of a run takes much of its time, but there are many, and most of what is in them is for cases that seldom come.
//! A profile tells the compiler which those are. What a run does stays the same, byte for byte; how much sooner it is done is in
//! `sim/README.md`. Building takes more than twice as long, so this is for sweeps of thousands of seeds.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::engines::{self, Aim, ENGINES};

/// What the engines run to be watched: seeds as a sweep has them, and what speed is measured with.
const LESSONS: [&str; 2] = ["--seeds 12 --from 900001 --secs 12 --jobs 1", "--scenario speed --seed 900001 --secs 60"];

/// Builds tuned engines; returns where they are.
///
/// # Errors
/// If they do not build, a seed fails meanwhile, or the tool that reads profiles is not there.
pub fn build() -> io::Result<PathBuf> {
    let home = engines::target()?.join("tuned");
    let (raw, profile) = (home.join("raw"), home.join("profile"));
    // Before minutes are spent on what needs it.
    let profdata = profdata()?;
    eprintln!("building engines that write down how they run");
    let watched = engines::build(&engines::workspace(), &home.join("watched"), Aim::Watched(&raw), ENGINES)?;
    if !is_of(&profile, &watched)? {
        fs::remove_dir_all(&raw)
            .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        for (engine, lesson) in ENGINES.iter().flat_map(|engine| LESSONS.map(|lesson| (engine, lesson))) {
            eprintln!("watching {}: {lesson}", engine.name);
            let mut run = engines::program(&watched, engine);
            if !run.args(lesson.split(' ')).stdout(Stdio::null()).status()?.success() {
                return Err(io::Error::other(format!("a seed fails: cargo sim --engine {} {lesson}", engine.name)));
            }
        }
        let merged = Command::new(&profdata).arg("merge").arg(&raw).arg("-o").arg(&profile).status()?;
        if !merged.success() {
            return Err(io::Error::other(format!(
                "{} does not make a profile of {}",
                profdata.display(),
                raw.display()
            )));
        }
    }
    eprintln!("building engines by what was seen");
    engines::build(&engines::workspace(), &home.join("built"), Aim::Tuned(&profile), ENGINES)
}

/// Whether a profile is of these programs, and not of earlier ones.
fn is_of(profile: &Path, programs: &Path) -> io::Result<bool> {
    let Ok(written) = fs::metadata(profile).and_then(|profile| profile.modified()) else { return Ok(false) };
    for engine in ENGINES {
        if fs::metadata(programs.join(engine.package))?.modified()? > written {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The compiler's own tool for profiles: those of another version may not be readable.
fn profdata() -> io::Result<PathBuf> {
    let libraries = engines::rustc("target-libdir")?;
    let tool = Path::new(&libraries).with_file_name("bin").join("llvm-profdata");
    if tool.exists() {
        return Ok(tool);
    }
    Err(io::Error::other("--tuned needs llvm-profdata: rustup component add llvm-tools"))
}
