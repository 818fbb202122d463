//! Who is in the cluster: joining, becoming a voter, leaving, and handing over the lead.
//!
//! A server joins as a learner, which has no say, and becomes a voter once it has caught up; so a new server never slows a
//! majority down. The leader promotes; whoever leads then goes on with it. A server that comes back at another address is
//! the same member with a new address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::select_ok;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::forward::Leader;
use super::message::{Join, Joined, Nothing, Servers, Target, call};
use super::types::{Member, Membership, TypeConfig};
use super::{Raft, no_leader};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits;

/// One server, as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: Uuid,
    /// Its name and the address of its rpc port.
    pub member: Member,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes. One that does not is catching up.
    pub voter: bool,
    /// Raft index of the last entry that it is known to have; 0 if none.
    pub last_index: u64,
}

impl Raft {
    /// The servers of the cluster that its leader has had agreed upon; with `stale` as far as this server knows.
    ///
    /// # Errors
    /// [`Error::Retry`] if no leader answers.
    pub async fn servers(&self, stale: bool) -> Result<Vec<Server>> {
        if stale || self.lead().is_ok() {
            return Ok(self.servers_agreed());
        }
        // All are asked, and the one that leads answers: a server that was removed is not told who leads now.
        let others = self.servers_here().into_iter().filter(|server| server.id != self.inner.meeting.id);
        let ask = |Server { id, member, .. }: Server| {
            Box::pin(async move {
                let asked = self.inner.links.ask((id, &member), call::SERVERS, &Nothing, limits::GREETING_WAIT);
                asked.await.map(|Servers(servers)| servers)
            })
        };
        let asked: Vec<_> = others.map(ask).collect();
        if asked.is_empty() {
            return Err(no_leader());
        }
        select_ok(asked).await.map(|(servers, _)| servers).map_err(|_| no_leader())
    }

    /// Removes a server from the cluster, whether it lives or not.
    ///
    /// # Errors
    /// [`Error::Request`] if there is no such server or it is the last voter; [`Error::Retry`], [`Error::Unknown`].
    pub async fn remove(&self, id: Uuid) -> Result<()> {
        if self.lead().is_ok() {
            self.remove_here(id).await
        } else {
            self.tell_leader(call::REMOVE, &Target(Some(id))).await
        }
    }

    /// Gives up this server's own place in the cluster, and keeps that it has. Tries again through elections, its own
    /// included: who hands over the lead knows no leader for a moment.
    ///
    /// # Errors
    /// As [`Raft::remove`], and [`Error::Retry`] after [`limits::LEAVE_TRIES`]; [`Error::Operator`] if that cannot be kept.
    pub async fn leave(&self) -> Result<()> {
        // The last server is the cluster, and one that has none yet gives up nothing.
        if self.servers_here().len() < 2 {
            return Ok(());
        }
        // Boxed: what a stop rarely does is not to make every future above it large.
        let leaving = Box::pin(async {
            *self.inner.meeting.leaving.lock().await = true;
            while let Err(error) = self.try_to_leave().await {
                if !matches!(error, Error::Retry(_) | Error::Unknown(_)) {
                    return Err(error);
                }
                tracing::info!(%error, "cannot leave the cluster yet, trying again");
                self.inner.world.sleep(limits::PROMOTE_POLL).await;
            }
            self.inner.links.cluster.leave().await
        });
        match self.inner.world.timeout(limits::LEAVE_TRIES, leaving).await {
            Some(left) => left,
            None => Err(Error::Retry("no leader agreed to it in time".into())),
        }
    }

    async fn try_to_leave(&self) -> Result<()> {
        self.step_down().await;
        let own = self.inner.meeting.id;
        // It may have been removed by a try whose outcome it did not hear.
        match self.servers(false).await?.iter().any(|server| server.id == own) {
            true => self.remove(own).await,
            false => Ok(()),
        }
    }

    /// Has another server lead: the one given, or the one that has most of the log. Returns once there is a new leader.
    ///
    /// # Errors
    /// [`Error::Request`] if it is no voter, or there is none other; [`Error::Retry`] if it did not take over.
    pub async fn hand_over(&self, to: Option<Uuid>) -> Result<()> {
        if self.lead().is_ok() {
            return self.hand_over_here(to).await;
        }
        let before = self.whereabouts();
        let told = self.tell_leader(call::HAND_OVER, &Target(to)).await;
        // The old leader's answer may come after the new leader's first word, which is as good.
        let taken = match self.whereabouts() {
            Some(Leader::Here) => to.is_none_or(|to| to == self.inner.meeting.id),
            Some(Leader::There(id, _)) => to.is_none_or(|to| to == id),
            None => false,
        };
        if taken && before != self.whereabouts() { Ok(()) } else { told }
    }

    /// Hands over the lead if this server has it and there is someone to take it. The others elect one if that fails.
    pub async fn step_down(&self) {
        let others = self.servers_here().iter().filter(|server| server.voter).count() > 1;
        if others
            && self.lead().is_ok()
            && let Err(error) = self.hand_over_here(None).await
        {
            tracing::warn!(%error, "could not hand over the lead");
        }
    }

    /// Makes a server a member at an address; it becomes a voter when it has caught up.
    pub(super) async fn join(&self, join: Join) -> Result<()> {
        match self.whereabouts() {
            Some(Leader::Here) => self.join_here(join).await,
            Some(Leader::There(leader, at)) => {
                let answer = self.ask_leader::<_, Joined>((leader, &at), call::JOIN, &join).await;
                // Joining twice is joining once.
                answer.map(drop).map_err(|failed| Error::Retry(failed.error.to_string()))
            }
            None => Err(no_leader()),
        }
    }

    async fn tell_leader<Q: Stored>(&self, kind: u8, question: &Q) -> Result<()> {
        match self.whereabouts() {
            Some(Leader::There(id, member)) => {
                let answer = self.ask_leader::<_, Nothing>((id, &member), kind, question).await;
                answer.map(drop).map_err(|failed| failed.error)
            }
            _ => Err(no_leader()),
        }
    }

    /// What this server knows of the servers, also by a change that may yet not be made; on the leader, how far each is.
    pub(super) fn servers_here(&self) -> Vec<Server> {
        let membership = self.inner.raft.server_metrics().borrow_watched().membership_config.membership().clone();
        self.servers_in(&membership)
    }

    /// The same of a membership that is agreed upon.
    pub(super) fn servers_agreed(&self) -> Vec<Server> {
        self.servers_in(self.view().membership.membership())
    }

    fn servers_in(&self, membership: &Membership) -> Vec<Server> {
        let raft = &self.inner.raft;
        let (server, data) =
            (raft.server_metrics().borrow_watched().clone(), raft.data_metrics().borrow_watched().clone());
        let voters: BTreeSet<Uuid> = membership.voter_ids().collect();
        let matched = |id: &Uuid| match &data.replication {
            _ if *id == server.id => data.last_log,
            Some(replication) => replication.get(id).copied().flatten(),
            None => None,
        };
        let servers = membership.nodes().map(|(id, member)| Server {
            id: *id,
            member: member.clone(),
            leader: server.current_leader == Some(*id),
            voter: voters.contains(id),
            last_index: matched(id).map_or(0, |log_id| log_id.index),
        });
        servers.collect()
    }

    /// The servers that this leader has heard of late, itself included; none if it does not lead.
    pub fn alive(&self) -> BTreeSet<Uuid> {
        let inner = &*self.inner;
        let Some(heard) = inner.raft.data_metrics().borrow_watched().heartbeat.clone() else { return BTreeSet::new() };
        let now = inner.world.clock.now();
        let of_late = |at: crate::world::Instant| now.since(at) <= patience(inner.multiplier);
        let alive = heard
            .into_iter()
            .filter(|(id, at)| *id == inner.meeting.id || at.as_ref().is_some_and(|at| of_late(at.into_inner().0)));
        alive.map(|(id, _)| id).collect()
    }

    /// Whether this server is at this address in a membership that is agreed upon. One that is only in the log may never
    /// be: a server that believed it would fall silent, and the next leader would look for it where it was before.
    pub(super) fn is_member(&self, id: Uuid, member: &Member) -> bool {
        self.view().membership.membership().get_node(&id) == Some(member)
    }

    pub(super) async fn join_here(&self, Join { id, member, moves }: Join) -> Result<()> {
        super::links::address(&member)?;
        let servers = self.servers_here();
        match servers.iter().find(|server| server.id == id) {
            Some(server) if server.member == member => return Ok(()),
            Some(_) => {
                tracing::info!(server = %id, name = %member.name, address = %member.address, "a server has a new address");
                return self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])), true).await;
            }
            None if moves => {
                return Err(Error::Request(format!(
                    "server {} ({id}) was removed from the cluster; to have it back as a new server, stop it and remove \
                     its data directory",
                    member.name
                )));
            }
            None if servers.len() >= limits::MAX_SERVERS => {
                return Err(Error::Request(format!("a cluster has at most {} servers", limits::MAX_SERVERS)));
            }
            None => {}
        }
        if let Some(other) = servers.iter().find(|server| server.member.address == member.address) {
            tracing::warn!(server = %id, other = %other.id, address = %member.address,
                "a new server has the address of another: remove the other if it is gone for good");
        }
        tracing::info!(server = %id, name = %member.name, address = %member.address, "a server joins");
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, member)])), true).await
    }

    pub(super) async fn remove_here(&self, id: Uuid) -> Result<()> {
        let servers = self.servers_here();
        let server = servers.iter().find(|server| server.id == id);
        let server = server.ok_or_else(|| Error::Request(format!("no server has the id {id}")))?;
        if server.voter && servers.iter().filter(|server| server.voter).count() == 1 {
            return Err(Error::Request("the last voting server cannot be removed".into()));
        }
        tracing::info!(server = %id, name = %server.member.name, "a server is removed");
        let ids = BTreeSet::from([id]);
        let change = if server.voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        self.change(change, false).await
    }

    pub(super) async fn hand_over_here(&self, to: Option<Uuid>) -> Result<()> {
        let own = self.inner.links.cluster.identity().node;
        let others = self.servers_here().into_iter().filter(|server| server.voter && server.id != own);
        let to = match to {
            Some(to) if to == own => return Ok(()),
            Some(to) => others.map(|server| server.id).find(|id| *id == to),
            None => others.max_by_key(|server| server.last_index).map(|server| server.id),
        };
        let to = to.ok_or_else(|| Error::Request("there is no such other voting server to lead".into()))?;
        tracing::info!(%to, "handing over the lead");
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|e| Error::Retry(e.to_string()))?;
        let mut metrics = self.inner.raft.server_metrics();
        let moved = async {
            while self.whereabouts().is_none_or(|leader| leader == Leader::Here) {
                let _ = metrics.borrow_and_update();
                if self.whereabouts().is_none_or(|leader| leader == Leader::Here) && metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        let moved = self.inner.world.timeout(limits::HAND_OVER_WAIT, moved).await;
        moved.ok_or_else(|| Error::Retry(format!("server {to} did not take over the lead")))
    }

    /// Changes the membership when those before have been made.
    async fn change(&self, change: ChangeMembers<Uuid, Member>, retain: bool) -> Result<()> {
        let changing = async {
            let _turn = self.inner.membership.lock().await;
            loop {
                // A leader that has just been voted out goes on for a moment, but openraft takes no change from it.
                if !self.voters().iter().any(|(id, _)| *id == self.inner.meeting.id) {
                    return Err(no_leader());
                }
                let changed = self.inner.raft.change_membership(change.clone(), retain).await;
                match changed {
                    // One that the leader before has left, or that was given up, and that may yet be made.
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_),
                    ))) => self.inner.world.sleep(limits::PROMOTE_POLL).await,
                    changed => return changed.map(drop).map_err(refusal),
                }
            }
        };
        match self.inner.world.timeout(limits::MEMBERSHIP_WAIT, changing).await {
            Some(changed) => changed,
            None => Err(Error::Unknown("the change may or may not be made: no majority answered in time".into())),
        }
    }

    /// Makes the second step of a change of voters whose leader was lost after the first: until then both the old and the
    /// new voters must agree to everything, those included that were to be removed.
    async fn finish_change(&self) -> Result<()> {
        let half = {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if !half || self.inner.membership.try_lock().is_err() {
            return Ok(());
        }
        tracing::info!("finishing a change of the voters that another leader began");
        // Only removals leave a voter out, and what was to be removed is not to stay as a learner.
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
    }

    /// The learners that have caught up.
    fn ready(&self) -> BTreeSet<Uuid> {
        let servers = self.servers_here();
        let last = servers.iter().find(|server| server.leader).map_or(u64::MAX, |leader| leader.last_index);
        let caught_up = |server: &&Server| {
            !server.voter && server.last_index + limits::PROMOTE_LAG >= last && server.last_index > 0
        };
        servers.iter().filter(caught_up).map(|server| server.id).collect()
    }
}

fn refusal(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => no_leader(),
        RaftError::APIError(error) => Error::Retry(format!("the membership cannot be changed now: {error}")),
        RaftError::Fatal(error) => Error::Unknown(format!("the change may or may not be made: {error}")),
    }
}

/// Makes voters of learners, and finishes what other leaders began, while this server leads. Runs until the node stops.
pub(super) async fn promote(raft: Raft) {
    loop {
        raft.inner.world.sleep(limits::PROMOTE_POLL).await;
        if !raft.is_leader() {
            continue;
        }
        if let Err(error) = raft.finish_change().await {
            tracing::warn!(%error, "cannot finish a change of the voters; trying again");
        }
        let ready = raft.ready();
        if ready.is_empty() {
            continue;
        }
        tracing::info!(servers = ?ready, "servers have caught up and become voters");
        if let Err(error) = raft.change(ChangeMembers::AddVoterIds(ready), true).await {
            tracing::warn!(%error, "cannot make a voter of a server; trying again");
        }
    }
}

/// Keeps the addresses of [`super::links::Links`] as the newest membership has them. Runs until the node stops.
pub(super) async fn addresses(raft: Raft) {
    let mut metrics = raft.inner.raft.server_metrics();
    loop {
        raft.inner.links.learn(metrics.borrow_and_update().membership_config.membership());
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// How long a follower believes in a leader that it does not hear.
pub(super) fn patience(multiplier: u32) -> Duration {
    limits::ELECTION * 2 * multiplier
}
