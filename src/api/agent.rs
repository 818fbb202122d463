//! Bodies of `/v1/agent/self` and `/v1/agent/version`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The source revision this program was built from; empty unless the build named it in `QUORATE_REVISION`.
pub const REVISION: &str = match option_env!("QUORATE_REVISION") {
    Some(revision) => revision,
    None => "",
};

/// When it was built (RFC 3339), from `QUORATE_BUILD_DATE`. A build that names no date shows the one that Consul shows
/// then: readers parse the field, so it cannot be empty.
pub const BUILD_DATE: &str = match option_env!("QUORATE_BUILD_DATE") {
    Some(date) => date,
    None => "1970-01-01T00:00:01Z",
};

/// `GET /v1/agent/self`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentSelf<'a> {
    /// The facts that clients ask for.
    pub config: AgentConfig<'a>,
    /// More about the configuration; no client may depend on it.
    pub debug_config: DebugConfig,
    /// The network coordinate: there is none, so it is null.
    pub coord: Option<()>,
    /// The node as a member of the cluster.
    pub member: Member,
    /// Figures by section and name.
    pub stats: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// The node's metadata.
    pub meta: BTreeMap<&'static str, &'a str>,
}

/// The `Config` of [`AgentSelf`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentConfig<'a> {
    /// The node's datacenter.
    pub datacenter: &'a str,
    /// The datacenter that holds tokens and policies; the same while there is one.
    pub primary_datacenter: &'a str,
    /// The node's name.
    pub node_name: &'a str,
    /// The node's id.
    #[serde(rename = "NodeID")]
    pub node_id: uuid::Uuid,
    /// See [`REVISION`].
    pub revision: &'static str,
    /// Whether the node is a server.
    pub server: bool,
    /// The program's version.
    pub version: &'static str,
    /// See [`BUILD_DATE`].
    pub build_date: &'static str,
}

/// The `DebugConfig` of [`AgentSelf`].
#[derive(Debug, Serialize)]
pub struct DebugConfig {
    /// Whether JSON is always indented, as in `-dev` mode.
    #[serde(rename = "DevMode")]
    pub dev_mode: bool,
    /// Largest value of a key, in bytes.
    #[serde(rename = "KVMaxValueSize")]
    pub kv_max_value_size: usize,
    /// Largest JSON body, in bytes.
    #[serde(rename = "TxnMaxReqLen")]
    pub txn_max_req_len: usize,
    /// Connections per client address.
    #[serde(rename = "HTTPMaxConnsPerClient")]
    pub http_max_conns_per_client: usize,
    /// What happens to a request that no policy names.
    #[serde(rename = "ACLDefaultPolicy")]
    pub acl_default_policy: &'static str,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub addr: std::net::IpAddr,
    /// The port that other nodes reach it at.
    pub port: u16,
    /// What it is, by Consul's tag names.
    pub tags: BTreeMap<String, String>,
    /// See [`STATUS`].
    pub status: u8,
    /// Consul's protocol numbers: clients only show them.
    #[serde(flatten)]
    pub protocol: Protocol,
}

/// What the number in [`Member::status`] is called. 0 is unknown.
pub const STATUS: [&str; 5] = ["none", "alive", "leaving", "left", "failed"];

/// Protocol versions of a [`Member`], as Consul 1.x reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Protocol {
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

impl Default for Protocol {
    fn default() -> Self {
        Protocol {
            protocol_min: 1,
            protocol_max: 5,
            protocol_cur: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate_cur: 4,
        }
    }
}

/// `GET /v1/agent/version`.
#[derive(Debug, Serialize)]
pub struct Version {
    /// See [`REVISION`].
    #[serde(rename = "SHA")]
    pub sha: &'static str,
    /// See [`BUILD_DATE`].
    #[serde(rename = "BuildDate")]
    pub build_date: &'static str,
    /// The version for people.
    #[serde(rename = "HumanVersion")]
    pub human_version: &'static str,
    /// Always empty: no FIPS-certified build exists.
    #[serde(rename = "FIPS")]
    pub fips: &'static str,
}
