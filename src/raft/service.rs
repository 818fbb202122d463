//! What a server does for the others: it answers openraft's messages, and takes writes, reads and changes of the
//! membership as the leader.
//!
//! The port opens before agreement has started, so that a taken port is told early; until then callers are told to come
//! back. A question that needs the leader is answered only by a server that leads, never passed on again.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use uuid::Uuid;

use super::message::{self, Append, Appended, Ballot, Joined, Nothing, Question, ReadIndex, Servers, Target, Transfer};
use super::message::{Transferred, Voted, Write, call, stream};
use super::types::TypeConfig;
use super::{Raft, snapshot};
use crate::error::{Error, Result};
use crate::rpc::{self, Peer, Receiver, Sender};

/// The serving side of a server's [`Raft`].
#[derive(Clone, Default)]
pub struct Service {
    raft: Arc<OnceLock<Raft>>,
}

impl Service {
    /// Begins to serve.
    pub fn open(&self, raft: Raft) {
        let _ = self.raft.set(raft);
    }

    fn raft(&self) -> Result<&Raft> {
        self.raft.get().ok_or_else(|| Error::Retry("this server is starting; ask again".into()))
    }

    /// The same, for the messages of members: only those of this server's cluster may speak as such. A server that has no
    /// cluster yet takes that of the first member that speaks to it, which had to know its id.
    async fn among_members(&self, peer: &Peer) -> Result<&Raft> {
        let raft = self.raft()?;
        let cluster = peer.cluster.ok_or_else(|| Error::Request("only members of a cluster may say this".into()))?;
        raft.inner.links.cluster.adopt(cluster).await?;
        Ok(raft)
    }
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::Retry(format!("this server takes no part now: {error}"))
}

#[async_trait]
impl rpc::Service for Service {
    async fn call(&self, peer: Peer, kind: u8, body: Bytes) -> Result<Bytes> {
        match kind {
            call::APPEND | call::VOTE | call::PRE_VOTE | call::TRANSFER => {
                self.among_members(&peer).await?.agree(peer.node, kind, &body).await
            }
            call::WRITE => {
                let Write { request, command } = message::open(&body)?;
                message::seal(&self.raft()?.lead()?.propose_here(request, &command).await?)
            }
            call::READ => message::seal(&ReadIndex(self.raft()?.lead()?.inner.reads.index().await?)),
            call::GREET => message::seal(&self.raft()?.greeted(message::open(&body)?)?),
            call::JOIN => {
                let raft = self.raft()?;
                raft.join(message::open(&body)?).await?;
                let cluster = raft.inner.links.cluster.id();
                message::seal(&Joined { cluster: cluster.ok_or_else(|| stopped("it has no cluster"))? })
            }
            call::REMOVE => {
                let Target(id) = message::open(&body)?;
                let id = id.ok_or_else(|| Error::Request("remove which server?".into()))?;
                self.raft()?.lead()?.remove_here(id).await?;
                message::seal(&Nothing)
            }
            call::HAND_OVER => {
                let Target(to) = message::open(&body)?;
                self.raft()?.lead()?.hand_over_here(to).await?;
                message::seal(&Nothing)
            }
            call::SERVERS => message::seal(&Servers(self.raft()?.lead()?.servers_agreed())),
            call::ASK => {
                let Question(question) = message::open(&body)?;
                message::seal(&Question(self.raft()?.lead()?.answer(question).await?))
            }
            kind => Err(Error::Request(format!("this server knows no call of kind {kind}: upgrade it"))),
        }
    }

    async fn stream(&self, peer: Peer, kind: u8, incoming: Receiver, outgoing: Sender) {
        let served = async {
            let raft = self.among_members(&peer).await?;
            match kind {
                stream::APPEND => raft.follow(peer.node, incoming, outgoing).await,
                stream::SNAPSHOT => {
                    let inner = &raft.inner;
                    snapshot::receive(&inner.world, &inner.raft, peer.node, incoming, outgoing).await
                }
                kind => Err(Error::Request(format!("no stream of kind {kind}"))),
            }
        };
        if let Err(error) = served.await {
            tracing::debug!(peer = %peer.node, kind, %error, "a stream from a server ended");
        }
    }
}

impl Raft {
    /// Answers one of openraft's messages.
    async fn agree(&self, peer: Uuid, kind: u8, body: &[u8]) -> Result<Bytes> {
        let raft = &self.inner.raft;
        match kind {
            call::APPEND => {
                let request = message::open::<Append>(body)?.check(peer)?;
                let mut answers = std::pin::pin!(raft.stream_append(futures_util::stream::iter([request])));
                let answer = answers.next().await.ok_or_else(|| stopped("it ended"))?.map_err(stopped)?;
                let answer = Appended::of(&answer);
                self.heard(&answer);
                message::seal(&answer)
            }
            call::VOTE => {
                let request = message::open::<Ballot>(body)?.check(peer)?;
                message::seal(&Voted::of(&raft.vote(request).await.map_err(stopped)?))
            }
            call::PRE_VOTE => {
                let request = message::open::<Ballot>(body)?.check(peer)?;
                message::seal(&Voted::of(&raft.pre_vote(request).await.map_err(stopped)?))
            }
            _ => {
                let request = message::open::<Transfer>(body)?.check(peer)?;
                message::seal(&Transferred::of(&raft.handle_transfer_leader(request).await.map_err(stopped)?))
            }
        }
    }

    /// Takes a leader's entries until it ends, and answers each message in order.
    async fn follow(&self, peer: Uuid, incoming: Receiver, outgoing: Sender) -> Result<()> {
        let answers = self.inner.raft.stream_append(requests(peer, incoming));
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            let answer = Appended::of(&answer.map_err(stopped)?);
            self.heard(&answer);
            outgoing.send(message::seal(&answer)?).await?;
        }
        Ok(outgoing.end().await?)
    }

    fn heard(&self, answer: &Appended) {
        if !matches!(answer, Appended::HigherVote(_)) {
            self.inner.links.hear();
        }
    }
}

/// The requests that a leader sends, until it ends or sends one that it should not.
fn requests(peer: Uuid, incoming: Receiver) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    futures_util::stream::unfold(incoming, move |mut incoming| async move {
        // A lost stream shows at the other end, which begins a new one.
        let body = incoming.receive().await.ok().flatten()?;
        match message::open::<Append>(&body).and_then(|append| append.check(peer)) {
            Ok(request) => Some((request, incoming)),
            Err(error) => {
                tracing::error!(%peer, %error, "refused a leader's entries");
                None
            }
        }
    })
    .boxed()
}
