//! The ways to the other servers: who is where now, and calls to them.
//!
//! openraft makes a connection object with the address that a member had then; the address is looked up here at every
//! use, so that a server which comes back at another one is found. Such a server says where it is now ([`Links::meet`])
//! before the membership does: the vote of one that has moved may be what a majority lacks to agree on its new address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::cluster::Cluster;
use super::message;
use super::types::{Member, Membership};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::rpc::{Client, Pool, RpcError};
use crate::world::World;

/// See the module.
pub(super) struct Links {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    pool: Pool,
    /// The members of the newest membership in this server's log.
    members: ArcSwap<BTreeMap<Uuid, Member>>,
    /// Members that have said that they are elsewhere.
    moved: ArcSwap<BTreeMap<Uuid, Member>>,
    /// When a leader was last heard here, on this server's clock; 0 is never.
    heard: AtomicU64,
}

/// Why a call gave no answer, and whether it may be made again as it is (R3).
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) nothing_was_done: bool,
    /// Whether a leader refused it, for a reason that another try does not change at once: its disk is full.
    pub(super) refused: bool,
}

impl Failed {
    /// What a server said itself.
    pub(super) fn answered(error: Error) -> Self {
        let nothing_was_done = !matches!(error, Error::Unknown(_) | Error::Bug(_));
        Failed { nothing_was_done, refused: error != super::no_leader(), error }
    }
}

impl Failed {
    /// The error of a question that changes nothing and so may always be asked again. A leader that does not answer is none,
    /// and clients look for those words.
    pub(super) fn harmless(self) -> Error {
        match self.error {
            error @ (Error::Unknown(_) | Error::Retry(_)) if !self.refused && error != super::no_leader() => {
                Error::Retry(format!("No cluster leader: {error}"))
            }
            Error::Unknown(text) => Error::Retry(text),
            error => error,
        }
    }
}

impl From<RpcError> for Failed {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Answered(error) => Failed::answered(error),
            error => Failed { nothing_was_done: error.nothing_was_done(), refused: false, error: error.into() },
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed { error, nothing_was_done: true, refused: false }
    }
}

impl Links {
    pub(super) fn new(world: &World, cluster: Cluster) -> Self {
        let pool = Pool::new(world, cluster.identity());
        let (members, moved) = (ArcSwap::default(), ArcSwap::default());
        Links { world: world.clone(), cluster, pool, members, moved, heard: AtomicU64::new(0) }
    }

    /// Takes over the addresses of a membership. A new one for a server is newer than what the server said.
    pub(super) fn learn(&self, membership: &Membership) {
        let members: BTreeMap<Uuid, Member> = membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
        let before = self.members.swap(Arc::new(members.clone()));
        self.moved.rcu(|moved| {
            let mut moved = BTreeMap::clone(moved);
            moved.retain(|id, _| members.get(id).is_some_and(|member| before.get(id) == Some(member)));
            moved
        });
    }

    /// A server says where it is. Only of members it is remembered; that it is who it says shows when it is called.
    pub(super) fn meet(&self, id: Uuid, member: &Member) {
        let elsewhere = self.members.load().get(&id).is_some_and(|known| known.address != member.address);
        if elsewhere && self.moved.load().get(&id) != Some(member) {
            self.moved.rcu(|moved| {
                let mut moved = BTreeMap::clone(moved);
                moved.insert(id, member.clone());
                moved
            });
        }
    }

    /// The client of a server: where it said it is, else at the address of the newest membership that names it, else at
    /// `last_known`.
    pub(super) fn client(&self, id: Uuid, last_known: &Member) -> Result<Arc<Client>> {
        Ok(self.pool.get(self.whereabouts(id, last_known)?, Some(id)))
    }

    fn whereabouts(&self, id: Uuid, last_known: &Member) -> Result<SocketAddr> {
        let (moved, members) = (self.moved.load(), self.members.load());
        address(moved.get(&id).or_else(|| members.get(&id)).unwrap_or(last_known))
    }

    /// Asks a server.
    pub(super) async fn ask<Q: Stored, A: Stored>(
        &self,
        to: (Uuid, &Member),
        kind: u8,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, Failed> {
        let client = self.client(to.0, to.1)?;
        call(&client, kind, question, deadline).await
    }

    /// Asks whichever server is at an address.
    pub(super) async fn ask_at<Q: Stored, A: Stored>(
        &self,
        to: SocketAddr,
        kind: u8,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, Failed> {
        call(&self.pool.get(to, None), kind, question, deadline).await
    }

    /// Notes that the leader was heard just now.
    pub(super) fn hear(&self) {
        self.heard.store(self.world.clock.now().0.max(1), Ordering::Relaxed);
    }

    /// How long ago the leader was heard; `None` if never.
    pub(super) fn heard(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed);
        (heard > 0).then(|| self.world.clock.now().since(crate::world::Instant(heard)))
    }
}

async fn call<Q: Stored, A: Stored>(client: &Client, kind: u8, question: &Q, deadline: Duration) -> Result<A, Failed> {
    let answer = client.call(kind, message::seal(question)?, deadline).await?;
    // It was done, and we cannot read what came of it.
    let unreadable =
        |error: Error| Failed { error: Error::Unknown(error.to_string()), nothing_was_done: false, refused: false };
    message::open(&answer).map_err(unreadable)
}

/// A member's address. Members are written `ip:port`.
pub(super) fn address(member: &Member) -> Result<SocketAddr> {
    let wrong = |_| Error::Retry(format!("server {} has no usable address: {:?}", member.name, member.address));
    member.address.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::world::{MemoryDisk, real};

    fn at(port: u16) -> Member {
        Member { name: "one".into(), address: format!("10.0.0.1:{port}") }
    }

    fn membership(port: u16) -> Membership {
        let one = Uuid::from_u128(1);
        Membership::new(vec![BTreeSet::from([one])], BTreeMap::from([(one, at(port))])).unwrap()
    }

    /// Found by the simulator: a majority needed the vote of a server that had moved, and looked for it where it had been.
    #[test]
    fn a_member_that_says_it_has_moved_is_found_until_the_membership_knows_better() {
        real::block_on(|mut world: World| async move {
            world.disk = Arc::new(MemoryDisk::default());
            let cluster = Cluster::open(&world, Path::new(""), Uuid::from_u128(9)).await.unwrap();
            let (links, one) = (Links::new(&world, cluster), Uuid::from_u128(1));
            let goes_to = || links.whereabouts(one, &at(1)).unwrap().port();
            assert_eq!(goes_to(), 1, "nobody knows it");
            links.meet(one, &at(2));
            assert_eq!(goes_to(), 1, "it is no member");
            links.learn(&membership(3));
            assert_eq!(goes_to(), 3);
            links.meet(one, &at(4));
            links.learn(&membership(3));
            assert_eq!(goes_to(), 4, "the membership said nothing new");
            links.learn(&membership(5));
            assert_eq!(goes_to(), 5, "an agreed move is newer");
        })
        .unwrap();
    }
}
