//! `/v1/kv`: read, write and delete keys (consul.md 2.1).

use axum_core::body::Body;
use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use uuid::Uuid;

use super::body::{self, Limit};
use super::extract::{self, Query};
use super::listing::{self, Listing, Selection, Shape};
use super::reply::{self, Failure};
use super::{Call, Outcome};
use crate::agent::{Answer, Found, Scope};
use crate::api::json::Writer;
use crate::limits;
use crate::state::txn::KvVerb;
use crate::state::{Command, Key, KvTable, Reply, Subject};

/// What is escaped in `X-Quorate-Next`: everything but what a URL shows as it is, so that the value can be appended to
/// `?start_after=` without a thought.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `GET /v1/kv/:key`
pub async fn get(call: Call) -> Outcome {
    let query = call.query()?;
    let key = extract::key(&call.head.uri)?;
    if query.has("keys") {
        let separator = query.bytes("separator").or_else(|| query.bytes("seperator")).unwrap_or_default();
        return list(&call, &query, key, Shape::Names { separator: separator.to_vec() }).await;
    }
    if query.has("recurse") {
        return list(&call, &query, key, Shape::Entries).await;
    }
    check_named(&key)?;
    one(&call, &query, key).await
}

/// One key.
async fn one(call: &Call, query: &Query<'_>, key: Key) -> Outcome {
    let options = query.read_options()?;
    let answer = match past(call, query, &key).await? {
        Some(then) => then.map(|table| table.get(key.as_bytes()).cloned()),
        None => {
            let reading = call.edge.read(&options, Scope::Key(Subject::Kv, key.clone()), |state| {
                let row = state.kv().get(key.as_bytes());
                Found { value: row.cloned(), index: row.map_or_else(|| state.kv().index(), |row| row.modify_index) }
            });
            reading.await?
        }
    };
    let mut headers = reply::indexed(&answer);
    let Some(row) = answer.value else { return Ok(reply::empty(StatusCode::NOT_FOUND, headers)) };
    if let Some(holder) = row.holder {
        headers.insert(reply::FENCE, holder.fence.into());
    }
    if query.has("raw") {
        return Ok(reply::raw(&call.head.headers, headers, row.value.clone()));
    }
    let mut writer = Writer::new(call.style(query));
    writer.begin(b'[');
    writer.element();
    listing::entry(key.as_bytes(), &row).write(&mut writer);
    writer.end(b']');
    Ok(reply::json(&call.head.headers, headers, writer.take()))
}

/// Every key with a prefix. The wait is decided on the table's index alone; the body is written once, at the end, from
/// the snapshot that the answer carries.
async fn list(call: &Call, query: &Query<'_>, prefix: Key, shape: Shape) -> Outcome {
    let options = query.read_options()?;
    let limit = page_limit(query)?;
    let start_after = query.bytes("start_after").map(<[u8]>::to_vec);
    // Consul answers `?keys` on an empty store with an empty list, and every other fruitless listing with 404.
    let never_missing = matches!(shape, Shape::Names { .. }) && prefix.as_bytes().is_empty();
    let selection = Selection { prefix, shape, start_after };
    let answer = match past(call, query, &selection.prefix).await? {
        Some(then) => then.map(|table| (!selection.is_empty(&table)).then_some(table)),
        None => {
            let reading = call.edge.read(&options, Scope::Prefix(Subject::Kv, selection.prefix.clone()), |state| {
                let table = state.kv();
                let value = (!selection.is_empty(table)).then(|| table.clone());
                Found { value, index: table.prefix_index(selection.prefix.as_bytes()) }
            });
            reading.await?
        }
    };
    let mut headers = reply::indexed(&answer);
    let table = match answer.value {
        Some(table) => table,
        None if never_missing => Default::default(),
        None => return Ok(reply::empty(StatusCode::NOT_FOUND, headers)),
    };
    let end = limit.and_then(|limit| selection.page_end(&table, limit));
    if let Some(end) = &end {
        let next = HeaderValue::try_from(percent_encode(end, ESCAPED).to_string());
        headers.insert(reply::NEXT, next.expect("percent-encoding is ASCII"));
    }
    let listing = Listing::new(selection, table, end, call.style(query));
    Ok(reply::json_chunks(&call.head.headers, headers, listing))
}

/// The keys under a prefix as they were, if `?at=` asks for that.
async fn past(call: &Call, query: &Query<'_>, prefix: &Key) -> Result<Option<Answer<KvTable>>, Failure> {
    query.check_exclusive(&["at", "index"])?;
    let Some(at) = query.index("at")? else { return Ok(None) };
    let then = call.edge.agent.past(&query.read_options()?, prefix.clone(), at).await?;
    then.map(Some).map_err(Failure::gone)
}

/// `PUT /v1/kv/:key`
pub async fn put(call: Call, body: Body) -> Outcome {
    let query = call.query()?;
    let key = extract::key(&call.head.uri)?;
    check_named(&key)?;
    query.check_exclusive(&["cas", "acquire", "release"])?;
    query.check_exclusive(&["lock", "acquire", "release"])?;
    let flags = query.number("flags")?.unwrap_or_default();
    let cas = query.number("cas")?;
    let request = extract::request_id(&call.head.headers, call.edge.agent.entries())?;
    let lock = Lock::of(&query)?;
    let under = Under::of(&query)?;

    let max_value = call.edge.config.max_value;
    let limit = Limit::new("Value", max_value, "limits.kv_max_value_size");
    let agent = &call.edge.agent;
    let value = body::read(agent.world(), &call.head.headers, body, &limit).await?;
    let command = match lock {
        None => match under {
            None => Command::KvSet { key, value, flags, cas },
            Some(under) => {
                let verb = match cas {
                    None => KvVerb::Set { value, flags },
                    Some(index) => KvVerb::Cas { value, flags, index },
                };
                under.does(key, verb)
            }
        },
        Some(Lock::Acquire(session)) => Command::KvAcquire { key, value, flags, session },
        Some(Lock::Release(session, fence)) => Command::KvRelease { key, value, flags, session, fence },
        // No session has such an id, so none holds the key.
        Some(Lock::ReleaseNothing) => return Ok(reply::done(false)),
    };
    match agent.write(request, command).await?.reply {
        // Consul says 500 for a session that does not exist.
        Reply::Refused(text) if matches!(lock, Some(Lock::Acquire(_))) => Err(Failure::internal(text)),
        reply => done(reply),
    }
}

/// What a write of a key says about its lock.
#[derive(Clone, Copy)]
enum Lock {
    Acquire(Uuid),
    /// Under that fence only, if there is one (G5).
    Release(Uuid, Option<u64>),
    ReleaseNothing,
}

impl Lock {
    fn of(query: &Query<'_>) -> Result<Option<Lock>, Failure> {
        let fence = query.number("fence")?;
        if let Some(session) = query.text("acquire") {
            let named = |session: &str| match session {
                "" => Failure::internal("missing session"),
                session => Failure::internal(format!("invalid session {session:?}")),
            };
            return Uuid::try_parse(&session).map(|id| Some(Lock::Acquire(id))).map_err(|_| named(&session));
        }
        let Some(session) = query.text("release") else { return Ok(None) };
        Ok(Some(Uuid::try_parse(&session).map_or(Lock::ReleaseNothing, |id| Lock::Release(id, fence))))
    }
}

/// The lock and the fence that a write is done under (G3).
struct Under {
    lock: Key,
    fence: u64,
}

impl Under {
    fn of(query: &Query<'_>) -> Result<Option<Under>, Failure> {
        match (query.bytes("lock"), query.number("fence")?) {
            (Some(b""), _) => Err(Failure::bad_request("Missing key name: ?lock= names the lock that is held")),
            (Some(lock), Some(fence)) => Ok(Some(Under { lock: Key::from(lock), fence })),
            (Some(_), None) => {
                Err(Failure::bad_request("Missing fence: ?lock= needs the &fence= that it is held under"))
            }
            // Not written as if nothing had been asked for.
            (None, Some(_)) if !query.has("release") => {
                Err(Failure::bad_request("Missing lock: ?fence= needs the &lock= that it belongs to, or &release="))
            }
            (None, _) => Ok(None),
        }
    }

    fn does(self, key: Key, verb: KvVerb) -> Command {
        Command::KvFenced { lock: self.lock, fence: self.fence, key, verb }
    }
}

/// `DELETE /v1/kv/:key`
pub async fn delete(call: Call) -> Outcome {
    let query = call.query()?;
    let key = extract::key(&call.head.uri)?;
    query.check_exclusive(&["recurse", "cas"])?;
    let request = extract::request_id(&call.head.headers, call.edge.agent.entries())?;
    let cas = query.number("cas")?;
    let whole = query.has("recurse");
    if !whole {
        check_named(&key)?;
    }
    let command = match Under::of(&query)? {
        None if whole => Command::KvDeleteTree { prefix: key },
        None => Command::KvDelete { key, cas },
        Some(under) if whole => under.does(key, KvVerb::DeleteTree),
        Some(under) => under.does(key, cas.map_or(KvVerb::Delete, KvVerb::DeleteCas)),
    };
    done(call.edge.agent.write(request, command).await?.reply)
}

/// What came of a write.
pub fn done(reply: Reply) -> Outcome {
    match reply {
        Reply::Done(done) => Ok(reply::done(done)),
        Reply::Granted { fence } => Ok(reply::fenced(reply::done(true), fence)),
        Reply::FencedOff { current } => Ok(reply::fenced_off(current)),
        Reply::Queued { .. } | Reply::Session(_) | Reply::Committed(_) | Reply::RolledBack(_) => {
            Err(Failure::internal("bug: the answer to another kind of write"))
        }
        Reply::Refused(text) => Err(Failure::bad_request(text)),
        Reply::Forgotten => Err(Failure::internal(
            "Unknown outcome: the request id is too old to be remembered. An earlier attempt may have been applied; this \
             one was not",
        )),
    }
}

fn check_named(key: &Key) -> Result<(), Failure> {
    if key.as_bytes().is_empty() { Err(Failure::bad_request("Missing key name")) } else { Ok(()) }
}

/// The entries of one page, from `?limit=`.
fn page_limit(query: &Query<'_>) -> Result<Option<usize>, Failure> {
    let Some(text) = query.text("limit") else { return Ok(None) };
    let limit = text.parse().ok().filter(|limit| (1..=limits::MAX_PAGE).contains(limit));
    let most = limits::MAX_PAGE;
    limit.map(Some).ok_or_else(|| Failure::bad_request(format!("Invalid limit {text:?}: expected 1 to {most}")))
}
