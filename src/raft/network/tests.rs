//! The stream of entries, against a follower that answers when the test says so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::*;
use crate::error::{Error, Result};
use crate::raft::message::log_id;
use crate::raft::types::{Proposal, RaftEntry, Vote};
use crate::rpc::{Client, Identity, Peer, Service, serve};
use crate::world::{World, real};

type Request = AppendEntriesRequest<TypeConfig>;

const LEADER: Uuid = Uuid::from_u128(1);

/// Says what it hears, and answers what it is told to.
struct Follower {
    heard: mpsc::UnboundedSender<()>,
    answers: Mutex<mpsc::UnboundedReceiver<u64>>,
}

#[async_trait]
impl Service for Follower {
    async fn call(&self, _peer: Peer, _kind: u8, _body: Bytes) -> Result<Bytes> {
        Err(Error::Request("streams only".into()))
    }

    async fn stream(&self, _peer: Peer, _kind: u8, mut incoming: Receiver, outgoing: Sender) {
        let mut answers = self.answers.lock().await;
        loop {
            tokio::select! {
                body = incoming.receive() => match body {
                    Ok(Some(_)) => drop(self.heard.send(())),
                    Ok(None) | Err(_) => break,
                },
                Some(index) = answers.recv() => {
                    let through = Appended::of(&Ok(Some(log_id((1, index)))));
                    outgoing.send(message::seal(&through).unwrap()).await.unwrap();
                }
            }
        }
        let _ = outgoing.end().await;
    }
}

/// What the test does with a pipeline while that runs.
struct Ends {
    world: World,
    requests: Option<mpsc::Sender<Request>>,
    heard: mpsc::UnboundedReceiver<()>,
    tell: mpsc::UnboundedSender<u64>,
    answers: mpsc::Receiver<StreamAppendResult<TypeConfig>>,
}

impl Ends {
    /// Asks for the entries after `prev` up to `last`: none, if they are the same.
    async fn ask(&self, prev: u64, last: u64) {
        let entry = |index| {
            let payload = openraft::EntryPayload::Normal(Proposal(Bytes::from_static(b"sealed")));
            RaftEntry { log_id: log_id((1, index)), payload }
        };
        let request = Request {
            vote: Vote::new_committed(1, LEADER),
            prev_log_id: Some(log_id((1, prev))),
            leader_commit: None,
            entries: (prev + 1..=last).map(entry).collect(),
        };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn answered(&mut self) -> Option<u64> {
        self.answers.recv().await.map(|answer| answer.unwrap().unwrap().index)
    }
}

fn run(test: impl AsyncFnOnce(Ends)) {
    let piped = async |world: World| {
        let ((heard, hears), (tell, told)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let follower = Arc::new(Follower { heard, answers: Mutex::new(told) });
        let (node, any) = (Uuid::from_u128(2), SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        let server = serve(&world, any, &Identity::new(node), follower).await.unwrap();
        let client = Client::new(&world, &Identity::new(LEADER), server.addr, Some(node));
        let (sender, receiver) = client.stream(stream::APPEND).await.unwrap();
        let (requests, mut asked) = mpsc::channel(8);
        let (answer, answers) = mpsc::channel(1);
        let input = futures_util::stream::poll_fn(move |cx| asked.poll_recv(cx));
        let ends = Ends { world: world.clone(), requests: Some(requests), heard: hears, tell, answers };
        let pipe = async {
            pipeline(&world, sender, receiver, input, answer).await.unwrap();
            // The test says when it is over.
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = pipe => {}
            () = test(ends) => {}
        }
    };
    let guarded = async |world: World| {
        let guard = world.clone();
        guard.timeout(Duration::from_secs(60), piped(world)).await.expect("the test hangs");
    };
    real::block_on(guarded).unwrap();
}

/// openraft would take the first answer for one to the later request, which names no entry of its own, and so for a word about now.
#[test]
fn an_answer_does_not_speak_for_a_later_request_without_entries() {
    run(async |mut ends: Ends| {
        ends.ask(1, 2).await;
        ends.heard.recv().await;
        ends.ask(2, 2).await;
        ends.heard.recv().await;
        ends.tell.send(2).unwrap();
        ends.tell.send(2).unwrap();
        ends.requests = None;
        assert_eq!((ends.answered().await, ends.answered().await), (Some(2), None), "one answer speaks for both");
    });
}

#[test]
fn an_answer_speaks_for_its_own_request_where_the_next_asks_for_more() {
    run(async |mut ends: Ends| {
        ends.ask(1, 2).await;
        ends.ask(2, 4).await;
        ends.heard.recv().await;
        ends.heard.recv().await;
        ends.tell.send(2).unwrap();
        assert_eq!(ends.answered().await, Some(2));
        ends.tell.send(4).unwrap();
        assert_eq!(ends.answered().await, Some(4));
    });
}

#[test]
fn nothing_is_asked_while_an_answer_waits_to_be_taken() {
    run(async |mut ends: Ends| {
        ends.ask(1, 2).await;
        ends.heard.recv().await;
        ends.tell.send(2).unwrap();
        while ends.answers.is_empty() {
            ends.world.sleep(Duration::from_millis(1)).await;
        }
        ends.ask(2, 2).await;
        // Long enough for a request to be heard; if it is not, this test says nothing wrong.
        ends.world.sleep(Duration::from_millis(50)).await;
        assert!(ends.heard.is_empty(), "it was made before the answer was taken");
        assert_eq!(ends.answered().await, Some(2));
        // Nobody is woken for it: whoever takes answers drives the sending, here by looking again.
        while ends.heard.is_empty() {
            ends.world.sleep(Duration::from_millis(1)).await;
        }
    });
}
