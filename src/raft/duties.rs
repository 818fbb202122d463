//! What a leader does beside keeping the log: it answers questions of the layer above that only a leader can, and proposes
//! what may only be proposed in its own term.
//!
//! A question is bytes here, and must be one that may be asked twice: it is carried to the leader and asked again through
//! elections, like a read.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::impls::ProgressResponder;

use super::forward::Leader;
use super::links::Failed;
use super::message::{Question, call};
use super::{Raft, View, no_leader, stopped, unknown};
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{Command, LogTime, Response};

/// What answers the questions on a server that leads.
#[async_trait]
pub trait Duties: Send + Sync {
    /// Answers a question that came from any server of the cluster.
    ///
    /// # Errors
    /// The caller's; one that says that there is no leader here is asked again.
    async fn answer(&self, question: Bytes) -> Result<Bytes>;
}

impl Raft {
    /// Has `duties` answer from now on, for as long as somebody else keeps them: they will hold this handle themselves.
    pub fn serve(&self, duties: &Arc<dyn Duties>) {
        let _ = self.inner.duties.set(Arc::downgrade(duties));
    }

    /// The leader's answer to a question, wherever the leader is.
    ///
    /// # Errors
    /// [`Error::Retry`] if no leader answered in time; whatever it refuses the question with.
    pub async fn ask(&self, question: Bytes) -> Result<Bytes> {
        let start = self.inner.world.clock.now();
        loop {
            let asked = match self.whereabouts() {
                Some(Leader::Here) => self.answer(question.clone()).await.map_err(Failed::answered),
                Some(Leader::There(id, member)) => {
                    let asked = self.ask_leader((id, &member), call::ASK, &Question(question.clone())).await;
                    asked.map(|Question(answer)| answer)
                }
                None => Err(no_leader().into()),
            };
            let failed = match asked {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if failed.refused || self.inner.world.clock.now().since(start) >= limits::LEADER_WAIT {
                return Err(failed.harmless());
            }
            self.inner.world.sleep(limits::FORWARD_RETRY).await;
        }
    }

    /// Answers a question on the leader.
    pub(super) async fn answer(&self, question: Bytes) -> Result<Bytes> {
        let duties = self.inner.duties.get().and_then(Weak::upgrade).ok_or_else(no_leader)?;
        duties.answer(question).await
    }

    /// A view that holds every write acknowledged before this call, by a round in which this very server led: what G1 asks
    /// of a leader before it answers a renewal.
    ///
    /// # Errors
    /// [`Error::Retry`] if it did not lead, or no majority followed it.
    pub async fn confirmed(&self) -> Result<Arc<View>> {
        self.inner.reads.confirmed().await
    }

    /// The term that this server leads in, if it is ready to act on it: it has applied its first entry.
    pub fn leads_in(&self) -> Option<u64> {
        self.inner.leadership.borrow().map(|clock| clock.term)
    }

    /// Log time now, by this server's clock, if it leads in `term`.
    pub fn log_time(&self, term: u64) -> Option<LogTime> {
        let clock = self.inner.leadership.borrow().filter(|clock| clock.term == term)?;
        Some(clock.at(self.inner.world.clock.now()))
    }

    /// Pends while [`Raft::leads_in`] is `term`, and for ever once raft has stopped.
    pub async fn leads_no_more_in(&self, term: Option<u64>) {
        let mut leadership = self.inner.leadership.clone();
        let changed = leadership.wait_for(|clock| clock.map(|clock| clock.term) != term).await.is_ok();
        if !changed {
            // Whoever asked again at once would ask for ever, without letting anybody else go on.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the log takes writes: its disk is not full.
    pub fn is_writable(&self) -> bool {
        self.inner.writable().is_ok()
    }

    /// Has the cluster agree on a command only if this server still leads in `term`; waits for as long as that takes. It is
    /// never carried to another leader and never repeated (G1.3).
    ///
    /// # Errors
    /// [`Error::Retry`] if it was not proposed; [`Error::Unknown`] if another leader decides what becomes of it.
    pub async fn propose_in(&self, term: u64, command: Command) -> Result<Response> {
        let inner = &*self.inner;
        let clock = inner.leadership.borrow().filter(|clock| clock.term == term).ok_or_else(no_leader)?;
        let proposal = inner.seal(clock, None, command)?;
        let (responder, answer) = ProgressResponder::complete_only();
        let write = inner.raft.write(proposal).with_leader(term).responder(responder);
        write.await.map_err(|fatal| stopped(&inner.wal, &fatal))?;
        match answer.await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(unknown(&error.to_string())),
            Err(_) => Err(Error::Unknown("this server has stopped".into())),
        }
    }
}
