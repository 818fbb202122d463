//! The configuration as a node uses it: typed, with every default filled in and every rule between keys held.
//!
//! Made by `rules.rs`. It never changes: a reload makes another one and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::address;
use crate::error::{Error, Result};
use crate::world::Interface;

/// What a node is told to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// `-dev`: everything in memory, one node.
    pub dev: bool,
    /// Letters, digits, `-`, `_` and `.`; the machine's host name by default.
    pub node_name: String,
    /// Only if the operator insists on one; a node otherwise draws its own and keeps it with its data.
    pub node_id: Option<Uuid>,
    /// Names and values that others see beside the node.
    pub node_meta: BTreeMap<String, String>,
    /// Lower case letters, digits, `-` and `_`; `dc1` by default.
    pub datacenter: String,
    /// Where everything is kept. `None` only with [`Config::dev`].
    pub data_dir: Option<PathBuf>,
    /// Whether this node votes and stores; otherwise it forwards.
    pub server: bool,
    /// Whether a server without data makes a cluster of itself alone.
    pub bootstrap: bool,
    /// How many servers without data wait for each other before they make a cluster; 0 if they do not.
    pub bootstrap_expect: u32,
    /// What to listen on for other nodes; `None` is every address.
    pub bind_addr: Option<IpAddr>,
    /// What to listen on for clients, unless [`Config::addresses`] says otherwise.
    pub client_addr: Vec<IpAddr>,
    /// What to listen on for one kind of client.
    pub addresses: Addresses,
    /// Ports.
    pub ports: Ports,
    /// Sizes and counts that clients may not exceed.
    pub limits: Limits,
    /// How long a blocking query waits if it names no time.
    pub default_query_time: Duration,
    /// The longest that a blocking query waits.
    pub max_query_time: Duration,
    /// Reads of catalog and health that name no mode may be this old.
    pub discovery_max_stale: Option<Duration>,
    /// The shortest TTL of a session that is taken.
    pub session_ttl_min: Duration,
    /// What is logged.
    pub log_level: LogLevel,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Whether profiling is served.
    pub enable_debug: bool,
    /// Timing of agreement.
    pub performance: Performance,
    /// When the log is shortened.
    pub checkpoints: Checkpoints,
    /// Size of a file of the log, within [`crate::limits::MIN_SEGMENT_BYTES`] and [`crate::limits::MAX_SEGMENT_BYTES`].
    pub log_segment_bytes: usize,
    /// How much of what the keys were is kept.
    pub history: History,
    /// Whether JSON answers are always indented.
    pub pretty_json: bool,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// How other nodes are found.
    pub join: Join,
    /// Whether SIGTERM leaves the cluster; otherwise the node just stops. Default: clients do, servers do not.
    pub leave_on_terminate: bool,
    /// Whether SIGINT just stops the node. Default: servers do, clients leave.
    pub skip_leave_on_interrupt: bool,
    /// Sentences for the operator about keys without effect and doubtful choices.
    pub warnings: Vec<String>,
    /// See [`Config::changed_keys`].
    pub(super) written: BTreeMap<String, Value>,
    /// `advertise_addr`; see [`Config::advertise_addr`].
    pub(super) advertise: Option<IpAddr>,
}

/// Listening addresses for one kind of client; empty means [`Config::client_addr`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: Vec<IpAddr>,
    /// DNS.
    pub dns: Vec<IpAddr>,
}

/// Ports; `None` is switched off (-1), 0 lets the operating system pick one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// 8500.
    pub http: Option<u16>,
    /// Off.
    pub https: Option<u16>,
    /// 8600.
    pub dns: Option<u16>,
    /// Off.
    pub grpc: Option<u16>,
    /// Off.
    pub grpc_tls: Option<u16>,
    /// 8301.
    pub serf_lan: Option<u16>,
    /// 8302.
    pub serf_wan: Option<u16>,
    /// 8300.
    pub server: Option<u16>,
}

/// What clients may not exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections from one address, at least 1.
    pub http_max_conns_per_client: usize,
    /// Bytes, at most [`crate::limits::MAX_VALUE_CEILING`].
    pub kv_max_value_size: usize,
    /// Bytes of a transaction's body, at most [`crate::limits::MAX_VALUE_CEILING`].
    pub txn_max_req_len: usize,
}

/// Timing of agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Performance {
    /// Stretches heartbeats and elections; within [`crate::limits::RAFT_MULTIPLIER`]. 1 where Consul has 5: fast
    /// failover.
    pub raft_multiplier: u32,
}

/// When a server takes a checkpoint, and how much of the log it keeps behind it. Both are bounded by bytes as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// `raft_snapshot_interval`: the longest time between two, if anything was written.
    pub interval: Duration,
    /// `raft_trailing_logs`: the most entries that are kept for followers that lag a little.
    pub trailing: u64,
}

/// How much of what the keys were is kept, for readers of the event stream and reads of the past. It is replicated: what the
/// leader says holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// `history.revisions`: at most [`crate::limits::MAX_HISTORY_REVISIONS`]; 0 keeps nothing.
    pub revisions: u64,
    /// `history.bytes`: at most [`crate::limits::MAX_HISTORY_BYTES`]; 0 keeps nothing.
    pub bytes: u64,
}

/// How other nodes are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Tried until one answers.
    pub retry_join: Vec<String>,
    /// Pause between tries.
    pub retry_interval: Duration,
    /// Tries before giving up; 0 is never.
    pub retry_max: u32,
    /// Treated as `retry_join`.
    pub start_join: Vec<String>,
    /// Whether a node that left comes back by itself when started again.
    pub rejoin_after_leave: bool,
}

/// What is logged: this and everything graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Each step.
    Trace,
    /// For finding faults.
    Debug,
    /// What happens.
    Info,
    /// What may need attention.
    Warn,
    /// What failed.
    Error,
}

impl Config {
    /// Where HTTP is served; empty if its port is off.
    pub fn http_addrs(&self) -> Vec<SocketAddr> {
        self.client_addrs(&self.addresses.http, self.ports.http)
    }

    /// Where DNS is served; empty if its port is off.
    pub fn dns_addrs(&self) -> Vec<SocketAddr> {
        self.client_addrs(&self.addresses.dns, self.ports.dns)
    }

    fn client_addrs(&self, own: &[IpAddr], port: Option<u16>) -> Vec<SocketAddr> {
        let addrs = if own.is_empty() { &self.client_addr } else { own };
        port.map(|port| addrs.iter().map(|addr| SocketAddr::new(*addr, port)).collect()).unwrap_or_default()
    }

    /// The address to tell other nodes: `advertise_addr`, else `bind_addr`, else the machine's only one.
    ///
    /// # Errors
    /// `Operator` if the machine has several addresses and the configuration picks none; it names them.
    pub fn advertise_addr(&self, interfaces: &[Interface]) -> Result<IpAddr> {
        let bound = self.bind_addr.filter(|addr| !address::is_any(*addr));
        match self.advertise.or(bound) {
            Some(addr) => Ok(addr),
            None => address::choose(interfaces, self.bind_addr).map_err(Error::Operator),
        }
    }

    /// Takes over the log level of another reading, the one thing that changes while a node runs.
    pub fn set_log_level(&mut self, from: &Config) {
        self.log_level = from.log_level;
        match from.written.get("log_level") {
            Some(level) => drop(self.written.insert("log_level".into(), level.clone())),
            None => drop(self.written.remove("log_level")),
        }
    }

    /// The keys whose values differ from another reading, for telling what a reload can and cannot do.
    pub fn changed_keys(&self, other: &Config) -> BTreeSet<String> {
        let all = self.written.keys().chain(other.written.keys());
        all.filter(|key| self.written.get(*key) != other.written.get(*key)).cloned().collect()
    }
}
