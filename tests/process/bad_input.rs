//! Everything that can be typed wrong, through the program: each is met with a sentence that names it, exit code 1, no
//! panic, and nothing half done. What can be sent wrong over HTTP stands in `tests/api/`.

use crate::support::{Agent, free_port, quorate, raw_request, request, stderr, stdout};

/// Runs the program; it must fail with exit code 1 and say all of `says`.
fn refused(args: &[&str], says: &[&str]) {
    let output = quorate(args);
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}\n{text}");
    for part in says {
        assert!(text.contains(part), "{args:?} does not say {part:?}:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    refused(&["agent"], &["data"]);
    refused(&["agent", "-dev", "-no-such-flag"], &["no-such-flag"]);
    refused(&["agent", "-dev", "-http-port=70000"], &["70000"]);
    refused(&["agent", "-dev", "-http-port=web"], &["web"]);
    refused(&["agent", "-dev", "-client=nonsense"], &["nonsense"]);
    refused(&["agent", "-dev", "-bind=1.2.3"], &["1.2.3"]);
    refused(&["agent", "-dev", "-node=a b"], &["a b"]);
    refused(&["agent", "-dev", "-node-id=7"], &["7"]);
    refused(&["agent", "-dev", "-datacenter=a.b"], &["a.b"]);
    refused(&["agent", "-dev", "-log-level=loud"], &["loud"]);
    refused(&["agent", "-server", "-bootstrap", "-bootstrap-expect=3", "-data-dir=unused"], &["bootstrap"]);
    refused(&["no-such-command"], &["no-such-command"]);
    refused(&["kv"], &["get"]);
    refused(&["kv", "no-such-command"], &["no-such-command"]);
    refused(&["kv", "put"], &["KEY"]);
    refused(&["version", "-format=yaml"], &["yaml"]);
}

#[test]
fn configuration_files_that_make_no_sense_are_refused_by_name_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.json");
    let bad: &[(&str, &[&str])] = &[
        ("{", &["bad.json"]),
        ("[]", &["bad.json"]),
        (r#"{"datacentre": "a"}"#, &["datacentre", "datacenter"]),
        (r#"{"server": "perhaps"}"#, &["server"]),
        (r#"{"ports": {"http": "x"}}"#, &["ports", "http"]),
        (r#"{"ports": {"htp": 1}}"#, &["htp"]),
        (r#"{"ports": 8500}"#, &["ports"]),
        (r#"{"log_level": 5}"#, &["log_level"]),
        (r#"{"default_query_time": "soon"}"#, &["default_query_time", "soon"]),
        (r#"{"limits": {"kv_max_value_size": -1}}"#, &["kv_max_value_size"]),
        (r#"{"limits": {"kv_max_value_size": 999999999}}"#, &["kv_max_value_size"]),
        (r#"{"performance": {"raft_multiplier": 11}}"#, &["raft_multiplier"]),
        (r#"{"bind_addr": "{{ GetSomething }}"}"#, &["bind_addr"]),
        (r#"{"bootstrap_expect": -3}"#, &["bootstrap_expect"]),
        ("{\"node_name\": \"\u{0}\"}", &["bad.json"]),
    ];
    for (text, says) in bad {
        std::fs::write(&file, text).unwrap();
        refused(&["agent", "-dev", "-config-file", file.to_str().unwrap()], says);
    }
    refused(&["agent", "-dev", "-config-file", "/does/not/exist.json"], &["/does/not/exist.json"]);
    refused(&["agent", "-dev", "-config-dir", "/does/not/exist"], &["/does/not/exist"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    refused(&["agent", "-server", "-bootstrap", "-data-dir", file.to_str().unwrap()], &[file.to_str().unwrap()]);
    assert_eq!(std::fs::read(&file).unwrap(), b"in the way");
}

#[test]
fn a_port_in_use_is_named() {
    let agent = Agent::start(&["-dev"]);
    refused(&["agent", "-dev", &format!("-http-port={}", agent.http.port())], &[&agent.http.to_string(), "in use"]);
}

#[test]
fn a_server_that_is_not_there_is_named_with_the_cure() {
    let address = format!("127.0.0.1:{}", free_port());
    refused(&["kv", "get", "-http-addr", &address, "k"], &[&address, "agent"]);
    refused(&["bench", "-http-addr", &address, "-duration=1s"], &[&address]);
}

#[test]
fn commands_refuse_values_that_make_no_sense() {
    let agent = Agent::start(&["-dev"]);
    let refused = |args: &[&str], says: &str, input: &[u8]| {
        let output = agent.run_with(args, input);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(says), "{args:?} does not say {says:?}: {}", stderr(&output));
    };
    refused(&["kv", "put", "", "v"], "KEY", b"");
    refused(&["kv", "put", "-flags=-1", "k", "v"], "-1", b"");
    refused(&["kv", "put", "-base64", "k", "%%%"], "base64", b"");
    refused(&["kv", "put", "k", "@/does/not/exist"], "/does/not/exist", b"");
    refused(&["kv", "put", "-acquire", "k", "v"], "session", b"");
    refused(&["kv", "put", "-acquire", "-session=none", "k", "v"], "invalid session", b"");
    refused(&["kv", "import", "-"], "Cannot unmarshal", b"{");
    refused(&["kv", "import", "-"], "base64", br#"[{"key":"a","flags":0,"value":"%"}]"#);
    assert_eq!(agent.get("/v1/kv/?keys").json(), serde_json::json!([]), "nothing was written by any of them");
}

#[test]
fn bytes_that_are_no_request_harm_nobody() {
    let agent = Agent::start(&["-dev"]);
    let bad: &[&[u8]] = &[
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/kv/a HTTP/9.9\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/kv/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ];
    for bytes in bad {
        if let Ok(response) = raw_request(agent.http, bytes) {
            assert!((400..600).contains(&response.status) || response.status == 404, "{bytes:?}: {response:?}");
        }
    }
    let long = format!("/v1/kv/{}", "k".repeat(9000));
    let status = request(agent.http, "PUT", &long, &[], b"v").unwrap().status;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(agent.get("/v1/kv/?keys").json(), serde_json::json!([]));
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
