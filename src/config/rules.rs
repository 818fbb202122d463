//! From merged layers to [`Config`]: defaults, the meaning of each value, and the rules between keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::address;
use super::meant::{Addresses, Checkpoints, Config, History, Join, Limits, LogLevel, Performance, Ports};
use super::merge::{Merged, Setting};
use crate::api::duration::GoDuration;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::Network;

/// Consul's pause between tries to join.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Longest node name, so that it fits a DNS label's length or close to it; Consul's bound.
const MAX_NODE_NAME: usize = 128;

/// What all layers together mean.
pub fn config(merged: &Merged, dev: bool, net: &dyn Network, mut warnings: Vec<String>) -> Result<Config> {
    let read = Read { merged, net };
    let server = read.flag("server", false);
    let (bootstrap, bootstrap_expect) = bootstrap(&read, dev, server, &mut warnings)?;
    let max_query_time = read.duration("max_query_time", limits::MAX_QUERY_TIME)?;
    let default_query_time = read.duration("default_query_time", limits::DEFAULT_QUERY_TIME.min(max_query_time))?;
    if default_query_time > max_query_time {
        return Err(read.wrong("default_query_time", "is longer than max_query_time"));
    }
    let client_addr = read.addrs("client_addr")?;
    Ok(Config {
        dev,
        node_name: node_name(&read)?,
        node_id: read
            .parsed("node_id", |text| Uuid::parse_str(text).map_err(|_| format!("\"{text}\" is not a UUID")))?,
        node_meta: read.labels("node_meta"),
        datacenter: datacenter(&read)?,
        data_dir: data_dir(&read, dev)?,
        server,
        bootstrap,
        bootstrap_expect,
        bind_addr: read.parsed("bind_addr", |text| address::one(text, net))?,
        client_addr: if client_addr.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { client_addr },
        addresses: Addresses { http: read.addrs("addresses.http")?, dns: read.addrs("addresses.dns")? },
        ports: ports(&read, &mut warnings)?,
        limits: client_limits(&read)?,
        default_query_time,
        max_query_time,
        discovery_max_stale: read.optional_duration("discovery_max_stale")?,
        session_ttl_min: read.duration("session_ttl_min", limits::SESSION_TTL_MIN)?,
        log_level: read.parsed("log_level", log_level)?.unwrap_or(LogLevel::Info),
        log_json: read.flag("log_json", false),
        enable_debug: read.flag("enable_debug", false),
        performance: Performance { raft_multiplier: raft_multiplier(&read)? },
        log_segment_bytes: log_segment_bytes(&read)?,
        history: history(&read)?,
        checkpoints: Checkpoints {
            interval: read.duration("raft_snapshot_interval", limits::CHECKPOINT_INTERVAL)?,
            trailing: read.number("raft_trailing_logs", i64::MAX, 1, i64::MAX)?.unsigned_abs(),
        },
        pretty_json: dev,
        pid_file: read.text("pid_file").filter(|path| !path.is_empty()).map(PathBuf::from),
        join: Join {
            retry_join: read.texts("retry_join"),
            retry_interval: read.duration("retry_interval", RETRY_INTERVAL)?,
            retry_max: read.number("retry_max", 0, 0, i64::from(u32::MAX))?.unsigned_abs() as u32,
            start_join: read.texts("start_join"),
            rejoin_after_leave: read.flag("rejoin_after_leave", false),
        },
        leave_on_terminate: read.flag("leave_on_terminate", !server),
        skip_leave_on_interrupt: read.flag("skip_leave_on_interrupt", server),
        warnings,
        written: merged.values(),
        advertise: read.parsed("advertise_addr", |text| address::one(text, net))?,
    })
}

fn node_name(read: &Read) -> Result<String> {
    let configured = read.text("node_name");
    let name = configured.map_or_else(|| read.net.host_name(), str::to_owned);
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= MAX_NODE_NAME && name.chars().all(fine) {
        return Ok(name);
    }
    let rule = "a node name has 1 to 128 letters, digits, '-', '_' and '.'";
    Err(match configured {
        Some(_) => read.wrong("node_name", format!("\"{name}\": {rule}")),
        None => Error::Operator(format!("the host name \"{name}\" is no node name; set node_name or -node: {rule}")),
    })
}

fn datacenter(read: &Read) -> Result<String> {
    let name = read.text("datacenter").unwrap_or("dc1").to_ascii_lowercase();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(fine) {
        return Err(read.wrong("datacenter", format!("\"{name}\": a datacenter has letters, digits, '-' and '_'")));
    }
    Ok(name)
}

fn data_dir(read: &Read, dev: bool) -> Result<Option<PathBuf>> {
    match read.text("data_dir") {
        // As in Consul, -dev keeps nothing, wherever a shared configuration file says to keep it.
        _ if dev => Ok(None),
        Some(dir) if !dir.is_empty() => Ok(Some(PathBuf::from(dir))),
        _ => Err(Error::Operator(
            "data_dir is not set: say where to keep data with -data-dir DIR, or try things out in memory with -dev"
                .into(),
        )),
    }
}

/// `bootstrap` and `bootstrap_expect`, which both say how a cluster begins.
fn bootstrap(read: &Read, dev: bool, server: bool, warnings: &mut Vec<String>) -> Result<(bool, u32)> {
    let written = read.flag("bootstrap", false);
    let expect = read.number("bootstrap_expect", 0, 0, i64::from(u32::MAX))?.unsigned_abs() as u32;
    if expect > 0 && written {
        return Err(read.wrong(
            "bootstrap_expect",
            "cannot be set together with bootstrap: the first waits for others, \
             the second does not",
        ));
    }
    if !server {
        for (key, set) in [("bootstrap", written), ("bootstrap_expect", expect > 0)] {
            if set {
                return Err(read.wrong(key, "only servers make a cluster: set server too (-server)"));
            }
        }
    }
    match expect {
        0 => {}
        1 => warnings.push("bootstrap_expect is 1: the same as bootstrap, this server makes a cluster alone".into()),
        2 => {
            warnings.push("bootstrap_expect is 2: with two servers the loss of either stops writes; 3 is better".into())
        }
        even if even % 2 == 0 => warnings.push(format!(
            "bootstrap_expect is {even}: an even number tolerates no more failures than {} servers",
            even - 1
        )),
        _ => {}
    }
    if written && !dev {
        warnings
            .push("bootstrap is set: only ever one server of a cluster may have it; bootstrap_expect is safer".into());
    }
    // A server without data that may not begin a cluster alone waits to be joined; -dev has nobody to wait for.
    Ok((written || expect == 1 || (dev && server && expect == 0), expect))
}

fn ports(read: &Read, warnings: &mut Vec<String>) -> Result<Ports> {
    let mut unserved = |key, what| -> Result<Option<u16>> {
        let port = read.port(key, None)?;
        if port.is_some() {
            warnings.push(format!("{} has no effect: {what} is not served yet", read.place(key)));
        }
        Ok(port)
    };
    Ok(Ports {
        https: unserved("ports.https", "HTTPS")?,
        grpc: unserved("ports.grpc", "gRPC")?,
        grpc_tls: unserved("ports.grpc_tls", "gRPC")?,
        http: read.port("ports.http", Some(8500))?,
        dns: read.port("ports.dns", Some(8600))?,
        serf_lan: read.port("ports.serf_lan", Some(8301))?,
        serf_wan: read.port("ports.serf_wan", Some(8302))?,
        server: read.port("ports.server", Some(8300))?,
    })
}

fn client_limits(read: &Read) -> Result<Limits> {
    let most = |bound: usize| i64::try_from(bound).expect("limits are far below 2^63");
    let size = |key, default| -> Result<usize> {
        let bytes = read.number(key, most(default), 1, most(limits::MAX_VALUE_CEILING))?;
        Ok(bytes.unsigned_abs() as usize)
    };
    let per_client = read.number(
        "limits.http_max_conns_per_client",
        most(limits::HTTP_CONNECTIONS_PER_CLIENT),
        0,
        most(limits::HTTP_CONNECTIONS),
    )?;
    Ok(Limits {
        // In Consul 0 is no limit; here the limit over all clients still holds.
        http_max_conns_per_client: if per_client == 0 { limits::HTTP_CONNECTIONS } else { per_client as usize },
        kv_max_value_size: size("limits.kv_max_value_size", limits::MAX_VALUE)?,
        txn_max_req_len: size("limits.txn_max_req_len", limits::MAX_BODY)?,
    })
}

fn log_segment_bytes(read: &Read) -> Result<usize> {
    let in_mib = |bytes: usize| (bytes / limits::MIB) as i64;
    let (least, most) = (in_mib(limits::MIN_SEGMENT_BYTES), in_mib(limits::MAX_SEGMENT_BYTES));
    let mib = read.number("raft_logstore.wal.segment_size_mb", in_mib(limits::SEGMENT_BYTES), least, most)?;
    Ok(mib.unsigned_abs() as usize * limits::MIB)
}

fn history(read: &Read) -> Result<History> {
    let number = |key, default: u64, most: u64| -> Result<u64> {
        let signed = |bound: u64| i64::try_from(bound).expect("limits are far below 2^63");
        Ok(read.number(key, signed(default), 0, signed(most))?.unsigned_abs())
    };
    Ok(History {
        revisions: number("history.revisions", limits::HISTORY_REVISIONS, limits::MAX_HISTORY_REVISIONS)?,
        bytes: number("history.bytes", limits::HISTORY_BYTES, limits::MAX_HISTORY_BYTES)?,
    })
}

fn raft_multiplier(read: &Read) -> Result<u32> {
    let (least, most) = (*limits::RAFT_MULTIPLIER.start(), *limits::RAFT_MULTIPLIER.end());
    let value = read.number("performance.raft_multiplier", 1, i64::from(least), i64::from(most))?;
    Ok(value.unsigned_abs() as u32)
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(LogLevel::Trace),
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "err" | "error" => Ok(LogLevel::Error),
        _ => Err(format!("\"{text}\" is no log level: use trace, debug, info, warn or error")),
    }
}

/// Reads single keys; every error names the source and the key.
struct Read<'a> {
    merged: &'a Merged,
    net: &'a dyn Network,
}

impl Read<'_> {
    /// Where a key was written: `base.json: ports.http`.
    fn place(&self, key: &str) -> String {
        let source = self.merged.get(key).map(|Setting { source, .. }| format!("{source}: "));
        source.unwrap_or_default() + key
    }

    fn wrong(&self, key: &str, why: impl Display) -> Error {
        Error::Operator(format!("{}: {why}", self.place(key)))
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.merged.get(key).map(|setting| &setting.value)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value(key).and_then(Value::as_str)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.value(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn labels(&self, key: &str) -> BTreeMap<String, String> {
        let map = self.value(key).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }

    fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        // An empty text is how templated configurations say nothing.
        let text = self.text(key).filter(|text| !text.is_empty());
        text.map(|text| parse(text).map_err(|why| self.wrong(key, why))).transpose()
    }

    fn addrs(&self, key: &str) -> Result<Vec<IpAddr>> {
        let addrs = self.parsed(key, |text| address::several(text, self.net))?;
        Ok(addrs.unwrap_or_default())
    }

    fn number(&self, key: &str, default: i64, least: i64, most: i64) -> Result<i64> {
        let value = self.value(key).and_then(Value::as_i64).unwrap_or(default);
        if value < least || value > most {
            return Err(self.wrong(key, format!("{value} is not between {least} and {most}")));
        }
        Ok(value)
    }

    fn port(&self, key: &str, default: Option<u16>) -> Result<Option<u16>> {
        match self.value(key).and_then(Value::as_i64) {
            None => Ok(default),
            Some(-1) => Ok(None),
            Some(port) => match u16::try_from(port) {
                Ok(port) => Ok(Some(port)),
                Err(_) => Err(self.wrong(key, format!("{port} is no port: use 1 to 65535, or -1 to switch it off"))),
            },
        }
    }

    /// Durations in the configuration are longer than nothing.
    fn duration(&self, key: &str, default: Duration) -> Result<Duration> {
        let some = |duration: Option<Duration>, text: &str| {
            duration.ok_or_else(|| format!("{text} is not longer than nothing"))
        };
        Ok(self.parsed(key, |text| some(time(text)?, text))?.unwrap_or(default))
    }

    /// A duration of which zero means that there is none.
    fn optional_duration(&self, key: &str) -> Result<Option<Duration>> {
        Ok(self.parsed(key, time)?.flatten())
    }
}

/// A duration; `None` if it is not longer than nothing.
fn time(text: &str) -> Result<Option<Duration>, String> {
    let duration: GoDuration = text.parse().map_err(|e: crate::api::duration::DurationError| e.to_string())?;
    Ok(duration.to_std().filter(|duration| !duration.is_zero()))
}
