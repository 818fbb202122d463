//! The recipes of docs/locks.md, word for word, against a real agent (walkthrough D6). The election is in `client.rs`.

use std::thread;

use super::support::{Agent, Response, wait_until};

fn session(agent: &Agent, behavior: &str) -> String {
    let body = format!(r#"{{"TTL": "60s", "LockDelay": "0s", "Behavior": "{behavior}"}}"#);
    agent.put("/v1/session/create", body).json()["ID"].as_str().unwrap().to_string()
}

fn blocked(agent: &Agent) -> u64 {
    let own = agent.get("/v1/agent/self").json();
    own["Stats"]["state"]["blocked_queries"].as_str().unwrap().parse().unwrap()
}

#[test]
fn d6_a_barrier_holds_until_it_is_opened_and_a_meeting_counts_who_is_alive() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/barrier", "closed");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut found = agent.get("/v1/kv/barrier");
            while found.status == 200 {
                found = agent.get(&format!("/v1/kv/barrier?index={}", found.index()));
            }
            found.status
        });
        wait_until("somebody at the barrier", || blocked(&agent) > 0);
        agent.put("/v1/kv/barrier", "closed, still");
        wait_until("somebody at the barrier again", || blocked(&agent) > 0);
        assert!(!waiting.is_finished(), "a change does not open it");
        assert_eq!(agent.request("DELETE", "/v1/kv/barrier", b"").status, 200);
        assert_eq!(waiting.join().unwrap(), 404);
    });

    let there = || agent.get("/v1/kv/meeting/?keys").json().as_array().unwrap().len();
    let guests: Vec<String> = (0..3).map(|_| session(&agent, "delete")).collect();
    for (number, guest) in guests.iter().enumerate() {
        assert_eq!(agent.put(&format!("/v1/kv/meeting/{number}?acquire={guest}"), "").text().trim(), "true");
    }
    assert_eq!(there(), 3);
    agent.put(&format!("/v1/session/destroy/{}", guests[1]), "");
    assert_eq!(there(), 2, "who dies is not counted");
}

/// Takes the lock; the session and its fence.
fn consumer(agent: &Agent) -> (String, u64) {
    let session = session(agent, "release");
    let granted = agent.put(&format!("/v1/lock/queue.lock?session={session}&wait=60s"), "");
    (session, granted.json()["Fence"].as_u64().unwrap())
}

fn take(agent: &Agent, fence: u64) -> Response {
    let next = agent.get("/v1/kv/queue/?recurse&limit=1").json();
    let key = next[0]["Key"].as_str().unwrap().to_string();
    agent.request("DELETE", &format!("/v1/kv/{key}?lock=queue.lock&fence={fence}"), b"")
}

#[test]
fn d6_a_queue_of_work_is_taken_in_order_and_by_its_holder_alone() {
    let agent = Agent::start(&["-dev"]);
    let put = |name: &str| agent.put(&format!("/v1/kv/queue/{name}?cas=0"), name).text().trim() == "true";
    assert!(put("0001") && put("0002") && put("0003"));
    assert!(!put("0002"), "nothing is overwritten");

    let (first, fence) = consumer(&agent);
    assert_eq!(take(&agent, fence).status, 200);
    // It is gone for a while, and somebody else goes on.
    agent.put(&format!("/v1/session/destroy/{first}"), "");
    let (_, next) = consumer(&agent);
    assert!(next > fence);
    assert_eq!(take(&agent, fence).status, 409, "a former holder takes nothing out");
    let left = || agent.get("/v1/kv/queue/?keys").json();
    assert_eq!(left(), serde_json::json!(["queue/0002", "queue/0003"]));
    assert_eq!((take(&agent, next).status, take(&agent, next).status), (200, 200));
    assert_eq!(agent.get("/v1/kv/queue/?keys").status, 404);
}
