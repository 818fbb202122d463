//! `cargo sim planted`: is the simulator good enough? Each known bug is planted, and must be found.
//!
//! A bug is a patch under `sim/planted/`, whose head says what it is. It is applied (`git apply`) to a copy of the sources
//! under the target directory: the product carries no switches, and the copy is built incrementally. First the copy is
//! hunted in as it is, in each kind of run that the bugs ask for: an alarm there would make every other line worthless.
//! `--sabotage NAME` takes the same copy for whatever else engines can do.
//!
//! A patch that no longer applies is a failure, and so is a bug that is not found.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::engines::{self, Aim, Engine};

/// Seconds that each bug gets, on one core.
const SECONDS: u64 = 120;
/// Seconds that the copy without a bug gets when bugs are named.
const QUIET_SECONDS: u64 = 10;
/// The copy as it is.
const NO_BUG: &str = "(none)";
/// Directories and files that make a build.
const SOURCES: [&str; 7] = ["src", "sim", "benches", "tests", ".cargo", "Cargo.toml", "Cargo.lock"];

/// One bug.
struct Plant {
    name: String,
    patch: PathBuf,
    what: String,
    after: String,
    /// The files that it changes.
    changes: Vec<PathBuf>,
    /// For the engine: `--nodes 1`.
    arguments: Vec<String>,
}

/// One hunt's end.
struct Outcome {
    found: Option<(u64, String)>,
    runs: u64,
    seconds: u64,
}

/// Plants the bugs that are named, or all; returns whether each was found.
///
/// # Errors
/// If a name is unknown, a file cannot be read or written, or the copy does not build without a bug.
pub fn main(mut arguments: Vec<String>) -> io::Result<bool> {
    let number = |text: Option<String>, default| -> io::Result<u64> {
        let parse = |text: String| text.parse().map_err(|_| io::Error::other(format!("{text:?} is no number")));
        text.map_or(Ok(default), parse)
    };
    let seconds = number(crate::take(&mut arguments, "--seconds"), SECONDS)?;
    let starts = number(crate::take(&mut arguments, "--starts"), 1)?.max(1);
    let Some(wanted) = crate::take_engine(&mut arguments) else { return Ok(false) };
    let plants = choose(all()?, &arguments)?;

    let copy = Copy::new()?;
    let mut good = true;
    println!("{:<30} {:<8} {:<15} {:>6} {:>8} {:>7}  after", "bug", "engine", "found by", "seeds", "seconds", "seed");
    copy.sync()?;
    let programs = copy.build(&wanted)?;
    // Whoever asks for one bug wants it soon; but a copy that fails by itself finds every bug.
    let quiet_seconds = if arguments.is_empty() { seconds } else { seconds.min(QUIET_SECONDS) };
    // In every kind of run that a bug will be hunted in.
    let kinds: BTreeSet<&[String]> = plants.iter().map(|plant| plant.arguments.as_slice()).collect();
    for (engine, kind) in wanted.iter().flat_map(|engine| kinds.iter().map(move |kind| (engine, kind))) {
        let quiet = hunt(engine, &programs, kind, 1, quiet_seconds)?;
        good &= quiet.found.is_none();
        row(NO_BUG, engine, &[quiet], &format!("must not be found {}", kind.join(" ")));
    }
    if !good {
        return Ok(false);
    }
    for plant in plants {
        if let Err(error) = copy.plant(&plant) {
            println!("{:<30} {error}", plant.name);
            good = false;
            continue;
        }
        let programs = match copy.build(&wanted) {
            Ok(programs) => programs,
            Err(error) => {
                println!("{:<30} {error}", plant.name);
                good = false;
                continue;
            }
        };
        for engine in &wanted {
            let hunts =
                (0..starts).map(|start| hunt(engine, &programs, &plant.arguments, 1 + start * 100_000, seconds));
            let outcomes = hunts.collect::<io::Result<Vec<_>>>()?;
            good &= outcomes.iter().all(|outcome| outcome.found.is_some());
            row(&plant.name, engine, &outcomes, &format!("{}: {}", plant.after, plant.what));
        }
    }
    Ok(good)
}

/// Builds engines with this bug; returns where they are.
///
/// # Errors
/// If the name is unknown, its patch does not apply, a file cannot be read or written, or the copy does not build.
pub fn build(name: &str, wanted: &[&Engine]) -> io::Result<PathBuf> {
    let plants = choose(all()?, &[name.to_owned()])?;
    let copy = Copy::new()?;
    plants.iter().try_for_each(|plant| copy.plant(plant))?;
    copy.build(wanted)
}

/// All bugs, a line each.
///
/// # Errors
/// If they cannot be read.
pub fn list() -> io::Result<String> {
    let line = |plant: &Plant| {
        let arguments = plant.arguments.join(" ");
        format!("  {:<30}{}: {}  {arguments}", plant.name, plant.after, plant.what).trim_end().to_owned() + "\n"
    };
    let lines: String = all()?.iter().map(line).collect();
    Ok(format!("planted bugs (--sabotage NAME), and the arguments with which they are hunted\n{lines}"))
}

/// The medians over the starts, whoever found it first, and the seed that shows it.
fn row(name: &str, engine: &Engine, outcomes: &[Outcome], about: &str) {
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let found = outcomes.iter().find_map(|outcome| outcome.found.as_ref());
    let missed = outcomes.iter().filter(|outcome| outcome.found.is_none()).count();
    let by = match found {
        Some((_, checker)) if missed == 0 => checker.clone(),
        Some((_, checker)) => format!("{checker}, {missed} missed"),
        None if name == NO_BUG => "nothing".into(),
        None => "MISSED".into(),
    };
    let seed = found.map_or_else(|| "-".into(), |(seed, _)| seed.to_string());
    let runs = median(outcomes.iter().map(|outcome| outcome.runs).collect());
    let seconds = median(outcomes.iter().map(|outcome| outcome.seconds).collect());
    println!("{name:<30} {:<8} {by:<15} {runs:>6} {seconds:>8} {seed:>7}  {about}", engine.name);
}

fn hunt(engine: &Engine, programs: &Path, arguments: &[String], from: u64, seconds: u64) -> io::Result<Outcome> {
    let began = Instant::now();
    let mut run = engines::program(programs, engine);
    run.args(["--hunt", &seconds.to_string(), "--from", &from.to_string()]).args(arguments);
    let output = run.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse().ok()).unwrap_or(0);
    match words.first() {
        Some(&"found") => {
            let checker = words.get(4).copied().unwrap_or_default().to_owned();
            Ok(Outcome { found: Some((number(1), checker)), runs: number(2), seconds: number(3) })
        }
        Some(&"missed") => Ok(Outcome { found: None, runs: number(1), seconds: number(2) }),
        // A bug may take the engine's whole process with it: that is found, too.
        _ => {
            let checker = format!("died ({})", output.status);
            Ok(Outcome { found: Some((from, checker)), runs: 0, seconds: began.elapsed().as_secs() })
        }
    }
}

/// All bugs, by name.
fn all() -> io::Result<Vec<Plant>> {
    let dir = engines::workspace().join("planted");
    let mut plants = Vec::new();
    for file in fs::read_dir(&dir)? {
        let patch = file?.path();
        if patch.extension().is_some_and(|extension| extension == "patch") {
            plants.push(read(patch)?);
        }
    }
    plants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(plants)
}

fn read(patch: PathBuf) -> io::Result<Plant> {
    let text = fs::read_to_string(&patch)?;
    let head = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
    let must =
        |key: &str| head(key).ok_or_else(|| io::Error::other(format!("{} has no line {key:?}", patch.display())));
    let arguments = head("Arguments:").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let name = patch.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let changes = text.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(PathBuf::from).collect();
    Ok(Plant { name, what: must("What:")?, after: must("After:")?, changes, arguments, patch: patch.clone() })
}

fn choose(plants: Vec<Plant>, names: &[String]) -> io::Result<Vec<Plant>> {
    if let Some(unknown) = names.iter().find(|name| plants.iter().all(|plant| plant.name != **name)) {
        let known: Vec<&str> = plants.iter().map(|plant| plant.name.as_str()).collect();
        return Err(io::Error::other(format!("no planted bug is named {unknown:?}; there are: {}", known.join(", "))));
    }
    Ok(plants.into_iter().filter(|plant| names.is_empty() || names.contains(&plant.name)).collect())
}

/// The copy of the sources.
struct Copy {
    from: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn new() -> io::Result<Self> {
        let planted = engines::target()?.join("planted");
        let from = engines::workspace().parent().unwrap_or(Path::new(".")).to_path_buf();
        let copy = Copy { from, tree: planted.join("tree"), target: planted.join("target") };
        fs::create_dir_all(&copy.tree)?;
        Ok(copy)
    }

    /// Makes the copy equal to the sources. Files that are equal are not touched, so that little is built again.
    fn sync(&self) -> io::Result<()> {
        for name in SOURCES {
            sync(&self.from.join(name), &self.tree.join(name))?;
        }
        Ok(())
    }

    /// Makes the copy equal to the sources with this bug. Files that it has changed so before keep their times, so that
    /// engines which are only run again are not built again.
    fn plant(&self, plant: &Plant) -> io::Result<()> {
        let file = |path: &PathBuf| Some((fs::read(path).ok()?, fs::metadata(path).ok()?.modified().ok()?));
        let changed = plant.changes.iter().map(|name| self.tree.join(name));
        let before: Vec<_> = changed.map(|path| (file(&path), path)).collect();
        self.sync()?;
        self.apply(plant)?;
        for (before, path) in before {
            if let (Some((old, modified)), Some((new, _))) = (before, file(&path))
                && old == new
            {
                fs::File::options().write(true).open(&path)?.set_modified(modified)?;
            }
        }
        Ok(())
    }

    fn apply(&self, plant: &Plant) -> io::Result<()> {
        let mut apply = Command::new("git");
        // Outside of any repository, git applies to the files as they are.
        apply.env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree));
        let applied = apply.arg("apply").arg(&plant.patch).current_dir(&self.tree).output()?;
        if applied.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&applied.stderr).lines().next().unwrap_or_default().to_owned();
        Err(io::Error::other(format!("THE PATCH DOES NOT APPLY: {why}")))
    }

    fn build(&self, wanted: &[&Engine]) -> io::Result<PathBuf> {
        engines::build(&self.tree.join("sim"), &self.target, Aim::Again, wanted)
    }
}

fn sync(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            if name != "target" {
                sync(&from.join(&name), &to.join(&name))?;
                names.push(name);
            }
        }
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            if !names.contains(&entry.file_name()) {
                if entry.path().is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
            }
        }
        return Ok(());
    }
    let bytes = fs::read(from)?;
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes)?;
    }
    Ok(())
}
