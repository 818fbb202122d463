//! Three real servers for minutes: leaders killed under load, and a follower that a snapshot must bring back.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, get, stat};
use super::report;
use super::support::{program, wait_until};
use super::witness::{Pace, Witness};

#[test]
fn leaders_killed_twenty_times_and_all_servers_five_times_lose_nothing() {
    let mut cluster = Cluster::found();
    let witness = Witness::start(cluster.all(), 8);
    witness.wait_for(1000);
    let (mut leader_gaps, mut follower_gaps, mut all_gaps) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..20u64 {
        // A different moment of the log, the checkpoint and the batch each time.
        let leader = cluster.leader();
        thread::sleep(Duration::from_millis(300 + (round * 137) % 900));
        leader_gaps.push(gap(&mut cluster, &witness, leader));
        let follower = cluster.follower();
        follower_gaps.push(gap(&mut cluster, &witness, follower));
        if round % 4 == 3 {
            let began = Instant::now();
            for number in cluster.kill_all() {
                cluster.start(number);
            }
            witness.wait_for(1000);
            cluster.wait_for_leader();
            all_gaps.push(witness.pace(began, Instant::now()).gap);
        }
    }
    println!("{}", witness.finish());
    cluster.wait_for_one_truth();
    for (what, mut gaps) in
        [("the leader", leader_gaps), ("a follower", follower_gaps), ("all at once, restart included", all_gaps)]
    {
        gaps.sort_unstable();
        println!(
            "killed {what}: writes stopped for {:?} at the median, {:?} at most",
            gaps[gaps.len() / 2],
            gaps.last()
        );
    }
}

/// Kills a server and starts it again; the longest time without an acknowledged write meanwhile.
fn gap(cluster: &mut Cluster, witness: &Witness, number: usize) -> Duration {
    let killed = Instant::now();
    cluster.kill(number);
    witness.wait_for(1000);
    let gap = witness.pace(killed, Instant::now()).gap;
    cluster.start(number);
    witness.wait_for(1000);
    cluster.wait_for_leader();
    gap
}

/// The issue's own numbers: 1,000,000 keys, and a follower that was away for longer than the log is kept.
#[test]
fn a_follower_that_was_away_catches_up_by_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::found();
    let leader = cluster.http(cluster.leader());
    let load = |clients: &str, keys: &str, count: &str, reads: &str| {
        let bench = Command::new(program())
            .args(["bench", "-format=json", "-keep", clients, keys, count, reads])
            .arg(format!("-http-addr={leader}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        report(bench.unwrap())
    };
    // Before it reads, it writes every key once.
    load("-clients=64", "-keys=1000000", "-count=1", "-reads=1");
    let away = cluster.follower();
    cluster.kill(away);
    // More than is kept for a follower behind the checkpoint, twice over, and at least one checkpoint.
    load("-clients=64", "-keys=100000", "-count=300000", "-reads=0");
    let live: Vec<_> = cluster.agents.values().map(|agent| agent.http).collect();

    let witness = Witness::start(live, 16);
    witness.wait_for(1000);
    let paces = |from: Instant| witness.pace(from, Instant::now());
    let before = Instant::now();
    thread::sleep(Duration::from_secs(30));
    let quiet = paces(before);

    let began = Instant::now();
    cluster.start(away);
    wait_until("a snapshot to be sent", || cluster.agents[&away].log().contains("receiving a snapshot"));
    // Not before: it is asked for nothing while it has nothing to say.
    wait_until_long("the follower to have caught up", || get(cluster.http(away), "witness/0/0").is_some());
    let during = paces(began);
    let took = began.elapsed();
    witness.use_servers(cluster.all());
    witness.wait_for(100);
    println!("{}", witness.finish());
    cluster.wait_for_one_truth();
    assert!(stat(cluster.http(away), "state", "keys").parse::<u64>().is_ok_and(|keys| keys > 1_000_000));
    let line = |what: &str, pace: &Pace, time: Duration| {
        let rate = pace.writes as f64 / time.as_secs_f64();
        println!("{what}: {rate:.0} writes/s, p50 {:?}, p99 {:?}, longest gap {:?}", pace.p50, pace.p99, pace.gap);
    };
    println!("caught up in {took:?}, start of the process and load of its checkpoint included");
    line("before", &quiet, Duration::from_secs(30));
    line("during", &during, took);
}

/// Waits as long as a large state may take on a busy machine.
fn wait_until_long(what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(600), "waited too long for {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The three-node rows of docs/performance.md: prints them, asserts nothing.
#[test]
fn three_servers_at_full_speed() {
    let cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let third = (0..3).find(|number| ![leader, follower].contains(number)).unwrap();
    // Wherever the load goes, the leader's share comes first.
    let pids = [leader, follower, third].map(|number| format!("-pid={}", cluster.agents[&number].pid()));
    println!("| what | clients | rate/s | p50 | p99 | CPU per operation: leader, follower, other, load generator |");
    for (reads, on, number) in
        [(0, "leader", leader), (0, "follower", follower), (100, "leader", leader), (100, "follower", follower)]
    {
        for clients in [1, 64, 256] {
            let bench = Command::new(program())
                .args(["bench", "-format=json", "-duration=6s"])
                .args([format!("-clients={clients}"), format!("-reads={reads}")])
                .arg(format!("-http-addr={}", cluster.http(number)))
                .args(&pids)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let report = report(bench.unwrap());
            let (what, figures) = if reads == 0 { ("writes", &report["write"]) } else { ("reads", &report["read"]) };
            let figure = |name: &str| figures[name].as_f64().unwrap();
            let cpu = &report["cpu_us_per_operation"];
            let servers: Vec<_> = (0..3).map(|at| format!("{:.0}", cpu["servers"][at].as_f64().unwrap())).collect();
            println!(
                "| {what} on the {on} | {clients} | {:.0} | {:.2} ms | {:.2} ms | {}, {:.0} µs |{}",
                figure("rate"),
                figure("p50_us") / 1e3,
                figure("p99_us") / 1e3,
                servers.join(", "),
                cpu["bench"].as_f64().unwrap(),
                if report["errors"].as_object().unwrap().is_empty() { "" } else { " with errors" },
            );
        }
    }
}
