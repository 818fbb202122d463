//! Backup and restore for the edges, on any server (R4).
//!
//! A backup is one published state: taking it keeps nobody waiting. A restore goes through the log, part by part
//! ([`state::restore`](crate::state::restore)), so it can be asked for anywhere and survives the leader's end; until its last entry it has
//! changed nothing. What this module never does: read or write files.

use uuid::Uuid;

use super::query::{Answer, ReadOptions};
use super::{Agent, Found};
use crate::archive::{Archive, Origin};
use crate::error::{Error, Result};
use crate::limits;
use crate::state::restore::Stage;
use crate::state::{Command, Reply, State};

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
        let id = self.inner.world.entropy.uuid();
        let staged = self.stage(id, &archive).await;
        if let Err(why) = staged {
            // If this fails too, the log gives it up by itself.
            let _ = self.advance(id, Stage::Abandon).await;
            return Err(match why {
                Error::Unknown(why) => Error::Retry(format!("nothing was restored: {why}")),
                other => other,
            });
        }
        let revision = self.advance(id, Stage::Switch).await?;
        tracing::warn!(revision, from = %archive.meta.own.cluster, "a backup was restored: all content is what it was then");
        Ok(revision)
    }

    async fn stage(&self, id: Uuid, archive: &Archive) -> Result<()> {
        let foreign = self.inner.raft.cluster() != Some(archive.meta.own.cluster);
        self.advance(id, Stage::Begin { foreign }).await?;
        let parts = u32::try_from(archive.chunks.len()).map_err(|_| Error::TooLarge("too many parts".into()))?;
        for (number, rows) in (0..).zip(&archive.chunks) {
            self.advance(id, Stage::Part { number, rows: rows.clone() }).await?;
        }
        self.advance(id, Stage::Seal { parts }).await.map(drop)
    }

    /// One step, and the revision after it. What was certainly not applied is tried again while the log has patience.
    async fn advance(&self, id: Uuid, stage: Stage) -> Result<u64> {
        let world = &self.inner.world;
        let deadline = world.clock.now() + limits::RESTORE_PATIENCE;
        loop {
            match self.write(None, Command::Restore { id, stage: stage.clone() }).await {
                Ok(response) => match response.reply {
                    Reply::Done(true) => return Ok(response.revision),
                    Reply::Done(false) => {
                        return Err(Error::Retry(
                            "nothing was restored: another restore has begun, or this took too long".into(),
                        ));
                    }
                    Reply::Refused(why) => return Err(Error::Request(why)),
                    other => return Err(Error::Unknown(format!("it may or may not have been restored: {other:?}"))),
                },
                Err(Error::Retry(_) | Error::Busy(_)) if world.clock.now() < deadline => {
                    world.sleep(limits::RESTORE_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
