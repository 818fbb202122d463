//! Walkthrough A: starting it.

use crate::support::{Agent, free_port, quorate, stdout, wait_until};

#[test]
fn a1_dev_is_one_node_in_memory_with_a_banner() {
    let agent = Agent::start(&["-dev"]);
    assert_eq!(agent.put("/v1/kv/web/key1", "test").text(), "true");
    let banner = agent.log();
    for part in ["Version", "Node name", "Datacenter", "dc1", &agent.http.port().to_string()] {
        assert!(banner.contains(part), "no {part:?} in\n{banner}");
    }
}

#[test]
fn a3_one_durable_server_keeps_its_keys_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["-server", "-bootstrap", "-data-dir", dir.path().to_str().unwrap(), "-client", "0.0.0.0", "-ui"];
    let mut agent = Agent::start(&args);
    assert_eq!(agent.put("/v1/kv/web/key1", "test").text(), "true");
    let before = agent.get("/v1/kv/web/key1");
    agent.signal("INT");
    agent.wait();
    let agent = Agent::start(&args);
    let after = agent.get("/v1/kv/web/key1");
    assert_eq!((after.text(), after.index()), (before.text(), before.index()));
    assert!(agent.put("/v1/kv/web/key2", "x").text() == "true");
    assert!(agent.get("/v1/kv/web/key2").index() > before.index(), "the index goes on where it was");
}

#[test]
fn a4_bootstrap_expect_one_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("-data-dir={}", dir.path().display());
    let agent = Agent::start(&[&data, "-client=127.0.0.1", "-bootstrap-expect", "1", "-server", "-ui"]);
    assert_eq!(agent.put("/v1/kv/a", "1").text(), "true");
    assert!(dir.path().join("node-id").exists());
}

#[test]
fn a5_consuls_configuration_file_starts_it_and_old_keys_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        r#"{{"datacenter": "east", "data_dir": "{0}/data", "ui_dir": "{0}", "log_level": "INFO", "node_name": "one",
            "server": true, "bootstrap": true, "raft_protocol": 3, "enable_syslog": true,
            "addresses": {{"https": "127.0.0.1"}},
            "ports": {{"dns": -1, "https": -1, "http": {port}, "rpc": 8400, "serf_lan": 8301, "serf_wan": 8302, "server": {1}}}}}"#,
        dir.path().display(),
        free_port(),
    );
    let file = dir.path().join("base.json");
    std::fs::write(&file, config).unwrap();
    let args = ["agent", "-config-file", file.to_str().unwrap()].map(String::from);
    let agent = Agent::spawn_on(&args, port);
    agent.wait_for_leader();
    let own = agent.get("/v1/agent/self").json();
    assert_eq!(own["Config"]["Datacenter"], "east");
    assert_eq!(own["Config"]["NodeName"], "one");
    let log = agent.log();
    for key in ["ui_dir", "ports.rpc", "raft_protocol", "enable_syslog"] {
        assert_eq!(log.matches(key).count(), 1, "one warning about {key} in\n{log}");
    }
}

#[test]
fn version_is_what_test_harnesses_parse() {
    let output = quorate(&["version", "-format=json"]);
    let version: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(version["Version"], env!("CARGO_PKG_VERSION"));
    assert!(stdout(&quorate(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn two_dashes_and_a_link_named_consul_work_too() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("consul");
    std::os::unix::fs::symlink(crate::support::program(), &link).unwrap();
    let output = std::process::Command::new(link).args(["version", "--format", "json"]).output().unwrap();
    assert!(output.status.success());
    let agent = Agent::start(&["--dev"]);
    let address = format!("--http-addr={}", agent.http);
    assert!(agent.run(&["kv", "put", &address, "a", "1"]).status.success());
}

#[test]
fn an_interrupt_ends_it_in_order() {
    let mut agent = Agent::start(&["-dev"]);
    agent.signal("INT");
    let code = agent.wait();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    assert!(agent.log().to_lowercase().contains("stopped"), "{}", agent.log());
}

#[test]
fn a_reload_keeps_connections() {
    let agent = Agent::start(&["-dev"]);
    let mut connection = crate::support::Connection::open(agent.http).unwrap();
    assert_eq!(connection.request("GET", "/v1/status/leader", b"").unwrap().status, 200);
    agent.signal("HUP");
    wait_until("the reload to be logged", || agent.log().to_lowercase().contains("reload"));
    assert_eq!(connection.request("GET", "/v1/status/leader", b"").unwrap().status, 200);
}

#[test]
fn a6_a_server_whom_nobody_to_join_answers_ends_after_retry_max() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("-data-dir={}", dir.path().display());
    let nobody = format!("-retry-join=127.0.0.1:{}", free_port());
    let mut agent =
        Agent::spawn(&[&data, "-server", "-bind=127.0.0.1", &nobody, "-retry-max=2", "-retry-interval=100ms"]);
    assert_eq!(agent.wait(), Some(1));
    assert!(agent.log().contains("no server to join has answered for 2 times 100ms (retry_max"), "{}", agent.log());
}
