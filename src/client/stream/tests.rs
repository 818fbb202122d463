//! The client of the event stream against an agent that plays a script.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::follow::{Follower, Step};
use super::{Action, Event, EventStream, Record, WatchOptions};
use crate::client::http::Http;
use crate::client::tests::{Turns, block_on};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{BoxListener, BoxStream, Interface, Network, World, real};

/// An agent that answers each request with the next part of its script, and writes the requests down. Behind the end of
/// the script it is silent.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<Mutex<Play>>);

#[derive(Default)]
struct Play {
    answers: VecDeque<Vec<Act>>,
    requests: Vec<String>,
}

/// A part of an answer.
#[derive(Clone)]
pub(crate) enum Act {
    /// Bytes, as they are.
    Say(Vec<u8>),
    /// The connection ends.
    HangUp,
}

impl Scripted {
    pub(crate) fn world(&self) -> World {
        World { net: Arc::new(self.clone()), clock: Arc::new(Turns::default()), ..real::world() }
    }

    pub(crate) fn then(&self, acts: Vec<Act>) {
        self.0.lock().unwrap().answers.push_back(acts);
    }

    /// A whole answer.
    pub(crate) fn then_answer(&self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.then(vec![Act::Say(text.into_bytes())]);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }

    async fn play(self, mut stream: tokio::io::DuplexStream) -> io::Result<()> {
        loop {
            let request = read_request(&mut stream).await?;
            let acts = {
                let mut play = self.0.lock().unwrap();
                play.requests.push(request);
                play.answers.pop_front()
            };
            let Some(acts) = acts else { return std::future::pending().await };
            for act in acts {
                match act {
                    Act::Say(bytes) => stream.write_all(&bytes).await?,
                    Act::HangUp => return Ok(()),
                }
                // What was said arrives before the next part is.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// The request line without its version, the index header if there is one, and the body.
async fn read_request(stream: &mut tokio::io::DuplexStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let index = header("x-consul-index").map_or(String::new(), |index| format!(" index={index}"));
    let body = if body.is_empty() { String::new() } else { format!(" {}", String::from_utf8_lossy(&body)) };
    Ok(format!("{line}{index}{body}"))
}

#[async_trait]
impl Network for Scripted {
    async fn listen(&self, _: SocketAddr) -> io::Result<BoxListener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _: SocketAddr) -> io::Result<BoxStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        drop(real::world().spawn(self.clone().play(theirs)));
        Ok(Box::new(ours))
    }
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(Vec::new())
    }
    fn host_name(&self) -> String {
        "scripted".into()
    }
}

const CHANGES: &str = concat!(
    r#"{"Type":"changes","Index":12,"Changes":[{"Key":"a","Action":"set","Entry":{"LockIndex":0,"Key":"a","Flags":0,"#,
    r#""Value":"dGVzdA==","Session":"s1","Fence":12,"CreateIndex":12,"ModifyIndex":12},"Prev":null},"#,
    r#"{"Key":"b","Action":"delete","Entry":null,"#,
    r#""Prev":{"LockIndex":0,"Key":"b","Flags":7,"Value":null,"CreateIndex":3,"ModifyIndex":4}}]}"#,
);

pub(crate) fn bookmark(index: u64) -> String {
    format!(r#"{{"Type":"bookmark","Index":{index}}}"#)
}

pub(crate) fn changes(index: u64) -> String {
    format!(r#"{{"Type":"changes","Index":{index},"Changes":[{{"Key":"k{index}","Action":"delete","Entry":null}}]}}"#)
}

fn gone(index: u64, oldest: u64) -> String {
    format!(r#"{{"Type":"gone","Index":{index},"Oldest":{oldest}}}"#)
}

/// The head of a stream that begins at this index.
pub(crate) fn head(index: u64) -> Act {
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    Act::Say(head.into_bytes())
}

fn chunk(bytes: &[u8]) -> Act {
    Act::Say([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

/// One record in a chunk of its own.
pub(crate) fn record(line: &str) -> Act {
    chunk(format!("{line}\n").as_bytes())
}

fn end() -> Act {
    Act::Say(b"0\r\n\r\n".to_vec())
}

fn client(agent: &Scripted) -> Http {
    Http::new(agent.world(), "127.0.0.1:8500".parse().unwrap(), None).unwrap()
}

async fn open(agent: &Scripted) -> EventStream {
    client(agent).watch(&WatchOptions::default()).await.unwrap()
}

async fn all(stream: &mut EventStream) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    while let Some(record) = stream.next().await? {
        found.push(record);
    }
    Ok(found)
}

#[test]
fn every_option_reaches_the_agent_and_a_record_says_all() {
    block_on(async {
        let agent = Scripted::default();
        agent.then(vec![head(5), record(&bookmark(5)), record(CHANGES), end()]);
        let options =
            WatchOptions { prefix: b"a b/\xff".to_vec(), since: Some(5), prev: true, datacenter: Some("dc 2".into()) };
        let mut stream = client(&agent).watch(&options).await.unwrap();
        assert_eq!(agent.requests(), ["GET /v1/watch?prefix=a%20b%2F%FF&since=5&prev&dc=dc%202"]);
        assert_eq!(stream.index(), 5);
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!((first.event, first.line), (Event::Bookmark { index: 5 }, bookmark(5).into()));
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!(record.line, CHANGES);
        let Event::Changes { index: 12, changes } = record.event else { panic!("{record:?}") };
        let [set, delete] = &changes[..] else { panic!("{changes:?}") };
        let entry = set.entry.as_ref().unwrap();
        assert_eq!((set.key.as_str(), set.action, &set.prev), ("a", Action::Set, &None));
        assert_eq!((&entry.value[..], entry.session.as_deref(), entry.fence), (&b"test"[..], Some("s1"), Some(12)));
        assert_eq!((delete.key.as_str(), delete.action, &delete.entry), ("b", Action::Delete, &None));
        assert_eq!(delete.prev.as_ref().map(|pair| (pair.flags, pair.modify_index)), Some((7, 4)));
        assert_eq!((stream.index(), stream.next().await), (12, Ok(None)));
        assert_eq!(stream.next().await, Ok(None), "the end stays the end");
    });
}

#[test]
fn wherever_the_stream_is_cut_its_records_are_the_same() {
    block_on(async {
        let text = format!("{}\n{CHANGES}\n{}\n", bookmark(5), gone(12, 20));
        let expected = [bookmark(5), CHANGES.into(), gone(12, 20)];
        for cut in 1..text.len() {
            let agent = Scripted::default();
            let (before, after) = text.as_bytes().split_at(cut);
            agent.then(vec![head(5), chunk(before), chunk(after), end()]);
            let mut stream = open(&agent).await;
            let found: Vec<Bytes> = all(&mut stream).await.unwrap().into_iter().map(|record| record.line).collect();
            assert_eq!(found, expected, "cut at {cut}");
        }
    });
}

#[test]
fn gone_is_the_last_record_and_a_refusal_says_the_same() {
    block_on(async {
        let agent = Scripted::default();
        agent.then(vec![head(5), record(&gone(7, 18)), record(&changes(30)), end()]);
        let found = all(&mut open(&agent).await).await.unwrap();
        assert_eq!(
            found.into_iter().map(|record| record.event).collect::<Vec<_>>(),
            [Event::Gone { index: 7, oldest: 18 }]
        );

        agent.then_answer(410, "X-Quorate-Oldest: 18\r\n", "too old");
        let options = WatchOptions { since: Some(5), ..WatchOptions::default() };
        let mut stream = client(&agent).watch(&options).await.unwrap();
        let found = all(&mut stream).await.unwrap();
        let record = Record { line: gone(5, 18).into(), event: Event::Gone { index: 5, oldest: 18 } };
        assert_eq!((found, stream.index()), (vec![record.clone()], 5));
        assert_eq!(serde_json::from_slice::<Event>(&record.line).unwrap(), record.event);
    });
}

#[test]
fn agents_without_a_stream_are_told_from_those_that_refuse_one() {
    block_on(async {
        for (status, headers, body, expected) in [
            (404, "", "Invalid URL path", "has no event stream: it answered GET /v1/watch with 404"),
            (200, "", "<html>", "has no event stream: it answered GET /v1/watch with no index"),
            (400, "", "Invalid since", "answered 400: Invalid since"),
            (410, "", "gone", "answered 410: gone"),
        ] {
            let agent = Scripted::default();
            agent.then_answer(status, headers, body);
            let error = client(&agent).watch(&WatchOptions::default()).await.unwrap_err();
            assert!(matches!(&error, Error::Request(why) if why.contains(expected)), "{error}");
        }
    });
}

#[test]
fn a_lost_or_silent_connection_is_an_error_and_half_a_record_is_none() {
    block_on(async {
        for (script, expected) in [
            (vec![head(5), record(&bookmark(5)), Act::HangUp], "lost the event stream"),
            (vec![head(5), record(&bookmark(5)), chunk(b"{\"Type\""), end()], "in the middle of a record"),
            (vec![head(5), record(&bookmark(5))], "nothing came for 45s"),
            (vec![head(5), record(&bookmark(5)), record(&changes(5))], "went from index 5 to 5"),
            (vec![head(5), record(&bookmark(5)), record(&bookmark(4))], "went from index 5 to 4"),
        ] {
            let agent = Scripted::default();
            agent.then(script);
            let mut stream = open(&agent).await;
            assert!(stream.next().await.unwrap().is_some());
            let error = stream.next().await.unwrap_err();
            assert!(matches!(&error, Error::Retry(why) if why.contains(expected)), "{error}");
            assert_eq!((stream.next().await, stream.index()), (Ok(None), 5));
        }
    });
}

#[test]
fn records_too_long_or_unknown_end_it_for_good() {
    block_on(async {
        let agent = Scripted::default();
        agent.then(vec![head(5), record(r#"{"Type":"riddle","Index":7}"#)]);
        let error = open(&agent).await.next().await.unwrap_err();
        assert!(
            matches!(&error, Error::Request(why) if why.contains("not understood: unknown variant `riddle`")),
            "{error}"
        );

        let piece = vec![b' '; 8 * limits::MIB];
        let pieces = std::iter::repeat_with(|| chunk(&piece)).take(limits::STREAM_LINE / piece.len() + 1);
        agent.then([head(5)].into_iter().chain(pieces).collect());
        let error = open(&agent).await.next().await.unwrap_err();
        assert!(matches!(&error, Error::TooLarge(why) if why.contains("larger than 256 MiB")), "{error}");
    });
}

#[test]
fn a_follower_goes_on_after_the_last_index_it_delivered() {
    block_on(async {
        let agent = Scripted::default();
        agent.then(vec![head(5), Act::HangUp]);
        agent.then(vec![head(5), record(&bookmark(5)), record(&changes(7)), chunk(b"{\"Type\":"), Act::HangUp]);
        agent.then(vec![Act::HangUp]);
        agent.then_answer(503, "", "later");
        agent.then_answer(500, "", "No cluster leader");
        agent.then(vec![head(7), record(&bookmark(7)), record(&changes(8)), end()]);
        agent.then_answer(410, "X-Quorate-Oldest: 20\r\n", "too old");
        let http = client(&agent);
        let mut follower = Follower::new(&http, WatchOptions::default());
        let (mut delivered, mut pauses) = (Vec::new(), Vec::new());
        loop {
            match follower.next().await.unwrap() {
                Step::Lost { pause, .. } => pauses.push(pause.as_millis()),
                Step::Record(record) => {
                    let last = matches!(record.event, Event::Gone { .. });
                    delivered.push(String::from_utf8(record.line.to_vec()).unwrap());
                    if last {
                        break;
                    }
                }
            }
        }
        assert_eq!(delivered, [bookmark(5), changes(7), bookmark(7), changes(8), gone(8, 20)]);
        assert_eq!(pauses, [250, 250, 500, 1000, 2000, 250]);
        let asked = agent.requests();
        let since: Vec<&str> = asked.iter().map(|request| request.split_once("prefix=").unwrap().1).collect();
        assert_eq!(since, ["", "&since=5", "&since=7", "&since=7", "&since=7", "&since=7", "&since=8"]);
        assert_eq!(follower.index(), Some(8));
    });
}

#[test]
fn a_follower_gives_up_on_what_no_other_connection_cures() {
    block_on(async {
        let agent = Scripted::default();
        agent.then_answer(403, "", "Permission denied");
        let http = client(&agent);
        let error = Follower::new(&http, WatchOptions::default()).next().await.unwrap_err();
        assert!(matches!(error, Error::Request(_)), "{error}");
    });
}
