//! The house rules that a machine can hold: who imports whom, how files begin, how long they are.
//!
//! The layers and the reasons for them are in ARCHITECTURE.md. A new module is added to `LAYERS` with what it may import.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of `src/` each module may name, beside the ground.
const LAYERS: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("limits", &[]),
    ("error", &[]),
    ("sync", &[]),
    ("api", &[]),
    ("state", &[]),
    ("archive", &["state"]),
    ("world", &[]),
    ("storage", &["world"]),
    ("rpc", &["world"]),
    ("raft", &["state", "storage", "rpc", "world"]),
    ("config", &["api", "world"]),
    ("telemetry", &["world", "config"]),
    ("agent", &["raft", "rpc", "storage", "state", "archive", "api", "world", "config", "telemetry"]),
    ("http", &["agent", "archive", "state", "api", "telemetry", "world"]),
    ("client", &["api", "world"]),
    ("node", &["agent", "http", "raft", "rpc", "storage", "world", "config", "telemetry"]),
    ("cli", &["node", "client", "archive", "config", "api", "telemetry", "world"]),
    ("main", &["cli"]),
];

/// What every module may import.
const GROUND: &[&str] = &["codec", "limits", "error", "sync"];

/// No file is longer than one head holds.
const MAX_LINES: usize = 800;

/// fjall opens files and runs threads itself, so the store around it moves and removes them itself.
const OPENS_FILES: &[&str] = &["src/storage/checkpoint/fjall.rs"];

/// Files that are not about quorate's behaviour and may name what the others may not.
const OUTSIDE_WORDS: &[&str] = &["tests/tidy.rs"];

/// cargo runs tests in the package's directory.
fn root() -> PathBuf {
    std::env::current_dir().unwrap()
}

/// The files that git would track, by their path from the root.
fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(path) else { return };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && !entry.ends_with("target") && !entry.ends_with(".git") {
                walk(&entry, ending, found);
            } else if entry.to_string_lossy().ends_with(ending) {
                found.push(entry);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), ending, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// `src/http/kv.rs` → `http`; `src/lib.rs` → none: it is the map.
fn module(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

/// The modules of this crate that a source text names.
fn imports(text: &str, own_modules: &[&str]) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for start in ["crate::", "use quorate::", " quorate::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or("").split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            let first =
                |name: &str| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_string();
            found.extend(names.into_iter().map(first).filter(|name| own_modules.contains(&name.as_str())));
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let names: Vec<&str> = layers.keys().copied().collect();
    let mut wrong = Vec::new();
    for (file, text) in files("src", ".rs") {
        let Some(module) = module(&file) else { continue };
        let Some(allowed) = layers.get(module) else {
            wrong.push(format!("{file}: module `{module}` is not in LAYERS"));
            continue;
        };
        for import in imports(&text, &names) {
            if import != module && !GROUND.contains(&import.as_str()) && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{file}: `{module}` must not import `{import}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_real_world_touches_the_operating_system() {
    let forbidden =
        ["std::fs", "std::thread::spawn", "std::process::Command", "tokio::net", "tokio::fs", "SystemTime::now"];
    let mut wrong = Vec::new();
    for (file, text) in files("src", ".rs") {
        // A module's tests may look at real files; the product may not.
        let product = text.split("#[cfg(test)]").next().unwrap_or("");
        if file.starts_with("src/world/real/") || file.contains("/tests") || OPENS_FILES.contains(&file.as_str()) {
            continue;
        }
        for (number, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for name in forbidden.iter().filter(|name| code.contains(**name)) {
                wrong.push(format!("{file}:{}: {name}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "ask World instead:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests", "benches", "sim"] {
        for (file, text) in files(dir, ".rs") {
            if !text.starts_with("//!") {
                wrong.push(format!("{file}: does not begin with what it is (//!)"));
            }
            let lines = text.lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{file}: {lines} lines, the most is {MAX_LINES}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_binary_codec_is_named_in_one_file() {
    let named: Vec<String> = files("src", ".rs")
        .into_iter()
        .filter(|(_, text)| text.lines().any(|line| line.split("//").next().unwrap_or("").contains("bincode::")))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(named, ["src/codec.rs"]);
}

#[test]
fn the_repository_speaks_of_quorate_alone() {
    // Spelled apart, so that this file does not hold what it forbids.
    let forbidden = [["/wo", "rk/"].concat(), ["index.cra", "tes.io"].concat(), ["/ro", "ot/"].concat()];
    let mut wrong = Vec::new();
    for ending in [".rs", ".md", ".toml", ".sh", "run", "long"] {
        for dir in ["src", "tests", "benches", "sim", "docs", ".ci", ".cargo"] {
            wrong.extend(mentions(files(dir, ending), &forbidden));
        }
    }
    let top =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml", "deny.toml", "clippy.toml"];
    let top = top.iter().map(|name| (name.to_string(), fs::read_to_string(root().join(name)).unwrap())).collect();
    wrong.extend(mentions(top, &forbidden));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn mentions(files: Vec<(String, String)>, forbidden: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files {
        if OUTSIDE_WORDS.contains(&file.as_str()) {
            continue;
        }
        for word in forbidden.iter().filter(|word| text.contains(word.as_str())) {
            found.push(format!("{file}: mentions {word}"));
        }
    }
    found
}
