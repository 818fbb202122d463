//! A whole state on its way to another server: a head, then rows in chunks, then one answer.
//!
//! The state that is sent is immutable, so writes go on meanwhile. The receiver builds its own state beside the one it has
//! and recomputes the digest (R6); only a state that is whole and right is given to openraft.

use std::sync::Arc;

use bytes::Bytes;
use openraft::alias::SnapshotOf;
use openraft::async_runtime::WatchReceiver;
use uuid::Uuid;

use super::message::{self, SnapshotHead, SnapshotRows, SnapshotTaken, Ticket};
use super::types::{OpenRaft, TypeConfig, Vote};
use crate::error::{Error, Result};
use crate::limits;
use crate::rpc::{Receiver, Sender};
use crate::state::{State, StoredRow};
use crate::world::World;

type Snapshot = SnapshotOf<TypeConfig, Arc<State>>;

fn late() -> Error {
    Error::Retry("the server does not take the snapshot".into())
}

/// Sends a snapshot; the vote of the server that has it, or has refused it.
pub(super) async fn send(
    world: &World,
    vote: Vote,
    snapshot: Snapshot,
    sender: Sender,
    mut receiver: Receiver,
) -> Result<Vote> {
    let head = SnapshotHead::of(&vote, &snapshot.meta).map_err(|e| Error::Bug(e.to_string()))?;
    let put = async |body: Bytes| {
        world.timeout(limits::SNAPSHOT_WAIT, sender.send(body)).await.ok_or_else(late)?.map_err(Error::from)
    };
    let sending = async {
        put(message::seal(&head)?).await?;
        let mut done = 0;
        loop {
            // The window bounds memory. Rows cannot be visited from the middle, so each window passes over those before it.
            let state = snapshot.snapshot.clone();
            let window = world.blocking(move || window(&state, done)).await;
            let window = window.map_err(|e| Error::Retry(e.to_string()))??;
            for chunk in window.chunks {
                put(chunk).await?;
            }
            match window.end {
                Some(end) => done = end,
                None => return Ok::<(), Error>(()),
            }
        }
    };
    let answering = async {
        let answer = receiver.receive().await?.ok_or_else(late)?;
        Ok(message::open::<SnapshotTaken>(&answer)?.vote.vote())
    };
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        biased;
        // It may know a newer leader before it has everything.
        answer = &mut answering => return answer,
        sent = sending => sent?,
    }
    world.timeout(limits::SNAPSHOT_WAIT, sender.end()).await.ok_or_else(late)??;
    world.timeout(limits::SNAPSHOT_INSTALL, answering).await.ok_or_else(late)?
}

/// Some of a state's rows, ready to be sent.
struct Window {
    chunks: Vec<Bytes>,
    /// How many rows were visited until the window was full; `None` if these were the last.
    end: Option<u64>,
}

/// The rows from number `skip` on, up to [`limits::SNAPSHOT_WINDOW`].
fn window(state: &State, skip: u64) -> Result<Window> {
    let mut filling = Filling::default();
    let mut number = 0;
    state.rows(&mut |row| {
        number += 1;
        if number > skip && filling.full.is_none() {
            filling.add(row, number);
        }
    });
    filling.flush();
    if let Some(error) = filling.failed {
        return Err(error);
    }
    Ok(Window { chunks: filling.chunks, end: filling.full.filter(|end| *end < number) })
}

#[derive(Default)]
struct Filling {
    chunks: Vec<Bytes>,
    rows: SnapshotRows,
    bytes: usize,
    total: usize,
    /// The row after which it was full.
    full: Option<u64>,
    failed: Option<Error>,
}

impl Filling {
    fn add(&mut self, row: StoredRow, number: u64) {
        let content = row.row.unwrap_or_default();
        let size = row.key.len() + content.len();
        if self.bytes + size > limits::SNAPSHOT_CHUNK {
            self.flush();
        }
        self.rows.rows.push((row.table, row.key.into(), content.into()));
        self.bytes += size;
        self.total += size;
        if self.total >= limits::SNAPSHOT_WINDOW {
            self.full = Some(number);
        }
    }

    fn flush(&mut self) {
        if self.rows.rows.is_empty() {
            return;
        }
        match message::seal(&self.rows) {
            Ok(chunk) => self.chunks.push(chunk),
            Err(error) => self.failed = Some(error),
        }
        self.rows.rows.clear();
        self.bytes = 0;
    }
}

/// Takes a snapshot from `peer` and has openraft install it; its answer has then been sent.
pub(super) async fn receive(
    world: &World,
    raft: &OpenRaft,
    peer: Uuid,
    mut incoming: Receiver,
    outgoing: Sender,
) -> Result<()> {
    let next = async |incoming: &mut Receiver| {
        let item = world.timeout(limits::SNAPSHOT_WAIT, incoming.receive()).await;
        item.ok_or_else(|| Error::Retry("the leader stopped sending its snapshot".into()))?.map_err(Error::from)
    };
    let head = next(&mut incoming).await?.ok_or_else(|| Error::Request("an empty snapshot".into()))?;
    let head: SnapshotHead = message::open(&head)?;
    let committed = raft.data_metrics().borrow_watched().local_committed;
    let (vote, meta) = head.check(peer, committed)?;
    tracing::info!(from = %peer, at = ?meta.last_log_id, "receiving a snapshot");
    let mut loader = State::loader();
    while let Some(chunk) = next(&mut incoming).await? {
        for (table, key, row) in message::open::<SnapshotRows>(&chunk)?.rows {
            loader.row(StoredRow { table, key: key.into(), row: Some(row.into()) })?;
        }
    }
    let state = world.blocking(move || loader.finish()).await.map_err(|e| Error::Retry(e.to_string()))??;
    let response = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: Arc::new(state) }).await;
    let response = response.map_err(|e| Error::Retry(e.to_string()))?;
    outgoing.send(message::seal(&SnapshotTaken { vote: Ticket::of(&response.vote) })?).await?;
    Ok(outgoing.end().await?)
}
