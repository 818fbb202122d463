//! `/v1/lock`: locks with queues (guarantees.md G6).
//!
//! Lock K is the key K: `?acquire=`, `?release=` and `DELETE` of the key concern it too, and a write may be fenced by it.

use std::time::Duration;

use http::StatusCode;
use uuid::Uuid;

use super::extract::{self, Query};
use super::reply::{self, Failure};
use super::{Call, Outcome};
use crate::agent::{Found, Scope};
use crate::api::duration::GoDuration;
use crate::api::json;
use crate::api::lock::{Granted, Lock, Waiting};
use crate::error::Error;
use crate::limits;
use crate::state::{Command, Key, State, Subject};

/// Where the route begins; what follows is the key.
const ROUTE: &str = "/v1/lock/";

/// `GET /v1/lock/:key`
pub async fn get(call: Call) -> Outcome {
    let query = call.query()?;
    let key = named(&call)?;
    let options = query.read_options()?;
    let scope = Scope::Key(Subject::Lock, key.clone());
    let answer = call
        .edge
        .read(&options, scope, |state| Found { value: shown(state, &key), index: state.index_of(Subject::Lock) })
        .await?;
    let headers = reply::indexed(&answer);
    match answer.value {
        Some(lock) => Ok(reply::json(&call.head.headers, headers, json::to_vec(&lock, call.style(&query)))),
        None => Ok(reply::empty(StatusCode::NOT_FOUND, headers)),
    }
}

/// `PUT /v1/lock/:key`
pub async fn put(call: Call) -> Outcome {
    let query = call.query()?;
    let style = call.style(&query);
    let key = named(&call)?;
    let session = session(&query)?;
    let wait = wait(&query)?;
    let agent = &call.edge.agent;
    let request = extract::request_id(&call.head.headers, agent.entries())?;
    let fence = agent.lock(request, key.clone(), session, wait, call.edge.stopped()).await.map_err(not_granted)?;
    let headers = http::HeaderMap::new();
    if let Some(fence) = fence {
        let granted = json::to_vec(&Granted { fence, index: fence }, style);
        return Ok(reply::fenced(reply::json(&call.head.headers, headers, granted), fence));
    }
    let look = agent.glance(&Default::default(), |state| shown(state, &key)).await?;
    let free = Lock { key: key.to_string(), session: None, fence: 0, queue: Vec::new() };
    let lock = look.value.flatten().unwrap_or(free);
    let mut answer = reply::json(&call.head.headers, headers, json::to_vec(&lock, style));
    *answer.status_mut() = StatusCode::LOCKED;
    Ok(answer)
}

/// `DELETE /v1/lock/:key`
pub async fn delete(call: Call) -> Outcome {
    let query = call.query()?;
    let key = named(&call)?;
    let (session, fence) = (session(&query)?, query.number("fence")?);
    let agent = &call.edge.agent;
    let request = extract::request_id(&call.head.headers, agent.entries())?;
    super::kv::done(agent.write(request, Command::LockRelease { lock: key, session, fence }).await?.reply)
}

/// As for `?acquire=`, a session that does not exist is a 500.
fn not_granted(error: Error) -> Failure {
    match error {
        Error::Request(text) => Failure::internal(text),
        error => error.into(),
    }
}

fn shown(state: &State, key: &Key) -> Option<Lock> {
    let holder = state.kv().get(key.as_bytes()).and_then(|row| row.holder);
    let waiting = state.queues().of(key).take(limits::MAX_PAGE);
    let queue: Vec<Waiting> = waiting.map(|(place, waiter)| Waiting { session: waiter.session, place }).collect();
    (holder.is_some() || !queue.is_empty()).then(|| Lock {
        key: key.to_string(),
        session: holder.map(|holder| holder.session),
        fence: holder.map_or(0, |holder| holder.fence),
        queue,
    })
}

fn named(call: &Call) -> Result<Key, Failure> {
    let key = extract::key_after(&call.head.uri, ROUTE)?;
    if key.as_bytes().is_empty() { Err(Failure::bad_request("Missing key name")) } else { Ok(key) }
}

fn session(query: &Query<'_>) -> Result<Uuid, Failure> {
    match query.text("session").as_deref() {
        None | Some("") => Err(Failure::bad_request("Missing session: ?session= says who wants the lock")),
        Some(text) => Uuid::try_parse(text).map_err(|_| Failure::internal(format!("invalid session {text:?}"))),
    }
}

fn wait(query: &Query<'_>) -> Result<Option<Duration>, Failure> {
    let Some(text) = query.text("wait").filter(|text| !text.is_empty()) else { return Ok(None) };
    let wait = text.parse::<GoDuration>().ok().and_then(GoDuration::to_std);
    wait.map(Some).ok_or_else(|| Failure::bad_request(format!("Invalid wait {text:?}: expected a time such as 60s")))
}
