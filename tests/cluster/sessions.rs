//! Sessions and locks on three real servers: any of them takes any request, and the death of the leader costs no holder its
//! lock (walkthrough D2, D5).

use std::net::SocketAddr;
use std::thread;

use super::Cluster;
use super::support::{Response, request, wait_until};

/// Long beside an election, even on a busy machine.
const TTL: &str = "10s";

fn put(http: SocketAddr, path: &str, body: &str) -> Response {
    request(http, "PUT", path, &[], body.as_bytes()).unwrap_or_else(|e| panic!("PUT {path}: {e}"))
}

fn create(http: SocketAddr, body: &str) -> (String, Option<u64>) {
    let created = put(http, "/v1/session/create", body);
    assert_eq!(created.status, 200, "{}", created.text());
    let lease = created.header("X-Quorate-Lease-Ms").map(|lease| lease.parse().unwrap());
    (created.json()["ID"].as_str().unwrap().to_string(), lease)
}

fn acquire(http: SocketAddr, key: &str, session: &str) -> (bool, Option<u64>) {
    let answer = put(http, &format!("/v1/kv/{key}?acquire={session}"), session);
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text() == "true", answer.header("X-Quorate-Fence").map(|fence| fence.parse().unwrap()))
}

fn holder(http: SocketAddr, key: &str) -> (Option<String>, u64) {
    let entry = request(http, "GET", &format!("/v1/kv/{key}"), &[], b"").unwrap().json()[0].clone();
    (entry["Session"].as_str().map(String::from), entry["LockIndex"].as_u64().unwrap())
}

/// Renews at whichever of these servers answers first; false if the session is gone.
fn renew(servers: &[SocketAddr], session: &str) -> bool {
    let mut renewed = None;
    wait_until("a renewal to be answered", || {
        renewed = servers.iter().find_map(|http| {
            let answer = request(*http, "PUT", &format!("/v1/session/renew/{session}"), &[], b"").ok()?;
            match answer.status {
                200 => Some(true),
                404 => Some(false),
                _ => None,
            }
        });
        renewed.is_some()
    });
    renewed.unwrap()
}

#[test]
fn a_lock_is_taken_renewed_and_given_up_through_any_server() {
    let cluster = Cluster::found();
    let (leader, follower) = (cluster.http(cluster.leader()), cluster.http(cluster.follower()));
    let (one, lease) = create(follower, &format!("{{\"TTL\": \"{TTL}\", \"LockDelay\": 0}}"));
    // 10 s by a clock that is 1 % slow, counted by one that is 1 % fast, less a margin.
    assert_eq!(lease, Some(9_791));
    let (two, _) = create(leader, "{\"LockDelay\": 0}");
    let (taken, fence) = acquire(leader, "lock", &one);
    assert!(taken && fence.is_some());
    assert_eq!(acquire(follower, "lock", &two), (false, None));
    assert_eq!(acquire(follower, "lock", &one), (true, fence), "taken again it has the same fence");
    assert!(renew(&[follower], &one));
    assert_eq!(put(follower, &format!("/v1/kv/lock?release={one}"), "").text(), "true");
    let (taken, second) = acquire(follower, "lock", &two);
    assert!(taken && second > fence, "fences rise: {fence:?}, {second:?}");
    assert_eq!(put(leader, &format!("/v1/session/destroy/{two}"), "").text(), "true");
    assert_eq!(holder(follower, "lock").0, None);
    assert!(!renew(&[follower], &two));
    let list = request(follower, "GET", "/v1/session/list", &[], b"").unwrap().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    wait_until("the session that nobody renews to end", || {
        request(leader, "GET", &format!("/v1/session/info/{one}"), &[], b"").unwrap().text().trim() == "[]"
    });
}

#[test]
fn no_holder_loses_its_lock_because_the_leader_is_killed() {
    let mut cluster = Cluster::found();
    let leader = cluster.leader();
    // Some were made on the server that is killed, and belong to its node.
    let sessions: Vec<String> =
        (0..9).map(|number| create(cluster.http(number % 3), &format!("{{\"TTL\": \"{TTL}\"}}")).0).collect();
    let keys: Vec<String> = (0..sessions.len()).map(|number| format!("locks/{number}")).collect();
    for (key, session) in keys.iter().zip(&sessions) {
        assert!(acquire(cluster.http(leader), key, session).0);
    }
    let before: Vec<_> = keys.iter().map(|key| holder(cluster.http(leader), key)).collect();
    cluster.kill(leader);
    let left: Vec<SocketAddr> = cluster.agents.values().map(|agent| agent.http).collect();
    // Long enough for every lease that the killed leader gave to have run out.
    let holders: Vec<_> = sessions
        .iter()
        .cloned()
        .map(|session| {
            let left = left.clone();
            thread::spawn(move || {
                (0..12).all(|_| {
                    let renewed = renew(&left, &session);
                    thread::sleep(std::time::Duration::from_secs(1));
                    renewed
                })
            })
        })
        .collect();
    for holder in holders {
        assert!(holder.join().unwrap(), "a session that was renewed all the time has ended");
    }
    let after: Vec<_> = keys.iter().map(|key| holder(left[0], key)).collect();
    assert_eq!(after, before, "nobody lost a lock, and nobody took one again");
    // Now nobody renews, and the leases run out under the new leader.
    wait_until("the locks to be free", || keys.iter().all(|key| holder(left[1], key).0.is_none()));
    cluster.start(leader);
    cluster.wait_for_leader();
    cluster.wait_for_one_truth();
}

#[test]
fn a_leader_without_a_majority_renews_nothing() {
    let cluster = Cluster::found();
    let leader = cluster.leader();
    let (session, _) = create(cluster.http(leader), "{\"TTL\": \"1h\"}");
    assert!(renew(&[cluster.http(leader)], &session));
    for (number, agent) in &cluster.agents {
        if *number != leader {
            agent.signal("STOP");
        }
    }
    let answer = put(cluster.http(leader), &format!("/v1/session/renew/{session}"), "");
    assert_eq!(answer.status, 500, "it cannot know whether it still leads: {}", answer.text());
    for (number, agent) in &cluster.agents {
        if *number != leader {
            agent.signal("CONT");
        }
    }
    wait_until("renewals again", || {
        put(cluster.http(leader), &format!("/v1/session/renew/{session}"), "").status == 200
    });
}

/// L11, G6: the holder dies, the leader dies, a delay is to end; the queue has forgotten nobody, nor their order.
#[test]
fn waiters_for_a_lock_keep_their_order_though_the_leader_is_killed() {
    let mut cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let http = cluster.http(follower);
    let (holder, _) = create(cluster.http(leader), "{\"TTL\": \"5s\", \"LockDelay\": \"1s\"}");
    assert!(acquire(http, "lock", &holder).0);
    let queue = || request(http, "GET", "/v1/lock/lock", &[], b"").unwrap().json()["Queue"].as_array().unwrap().len();
    let waiters: Vec<_> = (0..3)
        .map(|number| {
            let (session, _) = create(http, "{\"TTL\": \"1h\", \"LockDelay\": 0}");
            let path = format!("/v1/lock/lock?session={session}&wait=60s");
            let waiter = thread::spawn(move || {
                let granted = put(http, &path, "");
                assert_eq!(granted.status, 200, "{}", granted.text());
                let fence = granted.json()["Fence"].as_u64().unwrap();
                let path = format!("/v1/lock/lock?session={session}&fence={fence}");
                let freed = request(http, "DELETE", &path, &[], b"").unwrap();
                assert_eq!(freed.text(), "true", "it was held");
                fence
            });
            wait_until("a waiter to be in the queue", || queue() == number + 1);
            waiter
        })
        .collect();
    cluster.kill(leader);
    let fences: Vec<u64> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
    assert!(fences.is_sorted_by(|one, next| one < next), "first come, first served: {fences:?}");
    assert_eq!(request(http, "GET", "/v1/lock/lock", &[], b"").unwrap().status, 404);
    cluster.start(leader);
    cluster.wait_for_leader();
    cluster.wait_for_one_truth();
}
