//! Commands that work on sessions and transactions, typed as a user types them.

use crate::support::{Agent, quorate, stderr, stdout};

#[test]
fn a_session_is_made_holds_a_lock_and_is_destroyed_by_commands() {
    let agent = Agent::start(&["-dev"]);
    let http = format!("-http-addr={}", agent.http);
    let run = |args: &[&str]| {
        let (verb, rest) = args.split_at(2);
        quorate(&[verb, &[http.as_str()], rest].concat())
    };
    let created = run(&["session", "create", "-ttl=15s", "-name=worker", "-lock-delay=0s"]);
    let id = stdout(&created).trim().to_string();
    assert_eq!(id.len(), 36, "{}", stderr(&created));
    assert!(stdout(&run(&["session", "info", &id])).contains("worker"));
    assert!(stdout(&run(&["session", "list"])).contains(&id));
    let put = run(&["kv", "put", "-acquire", &format!("-session={id}"), "web/leader", "me"]);
    assert_eq!(stdout(&put).trim(), "Success! Lock acquired on: web/leader");
    assert_eq!(stdout(&run(&["session", "renew", &id])).trim(), format!("Success! Renewed session: {id}"));
    assert_eq!(stdout(&run(&["session", "destroy", &id])).trim(), format!("Success! Destroyed session: {id}"));
    let gone = run(&["session", "renew", &id]);
    assert_eq!((gone.status.code(), stderr(&gone).contains("No session exists")), (Some(1), true));
}

#[test]
fn a_transaction_prints_what_it_gave_or_everything_that_failed() {
    let agent = Agent::start(&["-dev"]);
    let http = format!("-http-addr={}", agent.http);
    let txn = |operations: &str| quorate(&["txn", &http, operations]);
    let set = r#"{"KV": {"Verb": "set", "Key": "a", "Value": "aGk="}}"#;
    let done = txn(&format!(r#"[{set}, {{"KV": {{"Verb": "get", "Key": "a"}}}}]"#));
    let results: serde_json::Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert_eq!(results[1]["KV"]["Value"], "aGk=");

    let failed = txn(r#"[{"KV": {"Verb": "delete", "Key": "a"}}, {"KV": {"Verb": "get", "Key": "none"}}]"#);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(stderr(&failed), "Error! Nothing was done:\n  operation 1: key \"none\" doesn't exist\n");
    assert_eq!(agent.get("/v1/kv/a?raw").text(), "hi", "nothing was done");

    for (operations, says) in [("", "OPERATIONS is empty"), ("{}", "expected a list"), ("@/nowhere", "/nowhere")] {
        let refused = txn(operations);
        assert_eq!(refused.status.code(), Some(1), "{operations:?}");
        assert!(stderr(&refused).contains(says), "{operations:?}: {}", stderr(&refused));
    }
}
