//! What a user of `quorate lock` sees: one child at a time, exit codes, the environment.

use super::holder::{Holder, Log, signal, wait_for_end_of, writes};
use super::support::{Agent, quorate, stderr, stdout, wait_until};

const SHORT: &str = "-ttl=2s";

#[test]
fn d1_one_child_runs_at_a_time_and_the_next_starts_when_it_has_ended() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let script = |name: &str| format!("echo {name}; sleep 0.2; echo {name}");
    let names = ["a", "b", "c"];
    let mut holders: Vec<Holder> =
        names.iter().map(|name| Holder::start(&log, agent.http, &[], &script(name))).collect();
    for holder in &mut holders {
        assert_eq!(holder.wait(), Some(0));
    }
    assert_eq!((log.lines().len(), log.turns().len()), (6, 3), "each ran, and none beside another: {:?}", log.lines());
    assert_eq!(agent.get("/v1/kv/job?recurse").status, 404, "the last has removed the key");
    assert_eq!(agent.get("/v1/session/list").text().trim(), "[]");
}

#[test]
fn who_came_first_is_next() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let mut first = Holder::start(&log, agent.http, &[], "echo 0; while [ ! -e $DIR/go ]; do sleep 0.02; done");
    log.wait_for("0");
    let queue = || agent.get("/v1/lock/job/.lock").json()["Queue"].as_array().unwrap().len();
    let mut others = Vec::new();
    for number in 1..4 {
        others.push(Holder::start(&log, agent.http, &[], &format!("echo {number}")));
        wait_until("one more in the queue", || queue() == number);
    }
    log.touch("go");
    assert_eq!(first.wait(), Some(0));
    others.iter_mut().for_each(|other| assert_eq!(other.wait(), Some(0)));
    assert_eq!(log.lines(), ["0", "1", "2", "3"]);
}

#[test]
fn the_child_is_told_of_its_lock_and_its_exit_code_counts_if_asked_for() {
    let agent = Agent::start(&["-dev"]);
    let output = agent.run(&["lock", "job", "env"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let variables = stdout(&output);
    let of = |name: &str| variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    assert_eq!((of("CONSUL_LOCK_HELD"), of("QUORATE_LOCK_KEY")), ("true", "job/.lock"));
    assert!(of("QUORATE_LOCK_FENCE").parse::<u64>().unwrap() > 0);
    assert_eq!(of("QUORATE_LOCK_SESSION").len(), 36);

    assert_eq!(agent.run(&["lock", "job", "exit 3"]).status.code(), Some(0), "as Consul");
    assert_eq!(agent.run(&["lock", "-child-exit-code", "job", "exit 3"]).status.code(), Some(2));
    assert_eq!(agent.run(&["lock", "-child-exit-code", "job", "exit 0"]).status.code(), Some(0));
    let output = agent.run(&["lock", "-shell=false", "/job", "echo", "$HOME", "*"]);
    assert_eq!(stdout(&output), "$HOME *\n", "no shell has read it");
    let output = agent.run(&["lock", "-shell=false", "job", "no-such-program"]);
    assert_eq!((output.status.code(), stderr(&output).contains("cannot run no-such-program")), (Some(1), true));
    assert_eq!(stdout(&agent.run_with(&["lock", "job", "cat"], b"words")), "");
    assert_eq!(stdout(&agent.run_with(&["lock", "-pass-stdin", "job", "cat"], b"words")), "words");
    let http = format!("-http-addr={}", agent.http);
    let output = quorate(&["lock", &http, "job", "echo $CONSUL_HTTP_ADDR $QUORATE_HTTP_ADDR"]);
    assert_eq!(stdout(&output), format!("{0} {0}\n", agent.http));
}

#[test]
fn bad_input_is_refused_before_anything_is_done() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/taken/.lock?flags=42", "data");
    for (args, says) in [
        (&["lock"][..], "PREFIX and CHILD are needed"),
        (&["lock", "job"], "PREFIX and CHILD are needed"),
        (&["lock", "-n=0", "job", "true"], "-n=0"),
        (&["lock", "-ttl=0s", "job", "true"], "-ttl must be above 0s"),
        (&["lock", "-datacenter=dc2", "job", "true"], "a lock is held where its agent is"),
        (&["lock", "-ttl=1ms", "job", "true"], "TTL"),
        (&["lock", "taken", "true"], "taken/.lock is no lock: its flags are 42"),
        (&["lock", "-n=2", "taken", "true"], "taken/.lock is no semaphore's: its flags are 42"),
        (&["lock", "-http-addr=127.0.0.1:1", "job", "true"], "is the agent running?"),
        (&["lock-supervisor"], "type: quorate lock PREFIX CHILD"),
        (&["lock-child", "1"], "type: quorate lock PREFIX CHILD"),
    ] {
        let output = agent.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(agent.get("/v1/session/list").text().trim(), "[]");
}

#[test]
fn who_has_waited_long_enough_gives_up() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let holder = Holder::start(&log, agent.http, &[], &writes("a"));
    log.wait_for("a");
    for flag in ["-timeout=300ms", "-try=300ms"] {
        let output = agent.run(&["lock", flag, "job", "echo never"]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
        assert!(stderr(&output).contains("Did not get the lock at job within 300ms"), "{}", stderr(&output));
    }
    assert_eq!(agent.get("/v1/session/list").json().as_array().unwrap().len(), 1, "the holder's alone is left");
    assert!(agent.get("/v1/lock/job/.lock").json()["Queue"].as_array().unwrap().is_empty());
    drop(holder);
}

#[test]
fn a_signal_stops_the_child_and_frees_the_lock() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    for name in ["TERM", "INT"] {
        let script = format!("trap 'echo {name}; exit 0' TERM; echo runs {name}; while :; do sleep 0.02; done");
        // The lease is long: what is free soon was given up.
        let mut holder = Holder::start(&log, agent.http, &["-ttl=1h"], &script);
        log.wait_for(&format!("runs {name}"));
        let child = holder.child();
        signal(name, holder.pid());
        assert_eq!(holder.wait(), Some(0));
        wait_for_end_of(child);
        assert_eq!(log.lines().last().unwrap(), name, "it was asked to end, not killed");
        assert_eq!(agent.get("/v1/lock/job/.lock").status, 404);
    }
    // One that does not listen is killed.
    let script = "trap '' TERM; echo deaf; while :; do sleep 0.02; done";
    let mut holder = Holder::start(&log, agent.http, &[SHORT, "-child-exit-code"], script);
    log.wait_for("deaf");
    signal("TERM", holder.pid());
    assert_eq!(holder.wait(), Some(2));
    holder.wait_for("killed by signal 9");
}

#[test]
fn who_waits_and_is_told_to_stop_leaves_nothing() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let _holder = Holder::start(&log, agent.http, &[], &writes("a"));
    log.wait_for("a");
    let mut waiter = Holder::start(&log, agent.http, &["-ttl=1h"], "echo never");
    let queue = || agent.get("/v1/lock/job/.lock").json()["Queue"].as_array().unwrap().len();
    wait_until("it to wait", || queue() == 1);
    signal("TERM", waiter.pid());
    assert_eq!(waiter.wait(), Some(1));
    assert_eq!((queue(), agent.get("/v1/session/list").json().as_array().unwrap().len()), (0, 1));
}
