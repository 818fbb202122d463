//! Whole watches against an agent that plays a script: what the handler is told, and what ends them.

use std::process::ExitCode;

use crate::cli::tests::Terminal;
use crate::client::stream::tests::{Act, Scripted, bookmark, changes, head, record};

/// What is behind every answer that the handler gives.
const OK: (u16, &str, &str) = (200, "", "");

/// Plays these answers, the agent's and the handler's in one row, to a watch with a handler. The requests behind the first,
/// standard output and standard error.
fn watch(args: &[&str], answers: &[(u16, &str, &str)]) -> (Vec<String>, String, String) {
    let agent = Scripted::default();
    agent.then_answer(200, "", "\"127.0.0.1:8300\"");
    for (status, headers, body) in answers {
        agent.then_answer(*status, headers, body);
    }
    // The handler fails at last, which ends the watch.
    agent.then_answer(500, "", "enough");
    let args = [&["watch", "-http-handler=http://127.0.0.1:9000/h"], args].concat();
    let (out, err, code) = Terminal::at(agent.world()).run(&args);
    assert_eq!(code, ExitCode::FAILURE);
    let requests = agent.requests();
    assert_eq!(requests[0], "GET /v1/status/leader");
    (requests[1..].to_vec(), out, err)
}

const ENOUGH: &str = "Error! the handler failed: 127.0.0.1:9000 answered 500: enough\n";

#[test]
fn a_handler_is_told_at_once_and_of_each_change_but_of_nothing_twice() {
    let (requests, out, err) = watch(
        &["-type=keyprefix", "-prefix=a/", "-stale"],
        &[
            (200, "X-Consul-Index: 5\r\n", r#"[ {"Key": "a/b"} ]"#),
            OK,
            (200, "X-Consul-Index: 5\r\n", r#"[{"Key":"a/time is up"}]"#),
            (200, "X-Consul-Index: 8\r\n", r#"[{"Key":"a/b"}]"#),
            (404, "X-Consul-Index: 9\r\n", ""),
            OK,
            (200, "X-Consul-Index: 3\r\n", r#"[{"Key":"a/c"}]"#),
            OK,
            (200, "X-Consul-Index: 4\r\n", "[]"),
        ],
    );
    assert_eq!((out.as_str(), err.as_str()), ("", ENOUGH));
    assert_eq!(
        requests,
        [
            "GET /v1/kv/a/?recurse&stale",
            r#"POST /h index=5 [{"Key":"a/b"}]"#,
            "GET /v1/kv/a/?recurse&stale&index=5&wait=60000ms",
            "GET /v1/kv/a/?recurse&stale&index=5&wait=60000ms",
            "GET /v1/kv/a/?recurse&stale&index=8&wait=60000ms",
            "POST /h index=9 null",
            "GET /v1/kv/a/?recurse&stale&index=9&wait=60000ms",
            r#"POST /h index=3 [{"Key":"a/c"}]"#,
            "GET /v1/kv/a/?recurse&stale",
            "POST /h index=4 []",
        ]
    );
}

#[test]
fn failures_are_warned_about_and_asked_again_at_growing_distances() {
    let (requests, _, err) = watch(
        &["-type=nodes"],
        &[
            (500, "", "No cluster leader"),
            (200, "", "[1]"),
            (200, "X-Consul-Index: 5\r\n", "[1]"),
            OK,
            (403, "", "Permission denied"),
            (200, "X-Consul-Index: 6\r\n", "[2]"),
        ],
    );
    assert_eq!(
        err,
        format!(
            "Warning: 127.0.0.1:8500 answered 500: No cluster leader; asking again in 5s\n\
             Warning: 127.0.0.1:8500 gave no index; asking again in 20s\n\
             Warning: 127.0.0.1:8500 answered 403: Permission denied; asking again in 5s\n{ENOUGH}"
        )
    );
    let ask = "GET /v1/catalog/nodes";
    let wait = "GET /v1/catalog/nodes?index=5&wait=60000ms";
    let expected = [ask, ask, ask, "POST /h index=5 [1]", wait, ask, "POST /h index=6 [2]"];
    assert_eq!(requests, expected, "after a failure the next query does not wait");
}

#[test]
fn what_is_refused_at_first_ends_it() {
    let agent = Scripted::default();
    agent.then_answer(200, "", "\"\"");
    agent.then_answer(400, "", "Filter expressions are not supported yet: filter the answer instead");
    let (out, err, code) = Terminal::at(agent.world()).run(&["watch", "-type=nodes", "-filter=a == b", "cat"]);
    let says =
        "Error! 127.0.0.1:8500 answered 400: Filter expressions are not supported yet: filter the answer instead\n";
    assert_eq!((out.as_str(), err.as_str(), code), ("", says, ExitCode::FAILURE));
}

/// The event stream's part of [`watch`].
fn events(args: &[&str], answers: Vec<Vec<Act>>) -> (Vec<String>, String, String) {
    let agent = Scripted::default();
    agent.then_answer(200, "", "\"127.0.0.1:8300\"");
    answers.into_iter().for_each(|acts| agent.then(acts));
    agent.then_answer(410, "X-Quorate-Oldest: 40\r\n", "too old");
    let args = [&["watch", "-type=events"], args].concat();
    let (out, err, code) = Terminal::at(agent.world()).run(&args);
    assert_eq!(code, ExitCode::FAILURE);
    (agent.requests()[1..].to_vec(), out, err)
}

#[test]
fn events_are_printed_as_they_come_until_some_are_gone() {
    let first = vec![head(5), record(&bookmark(5)), record(&changes(7)), Act::HangUp];
    let second = vec![head(7), record(&bookmark(8)), Act::HangUp];
    let (requests, out, err) = events(&["-prefix=a", "-since=5", "-prev"], vec![first, second]);
    let asked = |since: u64| format!("GET /v1/watch?prefix=a&since={since}&prev");
    assert_eq!(requests, [asked(5), asked(7), asked(8)]);
    let gone = r#"{"Type":"gone","Index":8,"Oldest":40}"#;
    assert_eq!(out, format!("{}\n{}\n{}\n{gone}\n", bookmark(5), changes(7), bookmark(8)));
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with("Warning: lost the event stream of 127.0.0.1:8500: "), "{err}");
    assert!(lines[0].ends_with("; going on from index 7 in 250ms"), "{err}");
    assert!(lines[1].ends_with("; going on from index 8 in 250ms"), "{err}");
    let says = "Error! changes were missed: what came after index 8 is no longer kept. Read the prefix again and follow it \
                from the index of that answer; the oldest index to start from is 40";
    assert_eq!(lines[2..], [says]);
}

#[test]
fn a_handler_is_told_of_changes_alone_and_of_each() {
    // Its answers come between the agent's.
    let stream = vec![
        head(5),
        record(&bookmark(5)),
        record(&changes(7)),
        record(&bookmark(7)),
        record(&changes(8)),
        Act::HangUp,
    ];
    let ok = || vec![Act::Say(b"HTTP/1.1 204 X\r\n\r\n".to_vec())];
    let (requests, out, _) = events(&["-http-handler=http://127.0.0.1:9000/h"], vec![stream, ok(), ok()]);
    assert_eq!(out, "");
    let told = [7, 8].map(|index| format!("POST /h index={index} {}", changes(index)));
    assert_eq!(requests[1..3], told);
    assert_eq!(requests[3], "GET /v1/watch?prefix=&since=8");
}
