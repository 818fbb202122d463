//! The client library against a real agent, where a scripted one would only say what the test expects.

use std::time::Duration;

use quorate::client::election::Election;
use quorate::client::http::{Http, Request};
use quorate::client::lock::Lock;
use quorate::client::semaphore::Semaphore;
use quorate::error::Error;
use quorate::world::{World, real};

use super::support::{Agent, HANG};

fn http(world: &World, agent: &Agent) -> Http {
    Http::new(world.clone(), agent.http.to_string().parse().unwrap(), None).unwrap()
}

async fn queue(http: &Http, key: &str) -> usize {
    let reply = http.send(Request::new(http::Method::GET, format!("/v1/lock/{key}"))).await.unwrap();
    let lock: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    lock["Queue"].as_array().unwrap().len()
}

#[test]
fn a_wait_that_is_dropped_leaves_the_queue_though_its_session_lives_on() {
    let agent = Agent::start(&["-dev"]);
    let test = |world: World| async move {
        let http = http(&world, &agent);
        let held = Lock::new(&http, "k").acquire(None).await.unwrap().unwrap();
        let lock = Lock::new(&http, "k").session("a waiter", Duration::from_secs(3600));
        let mut waiting = Box::pin(lock.acquire(None));
        let waits = async {
            while queue(&http, "k").await == 0 {
                world.sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = &mut waiting => panic!("it is held"),
            () = waits => drop(waiting),
        }
        let left = async {
            while queue(&http, "k").await > 0 {
                world.sleep(Duration::from_millis(10)).await;
            }
        };
        world.timeout(HANG, left).await.expect("the place is given up");
        assert_eq!(http.sessions(None).await.unwrap().len(), 2);
        assert!(held.release().await.unwrap());
        let again = Lock::new(&http, "k").acquire(Some(Duration::ZERO)).await.unwrap();
        assert!(again.is_some(), "nobody was waiting any more");
    };
    real::block_on(test).unwrap();
}

#[test]
fn a_guard_that_is_dropped_frees_its_lock_when_its_lease_has_run_out() {
    let agent = Agent::start(&["-dev"]);
    let test = |world: World| async move {
        let http = http(&world, &agent);
        let lock = Lock::new(&http, "k").session("dropped", Duration::from_secs(2));
        let first = lock.acquire(None).await.unwrap().unwrap();
        let (fence, until) = (first.fence(), first.until().unwrap());
        drop(first);
        let second = lock.acquire(Some(HANG)).await.unwrap().unwrap();
        assert!(world.clock.now() >= until, "not before");
        assert!(second.fence() > fence);
        let place =
            Semaphore::new(&http, "s", 1).session("dropped", Duration::from_secs(2)).acquire(None).await.unwrap();
        drop(place);
        assert!(Semaphore::new(&http, "s", 1).acquire(Some(HANG)).await.unwrap().is_some());
    };
    real::block_on(test).unwrap();
}

#[test]
fn a_former_leader_proclaims_nothing() {
    let agent = Agent::start(&["-dev"]);
    let test = |world: World| async move {
        let http = http(&world, &agent);
        let election = Election::new(&http, "e");
        let first = election.campaign("one", None).await.unwrap().unwrap();
        first.proclaim("one again").await.unwrap();
        http.session_destroy(&first.guard().keeper().session().to_string()).await.unwrap();
        let second = election.campaign("two", None).await.unwrap().unwrap();
        let refused = first.proclaim("me").await.unwrap_err();
        assert!(matches!(&refused, Error::Request(why) if why.contains("held under fence")), "{refused}");
        let leader = election.observe().next().await.unwrap().unwrap();
        assert_eq!(leader.value, "two");
        assert!(!first.resign().await.unwrap(), "it led no more");
        assert!(second.resign().await.unwrap());
        assert_eq!(election.observe().next().await.unwrap(), None);
    };
    real::block_on(test).unwrap();
}
