//! The long programme on real processes: crash loops, a million writes, full disks, a cluster's bad days. `.ci/long` runs
//! it; `cargo test` does not.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive real processes from outside")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../locks/holder.rs"]
mod holder;
mod partition;
mod replication;
mod scale;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/witness.rs"]
mod witness;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Agent, Connection, disk_use, program, wait_until};

fn durable(dir: &Path) -> Vec<String> {
    ["-server", "-bootstrap", "-data-dir", dir.to_str().unwrap()].map(String::from).to_vec()
}

fn start(dir: &Path) -> Agent {
    Agent::start(&durable(dir).iter().map(String::as_str).collect::<Vec<_>>())
}

fn bench(agent: &Agent, args: &[&str]) -> Child {
    Command::new(program())
        .args(["bench", "-format=json"])
        .arg(format!("-http-addr={}", agent.http))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn report(bench: Child) -> serde_json::Value {
    let output = bench.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn fifty_kills_under_load_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = start(dir.path());
    let port = agent.http.port();
    let load = bench(&agent, &["-check", "-clients=32", "-duration=100s"]);
    let mut args = vec!["agent".to_string(), format!("-http-port={port}")];
    args.extend(durable(dir.path()));
    for round in 0..50u64 {
        // A different moment of the segment, the checkpoint and the batch each time.
        thread::sleep(Duration::from_millis(300 + (round * 37) % 900));
        agent.kill();
        agent = Agent::spawn_on(&args, port);
        agent.wait_for_leader();
    }
    let report = report(load);
    println!("{report}");
    assert_eq!(report["lost"], 0);
}

#[test]
fn a_million_writes_come_back_after_a_restart_and_the_log_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = start(dir.path());
    // Before it reads, it writes every key once.
    let began = Instant::now();
    report(bench(&agent, &["-clients=64", "-keys=1000000", "-reads=1", "-count=1", "-keep"]));
    println!("1,000,000 keys written in {:?}", began.elapsed());
    let revision = stat(&agent, "state", "revision");
    let digest = stat(&agent, "state", "digest");
    assert_eq!(stat(&agent, "state", "keys"), "1000000");
    agent.kill();
    let began = Instant::now();
    let agent = start(dir.path());
    println!(
        "ready after {:?}, {} bytes on disk, {} kB resident",
        began.elapsed(),
        disk_use(dir.path()),
        resident(&agent)
    );
    assert_eq!(stat(&agent, "state", "revision"), revision);
    assert_eq!(stat(&agent, "state", "digest"), digest);
    assert!(disk_use(&dir.path().join("raft/wal")) < 512 << 20);
}

#[test]
fn disk_use_stays_bounded_under_a_days_overwrites() {
    // A day of ten overwrites a second, as fast as they go: 864,000 writes to 1,000 keys.
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path());
    let load = bench(&agent, &["-clients=64", "-keys=1000", "-count=864000", "-reads=0"]);
    let mut most = 0;
    let mut samples = 0;
    while stat(&agent, "state", "revision").parse::<u64>().unwrap() < 800_000 {
        most = most.max(disk_use(dir.path()));
        samples += 1;
        thread::sleep(Duration::from_millis(200));
    }
    println!("{}", report(load));
    println!("at most {most} bytes on disk in {samples} samples");
    assert!(most < 600 << 20, "{most} bytes on disk");
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(dir.path(), "size=200m");
    let at = dir.path().to_str().unwrap();
    let agent = start(&dir.path().join("data"));
    agent.put("/v1/kv/before", "here");
    let ballast = dir.path().join("ballast");
    let free = || {
        let output = Command::new("df").args(["--output=avail", "-B1", at]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().trim().parse::<u64>().unwrap()
    };
    // The log makes its next segment ready meanwhile, so the disk may be full before this is.
    let _ = std::fs::write(&ballast, vec![1; free() as usize]);

    // Fill what is reserved, until writes are refused.
    let mut connection = Connection::open(agent.http).unwrap();
    let value = vec![7; 256 * 1024];
    let mut written = 0;
    let refused = loop {
        let put = connection.request("PUT", &format!("/v1/kv/fill/{written}"), &value).unwrap();
        if put.status != 200 {
            break put;
        }
        written += 1;
        assert!(written < 10_000, "the disk never filled");
    };
    println!("refused after {written} writes: {} {}", refused.status, refused.text());
    assert!(refused.text().contains("full") || refused.text().contains("space"), "{}", refused.text());
    assert_eq!(agent.get("/v1/kv/before?raw").text(), "here");
    assert_eq!(agent.get("/v1/kv/fill/?keys").json().as_array().unwrap().len(), written);

    std::fs::remove_file(&ballast).unwrap();
    wait_until("writes to be taken again", || agent.put("/v1/kv/after", "again").status == 200);
    drop(agent);
    let agent = start(&dir.path().join("data"));
    assert_eq!(agent.get("/v1/kv/after?raw").text(), "again");
    assert_eq!(agent.get("/v1/kv/fill/?keys").json().as_array().unwrap().len(), written);
    drop(agent);
    drop(mounted);
}

/// A small disk, unmounted when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Mounted {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Mounted(at.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn stat(agent: &Agent, section: &str, name: &str) -> String {
    agent.get("/v1/agent/self").json()["Stats"][section][name].as_str().unwrap().to_string()
}

/// Resident memory in kB.
fn resident(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
