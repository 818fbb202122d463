//! What servers say to each other, as it travels: sealed forms of our own, so that a rolling upgrade keeps its meaning
//! when openraft's types change.
//!
//! A peer may send anything. Each `check` here refuses what a correct server never sends, before openraft, which trusts
//! its peers and asserts, sees it. Commands travel as the bytes they were proposed as: nobody encodes one again.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::types::{
    LogId, Member, SnapshotMeta, TypeConfig, Vote, open_meta, seal_meta, to_log_entry, to_log_id, to_position,
    to_raft_entry,
};
use crate::codec::{self, CodecError, Stored};
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{Command, RequestId};
use crate::storage::wal::{EntryKind, LogEntry, Position};

/// Kinds of calls. Numbers are never used again for something else.
pub(super) mod call {
    pub const APPEND: u8 = 1;
    pub const VOTE: u8 = 2;
    pub const PRE_VOTE: u8 = 3;
    pub const TRANSFER: u8 = 4;
    pub const WRITE: u8 = 5;
    pub const READ: u8 = 6;
    pub const GREET: u8 = 7;
    pub const JOIN: u8 = 8;
    pub const REMOVE: u8 = 9;
    pub const HAND_OVER: u8 = 10;
    pub const SERVERS: u8 = 11;
    pub const ASK: u8 = 12;
}

/// Kinds of streams.
pub(super) mod stream {
    pub const APPEND: u8 = 1;
    pub const SNAPSHOT: u8 = 2;
}

/// Gives a message its place in the format.
macro_rules! stored {
    ($($type:ty: $name:literal),+ $(,)?) => {
        $(impl Stored for $type {
            const NAME: &'static str = $name;
            const VERSION: u8 = 1;
        })+
    };
}

stored! {
    Append: "append message",
    Appended: "append answer",
    Ballot: "vote message",
    Voted: "vote answer",
    Transfer: "transfer message",
    Transferred: "transfer answer",
    SnapshotHead: "snapshot head",
    SnapshotRows: "snapshot rows",
    SnapshotTaken: "snapshot answer",
    Write: "forwarded write",
    ReadIndex: "read index",
    Greeting: "greeting",
    Join: "join message",
    Joined: "join answer",
    Target: "server choice",
    Servers: "list of servers",
    Question: "question to a leader",
    Nothing: "empty message",
}

/// Term and index.
type At = (u64, u64);

fn at(log_id: &LogId) -> At {
    let position = to_position(log_id);
    (position.term, position.index)
}

pub(super) fn log_id((term, index): At) -> LogId {
    to_log_id(Position { term, index })
}

fn refused(why: impl std::fmt::Display) -> Error {
    Error::Request(format!("a server sent what no server should send: {why}"))
}

/// Opens a message.
///
/// # Errors
/// [`Error::Request`] if it is none.
pub(super) fn open<T: Stored>(bytes: &[u8]) -> Result<T> {
    codec::open(bytes).map_err(refused)
}

/// Seals a message.
///
/// # Errors
/// [`Error::TooLarge`].
pub(super) fn seal<T: Stored>(message: &T) -> Result<Bytes> {
    codec::seal(message).map(Bytes::from).map_err(|e| Error::TooLarge(e.to_string()))
}

/// A vote, also a leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    term: u64,
    candidate: Uuid,
    committed: bool,
}

impl Ticket {
    pub fn of(vote: &Vote) -> Self {
        Ticket { term: vote.leader_id.term, candidate: vote.leader_id.voted_for, committed: vote.committed }
    }

    pub fn vote(self) -> Vote {
        match self.committed {
            true => Vote::new_committed(self.term, self.candidate),
            false => Vote::new(self.term, self.candidate),
        }
    }

    /// That this is the vote of a leader, who is `peer`, and that nothing in its log is from a later term.
    fn leads(&self, peer: Uuid, log: &[Option<At>]) -> Result<()> {
        if !self.committed || self.candidate != peer {
            return Err(refused("it appends or installs without being a leader"));
        }
        match log.iter().flatten().find(|(term, _)| *term > self.term) {
            Some((term, _)) => Err(refused(format!("term {term} in the log of a leader of term {}", self.term))),
            None => Ok(()),
        }
    }
}

/// A leader's entries, those after `prev` in order; a heartbeat has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Append {
    vote: Ticket,
    prev: Option<At>,
    commit: Option<At>,
    entries: Vec<Sent>,
}

/// One entry; its index follows from its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    term: u64,
    /// 0 blank, 1 command, 2 membership.
    kind: u8,
    bytes: Bytes,
}

impl Append {
    pub fn of(request: AppendEntriesRequest<TypeConfig>) -> std::io::Result<Self> {
        let sent = |entry| {
            let entry = to_log_entry(entry)?;
            let kind = match entry.kind {
                EntryKind::Blank => 0,
                EntryKind::Command => 1,
                EntryKind::Membership => 2,
            };
            Ok(Sent { term: entry.at.term, kind, bytes: entry.bytes })
        };
        Ok(Append {
            vote: Ticket::of(&request.vote),
            prev: request.prev_log_id.as_ref().map(at),
            commit: request.leader_commit.as_ref().map(at),
            entries: request.entries.into_iter().map(sent).collect::<std::io::Result<_>>()?,
        })
    }

    /// The request, if `peer` may have sent it.
    pub fn check(self, peer: Uuid) -> Result<AppendEntriesRequest<TypeConfig>> {
        let last_term = self.entries.last().map(|entry| (entry.term, 0));
        self.vote.leads(peer, &[self.prev, self.commit, last_term])?;
        if self.entries.len() > limits::APPEND_ENTRIES {
            return Err(refused(format!("{} entries at once", self.entries.len())));
        }
        let first = self.prev.map_or(Some(0), |(_, index)| index.checked_add(1));
        let first = first.filter(|first| first.checked_add(self.entries.len() as u64).is_some());
        let first = first.ok_or_else(|| refused("an index without a successor"))?;
        let mut term = self.prev.map_or(0, |(term, _)| term);
        let mut entries = Vec::with_capacity(self.entries.len());
        for (index, entry) in (first..).zip(self.entries) {
            let kind = match entry.kind {
                0 if entry.bytes.is_empty() => EntryKind::Blank,
                1 if !entry.bytes.is_empty() => EntryKind::Command,
                2 => EntryKind::Membership,
                kind => return Err(refused(format!("an entry of kind {kind} with {} bytes", entry.bytes.len()))),
            };
            if entry.term < term {
                return Err(refused(format!("term {} after term {term}", entry.term)));
            }
            term = entry.term;
            let entry = LogEntry { at: Position { term, index }, kind, bytes: entry.bytes };
            entries.push(to_raft_entry(entry).map_err(refused)?);
        }
        Ok(AppendEntriesRequest {
            vote: self.vote.vote(),
            prev_log_id: self.prev.map(log_id),
            leader_commit: self.commit.map(log_id),
            entries,
        })
    }
}

/// What came of an [`Append`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Appended {
    /// Logs agree up to here.
    Through(Option<At>),
    /// The follower has not this entry.
    Conflict(At),
    /// There is a newer leader or candidate.
    HigherVote(Ticket),
}

impl Appended {
    pub fn of(result: &StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(last) => Appended::Through(last.as_ref().map(at)),
            Err(StreamAppendError::Conflict(log_id)) => Appended::Conflict(at(log_id)),
            Err(StreamAppendError::HigherVote(vote)) => Appended::HigherVote(Ticket::of(vote)),
        }
    }

    /// The answer, if it can be one to entries after `prev` and up to `last`: a leader commits by it.
    pub fn check(self, prev: Option<LogId>, last: Option<LogId>) -> Result<StreamAppendResult<TypeConfig>> {
        match self {
            Appended::Through(end) if prev <= end.map(log_id) && end.map(log_id) <= last => Ok(Ok(end.map(log_id))),
            Appended::Conflict(conflict) if prev == Some(log_id(conflict)) => {
                Ok(Err(StreamAppendError::Conflict(log_id(conflict))))
            }
            Appended::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote.vote()))),
            other => Err(refused(format!("{other:?} to entries after {prev:?}"))),
        }
    }
}

/// A candidate asks for a vote, or whether it would get one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ballot {
    vote: Ticket,
    last: Option<At>,
    transfer: bool,
}

impl Ballot {
    pub fn of(request: &VoteRequest<TypeConfig>) -> Self {
        Ballot {
            vote: Ticket::of(&request.vote),
            last: request.last_log_id.as_ref().map(at),
            transfer: request.leadership_transfer,
        }
    }

    /// The request, if `peer` may have sent it.
    pub fn check(self, peer: Uuid) -> Result<VoteRequest<TypeConfig>> {
        if self.vote.committed
            || self.vote.candidate != peer
            || self.last.is_some_and(|(term, _)| term > self.vote.term)
        {
            return Err(refused("a vote for someone else, or with a log from the future"));
        }
        let mut request = VoteRequest::new(self.vote.vote(), self.last.map(log_id));
        request.leadership_transfer = self.transfer;
        Ok(request)
    }
}

/// The answer to a [`Ballot`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Voted {
    vote: Ticket,
    granted: bool,
    last: Option<At>,
}

impl Voted {
    pub fn of(response: &VoteResponse<TypeConfig>) -> Self {
        let last = response.last_log_id.as_ref().map(at);
        Voted { vote: Ticket::of(&response.vote), granted: response.vote_granted, last }
    }

    pub fn response(self) -> VoteResponse<TypeConfig> {
        VoteResponse::new(self.vote.vote(), self.last.map(log_id), self.granted)
    }
}

/// A leader tells everyone who shall lead next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    from: Ticket,
    to: Uuid,
    last: Option<At>,
}

impl Transfer {
    pub fn of(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        let from = Ticket::of(request.from_leader());
        Transfer { from, to: *request.to_node_id(), last: request.last_log_id().map(at) }
    }

    /// The request, if `peer` may have sent it.
    pub fn check(self, peer: Uuid) -> Result<TransferLeaderRequest<TypeConfig>> {
        self.from.leads(peer, &[self.last])?;
        Ok(TransferLeaderRequest::new(self.from.vote(), self.to, self.last.map(log_id)))
    }
}

/// The answer to a [`Transfer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transferred {
    Heard,
    VoteChanged(Ticket, Ticket),
    LogBehind(Option<At>, Option<At>),
}

impl Transferred {
    pub fn of(result: &Result<(), TransferLeaderError<TypeConfig>>) -> Self {
        match result {
            Ok(()) => Transferred::Heard,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Transferred::VoteChanged(Ticket::of(expected), Ticket::of(actual))
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Transferred::LogBehind(expected.as_ref().map(at), actual.as_ref().map(at))
            }
        }
    }

    pub fn result(self) -> Result<(), TransferLeaderError<TypeConfig>> {
        match self {
            Transferred::Heard => Ok(()),
            Transferred::VoteChanged(expected, actual) => {
                Err(TransferLeaderError::VoteChanged { expected: expected.vote(), actual: actual.vote() })
            }
            Transferred::LogBehind(expected, actual) => {
                Err(TransferLeaderError::LogNotFlushed { expected: expected.map(log_id), actual: actual.map(log_id) })
            }
        }
    }
}

/// The first item of a snapshot; its rows follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    vote: Ticket,
    /// As beside a checkpoint.
    meta: Bytes,
}

impl SnapshotHead {
    pub fn of(vote: &Vote, meta: &SnapshotMeta) -> Result<Self, CodecError> {
        Ok(SnapshotHead { vote: Ticket::of(vote), meta: seal_meta(meta)?.into() })
    }

    /// What the snapshot is, if `peer` may have sent it to a server that has committed up to `committed`.
    pub fn check(&self, peer: Uuid, committed: Option<LogId>) -> Result<(Vote, SnapshotMeta)> {
        let meta = open_meta(&self.meta).map_err(refused)?;
        let last = meta.last_log_id.ok_or_else(|| refused("a snapshot of nothing"))?;
        let membership = meta.last_membership.log_id().as_ref().map(at);
        self.vote.leads(peer, &[Some(at(&last)), membership])?;
        if membership.is_none_or(|membership| membership.1 > last.index) {
            return Err(refused("a snapshot without its membership"));
        }
        if committed.is_some_and(|committed| last > committed && last.index <= committed.index) {
            return Err(refused("a snapshot that contradicts what is committed here"));
        }
        Ok((self.vote.vote(), meta))
    }
}

/// Some rows of a snapshot: table, key, sealed row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRows {
    pub rows: Vec<(u8, Bytes, Bytes)>,
}

/// The whole snapshot has been installed, or the vote says why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotTaken {
    pub vote: Ticket,
}

/// A write for the leader. The answer is a [`crate::state::Response`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Write {
    pub request: Option<RequestId>,
    pub command: Command,
}

/// How far a server must have applied before it answers a read that arrived before this was asked for (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadIndex(pub u64);

/// A server that belongs to no cluster yet, or looks for its own, introduces itself; the answer is the other's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub id: Uuid,
    pub member: Member,
    /// Whether it has a membership, so that it belongs to a cluster.
    pub initialized: bool,
    /// `bootstrap_expect`.
    pub expect: u32,
    /// The servers it knows of, with itself.
    pub sees: Vec<(Uuid, Member)>,
}

impl Greeting {
    /// Refuses what would cost too much to remember.
    pub fn check(self) -> Result<Self> {
        let long =
            |member: &Member| member.name.len() > limits::MEMBER_TEXT || member.address.len() > limits::MEMBER_TEXT;
        if self.sees.len() > limits::MAX_SERVERS
            || long(&self.member)
            || self.sees.iter().any(|(_, member)| long(member))
        {
            return Err(refused("a greeting that is too long"));
        }
        Ok(self)
    }

    /// The ids it sees.
    pub fn ids(&self) -> BTreeSet<Uuid> {
        self.sees.iter().map(|(id, _)| *id).collect()
    }
}

/// A server asks to be a member at this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Join {
    pub id: Uuid,
    pub member: Member,
    /// Only the address is new: as far as the server knows it is a member. A question of that kind that comes late, after the
    /// server was removed, must not bring it back.
    pub moves: bool,
}

/// It is one, of this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joined {
    pub cluster: Uuid,
}

/// Which server an operator means; `None` lets the leader choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target(pub Option<Uuid>);

/// The servers as the leader knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Servers(pub Vec<super::Server>);

/// A question to the leader of the layer above, and the answer: that layer's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question(pub Bytes);

/// Done, or nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nothing;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::types::{Membership, Proposal, RaftEntry, StoredMembership};

    const LEADER: Uuid = Uuid::from_u128(7);

    fn command(term: u64, index: u64) -> RaftEntry {
        let payload = openraft::EntryPayload::Normal(Proposal(Bytes::from_static(b"sealed")));
        RaftEntry { log_id: log_id((term, index)), payload }
    }

    fn append() -> Append {
        Append::of(AppendEntriesRequest {
            vote: Vote::new_committed(5, LEADER),
            prev_log_id: Some(log_id((3, 8))),
            leader_commit: Some(log_id((3, 7))),
            entries: vec![command(3, 9), command(5, 10)],
        })
        .unwrap()
    }

    #[test]
    fn entries_arrive_as_they_were_sent() {
        let message = open::<Append>(&seal(&append()).unwrap()).unwrap();
        let request = message.check(LEADER).unwrap();
        assert_eq!(request.vote, Vote::new_committed(5, LEADER));
        assert_eq!((request.prev_log_id, request.leader_commit), (Some(log_id((3, 8))), Some(log_id((3, 7)))));
        assert_eq!(request.entries, [command(3, 9), command(5, 10)]);
    }

    #[test]
    fn what_no_leader_sends_is_refused() {
        type Spoil = fn(&mut Append);
        let wrong: [(&str, Spoil); 9] = [
            ("another's vote", |append| append.vote.candidate = Uuid::from_u128(8)),
            ("a candidate's vote", |append| append.vote.committed = false),
            ("an entry of a later term", |append| append.entries[1].term = 6),
            ("terms that fall", |append| append.entries[0].term = 2),
            ("a commit of a later term", |append| append.commit = Some((6, 1))),
            ("no room for an index", |append| append.prev = Some((3, u64::MAX - 1))),
            ("an unknown kind", |append| append.entries[0].kind = 9),
            ("a blank with bytes", |append| append.entries[0].kind = 0),
            ("a membership that is none", |append| append.entries[0].kind = 2),
        ];
        for (what, spoil) in wrong {
            let mut append = append();
            spoil(&mut append);
            assert!(matches!(append.check(LEADER), Err(Error::Request(_))), "{what}");
        }
    }

    #[test]
    fn a_follower_cannot_claim_what_it_was_not_sent() {
        let (prev, last) = (Some(log_id((3, 8))), Some(log_id((5, 10))));
        assert_eq!(Appended::Through(Some((5, 10))).check(prev, last), Ok(Ok(last)));
        assert_eq!(Appended::Through(Some((3, 8))).check(prev, last), Ok(Ok(prev)));
        assert!(Appended::Conflict((3, 8)).check(prev, last).unwrap().is_err());
        for lie in [Appended::Through(Some((5, 11))), Appended::Through(None), Appended::Conflict((3, 7))] {
            assert!(matches!(lie.clone().check(prev, last), Err(Error::Request(_))), "{lie:?}");
        }
    }

    #[test]
    fn a_candidate_asks_for_itself_only() {
        let ballot = Ballot::of(&VoteRequest::new(Vote::new(5, LEADER), Some(log_id((4, 2)))));
        assert!(ballot.clone().check(LEADER).is_ok());
        assert!(ballot.clone().check(Uuid::from_u128(8)).is_err());
        assert!(Ballot { last: Some((6, 2)), ..ballot }.check(LEADER).is_err());
    }

    fn head(last: At, membership: Option<At>) -> SnapshotHead {
        let members = BTreeMap::from([(LEADER, Member::default())]);
        let members = Membership::new(vec![BTreeSet::from([LEADER])], members).unwrap();
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(last)),
            last_membership: StoredMembership::new(membership.map(log_id), members),
        };
        SnapshotHead::of(&Vote::new_committed(5, LEADER), &meta).unwrap()
    }

    #[test]
    fn a_snapshot_that_openraft_would_panic_at_is_refused() {
        let good = head((4, 20), Some((1, 0)));
        assert_eq!(good.check(LEADER, None).unwrap().1.last_log_id, Some(log_id((4, 20))));
        assert!(good.check(LEADER, Some(log_id((3, 19)))).is_ok());
        assert!(good.check(LEADER, Some(log_id((4, 25)))).is_ok(), "an old one is openraft's to ignore");
        assert!(good.check(LEADER, Some(log_id((3, 20)))).is_err(), "another entry was committed in its place");
        assert!(good.check(Uuid::from_u128(8), None).is_err());
        assert!(head((6, 20), Some((1, 0))).check(LEADER, None).is_err(), "from beyond its leader's term");
        assert!(head((4, 20), Some((4, 21))).check(LEADER, None).is_err());
        assert!(head((4, 20), None).check(LEADER, None).is_err());
    }
}
