//! openraft's state machine on the pure [`State`]: decode, apply, publish, answer.
//!
//! An entry that does not decode, or an apply error that is not in the entry itself, stops the node: going on would let
//! replicas differ (R6).

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::checkpointer::Checkpointer;
use super::types::{LogId, Proposal, SnapshotMeta, StoredMembership, TypeConfig};
use super::view::{Published, View};
use crate::codec;
use crate::state::{Entry, Reply, Response, State, Touched};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Arc<State>>;

/// The replicated state and where it is published and kept.
pub(super) struct StateMachine {
    /// The newest state. Only this task changes it; everyone else reads the published one.
    view: View,
    published: Arc<Published>,
    checkpointer: Arc<Checkpointer>,
}

impl StateMachine {
    /// Goes on from the view that is published.
    pub(super) fn new(published: Arc<Published>, checkpointer: Arc<Checkpointer>) -> Self {
        StateMachine { view: View::clone(&published.view()), published, checkpointer }
    }

    fn apply_entry(
        &mut self,
        payload: EntryPayload<Proposal, uuid::Uuid, super::Member>,
        log_id: LogId,
        touched: &mut Vec<Touched>,
    ) -> io::Result<Response> {
        self.view.applied = Some(log_id);
        match payload {
            EntryPayload::Normal(proposal) => {
                let entry: Entry = codec::open(&proposal.0).map_err(io::Error::other)?;
                Ok(self.view.state.apply(log_id.committed_leader_id().term, &entry, touched))
            }
            EntryPayload::Blank => Ok(self.unchanged()),
            EntryPayload::Membership(membership) => {
                self.view.membership = StoredMembership::new(Some(log_id), membership);
                Ok(self.unchanged())
            }
        }
    }

    fn unchanged(&self) -> Response {
        Response { revision: self.view.state.revision(), reply: Reply::Done(true) }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    // A snapshot is the state itself: a pointer copy here; the network turns it into rows and back. openraft moves it about in
    // its commands, of which the others are small: hence the Arc.
    type SnapshotData = Arc<State>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.view.applied, self.view.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut touched = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let response = self.apply_entry(entry.payload, entry.log_id, &mut touched)?;
            answers.extend(responder.map(|responder| (responder, response)));
        }
        // Publish once, then answer: a writer that has its answer finds its write in any later read.
        let older = self.published.view();
        let replaced = older.state.epoch() != self.view.state.epoch();
        self.published.publish(self.view.clone(), Some(&touched[..]).filter(|_| !replaced));
        if replaced {
            self.checkpointer.free(older).await;
        }
        for (responder, response) in answers {
            responder.send(response);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { view: self.view.clone(), checkpointer: self.checkpointer.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, state: Arc<State>) -> io::Result<()> {
        let state = Arc::unwrap_or_clone(state);
        let view = View { state, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        self.checkpointer.install(&view).await;
        let older = (self.published.view(), std::mem::replace(&mut self.view, view));
        self.published.publish(self.view.clone(), None);
        self.checkpointer.free(older).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        // Only what is synced: at its start openraft takes this for the snapshot behind which the log may be purged, and
        // the state may be ahead of it by all that was replayed.
        let stored = self.checkpointer.stored();
        Ok(stored.applied.map(|_| snapshot(&stored)))
    }
}

/// Takes one checkpoint.
pub(super) struct Builder {
    view: View,
    checkpointer: Arc<Checkpointer>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<State>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let stored = self.checkpointer.checkpoint(&self.view).await;
        Ok(snapshot(&stored))
    }
}

fn snapshot(view: &View) -> Snapshot {
    let meta = SnapshotMeta { last_log_id: view.applied, last_membership: view.membership.clone() };
    Snapshot { meta, snapshot: Arc::new(view.state.clone()) }
}
