//! Keys and values, with every option of Consul's API.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::http::{Http, Reply, Request};
use super::path::Path;
use crate::error::{Error, Result};
use crate::limits;

/// One key with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pair {
    /// Its name.
    pub key: String,
    /// Its bytes.
    #[serde(deserialize_with = "base64_or_null")]
    pub value: Bytes,
    /// A number that belongs to whoever writes it.
    pub flags: u64,
    /// The revision that made it.
    pub create_index: u64,
    /// The revision that changed it last; what a compare-and-set names.
    pub modify_index: u64,
    /// How often it was acquired as a lock.
    pub lock_index: u64,
    /// The session that holds it as a lock.
    #[serde(default)]
    pub session: Option<String>,
    /// The fence that it is held under, from servers that say so.
    #[serde(default)]
    pub fence: Option<u64>,
}

fn base64_or_null<'de, D: serde::Deserializer<'de>>(input: D) -> std::result::Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(input)?.unwrap_or_default();
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

/// A read's data and what its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub data: T,
    /// Pass it as [`ReadOptions::index`] to wait for the next change.
    pub index: u64,
    /// Whether the answering node knew a leader.
    pub known_leader: bool,
    /// How long ago the answering node last heard its leader.
    pub last_contact: Duration,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As the server does by default.
    #[default]
    Default,
    /// It sees every write that was acknowledged before it began.
    Consistent,
    /// Any server's view, however old.
    Stale,
}

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// How fresh.
    pub consistency: Consistency,
    /// Wait until the index is above this; 0 does not wait.
    pub index: u64,
    /// How long to wait at most; the server's default if `None`.
    pub wait: Option<Duration>,
    /// Which datacenter; the agent's own if `None`.
    pub datacenter: Option<String>,
}

/// The lock that a write is done under, and its fence: what [`When::Acquire`] gave.
///
/// Once another one holds the lock, the write is refused, however late it comes (G3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Under {
    /// The lock's key.
    pub lock: String,
    /// Its fence.
    pub fence: u64,
}

/// On what condition to write, and what else to write.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// A number to keep beside the value.
    pub flags: u64,
    /// The condition.
    pub when: When,
    /// The lock that must be held. Not together with [`When::Acquire`] or [`When::Release`].
    pub under: Option<Under>,
    /// Which datacenter; the agent's own if `None`.
    pub datacenter: Option<String>,
}

/// The condition of a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum When {
    /// None.
    #[default]
    Always,
    /// Only if the key's ModifyIndex is this; 0: only if there is no such key.
    Unchanged(u64),
    /// Only if this session holds the key or can take it; it then does.
    Acquire(String),
    /// Only if this session holds the key, under this fence if there is one; it then gives it up.
    Release(String, Option<u64>),
}

/// What to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// One key.
    Key,
    /// One key, if its ModifyIndex is this.
    Unchanged(u64),
    /// Every key that begins so.
    Prefix,
}

impl Http {
    /// One key, or `None`.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals.
    pub async fn kv_get(&self, key: &str, options: &ReadOptions) -> Result<Answer<Option<Pair>>> {
        let found: Answer<Vec<Pair>> = self.read(path(key), options).await?;
        Ok(Answer {
            data: found.data.into_iter().next(),
            index: found.index,
            known_leader: found.known_leader,
            last_contact: found.last_contact,
        })
    }

    /// Every key that begins with `prefix`, in ascending order.
    ///
    /// # Errors
    /// As [`Http::kv_get`]; `TooLarge` beyond [`limits::CLIENT_REPLY`].
    pub async fn kv_list(&self, prefix: &str, options: &ReadOptions) -> Result<Answer<Vec<Pair>>> {
        self.read(path(prefix).with("recurse", None), options).await
    }

    /// The names that begin with `prefix`, each cut after the first `separator` beyond it, without repetitions.
    ///
    /// # Errors
    /// As [`Http::kv_list`].
    pub async fn kv_keys(&self, prefix: &str, separator: &str, options: &ReadOptions) -> Result<Answer<Vec<String>>> {
        let separator = Some(separator).filter(|s| !s.is_empty());
        let path = path(prefix).with("keys", None);
        let path = if separator.is_some() { path.with("separator", separator) } else { path };
        self.read(path, options).await
    }

    /// Writes a value. `false` if the condition did not hold.
    ///
    /// # Errors
    /// As [`Http::kv_get`]; `Unknown` if the write may have been applied; `Request` if the lock is not held under that fence.
    pub async fn kv_put(&self, key: &str, value: Bytes, options: &PutOptions) -> Result<bool> {
        self.kv_put_fenced(key, value, options).await.map(|(done, _)| done)
    }

    /// The same, with the fence of the lock that [`When::Acquire`] gave. Consul's agents give none.
    ///
    /// # Errors
    /// As [`Http::kv_put`].
    pub async fn kv_put_fenced(&self, key: &str, value: Bytes, options: &PutOptions) -> Result<(bool, Option<u64>)> {
        let mut path = path(key);
        if options.flags != 0 {
            path = path.with("flags", Some(&options.flags.to_string()));
        }
        path = match &options.when {
            When::Always => path,
            When::Unchanged(index) => path.with("cas", Some(&index.to_string())),
            When::Acquire(session) => path.with("acquire", Some(session)),
            When::Release(session, None) => path.with("release", Some(session)),
            When::Release(session, Some(fence)) => {
                path.with("release", Some(session)).with("fence", Some(&fence.to_string()))
            }
        };
        self.write(Method::PUT, self::under(path, options.under.as_ref()), value, options.datacenter.as_deref()).await
    }

    /// Deletes. `false` if the condition did not hold.
    ///
    /// # Errors
    /// As [`Http::kv_put`].
    pub async fn kv_delete(
        &self,
        key: &str,
        what: &Delete,
        under: Option<&Under>,
        datacenter: Option<&str>,
    ) -> Result<bool> {
        let path = match what {
            Delete::Key => path(key),
            Delete::Unchanged(index) => path(key).with("cas", Some(&index.to_string())),
            Delete::Prefix => path(key).with("recurse", None),
        };
        let path = self::under(path, under);
        self.write(Method::DELETE, path, Bytes::new(), datacenter).await.map(|(done, _)| done)
    }

    /// Any read: what a 404 with an index answers is the default of `T`.
    ///
    /// # Errors
    /// As [`Http::kv_get`].
    pub async fn read<T: serde::de::DeserializeOwned + Default>(
        &self,
        path: Path,
        options: &ReadOptions,
    ) -> Result<Answer<T>> {
        let mut path = match options.consistency {
            Consistency::Default => path,
            Consistency::Consistent => path.with("consistent", None),
            Consistency::Stale => path.with("stale", None),
        };
        let mut patience = limits::CLIENT_PATIENCE;
        if options.index > 0 {
            path = path.with("index", Some(&options.index.to_string()));
            let wait = options.wait.unwrap_or(limits::DEFAULT_QUERY_TIME).min(limits::MAX_QUERY_TIME);
            // The server may stretch a wait by its jitter.
            patience += wait + wait / limits::WAIT_JITTER_FRACTION;
            path = path.with("wait", Some(&format!("{}ms", wait.as_millis())));
        }
        if let Some(datacenter) = &options.datacenter {
            path = path.with("dc", Some(datacenter));
        }
        let request = Request { patience, ..Request::new(Method::GET, path.into()) };
        let reply = self.send(request).await?;
        let data = match reply.status {
            StatusCode::OK => serde_json::from_slice(&reply.body)
                .map_err(|e| Error::Retry(format!("{} answered with something else: {e}", self.address())))?,
            // No such key, nothing under this prefix. An answer without an index is some other server's 404.
            StatusCode::NOT_FOUND if reply.number(INDEX).is_some() => T::default(),
            _ => return Err(reply.error(self.address())),
        };
        Ok(answer(data, &reply))
    }

    async fn write(
        &self,
        method: Method,
        mut path: Path,
        body: Bytes,
        datacenter: Option<&str>,
    ) -> Result<(bool, Option<u64>)> {
        if datacenter.is_some() {
            path = path.with("dc", datacenter);
        }
        let reply = self.send(Request { body, ..Request::new(method, path.into()) }).await?;
        match (reply.status, reply.body.trim_ascii()) {
            (StatusCode::OK, b"true") => Ok((true, reply.number(FENCE))),
            (StatusCode::OK, b"false") => Ok((false, None)),
            (StatusCode::OK, _) => {
                Err(Error::Unknown(format!("{} answered a write with neither true nor false", self.address())))
            }
            _ => Err(reply.error(self.address())),
        }
    }
}

const INDEX: &str = "x-consul-index";
const FENCE: &str = "x-quorate-fence";

fn answer<T>(data: T, reply: &Reply) -> Answer<T> {
    Answer {
        data,
        index: reply.number(INDEX).unwrap_or(0),
        known_leader: reply.headers.get("x-consul-knownleader").is_some_and(|v| v == "true"),
        last_contact: Duration::from_millis(reply.number("x-consul-lastcontact").unwrap_or(0)),
    }
}

/// What a key keeps as it is: RFC 3986's unreserved letters, and `/`, which parts keys as it parts paths.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The path of a key, percent-encoded.
pub fn key_path(key: &str) -> String {
    key_after("/v1/kv/", key)
}

/// A key, percent-encoded, behind where its route begins.
pub(super) fn key_after(route: &str, key: &str) -> String {
    format!("{route}{}", utf8_percent_encode(key, KEY))
}

fn path(key: &str) -> Path {
    Path::new(key_path(key))
}

fn under(path: Path, under: Option<&Under>) -> Path {
    let Some(under) = under else { return path };
    path.with("lock", Some(&under.lock)).with("fence", Some(&under.fence.to_string()))
}
