//! Blocking queries and tables of many rows on three real servers (walkthrough B5, B8).

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use super::Cluster;
use super::support::{Connection, Response, request, stderr, wait_until};
use super::{put, stat};

fn ask(http: SocketAddr, path: &str) -> Response {
    request(http, "GET", path, &[], b"").unwrap_or_else(|e| panic!("GET {path}: {e}"))
}

/// A query that has begun to wait at a server.
fn waiting(http: SocketAddr, path: String) -> JoinHandle<Response> {
    let before = stat(http, "state", "blocked_queries");
    let query = thread::spawn(move || Connection::open(http).unwrap().request("GET", &path, b"").unwrap());
    wait_until("the query to block", || stat(http, "state", "blocked_queries") != before);
    query
}

#[test]
fn b5_a_query_that_waits_at_any_server_is_answered_by_a_change_at_any_other() {
    let mut cluster = Cluster::found();
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let (at_leader, at_follower) = (cluster.http(leader), cluster.http(follower));
    put(at_leader, "web/key1", "0");
    for (waits, writes) in [(at_leader, at_follower), (at_follower, at_leader), (at_follower, at_follower)] {
        let before = ask(waits, "/v1/kv/web/key1");
        let query = waiting(waits, format!("/v1/kv/web/key1?index={}&wait=60s", before.index()));
        put(writes, "web/other", "does not wake it");
        let value = format!("after {}", before.index());
        put(writes, "web/key1", &value);
        let answer = query.join().unwrap();
        assert!(answer.index() > before.index());
        assert_eq!(ask(waits, "/v1/kv/web/key1?raw").text(), value);
    }

    // A wait at a follower outlives its leader, and the index does not go back under the next one.
    let before = ask(at_follower, "/v1/kv/web/key1");
    let query = waiting(at_follower, format!("/v1/kv/web/key1?index={}&wait=60s", before.index()));
    cluster.kill(leader);
    wait_until("a write under a new leader", || put(at_follower, "web/key1", "after the election"));
    let answer = query.join().unwrap();
    assert!(answer.status == 200 && answer.index() > before.index());
    let unchanged = ask(at_follower, &format!("/v1/kv/web/key1?index={}&wait=10ms", answer.index()));
    assert_eq!((unchanged.status, unchanged.index()), (200, answer.index()), "time is up: the same again");
}

#[test]
fn b8_a_table_that_is_imported_at_one_server_is_read_cheaply_at_all() {
    let cluster = Cluster::found();
    let number = cluster.follower();
    let follower = cluster.http(number);
    let rows: Vec<_> = (0..3000)
        .map(|row| serde_json::json!({"key": format!("tables/{:02}/{row:05}", row % 20), "flags": 0, "value": "MSwyLDM="}))
        .collect();
    let agent = &cluster.agents[&number];
    let imported = agent.run_with(&["kv", "import", "-"], &serde_json::to_vec(&rows).unwrap());
    assert!(imported.status.success(), "{}", stderr(&imported));

    let tables: Vec<Response> = cluster.all().into_iter().map(|http| ask(http, "/v1/kv/tables/07/?recurse")).collect();
    for table in &tables {
        assert_eq!(table.json().as_array().unwrap().len(), 150);
        assert_eq!((table.index(), table.text()), (tables[0].index(), tables[0].text()), "the same at every server");
    }
    // Re-read at any server with the index of any other: nothing has changed.
    put(follower, "tables/08/x", "beside");
    for http in cluster.all() {
        let again = ask(http, &format!("/v1/kv/tables/07/?recurse&index={}&wait=5ms", tables[0].index()));
        assert_eq!(again.index(), tables[0].index(), "another table's change is not this one's");
    }
}
