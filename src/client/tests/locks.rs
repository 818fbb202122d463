//! Sessions that are kept, locks, semaphores and elections against a scripted agent, in time that is made up.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::api::session::Behavior;
use crate::client::election::Election;
use crate::client::keeper::{Keeper, KeeperOptions, Loss, Standing};
use crate::client::lock::{LOCK_FLAGS, Lock, SEMAPHORE_FLAGS};
use crate::client::semaphore::Semaphore;

const ID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const OTHER: &str = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
const LEASE: (&str, &str) = ("x-quorate-lease-ms", "14000");
/// Of made-up time: far more than any test takes.
const HANG: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_secs(15);

fn lease() -> Option<(&'static str, String)> {
    Some((LEASE.0, LEASE.1.into()))
}

fn made() -> Said {
    Said::This(200, lease(), format!("{{\"ID\":\"{ID}\"}}"))
}

fn renewed(header: Option<(&'static str, String)>) -> Said {
    let session = json!([{ "ID": ID, "Name": "", "Node": "n", "LockDelay": 0, "Behavior": "release", "TTL": "15s",
        "NodeChecks": [], "ServiceChecks": null, "CreateIndex": 1, "ModifyIndex": 1 }]);
    Said::This(200, header, session.to_string())
}

fn said(status: u16, text: &str) -> Said {
    Said::This(status, None, text.into())
}

/// An agent with leases and queues, which never says that a key has changed.
fn quorate(line: &str) -> Option<Said> {
    Some(match line {
        _ if line.starts_with("PUT /v1/session/create") => made(),
        _ if line.starts_with("PUT /v1/session/renew") => renewed(lease()),
        _ if line.starts_with("PUT /v1/session/destroy") => said(200, "true"),
        _ if line.starts_with("PUT /v1/lock/") => said(200, "{\"Fence\":7,\"Index\":7}"),
        _ if line.starts_with("DELETE /v1/lock/") => said(200, "true"),
        _ if line.contains("index=") => Said::Nothing,
        _ => return None,
    })
}

/// A Consul: neither leases nor queues.
fn consul(line: &str) -> Option<Said> {
    match quorate(line)? {
        _ if line.contains("/v1/lock/") => Some(said(404, "Invalid URL path")),
        Said::This(status, _, text) => Some(Said::This(status, None, text)),
        other => Some(other),
    }
}

/// Runs a test as a task among the others: what a runtime blocks on has its turn less often than they, and time here is turns.
fn play(test: impl Future<Output = ()> + Send + 'static) {
    let test = async { Fake::default().world().timeout(HANG, test).await.expect("the test hangs") };
    block_on(async { real::world().spawn(test).await.expect("the test panicked") });
}

fn http(fake: &Fake) -> Http {
    Http::new(fake.world(), "localhost:8500".parse().unwrap(), None).unwrap()
}

fn options() -> KeeperOptions {
    KeeperOptions { name: "test".into(), ttl: TTL, behavior: Behavior::Release }
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

#[test]
fn a_session_is_renewed_in_time_and_its_lease_counts_from_before_the_request() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| match quorate(line) {
            Some(said) if line.contains("/renew/") => Some(Said::Late(1500, Box::new(said))),
            said => said,
        });
        let http = http(&fake);
        let keeper = Keeper::start(&http, &options()).await.unwrap();
        let start = http.now();
        assert_eq!((keeper.leased(), keeper.until()), (true, Some(start + Duration::from_secs(14))));
        // In small steps: time that is made up passes when somebody has slept.
        for _ in 0..80 {
            http.world().sleep(Duration::from_millis(100)).await;
        }
        // It was asked for at a third of the TTL.
        assert_eq!(keeper.until(), Some(start + Duration::from_secs(5 + 14)));
        assert_eq!(
            fake.requests(),
            ["PUT /v1/session/create".to_string(), format!("PUT /v1/session/renew/{}", escaped())]
        );
        keeper.end().await.unwrap();
        http.world().sleep(Duration::from_secs(20)).await;
        assert_eq!(fake.requests(), [format!("PUT /v1/session/destroy/{}", escaped())], "nobody renews it any more");
    });
}

fn escaped() -> String {
    ID.replace('-', "%2D")
}

#[test]
fn no_answer_and_no_leader_are_no_loss_before_the_lease_has_run_out() {
    play(async {
        let fake = Fake::default();
        let renewals = Arc::new(AtomicUsize::new(0));
        let count = renewals.clone();
        fake.script(move |line, _| {
            if !line.contains("/renew/") {
                return quorate(line);
            }
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => Some(Said::Nothing),
                1 => Some(said(500, "No cluster leader")),
                2 => Some(Said::Gone),
                3 => quorate(line),
                _ => Some(Said::Nothing),
            }
        });
        let http = http(&fake);
        let keeper = Keeper::start(&http, &options()).await.unwrap();
        http.world().sleep(Duration::from_secs(9)).await;
        assert_eq!(renewals.load(Ordering::Relaxed), 4);
        let until = keeper.until().expect("it is held");
        assert!(until > at(20), "a renewal has moved it: {until:?}");
        // From now on nobody answers.
        let loss = keeper.lost().await;
        assert!(matches!(&loss, Loss::RanOut(why) if why.contains("did not answer within")), "{loss}");
        assert!(
            http.now() >= until && http.now().since(until) < Duration::from_secs(1),
            "at its end: {:?}",
            http.now()
        );
        assert_eq!(keeper.until(), None);
        assert!(renewals.load(Ordering::Relaxed) >= 7, "it has tried several times");
    });
}

#[test]
fn a_session_that_has_ended_is_lost_at_once() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| if line.contains("/renew/") { Some(said(404, "")) } else { quorate(line) });
        let http = http(&fake);
        let keeper = Keeper::start(&http, &options()).await.unwrap();
        assert_eq!(keeper.lost().await, Loss::Ended);
        assert!(http.now() < at(6), "{:?}", http.now());
        assert_eq!(*keeper.watch().borrow(), Standing::Lost(Loss::Ended));
    });
}

#[test]
fn at_an_agent_without_leases_the_session_is_as_consul_makes_it_and_its_ttl_is_its_lease() {
    play(async {
        let fake = Fake::default();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = bodies.clone();
        fake.script(move |line, body| {
            if line.contains("/create") {
                seen.lock().unwrap().push(body.to_string());
            }
            consul(line)
        });
        let http = http(&fake);
        let keeper = Keeper::start(&http, &options()).await.unwrap();
        assert_eq!((keeper.leased(), keeper.until()), (false, Some(http.now() + TTL)));
        let strong = r#"{"Name":"test","TTL":"15s","LockDelay":"0s","Behavior":"release","NodeChecks":[]}"#;
        let weak = r#"{"Name":"test","TTL":"15s","Behavior":"release"}"#;
        assert_eq!(*bodies.lock().unwrap(), [strong, weak]);
        http.world().sleep(Duration::from_secs(6)).await;
        assert_eq!(keeper.until(), Some(at(5) + TTL), "each renewal counts");
        assert!(fake.requests()[1].contains("/destroy/"), "the first one is not left behind");
    });
}

#[test]
fn a_lock_is_queued_for_marked_for_consuls_clients_and_given_up_under_its_fence() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| quorate(line));
        let http = http(&fake);
        http.kv_put("k", Bytes::from_static(b"kept"), &PutOptions::default()).await.unwrap();
        fake.requests();
        let lock = Lock::new(&http, "k");
        let guard = lock.acquire(Some(Duration::from_secs(5))).await.unwrap().unwrap();
        assert_eq!((guard.fence(), guard.key()), (Some(7), "k"));
        let pair = http.kv_get("k", &ReadOptions::default()).await.unwrap().data.unwrap();
        assert_eq!((pair.flags, &pair.value[..]), (LOCK_FLAGS, &b"kept"[..]));
        assert!(guard.release().await.unwrap());
        let requests = fake.requests();
        let expected = [
            "PUT /v1/session/create".to_string(),
            "GET /v1/kv/k?consistent".into(),
            format!("PUT /v1/lock/k?session={ID}&wait=5000ms"),
            "GET /v1/kv/k?consistent".into(),
            format!("PUT /v1/kv/k?flags={LOCK_FLAGS}&lock=k&fence=7"),
            "GET /v1/kv/k".into(),
            format!("DELETE /v1/lock/k?session={ID}&fence=7"),
            format!("PUT /v1/session/destroy/{}", escaped()),
        ];
        assert_eq!(requests, expected);
    });
}

#[test]
fn at_a_consul_a_lock_follows_its_recipe() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| consul(line));
        let http = http(&fake);
        let guard = Lock::new(&http, "k").value("me").acquire(Some(Duration::from_secs(5))).await.unwrap().unwrap();
        assert_eq!(guard.fence(), None);
        let pair = http.kv_get("k", &ReadOptions::default()).await.unwrap().data.unwrap();
        assert_eq!((pair.flags, &pair.value[..], pair.session.as_deref()), (LOCK_FLAGS, &b"me"[..], Some(ID)));
        assert!(Lock::new(&http, "k").acquire(Some(Duration::ZERO)).await.unwrap().is_some(), "the holder has it");
        assert!(guard.release().await.unwrap());
        let pair = http.kv_get("k", &ReadOptions::default()).await.unwrap().data.unwrap();
        assert_eq!((pair.session, pair.flags, &pair.value[..]), (None, LOCK_FLAGS, &b"me"[..]));
        // Somebody else's is waited for, and not for longer than one likes.
        let theirs = PutOptions { flags: LOCK_FLAGS, when: When::Acquire(OTHER.into()), ..PutOptions::default() };
        assert!(http.kv_put("k", Bytes::new(), &theirs).await.unwrap());
        assert!(Lock::new(&http, "k").acquire(Some(Duration::ZERO)).await.unwrap().is_none());
        assert!(!Lock::new(&http, "k").remove().await.unwrap(), "it is in use");
    });
}

#[test]
fn what_may_have_been_done_is_asked_for_again_under_the_same_session() {
    play(async {
        let fake = Fake::default();
        let (mut asked, mut freed) = (0, 0);
        fake.script(move |line, _| {
            if line.starts_with("PUT /v1/lock/") {
                asked += 1;
                if asked <= 2 {
                    return Some(if asked == 1 { Said::Gone } else { said(500, "Unknown outcome") });
                }
            }
            if line.starts_with("DELETE /v1/lock/") {
                freed += 1;
                if freed == 1 {
                    return Some(Said::Gone);
                }
            }
            quorate(line)
        });
        let http = http(&fake);
        let guard = Lock::new(&http, "k").acquire(None).await.unwrap().unwrap();
        assert!(guard.release().await.unwrap());
        let requests = fake.requests();
        let count = |start: &str| requests.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(count(&format!("PUT /v1/lock/k?session={ID}&")), 3);
        assert_eq!(count(&format!("DELETE /v1/lock/k?session={ID}&fence=7")), 2);
        assert_eq!(count("PUT /v1/session/create"), 1, "it keeps its place");
    });
}

#[test]
fn a_lock_is_lost_when_another_one_holds_the_key_and_at_its_deadline_if_nobody_answers() {
    play(async {
        for silent in [false, true] {
            let fake = Fake::default();
            let looks = AtomicUsize::new(0);
            fake.script(move |line, _| match line {
                _ if silent && (line.contains("/renew/") || line.starts_with("GET")) => {
                    // What is asked before it is held is answered.
                    if looks.fetch_add(1, Ordering::Relaxed) < 2 { None } else { Some(Said::Nothing) }
                }
                _ => quorate(line),
            });
            let http = http(&fake);
            let theirs = PutOptions { flags: LOCK_FLAGS, when: When::Acquire(OTHER.into()), ..PutOptions::default() };
            http.kv_put("k", Bytes::new(), &theirs).await.unwrap();
            let guard = Lock::new(&http, "k").acquire(None).await.unwrap().unwrap();
            let until = guard.until().unwrap();
            match guard.lost().await {
                Loss::Taken(what) => assert!(!silent && what == format!("session {OTHER} holds k now"), "{what}"),
                loss => assert!(silent && matches!(loss, Loss::RanOut(_)), "{loss}"),
            }
            assert_eq!(http.now() >= until, silent);
        }
    });
}

#[test]
fn who_loses_its_session_while_it_waits_gets_in_line_again() {
    play(async {
        let fake = Fake::default();
        let mut made = 0;
        fake.script(move |line, _| {
            made += usize::from(line.contains("/create"));
            match line {
                _ if made == 1 && line.contains("/renew/") => Some(said(404, "")),
                _ if made == 1 && line.starts_with("PUT /v1/lock/") => Some(Said::Nothing),
                _ => quorate(line),
            }
        });
        let http = http(&fake);
        assert!(Lock::new(&http, "k").acquire(None).await.unwrap().is_some());
        assert_eq!(fake.requests().iter().filter(|line| line.contains("/create")).count(), 2);
    });
}

#[test]
fn a_key_that_is_something_else_is_no_lock_and_no_semaphore() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| quorate(line));
        let http = http(&fake);
        for (flags, lock, semaphore) in [
            (LOCK_FLAGS, None, Some("is used by a lock, which one may hold (lock -n=1), not 2")),
            (SEMAPHORE_FLAGS, Some("is used by a semaphore"), None),
            (42, Some("its flags are 42"), Some("its flags are 42")),
        ] {
            let options = PutOptions { flags, ..PutOptions::default() };
            http.kv_put("p/.lock", Bytes::new(), &options).await.unwrap();
            let refused = Lock::new(&http, "p/.lock").acquire(None).await.err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), lock.is_some(), "{refused:?}");
            assert!(refused.unwrap_or_default().contains(lock.unwrap_or_default()));
            let refused = Semaphore::new(&http, "p", 2).acquire(None).await.err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), semaphore.is_some(), "{refused:?}");
            assert!(refused.unwrap_or_default().contains(semaphore.unwrap_or_default()));
            http.kv_delete("p/", &Delete::Prefix, None, None).await.unwrap();
        }
    });
}

#[test]
fn a_semaphore_has_room_for_so_many_and_takes_out_the_dead() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| quorate(line));
        let http = http(&fake);
        let dead = "6ba7b812-9dad-11d1-80b4-00c04fd430c8";
        let contend = PutOptions { flags: SEMAPHORE_FLAGS, when: When::Acquire(OTHER.into()), ..PutOptions::default() };
        http.kv_put(&format!("p/{OTHER}"), Bytes::new(), &contend).await.unwrap();
        let plain = PutOptions { flags: SEMAPHORE_FLAGS, ..PutOptions::default() };
        let full = json!({ "Limit": 2, "Holders": { OTHER: true, dead: true } }).to_string();
        http.kv_put("p/.lock", full.into(), &plain).await.unwrap();
        let value = async || {
            let pair = http.kv_get("p/.lock", &ReadOptions::default()).await.unwrap().data.unwrap();
            (pair.flags, String::from_utf8(pair.value.to_vec()).unwrap())
        };
        let place = Semaphore::new(&http, "p/", 2).acquire(None).await.unwrap().unwrap();
        assert_eq!(place.key(), format!("p/{ID}"));
        let both = json!({ "Limit": 2, "Holders": { ID: true, OTHER: true } });
        assert_eq!(value().await, (SEMAPHORE_FLAGS, both.to_string()));
        let refused = Semaphore::new(&http, "p", 3).acquire(None).await.err().unwrap().to_string();
        assert!(refused.contains("held by up to 2, not 3"), "{refused}");
        assert!(place.release().await.unwrap());
        assert_eq!(value().await.1, json!({ "Limit": 2, "Holders": { OTHER: true } }).to_string());
        assert!(!Semaphore::new(&http, "p", 2).remove().await.unwrap(), "one holds it");

        // No room for a second one; who takes itself out of the list has lost its place.
        http.kv_delete("p/.lock", &Delete::Key, None, None).await.unwrap();
        let one = json!({ "Limit": 1, "Holders": { OTHER: true } }).to_string();
        http.kv_put("p/.lock", one.into(), &plain).await.unwrap();
        assert!(Semaphore::new(&http, "p", 1).acquire(Some(Duration::ZERO)).await.unwrap().is_none());
        http.kv_delete("p/.lock", &Delete::Key, None, None).await.unwrap();
        let place = Semaphore::new(&http, "p", 1).acquire(None).await.unwrap().unwrap();
        http.kv_delete("p/.lock", &Delete::Key, None, None).await.unwrap();
        assert!(matches!(place.lost().await, Loss::Taken(_)));
    });
}

#[test]
fn who_is_elected_proclaims_under_its_fence_and_is_observed() {
    play(async {
        let fake = Fake::default();
        fake.script(|line, _| if line.contains("index=") { None } else { quorate(line) });
        let http = http(&fake);
        let election = Election::new(&http, "e");
        let mut observer = election.observe();
        assert_eq!(observer.next().await.unwrap(), None);
        let leadership = election.campaign("one", None).await.unwrap().unwrap();
        leadership.proclaim("two").await.unwrap();
        assert!(fake.requests().contains(&format!("PUT /v1/kv/e?flags={LOCK_FLAGS}&lock=e&fence=7")));
        // The made-up agent grants without making anybody the holder.
        let holder = PutOptions { flags: LOCK_FLAGS, when: When::Acquire(ID.into()), ..PutOptions::default() };
        http.kv_put("e", Bytes::from_static(b"two"), &holder).await.unwrap();
        let leader = observer.next().await.unwrap().unwrap();
        assert_eq!((&leader.value[..], leader.session.as_str()), (&b"two"[..], ID));
        assert!(leadership.resign().await.unwrap());
        let released = PutOptions { flags: LOCK_FLAGS, when: When::Release(ID.into(), None), ..PutOptions::default() };
        http.kv_put("e", Bytes::from_static(b"two"), &released).await.unwrap();
        assert_eq!(observer.next().await.unwrap(), None);
    });
}
