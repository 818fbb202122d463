//! The event stream over lost connections: it goes on after the last index that it has delivered.
//!
//! What this never does: deliver a record twice, or skip one. What it hands over it counts as delivered.

use std::time::Duration;

use super::{EventStream, Record, WatchOptions};
use crate::client::http::Http;
use crate::error::{Error, Result};
use crate::limits;

/// A stream that is opened again whenever it is lost.
pub struct Follower<'a> {
    http: &'a Http,
    /// `since` moves on with what is delivered.
    options: WatchOptions,
    stream: Option<EventStream>,
    /// How long to wait before the next connection.
    pause: Option<Duration>,
    /// Connections in a row that delivered nothing.
    failures: u32,
}

/// What happens to a [`Follower`].
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next record. After [`super::Event::Gone`] or [`super::Event::Epoch`] there is nothing to follow any more.
    Record(Record),
    /// There is no connection; the next call makes one, after a pause.
    Lost {
        /// Why not.
        why: Error,
        /// How long the pause will be.
        pause: Duration,
    },
}

impl<'a> Follower<'a> {
    /// Connects when it is first asked.
    pub fn new(http: &'a Http, options: WatchOptions) -> Follower<'a> {
        Follower { http, options, stream: None, pause: None, failures: 0 }
    }

    /// Up to where everything was delivered, once that is known.
    pub fn index(&self) -> Option<u64> {
        self.options.since
    }

    /// The next step. It may be dropped while it waits and called again.
    ///
    /// # Errors
    /// What no other connection would cure: the server's refusals, a record too large or not understood.
    pub async fn next(&mut self) -> Result<Step> {
        if let Some(pause) = self.pause {
            self.http.world().sleep(pause).await;
            self.pause = None;
        }
        match self.record().await {
            Ok(record) => {
                self.failures = 0;
                Ok(Step::Record(record))
            }
            Err(why @ (Error::Retry(_) | Error::Busy(_) | Error::Unknown(_))) => {
                self.stream = None;
                let doubled = limits::STREAM_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
                let pause = doubled.min(limits::STREAM_RETRY_CAP);
                self.failures += 1;
                self.pause = Some(pause);
                Ok(Step::Lost { why, pause })
            }
            Err(error) => Err(error),
        }
    }

    async fn record(&mut self) -> Result<Record> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(self.http.watch(&self.options).await?),
        };
        // From here on a change is missed unless the next stream begins where this one did.
        self.options.since = Some(stream.index());
        let Some(record) = stream.next().await? else {
            return Err(Error::Retry(format!("{} ended the event stream", self.http.address())));
        };
        self.options.since = Some(stream.index());
        Ok(record)
    }
}
