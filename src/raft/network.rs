//! openraft's network on our rpc: votes and heartbeats are calls, entries go down one stream in order and are answered in
//! order, a snapshot is a stream of its own.
//!
//! A request without entries is a call, because it is one of a kind: a heartbeat, a probe. The first one with entries opens
//! the stream, which then carries everything until openraft ends it. Nothing here waits for ever: a follower that does not
//! answer what was sent to it within [`limits::APPEND_WAIT`] ends the stream, and openraft begins another.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::mpsc;
use uuid::Uuid;

#[cfg(test)]
mod tests;

use super::links::Links;
use super::message::{self, Append, Appended, Ballot, Transfer, Transferred, Voted, call, stream};
use super::snapshot;
use super::types::{LogId, Member, TypeConfig};
use crate::codec::Stored;
use crate::limits;
use crate::rpc::{Receiver, RpcError, Sender};
use crate::state::State;
use crate::world::World;

/// Makes the connections to other servers.
pub(super) struct Network {
    pub(super) links: Arc<Links>,
}

/// The connection to one other server.
pub(super) struct Connection {
    links: Arc<Links>,
    target: Uuid,
    member: Member,
}

type Fault = RPCError<TypeConfig>;
type Answers<'a> = futures_util::stream::BoxStream<'a, Result<StreamAppendResult<TypeConfig>, Fault>>;

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: Uuid, member: &Member) -> Connection {
        Connection { links: self.links.clone(), target, member: member.clone() }
    }
}

/// openraft waits a little after this one before it tries again; it needs to know no more.
fn unreachable(why: impl ToString) -> Unreachable<TypeConfig> {
    Unreachable::from_string(why)
}

fn fault(why: impl ToString) -> Fault {
    RPCError::Unreachable(unreachable(why))
}

impl Connection {
    async fn ask<Q: Stored, A: Stored>(&self, kind: u8, question: &Q, deadline: Duration) -> Result<A, Fault> {
        let answer = self.links.ask((self.target, &self.member), kind, question, deadline).await;
        answer.map_err(|failed| fault(failed.error))
    }

    /// One request as a call.
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, Fault> {
        let (prev, last) = range(&request);
        let request = Append::of(request).map_err(fault)?;
        let answer: Appended = self.ask(call::APPEND, &request, deadline).await?;
        answer.check(prev, last).map_err(fault)
    }

    async fn open_stream(&self, kind: u8) -> Result<(Sender, Receiver), Fault> {
        let client = self.links.client(self.target, &self.member).map_err(fault)?;
        client.stream(kind).await.map_err(fault)
    }
}

/// What a request's answer may lie between.
fn range(request: &AppendEntriesRequest<TypeConfig>) -> (Option<LogId>, Option<LogId>) {
    (request.prev_log_id, request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id))
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = Arc<State>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Fault> {
        Ok(self.append(rpc, option.soft_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        // The heartbeat's deadline: its worker keeps it, and entries may take longer.
        _option: RPCOption,
    ) -> futures_util::future::BoxFuture<'s, Result<Answers<'s>, Fault>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        async move {
            let (send, answers) = mpsc::channel(1);
            let appending = async move {
                let first = loop {
                    match input.next().await {
                        None => return Ok(()),
                        Some(request) if request.entries.is_empty() => {
                            let answer = self.append(request, limits::APPEND_WAIT).await?;
                            let over = answer.is_err();
                            if send.send(answer).await.is_err() || over {
                                return Ok(());
                            }
                        }
                        Some(request) => break request,
                    }
                };
                let (sender, receiver) = self.open_stream(stream::APPEND).await?;
                let input = futures_util::stream::once(std::future::ready(first)).chain(input);
                pipeline(&self.links.world, sender, receiver, input, send).await
            };
            Ok(driven(appending.boxed(), answers))
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Fault> {
        let voted: Voted = self.ask(call::VOTE, &Ballot::of(&rpc), option.soft_ttl()).await?;
        Ok(voted.response())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Fault> {
        let voted: Voted = self.ask(call::PRE_VOTE, &Ballot::of(&rpc), option.soft_ttl()).await?;
        Ok(voted.response())
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Arc<State>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // openraft's deadline is for one chunk; a whole state takes as long as it takes while it moves.
        let sending = async {
            let (sender, receiver) = self.open_stream(stream::SNAPSHOT).await.map_err(StreamingError::from)?;
            let world = &self.links.world;
            let state = snapshot.snapshot.clone();
            let sent = snapshot::send(world, vote, snapshot, sender, receiver).await;
            // By now it may be the last to hold all that was changed since; freeing that takes too long here.
            let _ = world.blocking(move || drop(state)).await;
            sent.map(SnapshotResponse::new).map_err(|error| StreamingError::Unreachable(unreachable(error)))
        };
        tokio::select! {
            biased;
            sent = sending => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Fault> {
        let heard: Transferred = self.ask(call::TRANSFER, &Transfer::of(&req), option.soft_ttl()).await?;
        Ok(heard.result())
    }
}

/// The answers, while whoever asks for them also drives the sending. So nothing of it outlives the stream: openraft waits
/// for the request stream's lock before it begins the next one.
fn driven<'a>(
    appending: Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>,
    answers: mpsc::Receiver<StreamAppendResult<TypeConfig>>,
) -> Answers<'a> {
    futures_util::stream::unfold((Some(appending), answers), |(mut appending, mut answers)| async move {
        let ended = match &mut appending {
            Some(running) => tokio::select! {
                biased;
                answer = answers.recv() => return answer.map(|answer| (Ok(answer), (appending, answers))),
                ended = running => ended,
            },
            None => Ok(()),
        };
        match (ended, answers.recv().await) {
            // What was answered before it ended comes first; an error is found again when it is asked again.
            (_, Some(answer)) => Some((Ok(answer), (None, answers))),
            (Err(fault), None) => Some((Err(fault), (None, answers))),
            (Ok(()), None) => None,
        }
    })
    .boxed()
}

/// Sends requests down a stream and takes their answers, in order, until either side ends.
///
/// openraft takes an answer for that of every request up to the entry it names, and so for a word of its server at the time
/// when the last of these was made: a read or a lease is granted on it. A request without entries, which only tells what is
/// committed, names no entry of its own: an answer that was long on its way to us would speak for one that was just made.
/// (The simulator found that: a leader of a former term, whose connections had been held up, believed that it led.) So no request
/// is made while an answer waits to be taken, and an answer is left out if the next request asks for nothing more:
/// the answer to that says the same, of both.
async fn pipeline(
    world: &World,
    sender: Sender,
    mut receiver: Receiver,
    mut input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
    answers: mpsc::Sender<StreamAppendResult<TypeConfig>>,
) -> Result<(), Fault> {
    let (sent, mut unanswered) = mpsc::channel(limits::APPENDS_IN_FLIGHT);
    let untaken = answers.clone();
    let sending = async move {
        // Nobody needs to be woken for this: whoever takes the answer drives the sending.
        while let Some(request) =
            poll_fn(|cx| if untaken.capacity() == 0 { Poll::Pending } else { input.poll_next_unpin(cx) }).await
        {
            let between = range(&request);
            let body = message::seal(&Append::of(request).map_err(fault)?).map_err(fault)?;
            if sent.send(between).await.is_err() {
                return Ok(());
            }
            let gone = |error: RpcError| fault(error);
            let queued = world.timeout(limits::APPEND_WAIT, sender.send(body)).await;
            queued.ok_or_else(|| fault("the server takes no more entries"))?.map_err(gone)?;
        }
        sender.end().await.map_err(fault)
    };
    let receiving = async move {
        let mut following = None;
        loop {
            let asked = match following.take() {
                Some(asked) => Some(asked),
                None => unanswered.recv().await,
            };
            let Some((prev, last)) = asked else { return Ok(()) };
            let answer = world.timeout(limits::APPEND_WAIT, receiver.receive()).await;
            let answer = answer.ok_or_else(|| fault("the server does not answer"))?.map_err(fault)?;
            let answer = answer.ok_or_else(|| fault("the server ended the stream"))?;
            let answer = message::open::<Appended>(&answer).and_then(|answer| answer.check(prev, last));
            let answer = answer.map_err(fault)?;
            following = unanswered.try_recv().ok();
            if let (Ok(matching), Some((_, next))) = (&answer, &following)
                && next <= matching
            {
                continue;
            }
            let over = answer.is_err();
            if answers.send(answer).await.is_err() || over {
                return Ok(());
            }
        }
    };
    let mut sending = std::pin::pin!(sending.fuse());
    let mut receiving = std::pin::pin!(receiving);
    tokio::select! {
        biased;
        received = &mut receiving => received,
        sent = &mut sending => match sent {
            // Everything is sent; the rest of the answers is on its way.
            Ok(()) => receiving.await,
            Err(fault) => Err(fault),
        },
    }
}
