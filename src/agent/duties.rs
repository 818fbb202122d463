//! What servers ask their leader about sessions and servers: the questions, and the leader's side of them.
//!
//! Each may be asked twice and again through elections; whatever changes the state goes through the log instead.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Agent, Inner};
use crate::codec::{self, Stored};
use crate::error::{Error, Result};
use crate::raft::Duties;

/// What is asked. New questions are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Which servers have answered you of late? [`Alive`].
    Alive,
    /// Does this session live on? [`Renewed`](super::lessor::Renewed).
    Renew(Uuid),
}

impl Stored for Question {
    const NAME: &'static str = "question";
    const VERSION: u8 = 1;
}

/// The servers that a majority's leader hears, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alive(pub BTreeSet<Uuid>);

impl Stored for Alive {
    const NAME: &'static str = "live servers";
    const VERSION: u8 = 1;
}

#[async_trait]
impl Duties for Inner {
    async fn answer(&self, question: Bytes) -> Result<Bytes> {
        let unknown = |error| Error::Request(format!("this server does not know the question: {error}"));
        match codec::open(&question).map_err(unknown)? {
            Question::Alive => seal(&Alive(self.raft.alive())),
            Question::Renew(session) => seal(&self.lessor.renew(&self.raft, session).await?),
        }
    }
}

impl Agent {
    /// The leader's answer.
    pub(super) async fn ask<A: Stored + DeserializeOwned>(&self, question: &Question) -> Result<A> {
        let answer = self.inner.raft.ask(seal(question)?).await?;
        codec::open(&answer).map_err(|error| Error::Retry(format!("the leader speaks another version: {error}")))
    }
}

fn seal<T: Stored>(message: &T) -> Result<Bytes> {
    codec::seal(message).map(Bytes::from).map_err(|e| Error::TooLarge(e.to_string()))
}
