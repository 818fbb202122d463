//! Whatever is killed, stopped or cut off: no child runs beside another, and the lock passes on.

use std::thread;
use std::time::Duration;

use super::cluster::Cluster;
use super::holder::{Holder, Log, signal, wait_for_end_of, writes};
use super::support::{Agent, wait_until};

/// Short, so that leases end within a test.
const TTL: &str = "-ttl=2s";

/// A holder whose child writes `a`, and one that waits to write `b`.
fn two(log: &Log, agent: &Agent) -> (Holder, Holder) {
    let first = Holder::start(log, agent.http, &[TTL], &writes("a"));
    log.wait_for("a");
    let second = Holder::start(log, agent.http, &[TTL], &writes("b"));
    wait_until("it to wait", || !agent.get("/v1/lock/job/.lock").json()["Queue"].as_array().unwrap().is_empty());
    (first, second)
}

#[test]
fn a_command_that_is_killed_takes_its_child_with_it_and_the_lock_passes_on() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let (mut first, _second) = two(&log, &agent);
    let (supervisor, child) = (first.supervisor(), first.child());
    signal("KILL", first.pid());
    first.wait();
    wait_for_end_of(child);
    wait_for_end_of(supervisor);
    log.wait_for("b");
    assert_eq!(log.turns(), ["a", "b"]);
}

#[test]
fn a_child_does_not_wait_for_its_deadline_when_its_command_is_killed() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let first = Holder::start(&log, agent.http, &["-ttl=1h"], &writes("a"));
    log.wait_for("a");
    let child = first.child();
    signal("KILL", first.pid());
    wait_for_end_of(child);
}

#[test]
fn a_supervisor_that_is_killed_takes_the_child_and_what_it_started_with_it() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let mut first = Holder::start(&log, agent.http, &["-ttl=1h"], &format!("({}) & wait", writes("a")));
    log.wait_for("a");
    let second = Holder::start(&log, agent.http, &[TTL], &writes("b"));
    let child = first.child();
    signal("KILL", first.supervisor());
    assert_eq!(first.wait(), Some(1));
    assert!(first.said().contains("supervisor"), "{}", first.said());
    wait_for_end_of(child);
    // The lease is long: it was given up, when nobody of the child's group was left.
    log.wait_for("b");
    drop(second);
    assert_eq!(log.turns(), ["a", "b"]);
}

#[test]
fn a_supervisor_that_hangs_is_killed_with_the_child_before_the_lock_passes_on() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let (mut first, _second) = two(&log, &agent);
    signal("STOP", first.supervisor());
    agent.signal("STOP");
    assert_eq!(first.wait(), Some(1));
    assert!(first.said().contains("The supervisor of CHILD hangs"), "{}", first.said());
    agent.signal("CONT");
    log.wait_for("b");
    assert_eq!(log.turns(), ["a", "b"]);
}

#[test]
fn the_kernel_kills_the_child_of_a_supervisor_that_is_killed_while_nobody_looks() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let first = Holder::start(&log, agent.http, &[TTL], &writes("a"));
    log.wait_for("a");
    let (supervisor, child) = (first.supervisor(), first.child());
    signal("STOP", first.pid());
    signal("KILL", supervisor);
    wait_for_end_of(child);
    signal("CONT", first.pid());
}

#[test]
fn a_command_that_hangs_has_its_child_stopped_before_the_lock_passes_on() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let (mut first, _second) = two(&log, &agent);
    let child = first.child();
    signal("STOP", first.pid());
    wait_for_end_of(child);
    log.wait_for("b");
    signal("CONT", first.pid());
    assert_eq!(first.wait(), Some(1));
    assert!(first.said().contains("Lost the lock at job"), "{}", first.said());
    assert_eq!(log.turns(), ["a", "b"]);
}

#[test]
fn a_child_that_hangs_keeps_its_lock() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let (first, _second) = two(&log, &agent);
    let child = first.child();
    signal("STOP", format!("-{child}"));
    // Longer than a lease.
    thread::sleep(Duration::from_secs(4));
    signal("CONT", format!("-{child}"));
    let before = log.lines().len();
    wait_until("it to go on", || log.lines().len() > before);
    assert_eq!(log.turns(), ["a"], "{}", first.said());
}

#[test]
fn a_child_that_does_not_listen_is_killed_before_its_lease_ends() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let first = Holder::start(&log, agent.http, &[TTL], &format!("trap '' TERM; {}", writes("a")));
    log.wait_for("a");
    let _second = Holder::start(&log, agent.http, &[TTL], &writes("b"));
    signal("STOP", first.pid());
    log.wait_for("b");
    assert_eq!(log.turns(), ["a", "b"]);
    signal("CONT", first.pid());
}

/// As from a partition: nobody answers, and nothing says that nobody will.
#[test]
fn a_holder_that_hears_nothing_stops_its_child_before_the_lock_passes_on() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let (mut first, _second) = two(&log, &agent);
    agent.signal("STOP");
    assert_eq!(first.wait(), Some(1));
    let (said, wrote) = (first.said(), log.lines().len());
    assert!(said.contains("Lost the lock at job: its lease was about to end"), "{said}");
    agent.signal("CONT");
    log.wait_for("b");
    assert_eq!(log.turns(), ["a", "b"]);
    assert_eq!(log.lines().iter().filter(|line| *line == "a").count(), wrote, "it writes no more");
}

#[test]
fn a_lock_that_is_taken_away_stops_the_child() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let steals: [fn(&Agent, &Holder); 3] = [
        |agent, holder| {
            agent.put(&format!("/v1/session/destroy/{}", holder.variable("QUORATE_LOCK_SESSION")), "");
        },
        |agent, holder| {
            agent.put(&format!("/v1/kv/job/.lock?release={}", holder.variable("QUORATE_LOCK_SESSION")), "");
        },
        |agent, _| {
            agent.request("DELETE", "/v1/kv/job/.lock", b"");
        },
    ];
    for steal in steals {
        let name = format!("a{}", log.lines().len());
        // The lease is long: it is the look at the key that tells.
        let mut holder = Holder::start(&log, agent.http, &["-ttl=30s"], &writes(&name));
        log.wait_for(&name);
        let child = holder.child();
        steal(&agent, &holder);
        assert_eq!(holder.wait(), Some(1));
        assert!(holder.said().contains("Lost the lock at job"), "{}", holder.said());
        wait_for_end_of(child);
    }
}

/// All of the first holder's processes are frozen, as in a virtual machine that moves. Then only the fence helps.
#[test]
fn d4_what_a_holder_writes_that_was_paused_for_too_long_is_refused() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let script = "$QUORATE kv put shared first && echo a; trap '' TERM; while [ ! -e $DIR/go ]; do sleep 0.02; done; \
        $QUORATE kv put shared woken 2>> $LOG || echo refused; $QUORATE kv delete shared 2>> $LOG || echo refused";
    let mut first = Holder::start(&log, agent.http, &[TTL], script);
    log.wait_for("Success! Data written to: shared");
    log.wait_for("a");
    let (supervisor, child) = (first.supervisor(), first.child());
    signal("STOP", first.pid());
    signal("STOP", supervisor);
    signal("STOP", format!("-{child}"));
    let script = "$QUORATE kv put shared second && echo b; while [ ! -e $DIR/end ]; do sleep 0.02; done";
    let mut second = Holder::start(&log, agent.http, &[TTL], script);
    log.wait_for("b");
    let fence = second.variable("QUORATE_LOCK_FENCE");
    // The child wakes up first: nobody is there to stop it.
    log.touch("go");
    signal("CONT", format!("-{child}"));
    wait_until("both of its writes to be refused", || {
        log.lines().iter().filter(|line| *line == "refused").count() == 2
    });
    let names = format!("the lock is held under fence {fence}");
    assert_eq!(log.lines().iter().filter(|line| line.contains(&names)).count(), 2, "{:?}", log.lines());
    assert_eq!(agent.get("/v1/kv/shared?raw").text(), "second");
    signal("CONT", supervisor);
    signal("CONT", first.pid());
    assert_eq!(first.wait(), Some(1));
    log.touch("end");
    assert_eq!(second.wait(), Some(0), "{}", second.said());
}

#[test]
fn d5_the_child_lives_on_though_the_leader_is_killed() {
    let (mut cluster, log) = (Cluster::found(), Log::new());
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let script = "echo a; while [ ! -e $DIR/end ]; do sleep 0.02; done; echo end";
    let mut holder = Holder::start(&log, cluster.http(follower), &["-ttl=15s"], script);
    log.wait_for("a");
    let child = holder.child();
    cluster.kill(leader);
    // Longer than the lease that the dead leader gave.
    thread::sleep(Duration::from_secs(17));
    assert_eq!(holder.child(), child, "{}", holder.said());
    log.touch("end");
    assert_eq!(holder.wait(), Some(0), "{}", holder.said());
    assert_eq!(log.lines(), ["a", "end"]);
}
