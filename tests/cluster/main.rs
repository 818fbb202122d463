//! Three real servers on loopback: one leader, any server serves, kill -9 of any one loses nothing, and newcomers catch up.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive real processes from outside")]

#[path = "../support/cluster.rs"]
mod cluster;
mod life;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod waits;
#[path = "../support/witness.rs"]
mod witness;

use std::net::SocketAddr;
use std::thread;

use cluster::{Cluster, get, put, stat};
use support::{free_port, request, wait_until};
use witness::Witness;

#[test]
fn what_one_server_acknowledges_every_server_reads_at_once() {
    let cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for round in 0..40 {
        let value = round.to_string();
        let through = if round % 2 == 0 { leader } else { follower };
        assert!(put(cluster.http(through), "k", &value), "any server takes writes");
        // A server that was stopped has not heard of this write when it goes on and finds the read waiting.
        let value = format!("{value} again");
        cluster.agents[&follower].signal("STOP");
        assert!(put(cluster.http(leader), "k", &value), "a majority is enough");
        let http = cluster.http(follower);
        let read = thread::spawn(move || get(http, "k"));
        cluster.agents[&follower].signal("CONT");
        assert_eq!(read.join().unwrap(), Some(value), "round {round}");
    }
    let peers = cluster.agents[&follower].get("/v1/status/peers").json();
    assert_eq!(peers.as_array().unwrap().len(), 3);
    let read = cluster.agents[&follower].get("/v1/kv/k?stale");
    assert_eq!(read.header("X-Consul-KnownLeader"), Some("true"));
    cluster.wait_for_one_truth();
}

#[test]
fn leaders_killed_in_turn_and_then_all_at_once_lose_nothing_and_no_reader_sees_time_go_back() {
    let mut cluster = Cluster::found();
    let witness = Witness::start(cluster.all(), 4);
    for _ in 0..3 {
        witness.wait_for(200);
        let leader = cluster.leader();
        cluster.kill(leader);
        // Nobody told the clients: they find out by themselves, as they would.
        witness.wait_for(200);
        cluster.start(leader);
    }
    witness.wait_for(200);
    for number in cluster.kill_all() {
        cluster.start(number);
    }
    witness.wait_for(200);
    cluster.wait_for_leader();
    witness.finish();
    cluster.wait_for_one_truth();
}

#[test]
fn a_majority_lost_is_said_and_a_majority_back_serves_again() {
    let mut cluster = Cluster::found();
    assert!(put(cluster.http(0), "k", "before"));
    let survivor = cluster.leader();
    for number in (0..3).filter(|number| *number != survivor) {
        cluster.kill(number);
    }
    let http = cluster.http(survivor);
    let write = thread::spawn(move || request(http, "PUT", "/v1/kv/k", &[], b"during").unwrap().status);
    let status = write.join().unwrap();
    assert!(status == 500 || status == 504, "no majority, no acknowledgement: {status}");
    let stale = request(http, "GET", "/v1/kv/k?stale&raw", &[], b"").unwrap();
    assert_eq!(stale.text(), "before");
    says_that_it_is_alone(http);
    for number in (0..3).filter(|number| *number != survivor) {
        cluster.start(number);
    }
    wait_until("writes again", || put(http, "k", "after"));
    assert_eq!(get(http, "k").as_deref(), Some("after"));
    cluster.wait_for_leader();
    cluster.wait_for_one_truth();
}

/// A server that neither leads a majority nor hears a leader says so on what it answers by itself, and how old that may be.
fn says_that_it_is_alone(http: SocketAddr) {
    let contact = |read: &support::Response| read.header("X-Consul-LastContact").unwrap().parse::<u64>().unwrap();
    let stale = || request(http, "GET", "/v1/kv/k?stale", &[], b"").unwrap();
    wait_until("it to notice", || stale().header("X-Consul-KnownLeader") == Some("false"));
    let first = contact(&stale());
    assert!(first > 0);
    wait_until("the time to grow", || contact(&stale()) > first);
    let patient = request(http, "GET", "/v1/kv/k?raw&max_stale=100h", &[], b"").unwrap();
    assert_eq!((patient.status, patient.text().as_str()), (200, "before"));
    let impatient = request(http, "GET", "/v1/kv/k?raw&max_stale=1ms", &[], b"").unwrap();
    assert_eq!(impatient.status, 500, "too old, and nobody can say better: {}", impatient.text());
    assert!(impatient.text().starts_with("No cluster leader"), "{}", impatient.text());
}

#[test]
fn a_follower_without_its_leader_answers_stale_reads_and_says_so() {
    let mut cluster = Cluster::found();
    assert!(put(cluster.http(0), "k", "before"));
    cluster.wait_for_one_truth();
    let follower = cluster.follower();
    for number in (0..3).filter(|number| *number != follower) {
        cluster.kill(number);
    }
    let http = cluster.http(follower);
    says_that_it_is_alone(http);
    let consistent = request(http, "GET", "/v1/kv/k?consistent", &[], b"").unwrap();
    assert_eq!(consistent.status, 500, "{}", consistent.text());
    assert!(consistent.text().starts_with("No cluster leader"), "{}", consistent.text());
}

#[test]
fn any_server_says_who_is_alive() {
    let mut cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let members = |cluster: &Cluster, from: usize, flag: &str| {
        let output = cluster.agents[&from].run(&["members", flag]);
        (support::stdout(&output), output.status.code())
    };
    let third = (0..3).find(|number| ![leader, follower].contains(number)).unwrap();
    for from in 0..3 {
        wait_until("three that live", || members(&cluster, from, "-status=alive").0.lines().count() == 4);
        assert_eq!(members(&cluster, from, "-status=failed"), (String::new(), Some(2)));
    }
    cluster.kill(third);
    for from in [leader, follower] {
        wait_until("the killed one to be missed", || members(&cluster, from, "-status=failed").0.lines().count() == 2);
        let (text, code) = members(&cluster, from, "-status=alive|failed");
        let row =
            |number: usize| text.lines().find(|line| line.starts_with(&format!("s{number} "))).unwrap().to_string();
        assert!(row(third).contains("failed  server") && row(leader).contains("alive   server"), "{text}");
        assert_eq!((text.lines().next().unwrap().split_whitespace().last(), code), (Some("Segment"), Some(0)));
    }
    let list = cluster.agents[&follower].get("/v1/agent/members").json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|member| member["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    assert_eq!(list[third]["Status"], 4);
    let info = support::stdout(&cluster.agents[&follower].run(&["info"]));
    assert!(info.contains("consul:\n") && info.contains("\n\tleader = false\n"), "{info}");
}

#[test]
fn a_new_server_joins_by_snapshot_and_a_stopped_leader_hands_over() {
    let mut cluster = Cluster::found();
    let http = cluster.http(0);
    // Enough for the log behind the checkpoint to be let go, so that only a snapshot can bring it.
    let value = "v".repeat(400_000);
    for number in 0..150 {
        assert!(put(http, &format!("big/{number}"), &value));
    }
    wait_until("a checkpoint that lets the log go", || {
        (0..3).all(|n| stat(cluster.http(n), "raft", "log_bytes").parse::<u64>().is_ok_and(|bytes| bytes < 50_000_000))
    });
    cluster.ports.push((free_port(), free_port()));
    cluster.start(3);
    wait_until("four voters", || {
        let peers = request(cluster.http(3), "GET", "/v1/status/peers", &[], b"");
        peers.is_ok_and(|peers| peers.json().as_array().is_some_and(|peers| peers.len() == 4))
    });
    assert_eq!(get(cluster.http(3), "big/0").as_deref(), Some(&*value));
    assert!(cluster.agents[&3].log().contains("receiving a snapshot"));
    cluster.wait_for_one_truth();

    let leader = cluster.leader();
    let mut stopped = cluster.agents.remove(&leader).unwrap();
    stopped.signal("TERM");
    stopped.wait();
    assert!(stopped.log().contains("handing over the lead"), "{}", stopped.log());
    assert!(!stopped.log().contains("could not hand over"), "{}", stopped.log());
    let other = *cluster.agents.keys().next().unwrap();
    assert!(put(cluster.http(other), "k", "1"), "the new leader takes writes at once");
}

#[test]
fn an_operator_sees_moves_the_lead_and_removes_a_server_from_any_server() {
    let mut cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let agent = &cluster.agents[&follower];
    let peers = support::stdout(&agent.run(&["operator", "raft", "list-peers"]));
    assert_eq!(peers.lines().count(), 4, "{peers}");
    assert_eq!(peers.lines().filter(|line| line.contains("  leader  ")).count(), 1, "{peers}");

    let servers = agent.get("/v1/operator/raft/configuration").json()["Servers"].as_array().unwrap().clone();
    let id = |node: usize| {
        let server = servers.iter().find(|server| server["Node"] == format!("s{node}")).unwrap();
        server["ID"].as_str().unwrap().to_string()
    };
    let moved = agent.run(&["operator", "raft", "transfer-leader", &format!("-id={}", id(follower))]);
    assert!(moved.status.success(), "{}", support::stderr(&moved));
    assert_eq!(cluster.leader(), follower);
    assert_eq!(
        agent.request("POST", "/v1/operator/raft/transfer-leader?id=00000000-0000-0000-0000-000000000001", b"").status,
        404
    );

    let third = (0..3).find(|number| *number != leader && *number != follower).unwrap();
    let removed = cluster.agents[&leader].run(&["operator", "raft", "remove-peer", &format!("-id={}", id(third))]);
    assert_eq!(
        support::stdout(&removed),
        format!("Removed peer with id \"{}\"\n", id(third)),
        "{}",
        support::stderr(&removed)
    );
    cluster.kill(third);
    assert_eq!(cluster.agents[&leader].get("/v1/status/peers").json().as_array().unwrap().len(), 2);
    assert!(put(cluster.http(leader), "k", "1"));
    assert_eq!(cluster.agents[&leader].request("DELETE", "/v1/operator/raft/peer", b"").status, 400);
}

#[test]
fn a_backup_of_any_server_is_restored_through_any_other_and_all_have_the_same_then() {
    let mut cluster = Cluster::found();
    assert!(put(cluster.http(0), "k", "before"));
    let leader = cluster.leader();
    let followers: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let (first, second) = (cluster.http(followers[0]), cluster.http(followers[1]));
    // Linearizable: what the leader has just acknowledged is in it.
    assert!(put(cluster.http(leader), "k", "at the backup"));
    let backup = request(first, "GET", "/v1/snapshot", &[], b"").unwrap();
    assert_eq!(backup.status, 200);
    assert!(put(cluster.http(leader), "k", "after") && put(cluster.http(leader), "more", "after"));
    let highest = request(second, "GET", "/v1/kv/?keys", &[], b"").unwrap().index();

    let restored = request(second, "PUT", "/v1/snapshot", &[], &backup.body).unwrap();
    assert_eq!((restored.status, restored.text().as_str()), (200, ""));
    assert!(restored.index() > highest && restored.index() < highest + (1 << 40), "it is the cluster's own");
    for http in cluster.all() {
        assert_eq!((get(http, "k").as_deref(), get(http, "more")), (Some("at the backup"), None));
    }
    cluster.wait_for_one_truth();
    for number in cluster.kill_all() {
        cluster.start(number);
    }
    cluster.wait_for_leader();
    assert_eq!(get(cluster.http(0), "k").as_deref(), Some("at the backup"));
    cluster.wait_for_one_truth();

    // The last server that is left gives what it has, to those who ask for no more.
    (0..2).for_each(|number| cluster.kill(number));
    let http = cluster.http(2);
    let stale = || request(http, "GET", "/v1/snapshot?stale", &[], b"").unwrap();
    wait_until("it to notice", || stale().header("X-Consul-KnownLeader") == Some("false"));
    assert_eq!(stale().status, 200);
    let fresh = request(http, "GET", "/v1/snapshot", &[], b"").unwrap();
    assert_eq!(fresh.status, 500, "it cannot know whether it is behind");
}
