//! R2 on real processes: what was acknowledged is there after kill -9, and damaged files are met with a prefix or a refusal.
//!
//! Every offset of the log's last batches is tried beside the log (`src/storage/wal`); here a few go through the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Agent, Connection, program, value_of};

fn durable(dir: &Path) -> Vec<String> {
    ["-server", "-bootstrap", "-data-dir", dir.to_str().unwrap()].map(String::from).to_vec()
}

fn start(dir: &Path) -> Agent {
    Agent::start(&durable(dir).iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = start(dir.path());
    let port = agent.http.port();
    let bench = Command::new(program())
        .args(["bench", "-check", "-clients=8", "-duration=4s", "-format=json"])
        .arg(format!("-http-addr={}", agent.http))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut args = vec!["agent".to_string(), format!("-http-port={port}")];
    args.extend(durable(dir.path()));
    for _ in 0..4 {
        // The load itself says when it is time: a few hundred more writes each round.
        let start = revision(&agent);
        crate::support::wait_until("some writes", || revision(&agent) > start + 200 || !alive(&agent));
        agent.kill();
        agent = Agent::spawn_on(&args, port);
        agent.wait_for_leader();
    }
    let output = bench.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["lost"], 0, "{report}");
    assert!(report["acknowledged"].as_u64().unwrap() > 800, "{report}");
}

fn revision(agent: &Agent) -> u64 {
    let own = crate::support::request(agent.http, "GET", "/v1/agent/self", &[], b"");
    own.ok().and_then(|own| own.json()["Stats"]["state"]["revision"].as_str()?.parse().ok()).unwrap_or(0)
}

fn alive(agent: &Agent) -> bool {
    std::net::TcpStream::connect(agent.http).is_ok()
}

/// A directory that holds 50 keys, written one by one, and the server that wrote it killed.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = start(dir.path());
    let mut connection = Connection::open(agent.http).unwrap();
    for key in 0..50 {
        let put = connection.request("PUT", &format!("/v1/kv/k{key:02}"), format!("value {key}").as_bytes()).unwrap();
        assert_eq!(put.text().trim(), "true");
    }
    agent.kill();
    dir
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir.join("raft/wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Where the last frame's text stands, in the segment that holds it.
fn last_value(dir: &Path) -> (PathBuf, usize) {
    for path in segments(dir) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(8).rposition(|window| window == b"value 49") {
            return (path, at);
        }
    }
    panic!("no segment holds the last write");
}

#[test]
fn a_torn_last_write_is_cut_and_all_before_it_stays() {
    let dir = written();
    let (path, at) = last_value(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[at..].fill(0);
    fs::write(&path, bytes).unwrap();
    let agent = start(dir.path());
    let rows = agent.get("/v1/kv/?recurse").json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 49);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(value_of(row), format!("value {number}").into_bytes());
    }
    assert_eq!(agent.put("/v1/kv/k49", "again").text().trim(), "true");
}

#[test]
fn damage_before_the_last_write_is_refused_with_a_sentence() {
    let dir = written();
    let (path, _) = last_value(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"value 20").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut agent = Agent::spawn(&durable(dir.path()).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(agent.wait(), Some(1));
    let log = agent.log();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(log.contains(name) && log.contains("damaged"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_lost_segment_is_refused_with_a_sentence() {
    let dir = written();
    fs::remove_file(last_value(dir.path()).0).unwrap();
    let next = dir.path().join("raft/wal/000000000002.wal");
    if next.exists() {
        fs::remove_file(next).unwrap();
    }
    let mut agent = Agent::spawn(&durable(dir.path()).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(agent.wait(), Some(1), "{}", agent.log());
    let log = agent.log();
    assert!(log.contains("raft/wal") && !log.contains("panicked"), "{log}");
}

#[test]
fn a_second_process_on_the_directory_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path());
    let mut second = Agent::spawn(&durable(dir.path()).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(second.wait(), Some(1));
    let log = second.log();
    assert!(log.contains("in use") && log.contains(dir.path().to_str().unwrap()), "{log}");
    assert_eq!(agent.put("/v1/kv/a", "1").text().trim(), "true");
}

#[test]
fn a_node_id_that_does_not_belong_to_the_data_is_refused() {
    let dir = written();
    fs::write(dir.path().join("node-id"), "not an id").unwrap();
    let mut agent = Agent::spawn(&durable(dir.path()).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(agent.wait(), Some(1));
    assert!(agent.log().contains("node-id"), "{}", agent.log());
}
