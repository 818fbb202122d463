//! `quorate watch`: typed as a user types it, with handlers that are real programs (walkthrough C6).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Agent, program, stderr, stdout, value_of, wait_until};

/// A watch with a handler, which writes to the watch's own standard output.
struct Watch {
    child: Child,
    dir: tempfile::TempDir,
}

impl Watch {
    fn start(agent: &Agent, args: &[&str]) -> Watch {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(dir.path().join(name)).unwrap();
        let child = Command::new(program())
            .args(["watch", &format!("-http-addr={}", agent.http)])
            .args(args)
            .env("SHELL", "/bin/sh")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Watch { child, dir }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(name)).unwrap()
    }

    /// The lines so far, without one that is still being written.
    fn lines(&self) -> Vec<String> {
        let said = self.said("out");
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits for so many lines; the last of them.
    fn line(&self, count: usize) -> String {
        wait_until("the handler", || {
            assert!(self.lines().len() <= count, "{:?} are more than {count} lines", self.lines());
            self.lines().len() == count
        });
        self.lines().pop().unwrap()
    }

    fn json(&self, count: usize) -> Value {
        serde_json::from_str(&self.line(count)).unwrap()
    }

    /// Its exit code, once it has ended.
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the end of the watch", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the watch said:\n{}{}", self.said("out"), self.said("err"));
        }
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// A handler that prints what it is given as one line.
const PRINT: &str = "cat; echo";

fn register(agent: &Agent, body: Value) {
    let done = agent.put("/v1/catalog/register", body.to_string());
    assert_eq!(done.text(), "true", "{body}");
}

/// An instance of a service on a node of its name, with a check.
fn instance(node: &str, service: &str, tag: &str, status: &str) -> Value {
    json!({
        "Node": node, "Address": "10.0.0.1",
        "Service": { "ID": service, "Service": service, "Tags": [tag], "Port": 80 },
        "Check": { "CheckID": format!("{service}-{node}"), "Name": "alive", "ServiceID": service, "Status": status },
    })
}

#[test]
fn without_a_command_the_first_result_is_printed() {
    let agent = Agent::start(&["-dev"]);
    let first = |args: &[&str]| {
        let output = agent.run(&[&["watch"], args].concat());
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
        let text = stdout(&output);
        let value: Value = serde_json::from_str(&text).unwrap();
        (text, value)
    };
    assert_eq!(first(&["-type=key", "-key=a/b"]).0, "null\n");
    assert_eq!(first(&["-type", "keyprefix", "-prefix", "a/"]).0, "null\n");
    agent.put("/v1/kv/a/b", "one");
    agent.put("/v1/kv/a/c", "two");
    agent.put("/v1/kv/b", "three");
    let (text, key) = first(&["-type=key", "-key=a/b"]);
    assert!(text.starts_with("{\n    \"LockIndex\": 0,\n    \"Key\": \"a/b\",\n"), "{text}");
    assert_eq!(value_of(&key), b"one");
    let (_, list) = first(&["-type=keyprefix", "-prefix=a/", "-stale"]);
    assert_eq!((list[0]["Key"].as_str(), list[1]["Key"].as_str(), list.get(2)), (Some("a/b"), Some("a/c"), None));

    register(&agent, instance("n1", "web", "v1", "passing"));
    register(&agent, instance("n2", "web", "v2", "critical"));
    let (_, services) = first(&["-type=services"]);
    assert_eq!(services["web"], json!(["v1", "v2"]));
    let (_, nodes) = first(&["-type=nodes"]);
    assert!(nodes.as_array().unwrap().iter().any(|node| node["Node"] == "n2"), "{nodes}");
    let on = |args: &[&str]| {
        let (_, instances) = first(&[&["-type=service", "-service=web"], args].concat());
        let nodes = instances.as_array().unwrap().iter().map(|one| one["Node"]["Node"].as_str().unwrap().to_owned());
        nodes.collect::<Vec<_>>()
    };
    assert_eq!(on(&[]), ["n1", "n2"]);
    assert_eq!(on(&["-passingonly"]), ["n1"]);
    assert_eq!(on(&["-tag=v2"]), ["n2"]);
    assert!(on(&["-tag=v2", "-passingonly=true"]).is_empty());
    assert!(on(&["-tag=v1", "-tag=v2"]).is_empty());
    let checks = |args: &[&str]| {
        let (_, checks) = first(&[&["-type=checks"], args].concat());
        let ids = checks.as_array().unwrap().iter().map(|one| one["CheckID"].as_str().unwrap().to_owned());
        ids.filter(|id| id.starts_with("web")).collect::<Vec<_>>()
    };
    assert_eq!(checks(&["-service=web"]), ["web-n1", "web-n2"]);
    assert_eq!(checks(&["-state=critical"]), ["web-n2"]);
    assert_eq!(checks(&[]), ["web-n1", "web-n2"]);
}

#[test]
fn c6_a_script_gets_the_checks_of_a_service_each_time_they_change() {
    let agent = Agent::start(&["-dev"]);
    register(&agent, instance("n1", "service_nginx", "a", "passing"));
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("health_watch.sh");
    std::fs::write(&script, "cat; echo \" $1 $CONSUL_INDEX\"\n").unwrap();
    let script = script.to_str().unwrap();
    let watch = Watch::start(&agent, &["-type=checks", "-service=service_nginx", "sh", script, "argument"]);
    let told = |count: usize| {
        let line = watch.line(count);
        let (json, rest) = line.split_once("] ").unwrap();
        let checks: Value = serde_json::from_str(&format!("{json}]")).unwrap();
        let index: u64 = rest.strip_prefix("argument ").unwrap().parse().unwrap();
        (checks[0]["Status"].as_str().unwrap().to_owned(), index)
    };
    let (status, first) = told(1);
    assert_eq!(status, "passing");
    register(&agent, instance("n1", "service_nginx", "a", "critical"));
    let (status, second) = told(2);
    assert_eq!((status.as_str(), second > first), ("critical", true));
    assert_eq!(agent.get("/v1/health/checks/service_nginx").index(), second);
}

#[test]
fn a_command_runs_on_each_change_and_not_on_the_same_again() {
    let agent = Agent::start(&["-dev"]);
    let key = Watch::start(&agent, &["-type=key", "-key=web/key1", PRINT]);
    assert_eq!(key.line(1), "null", "it runs at once");
    agent.put("/v1/kv/web/key1", "one");
    assert_eq!(value_of(&key.json(2)), b"one");
    agent.put("/v1/kv/web/other", "beside");
    agent.put("/v1/kv/web/key1", "two");
    assert_eq!(value_of(&key.json(3)), b"two");
    agent.request("DELETE", "/v1/kv/web/key1", b"");
    assert_eq!(key.line(4), "null");

    let services = Watch::start(&agent, &["-type=services", PRINT]);
    services.line(1);
    register(&agent, instance("n1", "web", "v1", "passing"));
    assert_eq!(services.json(2)["web"], json!(["v1"]));
    let before = agent.get("/v1/catalog/services").index();
    register(&agent, instance("n2", "web", "v1", "passing"));
    assert!(agent.get("/v1/catalog/services").index() > before, "another index, and the same names and tags");
    register(&agent, instance("n2", "db", "v1", "passing"));
    // Were the second instance told, this would be the fourth line.
    wait_until("db", || services.lines().last().is_some_and(|line| line.contains("db")));
    assert_eq!(services.lines().len(), 3, "{:?}", services.lines());
}

#[test]
fn a_command_that_still_runs_is_told_the_newest_when_it_has_ended() {
    let agent = Agent::start(&["-dev"]);
    let slow = "cat; echo; until [ -e go ]; do sleep 0.01; done";
    let watch = Watch::start(&agent, &["-type=key", "-key=k", slow]);
    assert_eq!(watch.line(1), "null");
    for value in ["one", "two", "three"] {
        agent.put("/v1/kv/k", value);
    }
    assert_eq!(watch.line(1), "null", "one at a time");
    File::create(watch.dir().join("go")).unwrap();
    assert_eq!(value_of(&watch.json(2)), b"three");
}

#[test]
fn a_command_that_fails_ends_the_watch() {
    let agent = Agent::start(&["-dev"]);
    for (args, says) in [
        (&["-type=key", "-key=k", "exit 3"][..], "Error! the handler failed with exit status: 3\n"),
        (&["-type=key", "-key=k", "kill -9 $$"], "Error! the handler failed with signal: 9 (SIGKILL)\n"),
        (&["-type=key", "-key=k", "-shell=false", "/none"], "Error! cannot run /none: No such file or directory"),
    ] {
        let mut watch = Watch::start(&agent, args);
        assert_eq!(watch.end(), Some(1), "{args:?}");
        assert!(watch.said("err").contains(says), "{args:?}: {}", watch.said("err"));
    }
    // At its second run, too.
    let mut watch =
        Watch::start(&agent, &["-type=key", "-key=k", "-shell", PRINT, ";", "test ! -e seen && touch seen"]);
    watch.line(1);
    agent.put("/v1/kv/k", "x");
    assert_eq!(watch.end(), Some(1));
    assert_eq!(watch.lines().len(), 2);
}

#[test]
fn words_go_through_a_shell_unless_told_not_to() {
    let agent = Agent::start(&["-dev"]);
    let index = agent.get("/v1/kv/k").index();
    let shell = Watch::start(&agent, &["-type=key", "-key=k", "echo", "index", "$CONSUL_INDEX"]);
    assert_eq!(shell.line(1), format!("index {index}"));
    let words = Watch::start(&agent, &["-type=key", "-key=k", "-shell=false", "echo", "two  blanks", "$CONSUL_INDEX"]);
    assert_eq!(words.line(1), "two  blanks $CONSUL_INDEX");
}

#[test]
fn a_result_is_posted_to_a_url() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/k", "one");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("-http-handler=http://{}/hook", listener.local_addr().unwrap());
    let mut watch = Watch::start(&agent, &["-type=key", "-key=k", &url]);
    let answer = |status: &str| {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
            head += &line.to_lowercase();
        }
        let header = |name: &str| head.split_once(&format!("{name}: ")).unwrap().1.lines().next().unwrap().to_owned();
        let mut body = vec![0; header("content-length").parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        write!(stream.get_mut(), "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        let told: Value = serde_json::from_slice(&body).unwrap();
        let start = head.lines().next().unwrap().to_owned();
        (start, header("content-type"), header("x-consul-index").parse::<u64>().unwrap(), value_of(&told))
    };
    let json = "application/json".to_string();
    let index = agent.get("/v1/kv/k").index();
    assert_eq!(answer("204"), ("post /hook http/1.1".into(), json, index, b"one".to_vec()));
    agent.put("/v1/kv/k", "two");
    assert_eq!(answer("500").3, b"two");
    assert_eq!(watch.end(), Some(1));
    assert!(watch.said("err").contains("answered 500"), "{}", watch.said("err"));
}

#[test]
fn what_the_agent_refuses_or_does_not_serve_is_said() {
    let agent = Agent::start(&["-dev"]);
    for (args, says) in [
        (&["-type=nodes", "-filter=Node == a", "cat"][..], "Filter expressions are not supported yet"),
        (&["-type=checks", "-state=ill"], "Invalid check state"),
        (&["-type=key"], "-type=key needs -key"),
        (&["-type=keyprefix"], "-type=keyprefix needs -prefix"),
        (&["-type=service"], "-type=service needs -service"),
        (&["-type=event"], "user events, which are not served yet"),
        (&[], "--type"),
    ] {
        let refused = agent.run(&[&["watch"], args].concat());
        assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr(&refused).contains(says), "{args:?}: {}", stderr(&refused));
    }
}

/// B10: every change once, in order, with what was there before, also while the server is killed and comes back.
#[test]
fn events_are_followed_through_the_death_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let durable = ["-server", "-bootstrap", "-data-dir", dir.path().to_str().unwrap()];
    let mut agent = Agent::start(&durable);
    let port = agent.http.port();
    let mut args = vec!["agent".to_string(), format!("-http-port={port}")];
    args.extend(durable.map(String::from));
    let watch = Watch::start(&agent, &["-type=events", "-prefix=k", "-prev"]);
    wait_until("the stream", || watch.said("out").contains("bookmark"));
    let changes = || {
        let records = watch.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let changes = records.filter(|record| record["Type"] == "changes");
        changes.map(|record| record["Changes"][0].clone()).collect::<Vec<Value>>()
    };
    for n in 0..3 {
        for part in 0..5 {
            assert_eq!(agent.put("/v1/kv/k", format!("{n} {part}")).text(), "true");
        }
        agent.kill();
        agent = Agent::spawn_on(&args, port);
        agent.wait_for_leader();
    }
    assert_eq!(agent.request("DELETE", "/v1/kv/k", b"").text(), "true");
    wait_until("the last change", || changes().last().is_some_and(|change| change["Action"] == "delete"));
    let changes = changes();
    assert_eq!(changes.len(), 16, "15 writes and a deletion, each once: {changes:?}");
    assert_eq!(changes[0]["Prev"], Value::Null);
    assert!(changes.windows(2).all(|pair| pair[0]["Entry"] == pair[1]["Prev"]), "{changes:?}");
}
