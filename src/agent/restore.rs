//! Backup and restore for the edges, on any server (R4).
//!
//! A backup is one published state: taking it keeps nobody waiting. A restore goes through the log, part by part
//! ([`state::restore`](crate::state::restore)), so it can be asked for anywhere and survives the leader's end; until its last entry it has
//! changed nothing. What this module never does: read or write files.

use bytes::Bytes;
use uuid::Uuid;

use super::query::{Answer, ReadOptions};
use super::{Agent, Found};
use crate::archive::{Archive, Origin};
use crate::error::{Error, Result};
use crate::limits;
use crate::state::restore::Stage;
use crate::state::{Command, Reply, Response, State};

/// A state to keep, and where it is from.
pub struct Backup {
    /// What a restore takes of it.
    pub state: State,
    /// Where it is from.
    pub origin: Origin,
}

impl Agent {
    /// The state as of now, as fresh as asked for.
    ///
    /// # Errors
    /// As [`Agent::read`].
    pub async fn backup(&self, options: &ReadOptions) -> Result<Answer<Backup>> {
        let (view, consistency) = self.view(options).await?;
        let raft = &self.inner.raft;
        let cluster = raft.cluster().ok_or_else(|| Error::Retry("this server belongs to no cluster yet".into()))?;
        let origin = Origin {
            cluster,
            index: view.applied_index().unwrap_or_default(),
            term: view.applied_term().unwrap_or_default(),
            servers: raft.voters().into_iter().map(|(id, member)| (id, member.address)).collect(),
        };
        let backup = Backup { state: view.state.backup(), origin };
        let index = view.state.revision();
        Ok(self.answer(Found { value: Some(backup), index }, consistency, &view.state))
    }

    /// Replaces the cluster's content by a backup's; the revision at which that happened. It goes on to its end when the caller is
    /// dropped.
    ///
    /// # Errors
    /// As [`Agent::write`]: [`Error::Unknown`] only for the last entry of all, before which nothing has changed.
    pub async fn restore(&self, archive: Archive) -> Result<u64> {
        let agent = self.clone();
        let restoring = self.inner.world.spawn(async move { agent.bring_in(archive).await });
        restoring.await.unwrap_or_else(|_| Err(Error::Unknown("this server has stopped".into())))
    }

    async fn bring_in(self, archive: Archive) -> Result<u64> {
        let Archive { meta, chunks, state } = archive;
        let world = &self.inner.world;
        // Room for the copy that the log makes. Freeing it takes too long for a thread that others wait for.
        let _ = world.blocking(move || drop(state)).await;
        let (id, cluster) = (world.entropy.uuid(), meta.own.cluster);
        let foreign = self.inner.raft.cluster() != Some(cluster);
        self.step(id, Stage::Begin { foreign }).await.map_err(unchanged)?;
        if let Err(why) = self.stage(id, chunks).await {
            // If this fails too, the log gives it up by itself.
            let _ = self.step(id, Stage::Abandon).await;
            return Err(unchanged(why));
        }
        let revision = self.advance(id, Stage::Switch).await?;
        tracing::warn!(revision, from = %cluster, "a backup was restored: all content is what it was then");
        Ok(revision)
    }

    async fn stage(&self, id: Uuid, chunks: Vec<Bytes>) -> Result<()> {
        let parts = u32::try_from(chunks.len()).map_err(|_| Error::TooLarge("too many parts".into()))?;
        for (number, rows) in (0..).zip(chunks) {
            self.advance(id, Stage::Part { number, rows }).await?;
        }
        self.advance(id, Stage::Seal { parts }).await.map(drop)
    }

    /// A step, tried again while it was certainly not applied and the log has patience.
    async fn advance(&self, id: Uuid, stage: Stage) -> Result<u64> {
        let world = &self.inner.world;
        let deadline = world.clock.now() + limits::RESTORE_PATIENCE;
        loop {
            match self.write(None, Command::Restore { id, stage: stage.clone() }).await {
                Err(Error::Retry(_) | Error::Busy(_)) if world.clock.now() < deadline => {
                    world.sleep(limits::RESTORE_RETRY).await;
                }
                answered => return settled(answered?),
            }
        }
    }

    /// A step, tried once.
    async fn step(&self, id: Uuid, stage: Stage) -> Result<u64> {
        settled(self.write(None, Command::Restore { id, stage }).await?)
    }
}

/// The revision after a step that was done.
fn settled(response: Response) -> Result<u64> {
    match response.reply {
        Reply::Done(true) => Ok(response.revision),
        Reply::Done(false) => {
            Err(Error::Busy("nothing was restored: another restore has begun, or this one took too long".into()))
        }
        Reply::Refused(why) => Err(Error::Request(why)),
        other => Err(Error::Unknown(format!("it may or may not have been restored: {other:?}"))),
    }
}

/// Before the last step it does not matter what became of one.
fn unchanged(why: Error) -> Error {
    match why {
        Error::Unknown(why) => Error::Retry(format!("nothing was restored: {why}")),
        other => other,
    }
}
