//! `/v1/session`: sessions and their leases (consul.md 2.4, G1).

use axum_core::body::Body;
use http::StatusCode;
use uuid::Uuid;

use super::body::{self, Limit};
use super::extract;
use super::reply::{self, Failure};
use super::{Call, Outcome, shown};
use crate::agent::Scope;
use crate::api::json;
use crate::api::session::{Created, NewSession, Session};
use crate::error::Error;
use crate::state::{Command, Key, State, Subject};

/// Where the routes begin; what follows is an id or a node.
const DESTROY: &str = "/v1/session/destroy/";
const RENEW: &str = "/v1/session/renew/";
const INFO: &str = "/v1/session/info/";
const NODE: &str = "/v1/session/node/";

/// `PUT /v1/session/create`
pub async fn create(call: Call, body: Body) -> Outcome {
    let query = call.query()?;
    let style = call.style(&query);
    let agent = &call.edge.agent;
    let request = extract::request_id(&call.head.headers, agent.entries())?;
    let limit = Limit::new("Request body", call.edge.config.max_body, "limits.txn_max_req_len");
    let body = body::read(agent.world(), &call.head.headers, body, &limit).await?;
    let new = NewSession::parse(&body).map_err(body::undecoded)?;
    let alive = agent.create_session(request, new).await.map_err(not_created)?;
    let created = Created { id: alive.id };
    Ok(reply::json(&call.head.headers, reply::leased(alive.lease), json::to_vec(&created, style)))
}

/// Consul says 500 to a session that cannot be.
fn not_created(error: Error) -> Failure {
    match error {
        Error::Request(text) => Failure::internal(text),
        error => error.into(),
    }
}

/// `PUT /v1/session/destroy/:id`
pub async fn destroy(call: Call) -> Outcome {
    call.query()?;
    let request = extract::request_id(&call.head.headers, call.edge.agent.entries())?;
    // What is no id at all is no session either, and destroying those is true.
    let Some(id) = named(&call, DESTROY)? else { return Ok(reply::done(true)) };
    super::kv::done(call.edge.agent.write(request, Command::SessionDestroy { id }).await?.reply)
}

/// `PUT /v1/session/renew/:id`
pub async fn renew(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    let alive = match named(&call, RENEW)? {
        Some(id) => call.edge.agent.renew_session(id).await?,
        None => None,
    };
    let Some(alive) = alive else {
        let asked = extract::rest(&call.head.uri, RENEW)?;
        return Ok(reply::text(StatusCode::NOT_FOUND, format!("Session id '{asked}' not found")));
    };
    let body = json::to_vec(&[shown::session(alive.id, &alive.row)], style);
    Ok(reply::json(&call.head.headers, reply::leased(alive.lease), body))
}

/// `GET /v1/session/info/:id`
pub async fn info(call: Call) -> Outcome {
    let id = named(&call, INFO)?.unwrap_or_default();
    let scope = Scope::Key(Subject::Session, Key::from(&id.as_bytes()[..]));
    let one = move |state: &State| state.sessions().get(id).map(|row| shown::session(id, row)).into_iter().collect();
    list(call, scope, one).await
}

/// `GET /v1/session/node/:node`
pub async fn node(call: Call) -> Outcome {
    let node = extract::rest(&call.head.uri, NODE)?;
    if node.is_empty() {
        return Err(Failure::bad_request("Missing node name"));
    }
    let on_node =
        move |state: &State| state.sessions().on_node(&node).map(|(id, row)| shown::session(id, row)).collect();
    list(call, Scope::Prefix(Subject::Session, "".into()), on_node).await
}

/// `GET /v1/session/list`
pub async fn all(call: Call) -> Outcome {
    let all = |state: &State| state.sessions().iter().map(|(id, row)| shown::session(id, row)).collect();
    list(call, Scope::Prefix(Subject::Session, "".into()), all).await
}

async fn list(call: Call, scope: Scope, of: impl Fn(&State) -> Vec<Session>) -> Outcome {
    call.answer_subject(scope, |state| Some(of(state))).await
}

/// The session that the path names; `None` if that is no id.
fn named(call: &Call, route: &str) -> Result<Option<Uuid>, Failure> {
    let text = extract::rest(&call.head.uri, route)?;
    if text.is_empty() {
        return Err(Failure::bad_request("Missing session"));
    }
    Ok(Uuid::try_parse(&text).ok())
}
