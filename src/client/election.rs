//! Elections: candidates wait for a lock, and its holder leads; what it says of itself is the lock's value, which anybody may
//! watch.
//!
//! What this never does: let a former leader proclaim anything. What it writes is fenced (G3).
//!
//! Start with [`Election::campaign`], or [`Election::observe`] to look on.

use std::time::Duration;

use bytes::Bytes;

use super::http::Http;
use super::kv::{Pair, PutOptions, When};
use super::lock::{Guard, LOCK_FLAGS, Lock, beyond, next_index};
use crate::error::{Error, Result};
use crate::limits;

/// An election: the name is the key of its lock.
pub struct Election {
    http: Http,
    name: String,
    ttl: Duration,
}

/// The one who leads, by its own account. As [`Guard`], which it is made of.
pub struct Leadership {
    http: Http,
    guard: Guard,
}

/// Who leads, as others see it. One that was just elected may be seen with its predecessor's value, for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// What it has proclaimed.
    pub value: Bytes,
    /// Its session.
    pub session: String,
}

/// Sees one leader after the other.
pub struct Observer {
    http: Http,
    name: String,
    index: u64,
    /// What was given last; `None` before the first.
    last: Option<Option<Leader>>,
}

impl Election {
    /// An election at this agent.
    pub fn new(http: &Http, name: &str) -> Election {
        Election { http: http.another(), name: name.into(), ttl: limits::LOCK_TTL }
    }

    /// The same, in which a leader that died is noticed after this time.
    pub fn ttl(self, ttl: Duration) -> Election {
        Election { ttl, ..self }
    }

    /// Waits to be elected: for ever without a `patience`. The value is proclaimed then.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub async fn campaign(&self, value: impl Into<Bytes>, patience: Option<Duration>) -> Result<Option<Leadership>> {
        let session = format!("election {}", self.name);
        let lock = Lock::new(&self.http, &self.name).value(value).session(&session, self.ttl);
        let won = lock.acquire(patience).await?;
        Ok(won.map(|guard| Leadership { http: self.http.another(), guard }))
    }

    /// Who leads; after each answer the next one, once it has changed.
    pub fn observe(&self) -> Observer {
        Observer { http: self.http.another(), name: self.name.clone(), index: 0, last: None }
    }
}

impl Leadership {
    /// Says something else of itself.
    ///
    /// # Errors
    /// `Request` if it does not lead any more; otherwise as [`Http::kv_put`].
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<()> {
        let under = self.guard.under();
        // Without fences, what Consul has: nothing is written while somebody else holds the lock.
        let when = match under {
            Some(_) => When::Always,
            None => When::Acquire(self.guard.keeper().session().to_string()),
        };
        let options = PutOptions { flags: LOCK_FLAGS, when, under, ..PutOptions::default() };
        if self.http.kv_put(self.guard.key(), value.into(), &options).await? {
            return Ok(());
        }
        Err(Error::Request(format!("somebody else leads at {}", self.guard.key())))
    }

    /// What it holds: its fence, its deadline, and when it is lost.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Leads no more. `false` if it did not any more.
    ///
    /// # Errors
    /// As [`Guard::release`].
    pub async fn resign(self) -> Result<bool> {
        self.guard.release().await
    }
}

impl Observer {
    /// Who leads now, at first; then waits for each change of it. `None` while nobody does. May be dropped while it waits.
    ///
    /// # Errors
    /// As [`Http::kv_get`]; it may be asked again.
    pub async fn next(&mut self) -> Result<Option<Leader>> {
        loop {
            let answer = self.http.kv_get(&self.name, &beyond(self.index, limits::LOCK_TURN)).await?;
            self.index = next_index(self.index, &answer);
            let leader = answer.data.and_then(leads);
            if self.last.as_ref() != Some(&leader) {
                self.last = Some(leader.clone());
                return Ok(leader);
            }
        }
    }
}

/// A key that was granted has its leader's value a moment later, with the flags of a lock.
fn leads(pair: Pair) -> Option<Leader> {
    let session = pair.session?;
    (pair.flags == LOCK_FLAGS).then_some(Leader { value: pair.value, session })
}
