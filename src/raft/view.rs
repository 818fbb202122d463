//! The published state: what readers see.
//!
//! The state machine publishes a new immutable view once per batch of entries, then lets their writers know. A reader
//! takes the newest view without a lock and keeps it as long as it likes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::types::{LogId, StoredMembership};
use crate::state::{State, Touched};

/// The state after some entry, never changed again.
#[derive(Clone, Default)]
pub struct View {
    /// The replicated state.
    pub state: State,
    /// The entry it stands after.
    pub(super) applied: Option<LogId>,
    /// The membership in force.
    pub(super) membership: StoredMembership,
}

impl View {
    /// A view of an empty state at a revision, for tests of what watches it.
    #[cfg(test)]
    pub(crate) fn at(revision: u64) -> View {
        View { state: State::at(revision), ..View::default() }
    }

    /// Raft index of the last applied entry; `None` in an empty log. Raft's numbers, not the revision that clients see.
    pub fn applied_index(&self) -> Option<u64> {
        self.applied.as_ref().map(|log_id| log_id.index)
    }

    /// The term of that entry.
    pub fn applied_term(&self) -> Option<u64> {
        self.applied.as_ref().map(|log_id| log_id.committed_leader_id().term)
    }
}

/// Told of every new view, in order, on the state machine's task. It must not block.
pub trait Observer: Send + Sync {
    /// `touched` are the rows that changed since the view before, in the order of their changes; `None` if everything may
    /// have changed (a snapshot was installed, or a backup restored).
    fn published(&self, view: &Arc<View>, touched: Option<&[Touched]>);
}

/// Where views are published.
pub(super) struct Published {
    view: ArcSwap<View>,
    /// One past the applied raft index, so that "nothing yet" is 0.
    applied: watch::Sender<u64>,
    observer: Arc<dyn Observer>,
}

impl Published {
    pub(super) fn new(view: View, observer: Arc<dyn Observer>) -> Self {
        let (applied, _) = watch::channel(next(&view));
        Published { view: ArcSwap::from_pointee(view), applied, observer }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Makes a view the newest one and wakes who waits for it.
    pub(super) fn publish(&self, view: View, touched: Option<&[Touched]>) {
        let view = Arc::new(view);
        self.view.store(view.clone());
        self.applied.send_replace(next(&view));
        self.observer.published(&view, touched);
    }

    /// The first view that has applied `index`.
    pub(super) async fn applied(&self, index: u64) -> Arc<View> {
        // The sender lives as long as we do, so waiting cannot fail.
        let _ = self.applied.subscribe().wait_for(|next| *next > index).await;
        self.view()
    }
}

fn next(view: &View) -> u64 {
    view.applied_index().map_or(0, |index| index + 1)
}
