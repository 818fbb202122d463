//! Every key of Consul's configuration, with its type and what becomes of it here.
//!
//! The table is the whole truth about keys: one that is not in it is an error. To give a key an effect, change its fate
//! to [`Fate::Used`] and read it in `meant.rs`.

use serde_json::Value;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Dotted: `ports.http`.
    pub path: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// What becomes of it.
    pub fate: Fate,
}

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Number,
    /// Text.
    Text,
    /// Text in the form of a Go duration.
    Duration,
    /// A list of texts; a single text is a list of one.
    Texts,
    /// A map from names to texts.
    Labels,
    /// An object whose keys are in this table.
    Section,
    /// Anything: its inside belongs to a feature that is not looked into.
    Any,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has its effect.
    Used,
    /// Nothing to do: what it asks for is how we always are.
    Moot,
    /// It has no effect, and the sentence says why or what replaces it.
    Idle(&'static str),
    /// It asks for protection that it does not get.
    Unprotected(&'static str),
}

impl Kind {
    /// Whether a value has this type. A null says nothing, so it fits everywhere.
    pub fn fits(self, value: &Value) -> bool {
        let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
        value.is_null()
            || match self {
                Kind::Bool => value.is_boolean(),
                Kind::Number => value.as_i64().is_some(),
                Kind::Text | Kind::Duration => value.is_string(),
                Kind::Texts => value.is_string() || value.as_array().is_some_and(texts),
                Kind::Labels => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
                Kind::Section => {
                    let maps = |list: &Vec<Value>| list.iter().all(Value::is_object);
                    value.is_object() || value.as_array().is_some_and(maps)
                }
                Kind::Any => true,
            }
    }

    /// What a value of this type is called in an error.
    pub fn wanted(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Number => "a whole number",
            Kind::Text => "a text",
            Kind::Duration => "a duration such as \"10s\"",
            Kind::Texts => "a list of texts",
            Kind::Labels => "a map from names to texts",
            Kind::Section => "an object",
            Kind::Any => "a value",
        }
    }
}

impl Fate {
    /// The sentence for a key that was written, if there is something to say.
    pub fn warning(self, path: &str, value: &Value) -> Option<String> {
        if asks_for_nothing(value) {
            return None;
        }
        match self {
            Fate::Used | Fate::Moot => None,
            Fate::Idle(why) => Some(format!("\"{path}\" has no effect: {why}")),
            Fate::Unprotected(why) => Some(format!("SECURITY: \"{path}\" is NOT IN FORCE: {why}")),
        }
    }
}

/// `"connect": {"enabled": false}` and the like: we agree already.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() || map.get("enabled") == Some(&Value::Bool(false)),
        _ => false,
    }
}

/// The key of a path.
pub fn find(path: &str) -> Option<&'static Key> {
    TABLE.iter().find(|key| key.path == path)
}

/// The known key of a section that an unknown name was probably meant to be.
pub fn nearest(prefix: &str, name: &str) -> Option<&'static str> {
    let siblings = TABLE.iter().filter_map(|key| Some((key.path, key.path.strip_prefix(prefix)?)));
    let direct = siblings.filter(|(_, rest)| !rest.contains('.'));
    let (distance, path) = direct.map(|(path, rest)| (distance(name, rest), path)).min()?;
    // A third of the letters wrong is a slip of the fingers; more is another word.
    (distance <= name.len().div_ceil(3)).then_some(path)
}

/// Levenshtein's distance: the fewest insertions, deletions and replacements that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

use Fate::{Idle, Moot, Unprotected, Used};
use Kind::{Any, Bool, Duration, Labels, Number, Section, Text, Texts};

const fn key(path: &'static str, kind: Kind, fate: Fate) -> Key {
    Key { path, kind, fate }
}

const NO_ACL: &str =
    "access control does not exist yet; anyone who reaches the HTTP port may read and write everything";
const NO_TLS: &str = "TLS does not exist yet; traffic is neither encrypted nor verified";
const NO_GOSSIP_KEY: &str = "gossip encryption does not exist yet";
const NO_HTTP_FENCE: &str = "requests are not restricted yet";
const NO_CIDRS: &str = "members are not restricted by address yet";
const NO_GOSSIP: &str = "there is no gossip between nodes yet";
const NO_WAN: &str = "other datacenters are not reached yet";
const NO_MESH: &str = "there is no service mesh";
const NO_CLOUD: &str = "there is no such hosted service";
const NO_PARTITIONS: &str = "segments and partitions belong to Consul Enterprise";
const NO_UI: &str = "there is no web page yet";
const OLD_UI: &str = "old key, replaced by ui_config; there is no web page yet";
const NO_DNS: &str = "DNS is not served yet";
const NO_CATALOG: &str = "services and checks from the configuration are not registered yet";
const NO_WATCHES: &str = "watches in the configuration do not run yet";
const NO_METRICS: &str = "metrics are not sent anywhere yet";
const OWN_LOG: &str = "there is one kind of log; raft_logstore.wal.segment_size_mb is all there is to choose";
const BY_BYTES: &str = "a checkpoint is due after so many bytes of the log, or after raft_snapshot_interval";
const STDOUT: &str = "logs go to standard output, where systemd and containers collect them";
const OLD: &str = "a key of old versions of Consul; nothing replaces it";
const NO_RATES: &str = "requests are bounded by what is in flight, not by rate";
const NO_CACHE: &str = "there is no cache: reads are cheap and never stale unless asked";

/// All keys, in alphabetical order within their sections.
#[rustfmt::skip]
static TABLE: &[Key] = &[
    key("acl", Any, Unprotected(NO_ACL)),
    key("acl_agent_master_token", Text, Unprotected("old key, replaced by acl.tokens.agent_recovery; access control does not exist yet")),
    key("acl_agent_token", Text, Unprotected("old key, replaced by acl.tokens.agent; access control does not exist yet")),
    key("acl_datacenter", Text, Idle("old key, replaced by primary_datacenter; access control does not exist yet")),
    key("acl_default_policy", Text, Unprotected("old key, replaced by acl.default_policy; access control does not exist yet")),
    key("acl_down_policy", Text, Idle("old key, replaced by acl.down_policy; access control does not exist yet")),
    key("acl_enable_key_list_policy", Bool, Unprotected("old key, replaced by acl.enable_key_list_policy; access control does not exist yet")),
    key("acl_enforce_version_8", Bool, Moot),
    key("acl_master_token", Text, Unprotected("old key, replaced by acl.tokens.initial_management; access control does not exist yet")),
    key("acl_replication_token", Text, Idle("old key, replaced by acl.tokens.replication; access control does not exist yet")),
    key("acl_token", Text, Unprotected("old key, replaced by acl.tokens.default; access control does not exist yet")),
    key("acl_ttl", Duration, Idle("old key, replaced by acl.token_ttl; access control does not exist yet")),
    key("addresses", Section, Used),
    key("addresses.dns", Text, Used),
    key("addresses.grpc", Text, Idle("gRPC is not served")),
    key("addresses.grpc_tls", Text, Idle("gRPC is not served")),
    key("addresses.http", Text, Used),
    key("addresses.https", Text, Idle("HTTPS is not served yet")),
    key("advertise_addr", Text, Used),
    key("advertise_addr_ipv4", Text, Idle("use advertise_addr")),
    key("advertise_addr_ipv6", Text, Idle("use advertise_addr")),
    key("advertise_addr_wan", Text, Idle(NO_WAN)),
    key("advertise_addr_wan_ipv4", Text, Idle(NO_WAN)),
    key("advertise_addr_wan_ipv6", Text, Idle(NO_WAN)),
    key("advertise_reconnect_timeout", Duration, Idle(NO_GOSSIP)),
    key("alt_domain", Text, Idle(NO_DNS)),
    key("atlas_acl_token", Text, Idle(OLD)),
    key("atlas_endpoint", Text, Idle(OLD)),
    key("atlas_infrastructure", Text, Idle(OLD)),
    key("atlas_join", Bool, Idle(OLD)),
    key("atlas_token", Text, Idle(OLD)),
    key("audit", Any, Unprotected("there is no audit log")),
    key("auto_config", Any, Unprotected("agents do not fetch their secrets from servers yet")),
    key("auto_encrypt", Any, Unprotected(NO_TLS)),
    key("auto_reload_config", Bool, Idle("send SIGHUP after a change")),
    key("autopilot", Any, Idle("dead servers are not removed by themselves yet")),
    key("bind_addr", Text, Used),
    key("bootstrap", Bool, Used),
    key("bootstrap_expect", Number, Used),
    key("ca_file", Text, Unprotected("old key, replaced by tls.defaults.ca_file; TLS does not exist yet")),
    key("ca_path", Text, Unprotected("old key, replaced by tls.defaults.ca_path; TLS does not exist yet")),
    key("cache", Any, Idle(NO_CACHE)),
    key("cert_file", Text, Unprotected("old key, replaced by tls.defaults.cert_file; TLS does not exist yet")),
    key("check", Any, Idle(NO_CATALOG)),
    key("check_output_max_size", Number, Idle(NO_CATALOG)),
    key("check_update_interval", Duration, Idle(NO_CATALOG)),
    key("checks", Any, Idle(NO_CATALOG)),
    key("client_addr", Text, Used),
    key("cloud", Any, Idle(NO_CLOUD)),
    key("config_entries", Any, Idle(NO_MESH)),
    key("connect", Any, Idle(NO_MESH)),
    key("data_dir", Text, Used),
    key("datacenter", Text, Used),
    key("default_intention_policy", Text, Unprotected(NO_MESH)),
    key("default_query_time", Duration, Used),
    key("disable_anonymous_signature", Bool, Moot),
    key("disable_coordinates", Bool, Idle("network coordinates are not measured yet")),
    key("disable_host_node_id", Bool, Moot),
    key("disable_http_unprintable_char_filter", Bool, Moot),
    key("disable_keyring_file", Bool, Idle(NO_GOSSIP_KEY)),
    key("disable_kv_key_validation", Bool, Moot),
    key("disable_remote_exec", Bool, Moot),
    key("disable_update_check", Bool, Moot),
    key("discard_check_output", Bool, Idle(NO_CATALOG)),
    key("discovery_max_stale", Duration, Used),
    key("dns_config", Any, Idle(NO_DNS)),
    key("dogstatsd_addr", Text, Idle("old key, replaced by telemetry.dogstatsd_addr; metrics are not sent anywhere yet")),
    key("dogstatsd_tags", Texts, Idle("old key, replaced by telemetry.dogstatsd_tags; metrics are not sent anywhere yet")),
    key("domain", Text, Idle(NO_DNS)),
    key("enable_acl_replication", Bool, Idle(NO_WAN)),
    key("enable_agent_tls_for_checks", Bool, Idle(NO_CATALOG)),
    key("enable_central_service_config", Bool, Idle(NO_MESH)),
    key("enable_debug", Bool, Used),
    key("enable_local_script_checks", Bool, Idle(NO_CATALOG)),
    key("enable_script_checks", Bool, Idle(NO_CATALOG)),
    key("enable_syslog", Bool, Idle("replaced by log_json on standard output, which systemd hands to syslog")),
    key("encrypt", Text, Unprotected(NO_GOSSIP_KEY)),
    key("encrypt_verify_incoming", Bool, Idle(NO_GOSSIP_KEY)),
    key("encrypt_verify_outgoing", Bool, Idle(NO_GOSSIP_KEY)),
    key("experiments", Texts, Idle("no experiment of Consul's exists here")),
    key("gossip_lan", Any, Idle(NO_GOSSIP)),
    key("gossip_wan", Any, Idle(NO_WAN)),
    key("history", Section, Used),
    key("history.bytes", Number, Used),
    key("history.revisions", Number, Used),
    key("http_api_response_headers", Labels, Idle("old key, replaced by http_config.response_headers; headers are not added yet")),
    key("http_config", Section, Used),
    key("http_config.allow_write_http_from", Texts, Unprotected(NO_HTTP_FENCE)),
    key("http_config.block_endpoints", Texts, Unprotected(NO_HTTP_FENCE)),
    key("http_config.max_header_bytes", Number, Idle("request heads are limited to 32 KiB")),
    key("http_config.response_headers", Labels, Idle("headers are not added yet")),
    key("http_config.use_cache", Bool, Idle(NO_CACHE)),
    key("key_file", Text, Unprotected("old key, replaced by tls.defaults.key_file; TLS does not exist yet")),
    key("leave_on_terminate", Bool, Used),
    key("license_path", Text, Idle("no licence is needed")),
    key("limits", Section, Used),
    key("limits.http_max_conns_per_client", Number, Used),
    key("limits.https_handshake_timeout", Duration, Idle(NO_TLS)),
    key("limits.kv_max_value_size", Number, Used),
    key("limits.request_limits", Any, Idle(NO_RATES)),
    key("limits.rpc_client_timeout", Duration, Idle("the time-outs between nodes are fixed")),
    key("limits.rpc_handshake_timeout", Duration, Idle("the time-outs between nodes are fixed")),
    key("limits.rpc_max_burst", Number, Idle(NO_RATES)),
    key("limits.rpc_max_conns_per_client", Number, Idle("nodes share one connection each way")),
    key("limits.rpc_rate", Any, Idle(NO_RATES)),
    key("limits.txn_max_req_len", Number, Used),
    key("locality", Any, Idle(NO_MESH)),
    key("log_file", Text, Idle(STDOUT)),
    key("log_json", Bool, Used),
    key("log_level", Text, Used),
    key("log_rotate_bytes", Number, Idle(STDOUT)),
    key("log_rotate_duration", Duration, Idle(STDOUT)),
    key("log_rotate_max_files", Number, Idle(STDOUT)),
    key("max_query_time", Duration, Used),
    key("node_id", Text, Used),
    key("node_meta", Labels, Used),
    key("node_name", Text, Used),
    key("non_voting_server", Bool, Idle("read replicas belong to Consul Enterprise")),
    key("partition", Text, Idle(NO_PARTITIONS)),
    key("peering", Any, Idle("cluster peering does not exist")),
    key("performance", Section, Used),
    key("performance.leave_drain_time", Duration, Idle("a server that leaves answers what it has begun, then stops")),
    key("performance.grpc_keepalive_interval", Duration, Idle("gRPC is not served")),
    key("performance.grpc_keepalive_timeout", Duration, Idle("gRPC is not served")),
    key("performance.raft_multiplier", Number, Used),
    key("performance.rpc_hold_timeout", Duration, Idle("requests wait 7s for a leader")),
    key("pid_file", Text, Used),
    key("ports", Section, Used),
    key("ports.dns", Number, Used),
    key("ports.expose_max_port", Number, Idle(NO_MESH)),
    key("ports.expose_min_port", Number, Idle(NO_MESH)),
    key("ports.grpc", Number, Used),
    key("ports.grpc_tls", Number, Used),
    key("ports.http", Number, Used),
    key("ports.https", Number, Used),
    key("ports.proxy_max_port", Number, Idle(NO_MESH)),
    key("ports.proxy_min_port", Number, Idle(NO_MESH)),
    key("ports.rpc", Number, Idle("old key, replaced by ports.http: the command line speaks HTTP")),
    key("ports.serf_lan", Number, Used),
    key("ports.serf_wan", Number, Used),
    key("ports.server", Number, Used),
    key("ports.sidecar_max_port", Number, Idle(NO_MESH)),
    key("ports.sidecar_min_port", Number, Idle(NO_MESH)),
    key("primary_datacenter", Text, Idle(NO_WAN)),
    key("primary_gateways", Texts, Idle(NO_MESH)),
    key("primary_gateways_interval", Duration, Idle(NO_MESH)),
    key("protocol", Number, Idle("there is one protocol between nodes")),
    key("raft_boltdb", Any, Idle(OWN_LOG)),
    key("raft_logstore", Section, Used),
    key("raft_logstore.backend", Text, Idle(OWN_LOG)),
    key("raft_logstore.boltdb", Any, Idle(OWN_LOG)),
    key("raft_logstore.disable_log_cache", Bool, Idle(OWN_LOG)),
    key("raft_logstore.verification", Any, Idle("everything that is read from the log is verified")),
    key("raft_logstore.wal", Section, Used),
    key("raft_logstore.wal.segment_size_mb", Number, Used),
    key("raft_protocol", Number, Idle("there is one raft protocol, the current one; nothing replaces this key")),
    key("raft_snapshot_interval", Duration, Used),
    key("raft_snapshot_threshold", Number, Idle(BY_BYTES)),
    key("raft_trailing_logs", Number, Used),
    key("read_replica", Bool, Idle("read replicas belong to Consul Enterprise")),
    key("reconnect_timeout", Duration, Idle(NO_GOSSIP)),
    key("reconnect_timeout_wan", Duration, Idle(NO_WAN)),
    key("recursor", Text, Idle("old key, replaced by recursors; DNS is not served yet")),
    key("recursors", Texts, Idle(NO_DNS)),
    key("rejoin_after_leave", Bool, Used),
    key("reporting", Any, Idle(NO_CLOUD)),
    key("retry_interval", Duration, Used),
    key("retry_interval_wan", Duration, Idle(NO_WAN)),
    key("retry_join", Texts, Used),
    key("retry_join_wan", Texts, Idle(NO_WAN)),
    key("retry_max", Number, Used),
    key("retry_max_wan", Number, Idle(NO_WAN)),
    key("rpc", Any, Idle("the traffic between nodes needs no switches")),
    key("segment", Text, Idle(NO_PARTITIONS)),
    key("segments", Any, Idle(NO_PARTITIONS)),
    key("serf_lan", Text, Idle(NO_GOSSIP)),
    key("serf_lan_allowed_cidrs", Texts, Unprotected(NO_CIDRS)),
    key("serf_lan_bind", Text, Idle("old key, replaced by serf_lan; there is no gossip between nodes yet")),
    key("serf_wan", Text, Idle(NO_WAN)),
    key("serf_wan_allowed_cidrs", Texts, Unprotected(NO_CIDRS)),
    key("serf_wan_bind", Text, Idle("old key, replaced by serf_wan; other datacenters are not reached yet")),
    key("server", Bool, Used),
    key("server_name", Text, Idle(NO_TLS)),
    key("server_rejoin_age_max", Duration, Idle("a server may come back after any time")),
    key("service", Any, Idle(NO_CATALOG)),
    key("services", Any, Idle(NO_CATALOG)),
    key("session_ttl_min", Duration, Used),
    key("skip_leave_on_interrupt", Bool, Used),
    key("start_join", Texts, Used),
    key("start_join_wan", Texts, Idle(NO_WAN)),
    key("statsd_addr", Text, Idle("old key, replaced by telemetry.statsd_address; metrics are not sent anywhere yet")),
    key("statsite_addr", Text, Idle("old key, replaced by telemetry.statsite_address; metrics are not sent anywhere yet")),
    key("statsite_prefix", Text, Idle("old key, replaced by telemetry.metrics_prefix; metrics are not sent anywhere yet")),
    key("syslog_facility", Text, Idle("replaced by log_json on standard output, which systemd hands to syslog")),
    key("telemetry", Any, Idle(NO_METRICS)),
    key("tls", Any, Unprotected(NO_TLS)),
    key("tls_cipher_suites", Text, Unprotected("old key, replaced by tls.defaults.tls_cipher_suites; TLS does not exist yet")),
    key("tls_min_version", Text, Unprotected("old key, replaced by tls.defaults.tls_min_version; TLS does not exist yet")),
    key("tls_prefer_server_cipher_suites", Bool, Idle(OLD)),
    key("translate_wan_addrs", Bool, Idle(NO_WAN)),
    key("ui", Bool, Idle(OLD_UI)),
    key("ui_config", Any, Idle(NO_UI)),
    key("ui_content_path", Text, Idle("old key, replaced by ui_config.content_path; there is no web page yet")),
    key("ui_dir", Text, Idle("old key, replaced by ui_config.enabled: the page comes with the program; there is none yet")),
    key("unix_sockets", Any, Idle("Unix sockets are not served yet")),
    key("use_streaming_backend", Bool, Moot),
    key("verify_incoming", Bool, Unprotected("old key, replaced by tls.defaults.verify_incoming; TLS does not exist yet")),
    key("verify_incoming_https", Bool, Unprotected("old key, replaced by tls.https.verify_incoming; TLS does not exist yet")),
    key("verify_incoming_rpc", Bool, Unprotected("old key, replaced by tls.internal_rpc.verify_incoming; TLS does not exist yet")),
    key("verify_outgoing", Bool, Unprotected("old key, replaced by tls.defaults.verify_outgoing; TLS does not exist yet")),
    key("verify_server_hostname", Bool, Unprotected("old key, replaced by tls.internal_rpc.verify_server_hostname; TLS does not exist yet")),
    key("version", Text, Idle("the version is the program's own")),
    key("watches", Any, Idle(NO_WATCHES)),
    key("xds", Any, Idle(NO_MESH)),
];
