//! The members of the cluster as any node sees them: the servers of the newest membership, and whom the leader hears.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use uuid::Uuid;

use super::Agent;
use super::duties::{Alive, Question};
use crate::limits;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its address.
    pub addr: IpAddr,
    /// Its rpc port.
    pub port: u16,
    /// Whether it is there.
    pub life: Life,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Nobody who would know answers.
    Unknown,
    /// The leader hears it.
    Alive,
    /// The leader does not.
    Failed,
}

impl Agent {
    /// This node. Whoever answers is alive.
    pub fn member(&self) -> Member {
        let identity = self.identity();
        Member {
            id: identity.id,
            name: identity.name.clone(),
            addr: identity.advertise,
            port: identity.server_port,
            life: Life::Alive,
        }
    }

    /// The members in the order of their names. Without a leader it is not known who lives.
    pub async fn members(&self) -> Vec<Member> {
        let raft = &self.inner.raft;
        let asking = self.inner.world.timeout(limits::MEMBERS_WAIT, self.ask(&Question::Alive));
        let alive = if raft.knows_leader() { asking.await.and_then(Result::ok) } else { None };
        let life = |id: &Uuid| match &alive {
            None => Life::Unknown,
            Some(Alive(alive)) if alive.contains(id) => Life::Alive,
            Some(_) => Life::Failed,
        };
        // The members that this server has applied: asking the leader for them would be one more question.
        let servers = raft.servers(true).await.unwrap_or_default();
        let mut members: BTreeMap<(String, Uuid), Member> = BTreeMap::new();
        for server in servers {
            let address: Option<SocketAddr> = server.member.address.parse().ok();
            let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            let address = address.unwrap_or(unspecified);
            let (id, name) = (server.id, server.member.name);
            let member =
                Member { id, name: name.clone(), addr: address.ip(), port: address.port(), life: life(&server.id) };
            members.insert((name, id), member);
        }
        let own = self.member();
        members.insert((own.name.clone(), own.id), own);
        members.into_values().collect()
    }
}
