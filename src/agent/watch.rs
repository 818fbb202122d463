//! The watch index: who waits for what, and what changed lately.
//!
//! A wait is for one key of a [`Subject`] or for everything under a prefix. Publishing a new state wakes exactly the waits that a changed
//! row concerns. A wait registers first and looks at the state afterwards, so no change can fall between the two.
//!
//! The newest changes are remembered too: a query that is repeated over unchanged data ("anything since index N?") is
//! settled by one comparison with the store's index, or a glance at what changed since N, without reading the rows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::limits;
use crate::raft::{Observer, View};
use crate::state::{Key, Subject, Touched};
use crate::sync::{Mutex, MutexGuard, Notify, PoisonError};

/// What a read looks at: a wait is woken by changes of it only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One key.
    Key(Subject, Key),
    /// Every key with the prefix.
    Prefix(Subject, Key),
}

/// The waits and recent changes of one node.
#[derive(Default)]
pub(super) struct WatchIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    subjects: BTreeMap<Subject, Waiting>,
    waiting: usize,
    next_id: u64,
    recent: Recent,
    /// The revision up to which changes have been told.
    told: u64,
}

/// The waits for one subject.
#[derive(Default)]
struct Waiting {
    keys: BTreeMap<Key, Waits>,
    prefixes: BTreeMap<Key, Waits>,
    /// How long each registered prefix is: the only lengths of a changed key that need to be looked up.
    lengths: BTreeMap<usize, usize>,
}

/// The waits for one key or prefix, by id.
type Waits = BTreeMap<u64, Arc<Waiter>>;

/// What a wait hears. Its numbers are read and written under the index's lock.
struct Waiter {
    changed: Notify,
    /// What was told when it was made, or last [asked](Wait::quiet_after).
    since: AtomicU64,
    /// The first change that it has heard of since; 0 is none.
    first: AtomicU64,
}

impl Waiter {
    fn hear(&self, revision: u64) {
        if self.first.load(Relaxed) == 0 {
            self.first.store(revision, Relaxed);
        }
        self.changed.notify_one();
    }
}

/// The newest changes, oldest first.
#[derive(Default)]
struct Recent {
    changes: VecDeque<Touched>,
    /// Every change after this revision is in `changes`.
    since: u64,
}

impl WatchIndex {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change of `scope`, from now on; dropping the wait frees it at once.
    ///
    /// # Errors
    /// [`Error::Busy`] if [`limits::MAX_WAITS`] are waiting here.
    pub(super) fn wait(self: &Arc<Self>, scope: Scope) -> Result<Wait> {
        let mut inner = self.lock();
        if inner.waiting >= limits::MAX_WAITS {
            return Err(Error::Busy(format!(
                "this node already holds {} blocking queries: ask another, or later",
                limits::MAX_WAITS
            )));
        }
        inner.waiting += 1;
        inner.next_id += 1;
        let id = inner.next_id;
        let since = inner.told.into();
        let waiter = Arc::new(Waiter { changed: Notify::new(), since, first: AtomicU64::new(0) });
        let waiting = inner.subjects.entry(scope.subject()).or_default();
        match &scope {
            Scope::Key(_, key) => waiting.keys.entry(key.clone()).or_default().insert(id, waiter.clone()),
            Scope::Prefix(_, prefix) => {
                *waiting.lengths.entry(prefix.as_bytes().len()).or_default() += 1;
                waiting.prefixes.entry(prefix.clone()).or_default().insert(id, waiter.clone())
            }
        };
        Ok(Wait { index: self.clone(), scope, id, waiter })
    }

    /// Whether anything in `scope` changed after `revision`; `None` if that is longer ago than is remembered.
    pub(super) fn changed_since(&self, scope: &Scope, revision: u64) -> Option<bool> {
        let inner = self.lock();
        let recent = &inner.recent;
        if revision < recent.since {
            return None;
        }
        let start = recent.changes.partition_point(|change| change.revision <= revision);
        Some(recent.changes.range(start..).any(|change| scope.holds(change)))
    }

    /// How many are waiting.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn leave(&self, scope: &Scope, id: u64) {
        let mut inner = self.lock();
        inner.waiting -= 1;
        let Some(waiting) = inner.subjects.get_mut(&scope.subject()) else { return };
        match scope {
            Scope::Key(_, key) => remove(&mut waiting.keys, key, id),
            Scope::Prefix(_, prefix) => {
                remove(&mut waiting.prefixes, prefix, id);
                let length = prefix.as_bytes().len();
                let count = waiting.lengths.get_mut(&length).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if count == 0 {
                    waiting.lengths.remove(&length);
                }
            }
        }
    }
}

fn remove(waits: &mut BTreeMap<Key, Waits>, key: &Key, id: u64) {
    if let Some(here) = waits.get_mut(key) {
        here.remove(&id);
        if here.is_empty() {
            waits.remove(key);
        }
    }
}

impl Scope {
    /// What it looks at.
    pub fn subject(&self) -> Subject {
        match self {
            Scope::Key(subject, _) | Scope::Prefix(subject, _) => *subject,
        }
    }

    fn holds(&self, change: &Touched) -> bool {
        let here = match self {
            Scope::Key(_, own) => *own == change.key,
            Scope::Prefix(_, prefix) => change.key.as_bytes().starts_with(prefix.as_bytes()),
        };
        here && change.subject == self.subject()
    }
}

impl Waiting {
    fn wake(&self, key: &Key, revision: u64) {
        if let Some(waits) = self.keys.get(key) {
            waits.values().for_each(|waiter| waiter.hear(revision));
        }
        let bytes = key.as_bytes();
        for (length, _) in self.lengths.range((Bound::Unbounded, Bound::Included(bytes.len()))) {
            if let Some(waits) = self.prefixes.get(&bytes[..*length]) {
                waits.values().for_each(|waiter| waiter.hear(revision));
            }
        }
    }
}

impl Inner {
    fn wake(&self, change: &Touched) {
        if let Some(waiting) = self.subjects.get(&change.subject) {
            waiting.wake(&change.key, change.revision);
        }
    }

    /// Anything may have changed since what was told.
    fn wake_all(&self) {
        self.subjects
            .values()
            .flat_map(|waiting| waiting.keys.values().chain(waiting.prefixes.values()))
            .flat_map(BTreeMap::values)
            .for_each(|waiter| waiter.hear(self.told + 1));
    }

    fn remember(&mut self, touched: &[Touched]) {
        let recent = &mut self.recent;
        recent.changes.extend(touched.iter().cloned());
        while recent.changes.len() > limits::WATCH_RECENT {
            if let Some(oldest) = recent.changes.pop_front() {
                recent.since = oldest.revision;
            }
        }
    }
}

impl Observer for WatchIndex {
    fn published(&self, view: &Arc<View>, touched: Option<&[Touched]>) {
        let mut inner = self.lock();
        match touched {
            Some([]) => {}
            Some(touched) => {
                inner.remember(touched);
                touched.iter().for_each(|change| inner.wake(change));
            }
            None => {
                inner.recent = Recent { changes: VecDeque::new(), since: view.state.revision() };
                inner.wake_all();
            }
        }
        inner.told = view.state.revision();
    }
}

impl WatchIndex {
    /// An index for a node that starts with the state at `revision`: what changed before is not remembered.
    pub(super) fn starting_at(&self, revision: u64) {
        let mut inner = self.lock();
        (inner.recent.since, inner.told) = (revision, revision);
    }
}

/// A registered wait.
pub(super) struct Wait {
    index: Arc<WatchIndex>,
    scope: Scope,
    id: u64,
    waiter: Arc<Waiter>,
}

impl Wait {
    /// Until something in the scope has changed since the wait was made or last woke up.
    pub(super) async fn changed(&self) {
        self.waiter.changed.notified().await;
    }

    /// For who has looked at all changes of the scope up to a revision: how far it can be taken that there was no other. A
    /// reader of a quiet scope keeps up with a busy store by this, without looking.
    pub(super) fn quiet_after(&self, seen: u64) -> u64 {
        let inner = self.index.lock();
        let (since, first) = (self.waiter.since.load(Relaxed), self.waiter.first.load(Relaxed));
        self.waiter.since.store(inner.told, Relaxed);
        self.waiter.first.store(0, Relaxed);
        match first {
            // What came before the wait was listening it cannot know.
            _ if seen < since => seen,
            0 => seen.max(inner.told),
            first => seen.max(first - 1),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.index.leave(&self.scope, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn key(key: &str) -> Scope {
        Scope::Key(Subject::Kv, key.into())
    }

    fn prefix(prefix: &str) -> Scope {
        Scope::Prefix(Subject::Kv, prefix.into())
    }

    fn touch(index: &WatchIndex, revision: u64, key: &str) {
        index.published(&Arc::default(), Some(&[Touched { revision, subject: Subject::Kv, key: key.into() }]));
    }

    fn woken(wait: &Wait) -> bool {
        wait.changed().now_or_never().is_some()
    }

    #[test]
    fn a_key_wakes_its_own_waits_and_every_prefix_it_is_under() {
        let index = Arc::new(WatchIndex::default());
        let own = index.wait(key("a/b")).unwrap();
        let longer = index.wait(key("a/bc")).unwrap();
        let prefixes = ["", "a", "a/", "a/b"].map(|under| index.wait(prefix(under)).unwrap());
        let beside = ["b", "a/b/", "a/bc"].map(|under| index.wait(prefix(under)).unwrap());
        touch(&index, 1, "a/b");
        assert!(woken(&own) && prefixes.iter().all(woken));
        assert!(!woken(&longer) && !beside.iter().any(woken));
        assert!(!woken(&own), "a change wakes once");
    }

    #[test]
    fn a_change_concerns_its_own_subject_only() {
        let index = Arc::new(WatchIndex::default());
        let other = index.wait(Scope::Key(Subject::Session, "a".into())).unwrap();
        touch(&index, 1, "a");
        assert!(!woken(&other));
        assert_eq!(index.changed_since(&Scope::Prefix(Subject::Session, "".into()), 0), Some(false));
        assert_eq!(index.changed_since(&prefix(""), 0), Some(true));
    }

    #[test]
    fn a_change_before_the_first_poll_is_not_lost() {
        let index = Arc::new(WatchIndex::default());
        let wait = index.wait(key("k")).unwrap();
        touch(&index, 1, "k");
        touch(&index, 2, "k");
        assert!(woken(&wait));
    }

    #[test]
    fn an_installed_snapshot_wakes_everyone() {
        let index = Arc::new(WatchIndex::default());
        let waits = [key("k"), prefix("p")].map(|scope| index.wait(scope).unwrap());
        index.published(&Arc::default(), None);
        assert!(waits.iter().all(woken));
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let index = Arc::new(WatchIndex::default());
        let waits = [key("k"), prefix("p"), prefix("p")].map(|scope| index.wait(scope).unwrap());
        assert_eq!(index.waiting(), 3);
        drop(waits);
        let inner = index.lock();
        let waiting = &inner.subjects[&Subject::Kv];
        assert!(waiting.keys.is_empty() && waiting.prefixes.is_empty() && waiting.lengths.is_empty());
        assert_eq!(inner.waiting, 0);
    }

    #[test]
    fn a_reader_of_a_quiet_scope_keeps_up_with_the_store() {
        let index = Arc::new(WatchIndex::default());
        let at = |revision| Arc::new(View::at(revision));
        let publish = |revision: u64, key: &str| {
            let touched = [Touched { revision, subject: Subject::Kv, key: key.into() }];
            index.published(&at(revision), Some(&touched));
        };
        index.starting_at(10);
        let wait = index.wait(prefix("a/")).unwrap();
        assert_eq!(wait.quiet_after(8), 8, "what came before the wait is not known");
        publish(11, "b");
        publish(12, "b");
        assert_eq!(wait.quiet_after(10), 12);
        publish(13, "b");
        publish(14, "a/x");
        publish(15, "b");
        assert_eq!(wait.quiet_after(12), 13, "up to the change");
        assert_eq!(wait.quiet_after(13), 13, "which is not looked at yet");
        assert_eq!(wait.quiet_after(14), 14, "nor what came after it");
        publish(16, "b");
        assert_eq!(wait.quiet_after(15), 16);
        index.published(&at(20), None);
        assert_eq!(wait.quiet_after(16), 16, "a snapshot may hold anything");
        assert_eq!(wait.quiet_after(20), 20);
    }

    #[test]
    fn recent_changes_answer_for_as_long_as_they_are_remembered() {
        let index = Arc::new(WatchIndex::default());
        index.starting_at(10);
        let scope = prefix("a/");
        assert_eq!(index.changed_since(&scope, 9), None, "before the node started");
        touch(&index, 11, "b");
        assert_eq!(index.changed_since(&scope, 10), Some(false));
        touch(&index, 12, "a/x");
        assert_eq!(index.changed_since(&scope, 10), Some(true));
        assert_eq!(index.changed_since(&scope, 12), Some(false));
        for revision in 0..limits::WATCH_RECENT as u64 {
            touch(&index, 13 + revision, "b");
        }
        assert_eq!(index.changed_since(&scope, 11), None, "forgotten by now");
        assert_eq!(index.changed_since(&scope, 12), Some(false));
    }
}
