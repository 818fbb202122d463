//! The event stream: every change under a prefix, once, in order (R5).
//!
//! [`Http::watch`] opens one connection's stream; [`follow::Follower`] goes on from where it was when that is lost. What
//! this never does: leave something out in silence. A server that cannot go on says so ([`Event::Gone`], [`Event::Epoch`]), and an index that
//! does not rise is a lost connection.
//!
//! Start with [`EventStream::next`].

pub mod follow;
mod lines;
#[cfg(test)]
pub(crate) mod tests;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::address::Address;
use super::http::{Http, Opened, Reply, Request};
use super::kv::Pair;
use super::path::Path;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::World;
use lines::Lines;

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchOptions {
    /// What keys begin with; empty for all of them.
    pub prefix: Vec<u8>,
    /// The index after which changes are wanted; `None`: from now on.
    pub since: Option<u64>,
    /// Whether to send also what was there before.
    pub prev: bool,
    /// Which datacenter; the agent's own if `None`.
    pub datacenter: Option<String>,
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As it came, JSON without a line break.
    pub line: Bytes,
    /// What it says.
    pub event: Event,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "Type", rename_all = "lowercase")]
pub enum Event {
    /// All changes of one revision.
    #[serde(rename_all = "PascalCase")]
    Changes {
        /// The revision.
        index: u64,
        /// At least one, in the order of keys.
        changes: Vec<Change>,
    },
    /// Nothing more happened up to this index.
    #[serde(rename_all = "PascalCase")]
    Bookmark {
        /// From where a later stream may go on.
        index: u64,
    },
    /// The last record: what came after `index` is no longer kept, so some of it may have been missed.
    #[serde(rename_all = "PascalCase")]
    Gone {
        /// Up to here the stream is whole.
        index: u64,
        /// The least that a later stream can start from.
        oldest: u64,
    },
    /// The last record: a backup was restored. What is there now did not come about by changes after `index`.
    #[serde(rename_all = "PascalCase")]
    Epoch {
        /// Up to here the stream is whole.
        index: u64,
        /// The least that a later stream can start from: the restore's own.
        oldest: u64,
        /// The index of the restore.
        epoch: u64,
    },
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Its name.
    pub key: String,
    /// What was done.
    pub action: Action,
    /// What is there now; nothing after a deletion.
    #[serde(default)]
    pub entry: Option<Pair>,
    /// What was there before, if that was asked for and there was something.
    #[serde(default)]
    pub prev: Option<Pair>,
}

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was written, or its lock was taken or given up.
    Set,
    /// It was deleted.
    Delete,
}

/// The stream of one connection. It ends where the connection does.
#[derive(Debug)]
pub struct EventStream {
    source: Source,
    /// Where it began, and later the index of the last record.
    index: u64,
}

#[derive(Debug)]
enum Source {
    Body(Box<Connection>),
    /// It was refused as too late: that is its only record.
    Refused(Record),
    Ended,
}

struct Connection {
    world: World,
    address: Address,
    body: Incoming,
    lines: Lines,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

impl Http {
    /// Follows the changes under a prefix, on a connection of its own.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals. `Request` if the agent has no event stream. That `since` is too
    /// old is no error but the stream's only record, [`Event::Gone`].
    pub async fn watch(&self, options: &WatchOptions) -> Result<EventStream> {
        let mut path = Path::new("/v1/watch".into()).with_bytes("prefix", Some(&options.prefix));
        if let Some(since) = options.since {
            path = path.with("since", Some(&since.to_string()));
        }
        if options.prev {
            path = path.with("prev", None);
        }
        if let Some(datacenter) = &options.datacenter {
            path = path.with("dc", Some(datacenter));
        }
        match self.open(&Request::new(Method::GET, path.into())).await? {
            Opened::Stream(headers, body) => {
                let begins = headers.get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
                let Some(index) = begins else { return Err(no_stream(self.address(), "no index")) };
                let (world, address) = (self.world().clone(), self.address().clone());
                let lines = Lines::new(limits::STREAM_LINE);
                Ok(EventStream { source: Source::Body(Box::new(Connection { world, address, body, lines })), index })
            }
            Opened::Reply(reply) => self.refused(options, &reply),
        }
    }

    fn refused(&self, options: &WatchOptions, reply: &Reply) -> Result<EventStream> {
        match (reply.status, reply.number(OLDEST), options.since) {
            (StatusCode::GONE, Some(oldest), Some(index)) => {
                let line = format!(r#"{{"Type":"gone","Index":{index},"Oldest":{oldest}}}"#);
                let record = Record { line: line.into(), event: Event::Gone { index, oldest } };
                Ok(EventStream { source: Source::Refused(record), index })
            }
            (StatusCode::NOT_FOUND, ..) => Err(no_stream(self.address(), "404")),
            _ => Err(reply.error(self.address())),
        }
    }
}

const INDEX: &str = "x-consul-index";
const OLDEST: &str = "x-quorate-oldest";

fn no_stream(address: &Address, answer: &str) -> Error {
    Error::Request(format!(
        "{address} has no event stream: it answered GET /v1/watch with {answer}, so it is another program or an older \
         one; follow a prefix there with blocking queries"
    ))
}

/// What to tell a reader who came too late.
pub fn gone(index: u64, oldest: u64) -> String {
    format!(
        "changes were missed: what came after index {index} is no longer kept. Read the prefix again and follow it \
         from the index of that answer; the oldest index to start from is {oldest}"
    )
}

impl EventStream {
    /// Up to where this stream is whole: where it began, or the index of the last record. A later one goes on from there.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next record; `None` when the server has ended the stream. It may be dropped while it waits and called again.
    ///
    /// # Errors
    /// `Retry` if the connection was lost, or silent for longer than a working one is. `TooLarge` for a record beyond
    /// [`limits::STREAM_LINE`]. `Request` for one that makes no sense. There are no records after an error.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        let line = match &mut self.source {
            Source::Body(connection) => connection.line().await,
            Source::Ended => return Ok(None),
            Source::Refused(_) => {
                let Source::Refused(record) = std::mem::replace(&mut self.source, Source::Ended) else {
                    return Ok(None);
                };
                return Ok(Some(record));
            }
        };
        let record = line.and_then(|line| line.map(|line| self.record(line)).transpose());
        if !matches!(&record, Ok(Some(Record { event: Event::Changes { .. } | Event::Bookmark { .. }, .. }))) {
            self.source = Source::Ended;
        }
        record
    }

    fn record(&mut self, line: Bytes) -> Result<Record> {
        let event: Event = serde_json::from_slice(&line)
            .map_err(|e| Error::Request(format!("the event stream holds a record that is not understood: {e}")))?;
        let (index, sound) = match event {
            Event::Changes { index, .. } => (index, index > self.index),
            Event::Bookmark { index } => (index, index >= self.index),
            Event::Gone { .. } | Event::Epoch { .. } => (self.index, true),
        };
        if !sound {
            return Err(Error::Retry(format!("the event stream went from index {} to {index}", self.index)));
        }
        self.index = index;
        Ok(Record { line, event })
    }
}

impl Connection {
    /// The next whole line.
    async fn line(&mut self) -> Result<Option<Bytes>> {
        let lost = |address: &Address, why: &str| Error::Retry(format!("lost the event stream of {address}: {why}"));
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(Some(line));
            }
            let frame = self.world.timeout(limits::STREAM_SILENCE, self.body.frame()).await;
            let Some(frame) = frame else {
                return Err(lost(&self.address, &format!("nothing came for {:?}", limits::STREAM_SILENCE)));
            };
            match frame {
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(lost(&self.address, "it ended in the middle of a record")),
                Some(Err(e)) => return Err(lost(&self.address, &e.to_string())),
                // Trailers say nothing here.
                Some(Ok(frame)) => self.lines.push(frame.data_ref().map(Bytes::as_ref).unwrap_or_default()),
            }
        }
    }
}
