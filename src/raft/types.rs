//! openraft's type configuration, and what of it is stored.
//!
//! Stored forms are ours, not openraft's: a vote, a position and a membership on disk keep their meaning when openraft
//! changes its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::runtime::WorldRuntime;
use super::state_machine::StateMachine;
use crate::codec::{self, CodecError, Stored};
use crate::state::Response;
use crate::storage::wal;

openraft::declare_raft_types!(
    /// What openraft is built of here.
    pub TypeConfig:
        D = Proposal,
        R = Response,
        NodeId = Uuid,
        Node = Member,
        // One leader per term, as the paper has it: an expiry names the term that decided it (G1).
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, Uuid>,
        AsyncRuntime = WorldRuntime,
);

pub(super) type OpenRaft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type LogId = LogIdOf<TypeConfig>;
pub(super) type Vote = VoteOf<TypeConfig>;
pub(super) type RaftEntry = EntryOf<TypeConfig>;
pub(super) type Membership = openraft::Membership<Uuid, Member>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// A sealed [`crate::state::Entry`]: encoded once, when it is proposed; the log and every follower get the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Never the content: it may be a secret, and openraft prints proposals in its logs.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A server of the cluster, as the membership knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its node name.
    pub name: String,
    /// `ip:port` of its rpc port.
    pub address: String,
}

/// A membership as it is stored, in the log and beside the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MembershipRecord {
    configs: Vec<BTreeSet<Uuid>>,
    members: BTreeMap<Uuid, Member>,
}

impl Stored for MembershipRecord {
    const NAME: &'static str = "membership";
    const VERSION: u8 = 1;
}

impl MembershipRecord {
    fn of(membership: &Membership) -> Self {
        MembershipRecord {
            configs: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    fn restore(self) -> Result<Membership, CodecError> {
        Membership::new(self.configs, self.members).map_err(|e| CodecError::Decode(Self::NAME, e.to_string()))
    }
}

/// What a checkpoint says about itself, beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CheckpointMeta {
    applied: Option<(u64, u64)>,
    membership_at: Option<(u64, u64)>,
    membership: Option<MembershipRecord>,
}

impl Stored for CheckpointMeta {
    const NAME: &'static str = "checkpoint";
    const VERSION: u8 = 1;
}

fn pair(log_id: &LogId) -> (u64, u64) {
    (log_id.committed_leader_id().term, log_id.index)
}

fn unpair((term, index): (u64, u64)) -> LogId {
    LogId::new_term_index(term, index)
}

/// Seals what a checkpoint must know to be the state at `meta`.
pub(super) fn seal_meta(meta: &SnapshotMeta) -> Result<Vec<u8>, CodecError> {
    let membership = meta.last_membership.membership();
    codec::seal(&CheckpointMeta {
        applied: meta.last_log_id.as_ref().map(pair),
        membership_at: meta.last_membership.log_id().as_ref().map(pair),
        // openraft's "no membership yet" has no configuration and is not a valid membership.
        membership: (!membership.get_joint_config().is_empty()).then(|| MembershipRecord::of(membership)),
    })
}

/// Opens what [`seal_meta`] wrote.
pub(super) fn open_meta(bytes: &[u8]) -> Result<SnapshotMeta, CodecError> {
    let meta: CheckpointMeta = codec::open(bytes)?;
    let membership = meta.membership.map(MembershipRecord::restore).transpose()?.unwrap_or_default();
    Ok(SnapshotMeta {
        last_log_id: meta.applied.map(unpair),
        last_membership: StoredMembership::new(meta.membership_at.map(unpair), membership),
    })
}

/// The index up to which a checkpoint covers the log, as its meta says; 0 before the first entry. For whoever keeps
/// checkpoints and must not let an older one replace a newer.
///
/// # Errors
/// If these bytes are no checkpoint's meta.
pub fn checkpoint_index(meta: &[u8]) -> Result<u64, CodecError> {
    Ok(open_meta(meta)?.last_log_id.map_or(0, |log_id| log_id.index))
}

pub(super) fn to_position(log_id: &LogId) -> wal::Position {
    wal::Position { term: log_id.committed_leader_id().term, index: log_id.index }
}

pub(super) fn to_log_id(position: wal::Position) -> LogId {
    LogId::new_term_index(position.term, position.index)
}

pub(super) fn to_stored_vote(vote: &Vote) -> wal::Vote {
    wal::Vote { term: vote.leader_id.term, candidate: vote.leader_id.voted_for.as_u128(), committed: vote.committed }
}

pub(super) fn to_vote(vote: wal::Vote) -> Vote {
    let candidate = Uuid::from_u128(vote.candidate);
    if vote.committed { Vote::new_committed(vote.term, candidate) } else { Vote::new(vote.term, candidate) }
}

/// Encodes an entry for the log. A command is already encoded.
pub(super) fn to_log_entry(entry: RaftEntry) -> io::Result<wal::LogEntry> {
    let (kind, bytes) = match entry.payload {
        openraft::EntryPayload::Blank => (wal::EntryKind::Blank, Bytes::new()),
        openraft::EntryPayload::Normal(proposal) => (wal::EntryKind::Command, proposal.0),
        openraft::EntryPayload::Membership(membership) => {
            let sealed = codec::seal(&MembershipRecord::of(&membership)).map_err(io::Error::other)?;
            (wal::EntryKind::Membership, sealed.into())
        }
    };
    Ok(wal::LogEntry { at: to_position(&entry.log_id), kind, bytes })
}

/// The entry that the log keeps. A command stays encoded until it is applied.
pub(super) fn to_raft_entry(entry: wal::LogEntry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        wal::EntryKind::Blank => openraft::EntryPayload::Blank,
        wal::EntryKind::Command => openraft::EntryPayload::Normal(Proposal(entry.bytes)),
        wal::EntryKind::Membership => {
            let record: MembershipRecord = codec::open(&entry.bytes).map_err(io::Error::other)?;
            openraft::EntryPayload::Membership(record.restore().map_err(io::Error::other)?)
        }
    };
    Ok(RaftEntry { log_id: to_log_id(entry.at), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let id = Uuid::from_u128(7);
        let member = Member { name: "n1".into(), address: "127.0.0.1:8300".into() };
        Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, member)])).unwrap()
    }

    #[test]
    fn a_checkpoints_meta_comes_back_as_it_was() {
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(3, 9)),
            last_membership: StoredMembership::new(Some(LogId::new_term_index(1, 0)), membership()),
        };
        let sealed = seal_meta(&meta).unwrap();
        assert_eq!(checkpoint_index(&sealed), Ok(9));
        assert_eq!(open_meta(&sealed), Ok(meta));
        let empty = SnapshotMeta::default();
        assert_eq!(open_meta(&seal_meta(&empty).unwrap()), Ok(empty));
    }

    #[test]
    fn a_log_entry_comes_back_as_it_was() {
        let payloads = [
            openraft::EntryPayload::Blank,
            openraft::EntryPayload::Normal(Proposal(Bytes::from_static(b"x"))),
            openraft::EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = RaftEntry { log_id: LogId::new_term_index(2, 5), payload };
            assert_eq!(to_raft_entry(to_log_entry(entry.clone()).unwrap()).unwrap(), entry);
        }
    }

    #[test]
    fn a_vote_comes_back_as_it_was() {
        for vote in [Vote::new(3, Uuid::from_u128(9)), Vote::new_committed(4, Uuid::from_u128(1))] {
            assert_eq!(to_vote(to_stored_vote(&vote)), vote);
        }
    }
}
