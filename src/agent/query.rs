//! Reads, and reads that wait (consul.md 2.2 "Blocking queries", R1, R4).

use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use super::watch::Scope;
use crate::error::Result;
use crate::limits;
use crate::raft::View;
use crate::state::State;

/// How fresh a read must be (consul.md 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Linearizable. Consul's default mode is nearly so; ours is (R1).
    #[default]
    Default,
    /// Linearizable, asked for by name.
    Consistent,
    /// This server's own state, however old.
    Stale,
}

/// How a read is to be answered.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// How fresh.
    pub consistency: Consistency,
    /// With `Stale`: at most this long since this server heard from the leader, or the read is repeated linearizably.
    pub max_stale: Option<Duration>,
    /// Wait until the answer's index is greater than this; 0 does not wait.
    pub index: u64,
    /// How long to wait at most; `None`, or nothing, is the configured default.
    pub wait: Option<Duration>,
}

/// What a read found in one state.
pub struct Found<T> {
    /// The value; `None` if there was nothing to find.
    pub value: Option<T>,
    /// Its index, at least 1.
    pub index: u64,
}

/// An answer, with the facts that go into the headers (consul.md 1.1).
pub struct Answer<T> {
    /// What was found.
    pub value: Option<T>,
    /// X-Consul-Index.
    pub index: u64,
    /// X-Consul-KnownLeader.
    pub known_leader: bool,
    /// X-Consul-LastContact: [`Duration::MAX`] if no leader was ever heard here.
    pub last_contact: Duration,
    /// X-Consul-Effective-Consistency: how it was answered, which is fresher than asked for if this server was too far behind.
    pub consistency: Consistency,
    /// The revision at which a backup was last restored, or 0 (R4).
    pub epoch: u64,
}

impl<T> Answer<T> {
    /// The same about something else.
    pub fn map<U>(self, of: impl FnOnce(T) -> Option<U>) -> Answer<U> {
        let Answer { value, index, known_leader, last_contact, consistency, epoch } = self;
        Answer { value: value.and_then(of), index, known_leader, last_contact, consistency, epoch }
    }
}

impl Agent {
    /// Reads, first waiting if asked to. `evaluate` looks at one state and may be called several times. Dropping the
    /// future frees its wait at once.
    ///
    /// One read-index round, at the start, makes a waiting read linearizable too: every state published here afterwards
    /// was the cluster's own at some moment since.
    ///
    /// # Errors
    /// [`crate::error::Error::Retry`] if a linearizable read finds no leader, or too many are waiting.
    pub async fn read<T>(
        &self,
        options: &ReadOptions,
        scope: Scope,
        evaluate: impl Fn(&State) -> Found<T>,
    ) -> Result<Answer<T>> {
        let (view, consistency) = self.view(options).await?;
        if options.index == 0 {
            return Ok(self.answer(evaluate(&view.state), consistency, &view.state));
        }
        let world = &self.inner.world;
        let wait = self.inner.watch.wait(scope.clone())?;
        let deadline = world.clock.now() + self.wait_time(options.wait);
        let mut threshold = options.index;
        let mut missed = false;
        // The state must be read after the wait was made, or a change between the two would be lost.
        let mut view = newer(view, self.inner.raft.view());
        loop {
            if !self.unchanged(&view, &scope, threshold) {
                let found = evaluate(&view.state);
                // Consul's rule: a query that finds nothing twice in a row goes on waiting from where it is, so that
                // waiting for a key that does not exist is not answered by every write to some other key.
                if missed && found.value.is_none() {
                    threshold = threshold.max(found.index);
                }
                missed = found.value.is_none();
                if found.index > threshold {
                    return Ok(self.answer(found, consistency, &view.state));
                }
            }
            let left = deadline.since(world.clock.now());
            if left.is_zero() || world.timeout(left, wait.changed()).await.is_none() {
                let view = self.inner.raft.view();
                return Ok(self.answer(evaluate(&view.state), consistency, &view.state));
            }
            view = self.inner.raft.view();
        }
    }

    /// A state that is as fresh as asked for, and how fresh that is.
    pub(super) async fn view(&self, options: &ReadOptions) -> Result<(Arc<View>, Consistency)> {
        let stale = options.consistency == Consistency::Stale || options.max_stale.is_some();
        if stale
            && options.max_stale.is_none_or(|max| self.inner.raft.last_contact().is_some_and(|contact| contact <= max))
        {
            return Ok((self.inner.raft.view(), Consistency::Stale));
        }
        let consistency = if stale { Consistency::Default } else { options.consistency };
        Ok((self.inner.raft.linearizable().await?, consistency))
    }

    /// Whether nothing in the scope is newer than `index`, as far as that can be told without reading the rows.
    fn unchanged(&self, view: &View, scope: &Scope, index: u64) -> bool {
        view.state.index_of(scope.subject()) <= index || self.inner.watch.changed_since(scope, index) == Some(false)
    }

    fn wait_time(&self, asked: Option<Duration>) -> Duration {
        let settings = &self.inner.settings;
        let wait = asked.filter(|wait| !wait.is_zero()).unwrap_or(settings.default_query_time);
        let wait = wait.min(settings.max_query_time);
        let spread = u64::try_from((wait / limits::WAIT_JITTER_FRACTION).as_millis()).unwrap_or(u64::MAX);
        wait + Duration::from_millis(self.inner.world.entropy.below(spread.saturating_add(1)))
    }

    pub(super) fn answer<T>(&self, found: Found<T>, consistency: Consistency, of: &State) -> Answer<T> {
        let contact = self.inner.raft.last_contact();
        Answer {
            value: found.value,
            index: found.index.max(1),
            known_leader: self.inner.raft.knows_leader(),
            last_contact: contact.unwrap_or(Duration::MAX),
            consistency,
            epoch: of.epoch(),
        }
    }
}

fn newer(a: Arc<View>, b: Arc<View>) -> Arc<View> {
    if a.applied_index() > b.applied_index() { a } else { b }
}
