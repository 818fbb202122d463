//! `quorate lock -n`: several at a time, and no more (walkthrough D3).

use super::holder::{Holder, Log, signal};
use super::support::{Agent, stderr, wait_until};

const WAITS: &str = "echo start; while [ ! -e $DIR/go ]; do sleep 0.02; done; echo end";

fn starts(log: &Log) -> usize {
    log.lines().iter().filter(|line| *line == "start").count()
}

#[test]
fn d3_three_of_four_run_and_the_fourth_when_one_has_ended() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let mut holders: Vec<Holder> =
        (0..4).map(|_| Holder::start(&log, agent.http, &["-n=3", "-ttl=2s"], WAITS)).collect();
    wait_until("three to run", || starts(&log) == 3);
    let contenders = || agent.get("/v1/kv/job/?keys").json().as_array().unwrap().len();
    wait_until("the fourth to wait", || contenders() == 5);
    let holds = |holder: &Holder| holder.said().contains("Holds ");
    assert_eq!(holders.iter().filter(|holder| holds(holder)).count(), 3);
    // One is killed: its session ends, and who waits takes its place.
    let killed = holders.iter().position(holds).unwrap();
    signal("KILL", holders[killed].pid());
    holders.remove(killed);
    wait_until("the fourth to run", || starts(&log) == 4);
    log.touch("go");
    holders.iter_mut().for_each(|holder| assert_eq!(holder.wait(), Some(0), "{}", holder.said()));
    assert_eq!(agent.get("/v1/kv/job/?keys").status, 404, "nothing is left");
}

#[test]
fn all_must_agree_on_the_number() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let _holder = Holder::start(&log, agent.http, &["-n=2"], WAITS);
    wait_until("it to run", || starts(&log) == 1);
    let refused = agent.run(&["lock", "-n=3", "job", "true"]);
    assert!(stderr(&refused).contains("held by up to 2, not 3"), "{}", stderr(&refused));
    let refused = agent.run(&["lock", "job", "true"]);
    assert!(stderr(&refused).contains("is used by a semaphore"), "{}", stderr(&refused));
    assert_eq!(agent.get("/v1/session/list").json().as_array().unwrap().len(), 1);
}

/// What Consul's clients write there, and what they look for.
#[test]
fn the_keys_are_as_consuls_clients_know_them() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let theirs = agent.put("/v1/session/create", r#"{"TTL": "1h", "Behavior": "delete"}"#).json();
    let theirs = theirs["ID"].as_str().unwrap();
    let flags = 0xe0f6_9a2b_aa41_4de0_u64;
    agent.put(&format!("/v1/kv/job/{theirs}?acquire={theirs}&flags={flags}"), "");
    let gone = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let lock = format!(r#"{{"Limit":2,"Holders":{{"{theirs}":true,"{gone}":true}}}}"#);
    agent.put(&format!("/v1/kv/job/.lock?cas=0&flags={flags}"), &lock);
    let holder = Holder::start(&log, agent.http, &["-n=2"], WAITS);
    wait_until("it to run", || starts(&log) == 1);
    let ours = holder.variable("QUORATE_LOCK_SESSION");
    assert_eq!(holder.variable("QUORATE_LOCK_KEY"), format!("job/{ours}"));
    let lock = agent.get("/v1/kv/job/.lock?raw").json();
    assert_eq!(lock, serde_json::json!({ "Limit": 2, "Holders": { theirs: true, ours.as_str(): true } }));
    for key in [".lock".to_string(), ours.clone()] {
        assert_eq!(agent.get(&format!("/v1/kv/job/{key}")).json()[0]["Flags"], flags);
    }
    assert_eq!(agent.get(&format!("/v1/kv/job/{ours}")).json()[0]["Session"], ours.as_str());
}
