//! `PUT /v1/txn`: several things or none (consul.md 2.5).

use axum_core::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::body::{self, Limit};
use super::extract;
use super::reply::{self, Failure};
use super::{Call, Outcome, shown};
use crate::api::json;
use crate::api::kv::KvEntry;
use crate::api::txn::{self as api, KvOperation, TxnAnswer, TxnError, TxnResult};
use crate::limits::MAX_TXN_OPERATIONS;
use crate::state::txn::{self, CatalogVerb, Given, KvVerb, Operation};
use crate::state::{Command, Key, KvRow, Reply};

/// `PUT /v1/txn`
pub async fn put(call: Call, body: Body) -> Outcome {
    let query = call.query()?;
    let style = call.style(&query);
    let agent = &call.edge.agent;
    let request = extract::request_id(&call.head.headers, agent.entries())?;
    // In base64 a value takes a third more; the values themselves are looked at one by one.
    let bytes = call.edge.config.max_body.max(call.edge.config.max_value);
    let limit = Limit::new("Request body", bytes, "limits.txn_max_req_len");
    let body = body::read(agent.world(), &call.head.headers, body, &limit).await?;
    let asked = api::parse(&body).map_err(|error| Failure::bad_request(format!("Failed to parse body: {error}")))?;
    if asked.len() > MAX_TXN_OPERATIONS {
        let text = format!("Transaction contains too many operations ({} > {MAX_TXN_OPERATIONS})", asked.len());
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let operations = match translated(&call, asked)? {
        Ok(operations) => operations,
        Err(failures) => return Ok(answer(&call, HeaderMap::new(), Err(failures), style)),
    };
    if operations.iter().all(Operation::only_reads) {
        let options = query.read_options()?;
        let read = agent.glance(&options, |state| state.read_transaction(&operations)).await?;
        let mut headers = reply::indexed(&read);
        // Consul gives none here.
        headers.remove(reply::INDEX);
        return Ok(answer(&call, headers, read.value.unwrap_or(Ok(Vec::new())), style));
    }
    match agent.write(request, Command::Txn(operations)).await?.reply {
        Reply::Committed(given) => Ok(answer(&call, HeaderMap::new(), Ok(given), style)),
        Reply::RolledBack(failures) => Ok(answer(&call, HeaderMap::new(), Err(failures), style)),
        reply => super::kv::done(reply),
    }
}

fn answer(
    call: &Call,
    headers: HeaderMap,
    outcome: Result<Vec<Given>, Vec<txn::Failure>>,
    style: json::Style,
) -> reply::Response {
    let error = |failure: txn::Failure| TxnError { op_index: failure.operation as usize, what: failure.why };
    let (status, body) = match outcome {
        Ok(given) => {
            let results = given.into_iter().map(result).collect();
            (StatusCode::OK, TxnAnswer { results: Some(results), errors: None })
        }
        Err(failures) => {
            let errors = failures.into_iter().map(error).collect();
            (StatusCode::CONFLICT, TxnAnswer { results: None, errors: Some(errors) })
        }
    };
    let mut response = reply::json(&call.head.headers, headers, json::to_vec(&body, style));
    *response.status_mut() = status;
    response
}

fn result(given: Given) -> TxnResult {
    match given {
        Given::Kv(key, row) => TxnResult::Kv(entry(&key, row)),
        Given::Node(row) => TxnResult::Node(shown::node(&row)),
        Given::Service(row) => TxnResult::Service(shown::service(&row)),
        Given::Check(row) => TxnResult::Check(shown::check(&row)),
    }
}

fn entry(key: &Key, row: KvRow) -> KvEntry {
    KvEntry {
        lock_index: row.lock_index,
        key: String::from_utf8_lossy(key.as_bytes()).into_owned(),
        flags: row.flags,
        value: row.value.to_vec(),
        session: row.holder.map(|holder| holder.session),
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// The operations as the state takes them, or why some cannot be taken, each by its number.
fn translated(call: &Call, asked: Vec<api::Operation>) -> Result<Result<Vec<Operation>, Vec<txn::Failure>>, Failure> {
    let (mut operations, mut failures) = (Vec::new(), Vec::new());
    for (operation, number) in asked.into_iter().zip(0..) {
        match operation_of(call, operation)? {
            Ok(operation) => operations.push(operation),
            Err(why) => failures.push(txn::Failure { operation: number, why }),
        }
    }
    Ok(if failures.is_empty() { Ok(operations) } else { Err(failures) })
}

fn operation_of(call: &Call, operation: api::Operation) -> Result<Result<Operation, String>, Failure> {
    let datacenter = &call.edge.agent.identity().datacenter;
    Ok(match operation {
        api::Operation::Kv(operation) => {
            let most = call.edge.config.max_value;
            if operation.value.len() > most {
                let text = format!(
                    "Value for key {:?} is too large ({} > {most} bytes)",
                    operation.key,
                    operation.value.len()
                );
                return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            let key = Key::from(&*operation.key);
            kv_verb(operation).map(|verb| Operation::Kv { key, verb })
        }
        // What is no id is no session, and deleting those is done.
        api::Operation::SessionDelete { id } => Ok(Operation::SessionDelete(Uuid::try_parse(&id).unwrap_or_default())),
        api::Operation::Node { verb, node } => {
            let verb = catalog_verb("node", &verb, node.modify_index);
            let node = shown::taken_node(node, datacenter)?;
            verb.map(|verb| Operation::Node { node, verb })
        }
        api::Operation::Service { verb, node, service } => {
            let verb = catalog_verb("service", &verb, service.modify_index);
            let service = shown::taken_service(service)?;
            verb.map(|verb| Operation::Service { node, service, verb })
        }
        api::Operation::Check { verb, check } => {
            let (verb, node) = (catalog_verb("check", &verb, check.modify_index), check.node.clone());
            let check = shown::taken_check(check);
            verb.map(|verb| Operation::Check { node, check, verb })
        }
    })
}

fn kv_verb(operation: KvOperation) -> Result<KvVerb, String> {
    let KvOperation { verb, key, value, flags, index, session } = operation;
    let (value, at) = (Bytes::from(value), index.unwrap_or_default());
    let session_id = || Uuid::try_parse(&session);
    Ok(match verb.as_str() {
        "set" => KvVerb::Set { value, flags },
        "cas" => KvVerb::Cas { value, flags, index: at },
        "lock" => {
            let session =
                session_id().map_err(|_| format!("failed to lock key {key:?}, invalid session {session:?}"))?;
            KvVerb::Lock { value, flags, session }
        }
        "unlock" => {
            let session =
                session_id().map_err(|_| format!("failed to unlock key {key:?}, invalid session {session:?}"))?;
            // Clients of Consul send an index of 0, which is no fence.
            KvVerb::Unlock { value, flags, session, fence: index.filter(|index| *index > 0) }
        }
        "get" => KvVerb::Get,
        "get-or-empty" => KvVerb::GetOrEmpty,
        "get-tree" => KvVerb::GetTree,
        "delete" => KvVerb::Delete,
        "delete-cas" => KvVerb::DeleteCas(at),
        "delete-tree" => KvVerb::DeleteTree,
        "check-session" => KvVerb::CheckSession(match session.as_str() {
            "" => None,
            // No session has such an id, so none with it holds the key.
            _ => Some(session_id().unwrap_or_default()),
        }),
        "check-index" => KvVerb::CheckIndex(at),
        "check-not-exists" => KvVerb::CheckNotExists,
        "check-fence" => KvVerb::CheckFence(at),
        other => return Err(format!("unknown KV verb {other:?}")),
    })
}

fn catalog_verb(kind: &str, verb: &str, index: u64) -> Result<CatalogVerb, String> {
    Ok(match verb {
        "set" => CatalogVerb::Set,
        "cas" => CatalogVerb::Cas(index),
        "get" => CatalogVerb::Get,
        "delete" => CatalogVerb::Delete,
        "delete-cas" => CatalogVerb::DeleteCas(index),
        other => return Err(format!("unknown {kind} verb {other:?}")),
    })
}
