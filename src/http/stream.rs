//! `/v1/watch`: the event stream (guarantees.md R5), as lines of JSON or as server-sent events.
//!
//! A record is written piece by piece as the client takes it, so that a large one is never in memory as text. Nothing is read
//! ahead for a client that takes nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum_core::body::Body;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::extract::{self, Query};
use super::listing;
use super::reply::{self, Failure};
use super::{Call, Outcome};
use crate::agent::{Event, Stream};
use crate::api::json::{Style, Writer};
use crate::limits;
use crate::state::{Change, Key, KvRow};

/// The path.
pub const ROUTE: &str = "/v1/watch";
/// Where a browser's event source says that it goes on.
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/watch`
pub async fn get(call: Call) -> Outcome {
    let query = call.query()?;
    query.check_exclusive(&["since", "index"])?;
    let options = query.read_options()?;
    let prefix = extract::bounded(query.bytes("prefix").unwrap_or_default())?;
    let since = since(&query, &call.head.headers)?;
    let shape = Shape { events: wants_events(&call.head.headers), prev: query.has("prev") };
    let begun = call.edge.agent.stream(&options, prefix, since).await?;
    let stream = begun.map_err(Failure::gone)?;

    let mut headers = HeaderMap::new();
    headers.insert(reply::INDEX, stream.position().max(1).into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(shape.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let text = Text {
        stream,
        shape,
        record: None,
        writer: Writer::new(Style::Compact),
        stopped: Box::pin(call.edge.stopped()),
    };
    let chunks = futures_util::stream::unfold(text, |mut text| async {
        text.chunk().await.map(|chunk| (Ok::<_, Infallible>(chunk), text))
    });
    Ok(reply::streamed(headers, Body::from_stream(chunks)))
}

/// Where to go on: a reconnecting browser knows better than its page's address.
fn since(query: &Query<'_>, headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    match headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        None => query.index("since"),
        Some(id) => {
            let index = id.to_str().ok().and_then(|id| id.parse().ok());
            index.map(Some).ok_or_else(|| Failure::bad_request("Invalid Last-Event-ID: expected an index"))
        }
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|kind| kind.split(';').next().map(str::trim) == Some(EVENTS))
}

const EVENTS: &str = "text/event-stream";

/// How records are written.
#[derive(Clone, Copy)]
struct Shape {
    /// As server-sent events.
    events: bool,
    /// With what was there before.
    prev: bool,
}

impl Shape {
    fn content_type(self) -> &'static str {
        if self.events { EVENTS } else { "application/x-ndjson" }
    }
}

/// A stream on its way to a client.
struct Text {
    stream: Stream,
    shape: Shape,
    /// What is left of the changes of the record that is being written.
    record: Option<std::vec::IntoIter<Arc<Change>>>,
    writer: Writer,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Text {
    /// The next piece; `None` at the end: the client was told that changes are gone, or this server stops.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            while self.writer.len() < limits::LIST_CHUNK && self.write() {}
            if !self.writer.is_empty() {
                return Some(self.writer.take());
            }
            if self.stream.is_over() {
                return None;
            }
            tokio::select! {
                biased;
                () = &mut self.stopped => return None,
                () = self.stream.changed() => {}
            }
        }
    }

    /// Writes a change of the record, or begins the next one; whether there was anything.
    fn write(&mut self) -> bool {
        if let Some(changes) = &mut self.record {
            match changes.next() {
                Some(change) => change_object(&change, self.shape.prev, &mut self.writer),
                None => {
                    self.record = None;
                    self.writer.end(b']');
                    self.end();
                }
            }
            return true;
        }
        match self.stream.ready() {
            None => return false,
            Some(Event::Changes { revision, changes }) => {
                self.begin("changes", revision);
                self.writer.field("Changes");
                self.writer.begin(b'[');
                self.record = Some(changes.into_iter());
            }
            Some(Event::Bookmark(revision)) => {
                self.begin("bookmark", revision);
                self.end();
            }
            Some(Event::Gone { after, forgotten }) => {
                self.begin("gone", after);
                self.writer.field("Oldest");
                self.writer.number(forgotten.oldest);
                self.end();
            }
            Some(Event::Restored { after, forgotten, epoch }) => {
                self.begin("epoch", after);
                self.writer.field("Oldest");
                self.writer.number(forgotten.oldest);
                self.writer.field("Epoch");
                self.writer.number(epoch);
                self.end();
            }
        }
        true
    }

    fn begin(&mut self, kind: &str, index: u64) {
        if self.shape.events {
            self.writer.between(format!("event: {kind}\nid: {index}\ndata: ").as_bytes());
        }
        self.writer.begin(b'{');
        self.writer.field("Type");
        self.writer.string(kind.as_bytes());
        self.writer.field("Index");
        self.writer.number(index);
    }

    fn end(&mut self) {
        self.writer.end(b'}');
        self.writer.between(if self.shape.events { b"\n\n" } else { b"\n" });
    }
}

fn change_object(change: &Change, prev: bool, writer: &mut Writer) {
    writer.element();
    writer.begin(b'{');
    writer.field("Key");
    writer.string(change.key.as_bytes());
    writer.field("Action");
    writer.string(if change.after.is_some() { b"set" } else { b"delete" });
    writer.field("Entry");
    row(&change.key, change.after.as_deref(), writer);
    if prev {
        writer.field("Prev");
        row(&change.key, change.before.as_deref(), writer);
    }
    writer.end(b'}');
}

fn row(key: &Key, row: Option<&KvRow>, writer: &mut Writer) {
    match row {
        Some(row) => listing::fenced_entry(key.as_bytes(), row).write(writer),
        None => writer.null(),
    }
}
