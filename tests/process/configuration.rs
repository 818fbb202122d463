//! Walkthrough B: the key-value store, by HTTP and by command.

use std::thread;

use crate::support::{Agent, Connection, stderr, stdout, value_of, wait_until};

fn three_keys() -> Agent {
    let agent = Agent::start(&["-dev"]);
    for path in ["/v1/kv/web/key1", "/v1/kv/web/key2?flags=42", "/v1/kv/web/sub/key3"] {
        let response = agent.put(path, "test");
        assert_eq!((response.status, response.text().trim()), (200, "true"), "{path}");
    }
    agent
}

#[test]
fn b1_b2_keys_are_written_and_read() {
    let agent = three_keys();
    let one = agent.get("/v1/kv/web/key1");
    assert_eq!(one.header("Content-Type"), Some("application/json"));
    assert_eq!(one.header("X-Consul-KnownLeader"), Some("true"));
    let entry = &one.json()[0];
    assert_eq!((entry["Key"].as_str(), entry["Value"].as_str()), (Some("web/key1"), Some("dGVzdA==")));
    assert_eq!((&entry["Flags"], &entry["LockIndex"]), (&0.into(), &0.into()));
    assert_eq!(entry["ModifyIndex"].as_u64(), Some(one.index()));

    let all = agent.get("/v1/kv/?recurse").json();
    let keys: Vec<&str> = all.as_array().unwrap().iter().map(|entry| entry["Key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["web/key1", "web/key2", "web/sub/key3"]);
    assert_eq!(all[1]["Flags"], 42);

    let level = agent.get("/v1/kv/web?keys&separator=/").json();
    assert_eq!(level, serde_json::json!(["web/"]));
    let level = agent.get("/v1/kv/web/?keys&separator=/").json();
    assert_eq!(level, serde_json::json!(["web/key1", "web/key2", "web/sub/"]));

    let raw = agent.get("/v1/kv/web/key1?raw");
    assert_eq!((raw.text().as_str(), raw.header("Content-Type")), ("test", Some("text/plain")));
    let missing = agent.get("/v1/kv/nothing");
    assert_eq!((missing.status, missing.body.len()), (404, 0));
    assert!(missing.index() > 0);
}

#[test]
fn b3_a_recursive_delete_takes_the_prefix_and_no_more() {
    let agent = three_keys();
    agent.put("/v1/kv/we", "stays");
    assert_eq!(agent.request("DELETE", "/v1/kv/web?recurse", b"").text().trim(), "true");
    assert_eq!(agent.get("/v1/kv/?keys").json(), serde_json::json!(["we"]));
}

#[test]
fn b4_check_and_set_never_loses_an_update() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/counter", "0");
    let (http, clients, rounds) = (agent.http, 8, 25);
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            thread::spawn(move || {
                let mut connection = Connection::open(http).unwrap();
                for _ in 0..rounds {
                    loop {
                        let read = connection.request("GET", "/v1/kv/counter", b"").unwrap().json();
                        let count: u64 = String::from_utf8(value_of(&read[0])).unwrap().parse().unwrap();
                        let path = format!("/v1/kv/counter?cas={}", read[0]["ModifyIndex"]);
                        let next = (count + 1).to_string();
                        if connection.request("PUT", &path, next.as_bytes()).unwrap().text().trim() == "true" {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(agent.get("/v1/kv/counter?raw").text(), (clients * rounds).to_string());
}

#[test]
fn b5_a_blocking_query_answers_when_its_key_changes() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/web/key1", "old");
    let index = agent.get("/v1/kv/web/key1").index();
    let http = agent.http;
    let waiting = thread::spawn(move || {
        let mut connection = Connection::open(http).unwrap();
        connection.request("GET", &format!("/v1/kv/web/key1?index={index}&wait=60s"), b"").unwrap()
    });
    wait_until("the query to block", || stat(&agent, "blocked_queries") == "1");
    agent.put("/v1/kv/other", "does not wake it");
    assert_eq!(stat(&agent, "blocked_queries"), "1");
    agent.put("/v1/kv/web/key1", "new");
    let answer = waiting.join().unwrap();
    assert_eq!(value_of(&answer.json()[0]), b"new");
    assert!(answer.index() > index);
    let unchanged = agent.get(&format!("/v1/kv/web/key1?index={}&wait=10ms", answer.index()));
    assert_eq!((unchanged.status, unchanged.index()), (200, answer.index()), "time is up: the same again");
}

#[test]
fn discovery_max_stale_makes_reads_of_the_catalog_stale_unless_they_say_otherwise() {
    let agent = Agent::start(&["-dev", "-hcl=discovery_max_stale = \"1m\""]);
    let shown = |path: &str| agent.get(path).header("X-Consul-Effective-Consistency").map(str::to_owned);
    for (path, consistency) in [
        ("/v1/catalog/nodes", Some("stale")),
        ("/v1/health/state/any", Some("stale")),
        ("/v1/catalog/nodes?leader", Some("leader")),
        ("/v1/catalog/nodes?consistent", Some("consistent")),
        ("/v1/kv/a", None),
        ("/v1/session/list", None),
    ] {
        assert_eq!(shown(path).as_deref(), consistency, "{path}");
    }
}

/// Found by the simulator: the first write took the index that the empty store had shown.
#[test]
fn b5_a_wait_on_an_empty_store_is_answered_by_the_first_write() {
    let agent = Agent::start(&["-dev"]);
    let index = agent.get("/v1/kv/first").index();
    let http = agent.http;
    let waiting = thread::spawn(move || {
        let mut connection = Connection::open(http).unwrap();
        connection.request("GET", &format!("/v1/kv/first?index={index}&wait=60s"), b"").unwrap()
    });
    wait_until("the query to block", || stat(&agent, "blocked_queries") == "1");
    agent.put("/v1/kv/first", "here");
    assert_eq!(value_of(&waiting.join().unwrap().json()[0]), b"here");
}

#[test]
fn b5_a_client_that_hangs_up_frees_its_wait_at_once() {
    let agent = Agent::start(&["-dev"]);
    let index = agent.put("/v1/kv/k", "v").status.into();
    let http = agent.http;
    let mut stream = std::net::TcpStream::connect(http).unwrap();
    let request = format!(
        "GET /v1/kv/k?index={}&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n",
        agent.get("/v1/kv/k").index().max(index)
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    wait_until("the query to block", || stat(&agent, "blocked_queries") == "1");
    drop(stream);
    wait_until("the wait to be freed", || stat(&agent, "blocked_queries") == "0");
}

fn stat(agent: &Agent, name: &str) -> String {
    agent.get("/v1/agent/self").json()["Stats"]["state"][name].as_str().unwrap().to_string()
}

#[test]
fn b6_a_value_one_byte_too_large_is_refused_and_nothing_is_written() {
    let agent = Agent::start(&["-dev"]);
    let largest = vec![b'x'; 512 * 1024];
    assert_eq!(agent.put("/v1/kv/big", &largest).status, 200);
    let before = agent.get("/v1/kv/big");
    let refused = agent.put("/v1/kv/big", [&largest[..], b"y"].concat());
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("524288"), "{}", refused.text());
    assert_eq!(agent.get("/v1/kv/big").index(), before.index());
    assert_eq!(agent.get("/v1/kv/big?raw").body.len(), largest.len());
}

#[test]
fn b7_the_kv_commands_speak_and_exit_as_consuls_do() {
    let agent = Agent::start(&["-dev"]);
    let ok = |args: &[&str], says: &str| {
        let output = agent.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output).trim_end(), says, "{args:?}");
    };
    let fails = |args: &[&str], says: &str| {
        let output = agent.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(stderr(&output).trim_end(), says, "{args:?}");
    };
    ok(&["kv", "put", "web/key1", "test"], "Success! Data written to: web/key1");
    ok(&["kv", "put", "-flags=42", "web/key2", "two"], "Success! Data written to: web/key2");
    ok(&["kv", "get", "web/key1"], "test");
    ok(&["kv", "get", "-keys", "web/"], "web/key1\nweb/key2");
    ok(&["kv", "get", "-recurse", "web/"], "web/key1:test\nweb/key2:two");
    ok(&["kv", "get", "-base64", "web/key1"], "dGVzdA==");
    let detailed = stdout(&agent.run(&["kv", "get", "-detailed", "web/key2"]));
    let rows: Vec<&str> = detailed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(rows, ["CreateIndex", "Flags", "Key", "LockIndex", "ModifyIndex", "Session", "Value"]);
    fails(&["kv", "get", "nothing"], "Error! No key exists at: nothing");
    fails(&["kv", "put", "-cas", "-modify-index=999", "web/key1", "x"], "Error! Did not write to web/key1: CAS failed");
    fails(&["kv", "delete", "-cas", "-modify-index=999", "web/key1"], "Error! Did not delete key web/key1: CAS failed");
    ok(&["kv", "delete", "web/key1"], "Success! Deleted key: web/key1");
    ok(&["kv", "delete", "-recurse", "web/"], "Success! Deleted keys with prefix: web/");
    fails(&["kv", "get", "web/key2"], "Error! No key exists at: web/key2");
}

#[test]
fn b7_b8_thousands_of_rows_go_in_by_one_import_and_come_out_the_same() {
    let agent = Agent::start(&["-dev"]);
    let rows: Vec<_> = (0..3000)
        .map(|row| serde_json::json!({"key": format!("tables/{:02}/{row:05}", row % 20), "flags": row % 3, "value": "MSwyLDM="}))
        .collect();
    let text = serde_json::to_vec(&rows).unwrap();
    let imported = agent.run_with(&["kv", "import", "-"], &text);
    assert!(imported.status.success(), "{}", stderr(&imported));
    assert_eq!(stdout(&imported).lines().filter(|line| line.starts_with("Imported: ")).count(), 3000);
    let exported: serde_json::Value = serde_json::from_slice(&agent.run(&["kv", "export", "tables/"]).stdout).unwrap();
    let mut expected = rows;
    expected.sort_by_key(|row| row["key"].as_str().unwrap().to_string());
    assert_eq!(exported.as_array().unwrap(), &expected);

    // Re-reading: nothing has changed, so the wait runs out and the index is the same.
    let table = agent.get("/v1/kv/tables/07/?recurse");
    assert_eq!(table.json().as_array().unwrap().len(), 150);
    let again = agent.get(&format!("/v1/kv/tables/07/?recurse&index={}&wait=5ms", table.index()));
    assert_eq!(again.index(), table.index());
    agent.put("/v1/kv/tables/08/x", "beside");
    let beside = agent.get(&format!("/v1/kv/tables/07/?recurse&index={}&wait=5ms", table.index()));
    assert_eq!(beside.index(), table.index(), "another table's change is not this one's");
}
