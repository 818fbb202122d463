//! Bodies of `/v1/operator/raft`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `GET /v1/operator/raft/configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftConfiguration {
    /// The servers.
    pub servers: Vec<RaftServer>,
    /// Raft index of what the leader knows last.
    pub index: u64,
}

/// One server of a [`RaftConfiguration`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftServer {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: Uuid,
    /// Its name.
    pub node: String,
    /// `ip:port` of its rpc port.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// The version of Consul's raft protocol that tools look for: always [`PROTOCOL`].
    pub protocol_version: String,
    /// Whether it votes.
    pub voter: bool,
    /// Raft index of the last entry that it is known to have.
    pub last_index: u64,
}

/// See [`RaftServer::protocol_version`].
pub const PROTOCOL: &str = "3";

/// `POST /v1/operator/raft/transfer-leader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TransferLeader {
    /// Always true: a failure is an error.
    pub success: bool,
}
