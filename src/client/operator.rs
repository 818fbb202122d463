//! The servers of the cluster, and what an operator does to them.

use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::http::{Http, Reply, Request};
use crate::api::operator::RaftConfiguration;
use crate::error::Result;

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The one with this id.
    Id(String),
    /// The one at this `ip:port`.
    Address(String),
}

impl Http {
    /// The servers, as the leader knows them; with `stale` as the agent asked does.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn raft_configuration(&self, stale: bool) -> Result<RaftConfiguration> {
        self.get_json(if stale { "/v1/operator/raft/configuration?stale" } else { "/v1/operator/raft/configuration" })
            .await
    }

    /// Removes a server.
    ///
    /// # Errors
    /// As [`Http::send`], and what the agent answers.
    pub async fn raft_remove_peer(&self, peer: &Peer) -> Result<()> {
        let (name, value) = match peer {
            Peer::Id(id) => ("id", id),
            Peer::Address(address) => ("address", address),
        };
        self.operate(Method::DELETE, format!("/v1/operator/raft/peer?{name}={}", escaped(value))).await
    }

    /// Has another server lead.
    ///
    /// # Errors
    /// As [`Http::raft_remove_peer`].
    pub async fn raft_transfer_leader(&self, to: Option<&str>) -> Result<()> {
        let query = to.map_or_else(String::new, |id| format!("?id={}", escaped(id)));
        self.operate(Method::POST, format!("/v1/operator/raft/transfer-leader{query}")).await
    }

    async fn operate(&self, method: Method, path: String) -> Result<()> {
        let reply: Reply = self.send(Request::new(method, path)).await?;
        if reply.status == StatusCode::OK { Ok(()) } else { Err(reply.error(self.address())) }
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
