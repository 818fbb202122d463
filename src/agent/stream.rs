//! The event stream: every change of the keys under a prefix, once and in order, from any revision still kept (R5).
//!
//! A reader is a position in the replicated [history](crate::state::History) and a wait: nothing is queued for it, so a slow one costs
//! no more than a fast one, and one that is slower than the history is told so. What this module never does: skip a change
//! and go on.
//!
//! Start at [`Stream::ready`].

use std::sync::Arc;

use super::query::{Answer, ReadOptions};
use super::watch::{Scope, Wait};
use super::{Agent, Found};
use crate::error::{Error, Result};
use crate::limits;
use crate::raft::View;
use crate::state::{Change, Key, KvTable, Subject, history};
use crate::world::Instant;

/// Changes, or reads, of before what is still kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The oldest revision that can be asked for.
    pub oldest: u64,
}

/// What a stream gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All net changes of one revision under the prefix.
    Changes {
        /// The revision.
        revision: u64,
        /// At least one; each key once.
        changes: Vec<Arc<Change>>,
    },
    /// There is no other change up to this revision.
    Bookmark(u64),
    /// The last event: changes after this revision are not kept any more.
    Gone {
        /// The last revision that was delivered.
        after: u64,
        /// Where a new stream can begin.
        forgotten: Forgotten,
    },
    /// The last event: a backup was restored, and no changes lead from what was before to what is now.
    Restored {
        /// The last revision that was delivered.
        after: u64,
        /// Where a new stream can begin.
        forgotten: Forgotten,
        /// The revision at which that happened.
        epoch: u64,
    },
}

/// One reader of the event stream.
pub struct Stream {
    agent: Agent,
    prefix: Key,
    wait: Wait,
    /// Everything up to this revision was delivered.
    position: u64,
    /// When the next bookmark is due: the first as soon as all is delivered that there was at the beginning.
    bookmark: Instant,
    epoch: u64,
    over: bool,
}

impl Agent {
    /// Begins to read the changes of the keys under a prefix: those after `since`, or from now on.
    ///
    /// # Errors
    /// As [`Agent::read`]. [`Error::Request`] if `since` is no revision of this cluster. What is not kept any more is no error: it is
    /// said inside.
    pub async fn stream(
        &self,
        options: &ReadOptions,
        prefix: Key,
        since: Option<u64>,
    ) -> Result<Result<Stream, Forgotten>> {
        let (view, _) = self.view(options).await?;
        let (position, view) = match since {
            None => (view.state.revision(), view),
            Some(since) => (since, self.reached(view, since).await?),
        };
        let floor = view.state.kv().history().floor();
        if position < floor {
            return Ok(Err(Forgotten { oldest: floor }));
        }
        let (epoch, wait) = (view.state.epoch(), self.inner.watch.wait(Scope::Prefix(Subject::Kv, prefix.clone()))?);
        let bookmark = self.inner.world.clock.now();
        Ok(Ok(Stream { agent: self.clone(), prefix, wait, position, bookmark, epoch, over: false }))
    }

    /// The keys under a prefix as they were at a revision.
    ///
    /// # Errors
    /// As [`Agent::stream`].
    pub async fn past(
        &self,
        options: &ReadOptions,
        prefix: Key,
        at: u64,
    ) -> Result<Result<Answer<KvTable>, Forgotten>> {
        let (view, consistency) = self.view(options).await?;
        let view = self.reached(view, at).await?;
        let floor = view.state.kv().history().floor();
        if at < floor {
            return Ok(Err(Forgotten { oldest: floor }));
        }
        // The whole history may have to be undone, which takes a while.
        let undo = {
            let view = view.clone();
            move || view.state.kv().as_of(at, prefix.as_bytes())
        };
        let then = self.inner.world.blocking(undo).await.map_err(|lost| Error::Retry(lost.to_string()))?;
        Ok(Ok(self.answer(Found { value: Some(then), index: at }, consistency, &view.state)))
    }

    /// A view that has reached a revision, if it is one of this cluster's: where this server lags behind, a linearizable one.
    async fn reached(&self, view: Arc<View>, revision: u64) -> Result<Arc<View>> {
        // An empty store shows the index 1.
        let reaches = |view: &View| view.state.revision().max(1) >= revision;
        if reaches(&view) {
            return Ok(view);
        }
        let view = self.inner.raft.linearizable().await?;
        if reaches(&view) {
            return Ok(view);
        }
        let now = view.state.revision();
        Err(Error::Request(format!(
            "index {revision} is ahead of the store, which is at {now}: it was given by another cluster, or is mistyped"
        )))
    }
}

impl Stream {
    /// Where it stands: everything up to this revision was delivered.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next event, if there is one now. None comes after a [`Event::Gone`] or [`Event::Restored`].
    pub fn ready(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        self.position = self.wait.quiet_after(self.position);
        let inner = &self.agent.inner;
        let view = inner.raft.view();
        let table = view.state.kv();
        let oldest = table.history().floor();
        if self.position < oldest {
            self.over = true;
            let (after, forgotten, epoch) = (self.position, Forgotten { oldest }, view.state.epoch());
            return Some(match epoch == self.epoch {
                true => Event::Gone { after, forgotten },
                false => Event::Restored { after, forgotten, epoch },
            });
        }
        while let Some(changes) = next_revision(table, self.prefix.as_bytes(), self.position) {
            let revision = changes[0].revision;
            self.position = revision;
            let changes = history::net(&changes);
            if !changes.is_empty() {
                if self.agent.inner.world.clock.now() < self.bookmark {
                    self.rest();
                }
                return Some(Event::Changes { revision, changes });
            }
        }
        self.position = self.position.max(view.state.revision());
        if inner.world.clock.now() < self.bookmark {
            return None;
        }
        self.rest();
        Some(Event::Bookmark(self.position))
    }

    /// Until there may be an event.
    pub async fn changed(&self) {
        let world = &self.agent.inner.world;
        let left = self.bookmark.since(world.clock.now());
        let _ = world.timeout(left, self.wait.changed()).await;
    }

    /// Whether the last event was given.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn rest(&mut self) {
        self.bookmark = self.agent.inner.world.clock.now() + limits::BOOKMARK_INTERVAL;
    }
}

/// The changes under a prefix in the first revision after `position` that has any.
fn next_revision(table: &KvTable, prefix: &[u8], position: u64) -> Option<Vec<Arc<Change>>> {
    let mut changes = table.history().after(position).filter(|change| change.key.as_bytes().starts_with(prefix));
    let first = changes.next()?;
    let rest = changes.take_while(|change| change.revision == first.revision);
    Some([first].into_iter().chain(rest).cloned().collect())
}
