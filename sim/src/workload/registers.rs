//! Registers: what clients read and write as one value each, whatever it is made of in the store.
//!
//! | name | in the store | written by | read by |
//! |---|---|---|---|
//! | `k…` | a key | PUT and DELETE | GET |
//! | `p…` | two keys that always have the same value | transactions, or a DELETE of both | a list, or a transaction |
//! | `m…` | a machine in the catalog with a service | register, deregister | `catalog/node` |
//!
//! All of them are linearizable registers, so the same checkers judge them. A pair or a machine of which only a part was
//! written is a contradiction in itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use quorate::api::kv::KvEntry;
use quorate::state::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Reply;
use crate::history::{Found, Outcome};

/// What a register is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key.
    Key,
    /// Two keys.
    Pair,
    /// A node and a service.
    Machine,
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and parameters, which always end with one.
    pub path: String,
    /// The body.
    pub body: String,
}

/// How a put is to go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Put {
    /// What is written.
    pub value: u64,
    /// Bytes that it is padded to.
    pub padding: usize,
    /// Its condition.
    pub cas: Option<u64>,
    /// The condition stands behind what it concerns.
    pub late: bool,
    /// A last part of the transaction cannot be done, so none may be.
    pub doomed: bool,
}

impl Kind {
    /// What the register with this name is made of.
    pub fn of(name: &str) -> Kind {
        match name.as_bytes().first() {
            Some(b'p') => Kind::Pair,
            Some(b'm') => Kind::Machine,
            _ => Kind::Key,
        }
    }

    /// Whether its writes may have conditions.
    pub fn compares(self) -> bool {
        self != Kind::Machine
    }

    /// Writes it.
    pub fn put(self, name: &str, put: Put) -> Ask {
        let text = put.value.to_string() + &" ".repeat(put.padding);
        match self {
            Kind::Key => Ask { method: Method::PUT, path: with_cas(format!("/v1/kv/{name}?"), put.cas), body: text },
            Kind::Pair => {
                let value = STANDARD.encode(text);
                let set = |part| json!({"Verb": "set", "Key": format!("{name}/{part}"), "Value": value});
                let mut first = set('a');
                if let Some(index) = put.cas {
                    first["Verb"] = "cas".into();
                    first["Index"] = index.into();
                }
                let doom = json!({"Verb": "check-index", "Key": format!("{name}/none"), "Index": 7});
                let mut parts = vec![first, set('b')];
                if put.late {
                    parts.reverse();
                }
                parts.extend(put.doomed.then_some(doom));
                transaction(parts)
            }
            Kind::Machine => {
                let body = json!({
                    "Node": name, "Address": "10.9.8.7", "NodeMeta": {"value": put.value.to_string()},
                    "Service": {"ID": "s", "Service": "storm", "Port": port(put.value)},
                });
                Ask { method: Method::PUT, path: "/v1/catalog/register?".into(), body: body.to_string() }
            }
        }
    }

    /// Deletes it; `late` as in [`Put`].
    pub fn delete(self, name: &str, cas: Option<u64>, late: bool) -> Ask {
        match self {
            Kind::Key => {
                let path = with_cas(format!("/v1/kv/{name}?"), cas);
                Ask { method: Method::DELETE, path, body: String::new() }
            }
            Kind::Pair if cas.is_none() && late => {
                Ask { method: Method::DELETE, path: format!("/v1/kv/{name}/?recurse"), body: String::new() }
            }
            Kind::Pair => {
                let mut first = json!({"Verb": "delete", "Key": format!("{name}/a")});
                if let Some(index) = cas {
                    first["Verb"] = "delete-cas".into();
                    first["Index"] = index.into();
                }
                let mut parts = vec![first, json!({"Verb": "delete", "Key": format!("{name}/b")})];
                if late {
                    parts.reverse();
                }
                transaction(parts)
            }
            Kind::Machine => {
                let body = json!({"Node": name}).to_string();
                Ask { method: Method::PUT, path: "/v1/catalog/deregister?".into(), body }
            }
        }
    }

    /// Reads it; a wait can be added.
    pub fn get(self, name: &str) -> Ask {
        let path = match self {
            Kind::Key => format!("/v1/kv/{name}?"),
            Kind::Pair => format!("/v1/kv/{name}/?recurse"),
            Kind::Machine => format!("/v1/catalog/node/{name}?"),
        };
        Ask { method: Method::GET, path, body: String::new() }
    }

    /// Reads a pair by a transaction, which answers only if it is there.
    pub fn get_in_transaction(name: &str) -> Ask {
        transaction(['a', 'b'].map(|part| json!({"Verb": "get", "Key": format!("{name}/{part}")})).to_vec())
    }

    /// What the answer to a read shows. A read changes nothing, so one without an answer says nothing.
    ///
    /// # Errors
    /// A sentence, if only a part of it was found.
    pub fn read(self, reply: &Reply) -> Result<Outcome, String> {
        let Reply::Answer { status, index, body, .. } = reply else { return Ok(Outcome::Failed) };
        let found = match (self, status) {
            (Kind::Key | Kind::Pair, 404) => None,
            (Kind::Key, 200) => Some(entry(entries(body).as_slice().first())?),
            (Kind::Pair, 200) => {
                let entries = entries(body);
                let [a, b] = &entries[..] else { return Err(format!("half a pair was found: {entries:?}")) };
                let (a, b) = (entry(Some(a))?, entry(Some(b))?);
                if a != b {
                    return Err(format!("two halves of different transactions were found: {a:?} and {b:?}"));
                }
                Some(a)
            }
            (Kind::Machine, 200) => machine(body)?,
            _ => return Ok(Outcome::Failed),
        };
        // A transaction has no index.
        let index = if *index == 0 { found.map_or(0, |found| found.modify_index) } else { *index };
        Ok(Outcome::Read { found, index })
    }

    /// What a backup holds.
    ///
    /// # Errors
    /// As [`Kind::read`].
    pub fn in_backup(self, name: &str, state: &State) -> Result<Option<Found>, String> {
        let key = |name: &str| {
            let row = state.kv().get(name.as_bytes())?;
            let value = std::str::from_utf8(&row.value).ok().and_then(|value| value.trim_end().parse().ok());
            Some((value, row.modify_index, row.create_index))
        };
        let whole = |(value, modify_index, create_index): (Option<u64>, u64, u64)| {
            let value = value.ok_or_else(|| format!("{name} holds nothing that anybody wrote"))?;
            Ok::<_, String>(Found { value, modify_index, create_index })
        };
        match self {
            Kind::Key => key(name).map(whole).transpose(),
            Kind::Pair => match (key(&format!("{name}/a")), key(&format!("{name}/b"))) {
                (a, b) if a == b => a.map(whole).transpose(),
                halves => Err(format!("two halves of different transactions are in a backup: {name} is {halves:?}")),
            },
            Kind::Machine => {
                let service = state.catalog().service(name, "s");
                let Some(row) = state.catalog().node(name) else {
                    return service
                        .map_or(Ok(None), |_| Err(format!("a service without its node {name} is in a backup")));
                };
                let value = row.node.meta.get("value").and_then(|value| value.parse::<u64>().ok());
                let same = |value: &u64| service.is_some_and(|row| u64::from(row.service.port) == port(*value));
                whole((value.filter(same), row.modify_index, row.create_index)).map(Some)
            }
        }
    }

    /// What the answer to a write proves. In doubt: nothing.
    pub fn written(self, reply: &Reply) -> Outcome {
        let Reply::Answer { status, body, .. } = reply else {
            return if matches!(reply, Reply::NotSent) { Outcome::Failed } else { Outcome::Unknown };
        };
        match (status, &body[..]) {
            (200, b"true") => Outcome::Written { applied: true },
            (200, b"false") => Outcome::Written { applied: false },
            (200, text) if self == Kind::Pair && text.starts_with(b"{") => Outcome::Written { applied: true },
            (409, text) if self == Kind::Pair && text.starts_with(b"{") => Outcome::Written { applied: false },
            (400 | 409 | 413 | 429 | 503, _) => Outcome::Failed,
            (500, text) if text.starts_with(b"No cluster leader") || text.starts_with(b"write refused") => {
                Outcome::Failed
            }
            _ => Outcome::Unknown,
        }
    }
}

fn with_cas(path: String, cas: Option<u64>) -> String {
    cas.map_or(path.clone(), |index| format!("{path}cas={index}"))
}

fn transaction(parts: Vec<Value>) -> Ask {
    let parts: Vec<Value> = parts.into_iter().map(|part| json!({"KV": part})).collect();
    Ask { method: Method::PUT, path: "/v1/txn?".into(), body: Value::from(parts).to_string() }
}

/// The entries of a list, or of a transaction's results.
fn entries(body: &[u8]) -> Vec<KvEntry> {
    let of_transaction =
        |_| Ok(serde_json::from_slice::<Done>(body)?.results.into_iter().map(|part| part.kv).collect());
    let entries: serde_json::Result<_> = serde_json::from_slice(body).or_else(of_transaction);
    entries.unwrap_or_default()
}

/// What a transaction answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    results: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Part {
    kv: KvEntry,
}

fn entry(entry: Option<&KvEntry>) -> Result<Found, String> {
    let found = entry.and_then(|entry| {
        let value = std::str::from_utf8(&entry.value).ok()?.trim_end().parse().ok()?;
        Some(Found { value, modify_index: entry.modify_index, create_index: entry.create_index })
    });
    found.ok_or_else(|| format!("what was read is nothing that anybody wrote: {entry:?}"))
}

fn machine(body: &[u8]) -> Result<Option<Found>, String> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if body.is_null() {
        return Ok(None);
    }
    let number = |path: &str| body.pointer(path).and_then(Value::as_u64);
    let value = body.pointer("/Node/Meta/value").and_then(|value| value.as_str()?.parse::<u64>().ok());
    let found = || {
        let value = value.filter(|value| number("/Services/s/Port") == Some(port(*value)))?;
        let (modify_index, create_index) = (number("/Node/ModifyIndex")?, number("/Node/CreateIndex")?);
        Some(Found { value, modify_index, create_index })
    };
    found().map(Some).ok_or_else(|| format!("a machine and its service are of different registrations: {body}"))
}

/// The service's port says which registration it came with.
fn port(value: u64) -> u64 {
    value % 60_000 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, index: u64, body: &str) -> Reply {
        Reply::Answer { status, index, fence: None, lease: None, epoch: 0, body: body.to_owned().into() }
    }

    fn row(key: &str, value: &str, modify: u64) -> String {
        let value = STANDARD.encode(value);
        format!(r#"{{"LockIndex":0,"Key":"{key}","Flags":0,"Value":"{value}","CreateIndex":2,"ModifyIndex":{modify}}}"#)
    }

    #[test]
    fn halves_of_pairs_and_machines_are_contradictions() {
        let pair = |rows: &[String]| Kind::Pair.read(&answer(200, 9, &format!("[{}]", rows.join(","))));
        let (a, b, other) = (row("p0/a", "7  ", 5), row("p0/b", "7", 5), row("p0/b", "8", 6));
        let whole = Found { value: 7, modify_index: 5, create_index: 2 };
        assert_eq!(pair(&[a.clone(), b.clone()]), Ok(Outcome::Read { found: Some(whole), index: 9 }));
        assert!(pair(std::slice::from_ref(&a)).is_err());
        assert!(pair(&[a.clone(), other]).is_err());
        assert_eq!(Kind::Pair.read(&answer(404, 9, "")), Ok(Outcome::Read { found: None, index: 9 }));
        let transaction = format!(r#"{{"Results":[{{"KV":{a}}},{{"KV":{b}}}],"Errors":null}}"#);
        let read = Kind::Pair.read(&answer(200, 0, &transaction));
        assert_eq!(read, Ok(Outcome::Read { found: Some(whole), index: 5 }));

        let machine = |port: u64| {
            let node = r#"{"Meta":{"value":"7"},"CreateIndex":2,"ModifyIndex":5}"#;
            Kind::Machine.read(&answer(200, 9, &format!(r#"{{"Node":{node},"Services":{{"s":{{"Port":{port}}}}}}}"#)))
        };
        assert_eq!(machine(8), Ok(Outcome::Read { found: Some(whole), index: 9 }));
        assert!(machine(9).is_err());
        assert_eq!(Kind::Machine.read(&answer(200, 9, "null")), Ok(Outcome::Read { found: None, index: 9 }));
    }
}
