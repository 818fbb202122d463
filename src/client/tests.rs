//! The client against an agent that is made up: a few keys in a map behind a network in memory.

mod locks;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::address::Address;
use super::http::{Http, Request};
use super::kv::{Consistency, Delete, PutOptions, ReadOptions, Under, When};
use crate::error::Error;
use crate::world::{
    BoxListener, BoxStream, Clock, Instant, Interface, MemoryDisk, Network, Sleep, Task, WallTime, World, real,
};

/// An agent made up for tests. It knows keys, flags, CAS and locks, and writes down every request.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    rows: BTreeMap<String, Row>,
    index: u64,
    requests: Vec<String>,
    connections: usize,
    tasks: Vec<Task<()>>,
    /// What the next requests meet instead of an answer.
    faults: Vec<Fault>,
    /// Answers what is not about keys, and what it likes to.
    script: Option<Script>,
}

/// What an agent says to a request line and a body, if it is not as ever.
type Script = Box<dyn FnMut(&str, &str) -> Option<Said> + Send>;

/// What a script says.
enum Said {
    /// Status, header, body.
    This(u16, Option<(&'static str, String)>, String),
    /// The same, after so many milliseconds.
    Late(u64, Box<Said>),
    /// Nothing, as from a partition.
    Nothing,
    /// The connection breaks.
    Gone,
}

#[derive(Clone)]
struct Row {
    value: Bytes,
    flags: u64,
    create: u64,
    modify: u64,
    session: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks after the request was read.
    Hangup,
    /// No answer ever comes.
    Silence,
    /// An answer with this status.
    Status(u16, &'static str),
}

impl Fake {
    /// A world whose network reaches nothing but this agent at 127.0.0.1:8500.
    pub(crate) fn world(&self) -> World {
        let (net, clock) = (Arc::new(self.clone()), Arc::new(Turns::default()));
        World { net, clock, disk: Arc::new(MemoryDisk::default()), ..real::world() }
    }

    fn script(&self, script: impl FnMut(&str, &str) -> Option<Said> + Send + 'static) {
        self.0.lock().unwrap().script = Some(Box::new(script));
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.0.lock().unwrap().faults.push(fault);
    }

    /// The requests since this was last asked.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }

    /// Closes every connection, as agents do with idle ones.
    fn hang_up(&self) {
        self.0.lock().unwrap().tasks.drain(..).for_each(|task| task.abort());
    }

    fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }

    pub(crate) fn lose(&self, key_part: &str) {
        self.0.lock().unwrap().rows.retain(|key, _| !key.contains(key_part));
    }

    async fn answer(self, request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let token = head.headers.get("x-consul-token").map(|t| format!(" token={}", t.to_str().unwrap()));
        let line = format!("{} {}{}", head.method, head.uri, token.unwrap_or_default());
        let (fault, said) = {
            let mut inner = self.0.lock().unwrap();
            let mut script = inner.script.take();
            let said = script.as_mut().and_then(|script| script(&line, &String::from_utf8_lossy(&body)));
            inner.script = script;
            inner.requests.push(line);
            (if inner.faults.is_empty() { None } else { Some(inner.faults.remove(0)) }, said)
        };
        let said = match said {
            Some(Said::Late(millis, said)) => {
                Turns::default().sleep_until(Instant(millis * 1_000_000)).await;
                Some(*said)
            }
            said => said,
        };
        match said {
            Some(Said::This(status, header, text)) => {
                let mut reply = plain(status, &text);
                if let Some((name, value)) = header {
                    reply.headers_mut().insert(name, value.parse().unwrap());
                }
                return Ok(reply);
            }
            Some(Said::Nothing | Said::Late(..)) => std::future::pending().await,
            Some(Said::Gone) => return Err(io::ErrorKind::ConnectionReset.into()),
            None => {}
        }
        match fault {
            Some(Fault::Hangup) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Status(status, text)) => return Ok(plain(status, text)),
            None => {}
        }
        let path = percent_decode_str(head.uri.path()).decode_utf8().unwrap().into_owned();
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .into_iter()
            .flat_map(|q| q.split('&'))
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(k, v)| (k.to_owned(), percent_decode_str(v).decode_utf8().unwrap().into_owned()))
            .collect();
        let mut inner = self.0.lock().unwrap();
        Ok(match path.strip_prefix("/v1/kv/") {
            Some(key) => inner.kv(&head.method, key, &query, body),
            None if path == "/v1/status/leader" => plain(200, "\"127.0.0.1:8300\""),
            None if path == "/v1/status/peers" => plain(200, "[\"127.0.0.1:8300\"]"),
            None => plain(404, "no such path"),
        })
    }
}

fn plain(status: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::copy_from_slice(text.as_bytes()))).unwrap()
}

impl Inner {
    fn kv(
        &mut self,
        method: &Method,
        key: &str,
        query: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Response<Full<Bytes>> {
        match *method {
            Method::GET => self.get(key, query),
            Method::PUT => plain(200, &self.put(key, query, body).to_string()),
            Method::DELETE => plain(200, &self.delete(key, query).to_string()),
            _ => plain(405, ""),
        }
    }

    fn get(&self, key: &str, query: &BTreeMap<String, String>) -> Response<Full<Bytes>> {
        let many = query.contains_key("recurse") || query.contains_key("keys");
        let found = self.rows.iter().filter(|(k, _)| if many { k.starts_with(key) } else { *k == key });
        let cut = |k: &String| match query.get("separator").and_then(|s| Some((s, k[key.len()..].find(s.as_str())?))) {
            Some((s, at)) => k[..key.len() + at + s.len()].to_owned(),
            None => k.clone(),
        };
        let body = if query.contains_key("keys") {
            let mut names: Vec<String> = found.map(|(k, _)| cut(k)).collect();
            names.dedup();
            json!(names)
        } else if query.contains_key("raw") {
            let row = found.map(|(_, row)| row).next();
            return row.map_or(plain(404, ""), |row| Response::new(Full::new(row.value.clone())));
        } else {
            let entry = |(k, row): (&String, &Row)| {
                let value = Some(STANDARD.encode(&row.value)).filter(|v| !v.is_empty());
                let mut entry = json!({ "LockIndex": 0, "Key": k, "Flags": row.flags, "Value": value,
                    "CreateIndex": row.create, "ModifyIndex": row.modify });
                if let Some(session) = &row.session {
                    entry["Session"] = json!(session);
                }
                entry
            };
            found.map(entry).collect()
        };
        let none = body.as_array().is_some_and(Vec::is_empty);
        Response::builder()
            .status(if none { 404 } else { 200 })
            .header("X-Consul-Index", self.index.max(1))
            .header("X-Consul-KnownLeader", "true")
            .header("X-Consul-LastContact", "7")
            .body(Full::new(if none { Bytes::new() } else { body.to_string().into() }))
            .unwrap()
    }

    fn put(&mut self, key: &str, query: &BTreeMap<String, String>, value: Bytes) -> bool {
        let old = self.rows.get(key).cloned();
        let holder = old.as_ref().and_then(|row| row.session.clone());
        let cas: Option<u64> = query.get("cas").map(|n| n.parse().unwrap());
        let session = match (query.get("acquire"), query.get("release")) {
            (Some(id), _) if holder.as_ref().is_none_or(|h| h == id) => Some(id.clone()),
            (_, Some(id)) if holder.as_ref() == Some(id) => None,
            (Some(_), _) | (_, Some(_)) => return false,
            _ => holder,
        };
        if cas.is_some_and(|cas| cas != old.as_ref().map_or(0, |row| row.modify)) {
            return false;
        }
        self.index += 1;
        let flags = query.get("flags").map_or(0, |n| n.parse().unwrap());
        let create = old.map_or(self.index, |row| row.create);
        self.rows.insert(key.to_owned(), Row { value, flags, create, modify: self.index, session });
        true
    }

    fn delete(&mut self, key: &str, query: &BTreeMap<String, String>) -> bool {
        if query.contains_key("recurse") {
            self.rows.retain(|k, _| !k.starts_with(key));
        } else if let (Some(cas), Some(row)) = (query.get("cas"), self.rows.get(key)) {
            if *cas != row.modify.to_string() {
                return false;
            }
            self.rows.remove(key);
        } else {
            self.rows.remove(key);
        }
        self.index += 1;
        true
    }
}

#[async_trait]
impl Network for Fake {
    async fn listen(&self, _: SocketAddr) -> io::Result<BoxListener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, addr: SocketAddr) -> io::Result<BoxStream> {
        if addr != SocketAddr::from((Ipv4Addr::LOCALHOST, 8500)) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.0.lock().unwrap().connections += 1;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let fake = self.clone();
        let service = service_fn(move |request| fake.clone().answer(request));
        let task = real::world().spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service).await;
        });
        self.0.lock().unwrap().tasks.push(task);
        Ok(Box::new(ours))
    }
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "localhost" => Ok(vec![Ipv4Addr::new(127, 0, 0, 9).into(), Ipv4Addr::LOCALHOST.into()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(Vec::new())
    }
    fn host_name(&self) -> String {
        "fake".into()
    }
}

/// Runs a test on a runtime of its own, without real time or sockets.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

/// Time that passes by being waited for: a sleep is polled once for each of its milliseconds, and everything else on
/// the thread gets its turn in between. Nothing here takes as many turns as a time-out has milliseconds.
#[derive(Default)]
pub(crate) struct Turns(Arc<AtomicU64>);

impl Clock for Turns {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }
    fn wall(&self) -> WallTime {
        WallTime(0)
    }
    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let mut left = deadline.since(self.now()).as_millis();
        let now = self.0.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            if left == 0 {
                now.fetch_max(deadline.0, Ordering::Relaxed);
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

fn client(fake: &Fake) -> Http {
    Http::new(fake.world(), "localhost:8500".parse().unwrap(), Some("secret")).unwrap()
}

#[test]
fn keys_are_written_and_read_with_their_index_headers() {
    block_on(async {
        let fake = Fake::default();
        let client = client(&fake);
        let key = "a b/ü?#";
        let options = PutOptions { flags: 42, ..PutOptions::default() };
        assert!(client.kv_put(key, Bytes::from_static(b"\xff\x00"), &options).await.unwrap());
        let read = client.kv_get(key, &ReadOptions::default()).await.unwrap();
        let pair = read.data.unwrap();
        assert_eq!((pair.key.as_str(), &pair.value[..], pair.flags), (key, &b"\xff\x00"[..], 42));
        assert_eq!((read.index, read.known_leader, read.last_contact.as_millis()), (1, true, 7));
        assert_eq!(
            fake.requests(),
            ["PUT /v1/kv/a%20b/%C3%BC%3F%23?flags=42 token=secret", "GET /v1/kv/a%20b/%C3%BC%3F%23 token=secret"]
        );
        assert_eq!(fake.connections(), 1, "the connection is kept");
        assert_eq!(client.leader().await.unwrap().as_deref(), Some("127.0.0.1:8300"));
        assert_eq!(client.peers().await.unwrap(), ["127.0.0.1:8300"]);
    });
}

#[test]
fn every_option_reaches_the_agent() {
    block_on(async {
        let fake = Fake::default();
        let client = client(&fake);
        let read = ReadOptions {
            consistency: Consistency::Consistent,
            index: 9,
            wait: Some(Duration::from_millis(1500)),
            datacenter: Some("dc 2".into()),
        };
        client.kv_keys("web", "/", &read).await.unwrap();
        client.kv_list("", &ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() }).await.unwrap();
        for when in [
            When::Unchanged(7),
            When::Acquire("s&1".into()),
            When::Release("s1".into(), None),
            When::Release("s1".into(), Some(7)),
        ] {
            let options = PutOptions { when, ..PutOptions::default() };
            client.kv_put("k", Bytes::new(), &options).await.unwrap();
        }
        client.kv_delete("k", &Delete::Unchanged(3), None, None).await.unwrap();
        client
            .kv_delete("k/", &Delete::Prefix, Some(&Under { lock: "a/b".into(), fence: 7 }), Some("dc2"))
            .await
            .unwrap();
        let requests: Vec<String> = fake.requests().iter().map(|r| r.replace(" token=secret", "")).collect();
        assert_eq!(
            requests,
            [
                "GET /v1/kv/web?keys&separator=%2F&consistent&index=9&wait=1500ms&dc=dc%202",
                "GET /v1/kv/?recurse&stale",
                "PUT /v1/kv/k?cas=7",
                "PUT /v1/kv/k?acquire=s%261",
                "PUT /v1/kv/k?release=s1",
                "PUT /v1/kv/k?release=s1&fence=7",
                "DELETE /v1/kv/k?cas=3",
                "DELETE /v1/kv/k/?recurse&lock=a%2Fb&fence=7&dc=dc2",
            ]
        );
    });
}

#[test]
fn a_lost_answer_is_unknown_for_a_write_and_never_sent_twice() {
    block_on(async {
        for fault in [Fault::Hangup, Fault::Silence] {
            let fake = Fake::default();
            let client = client(&fake);
            client.leader().await.unwrap();
            fake.requests();
            fake.fail_next(fault);
            let error = client.kv_put("k", Bytes::new(), &PutOptions::default()).await.unwrap_err();
            assert!(matches!(&error, Error::Unknown(why) if why.contains("may or may not")), "{error}");
            assert_eq!(fake.requests().len(), 1);
            fake.fail_next(fault);
            let error = client.snapshot_restore(Bytes::new(), Some("dc2")).await.unwrap_err();
            assert!(matches!(&error, Error::Unknown(why) if why.contains("may or may not")), "{error}");
            assert_eq!(fake.requests(), ["PUT /v1/snapshot?dc=dc2 token=secret"]);
            fake.fail_next(fault);
            let error = client.snapshot_save(true, None).await.unwrap_err();
            assert!(matches!(error, Error::Retry(_)), "{error}");
            assert_eq!(fake.requests(), ["GET /v1/snapshot?stale token=secret"]);
            fake.fail_next(fault);
            let error = client.kv_get("k", &ReadOptions::default()).await.unwrap_err();
            assert!(matches!(error, Error::Retry(_)), "{error}");
            assert!(client.kv_put("k", Bytes::new(), &PutOptions::default()).await.unwrap(), "it connects again");
        }
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_is_made_anew() {
    block_on(async {
        let fake = Fake::default();
        let client = client(&fake);
        client.leader().await.unwrap();
        fake.hang_up();
        // Idle time: the client's side of the connection gets to see its end.
        fake.world().sleep(Duration::from_millis(100)).await;
        assert!(client.kv_put("k", Bytes::new(), &PutOptions::default()).await.unwrap());
        assert_eq!((fake.requests().len(), fake.connections()), (2, 2));
    });
}

#[test]
fn statuses_become_errors_by_who_must_act() {
    block_on(async {
        let fake = Fake::default();
        let client = client(&fake);
        for (status, text, expected) in [
            (400, "Missing key name", Error::Request("localhost:8500 answered 400: Missing key name".into())),
            (413, "too big\n", Error::TooLarge("localhost:8500 answered 413: too big".into())),
            (503, "", Error::Retry("localhost:8500 answered 503 Service Unavailable".into())),
            (500, "No cluster leader", Error::Unknown("localhost:8500 answered 500: No cluster leader".into())),
            // A proxy's 404 has no index: it is not an absent key.
            (404, "no backend", Error::Request("localhost:8500 answered 404: no backend".into())),
        ] {
            fake.fail_next(Fault::Status(status, text));
            assert_eq!(client.kv_get("k", &ReadOptions::default()).await.unwrap_err(), expected);
        }
    });
}

#[test]
fn who_cannot_be_reached_is_named_with_a_cure() {
    block_on(async {
        let world = Fake::default().world();
        let http = |address: &str| Http::new(world.clone(), address.parse::<Address>().unwrap(), None).unwrap();
        let refused = http("127.0.0.1:1").leader().await.unwrap_err();
        assert!(matches!(&refused, Error::Retry(why) if why.contains("refused at 127.0.0.1:1: is the agent running?")));
        let unknown = http("nowhere:1").leader().await.unwrap_err().to_string();
        assert!(unknown.contains("cannot connect to nowhere:1"), "{unknown}");
        let forbidden = Http::new(world.clone(), "a".parse().unwrap(), Some("line\nbreak"));
        assert!(matches!(forbidden, Err(Error::Request(_))));
    });
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error() {
    block_on(async {
        let fake = Fake::default();
        let client = client(&fake);
        fake.fail_next(Fault::Status(200, "<html>"));
        assert!(matches!(client.kv_get("k", &ReadOptions::default()).await, Err(Error::Retry(_))));
        fake.fail_next(Fault::Status(200, "maybe"));
        let put = client.kv_put("k", Bytes::new(), &PutOptions::default()).await;
        assert!(matches!(put, Err(Error::Unknown(_))));
        fake.fail_next(Fault::Status(204, ""));
        let reply = client.send(Request::new(Method::GET, "/".into())).await.unwrap();
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
    });
}
