//! `/v1/health`: checks, and instances with theirs (consul.md 2.6).

use super::catalog::{Wanted, of_service};
use super::extract;
use super::reply::Failure;
use super::{Call, Outcome, shown};
use crate::agent::Scope;
use crate::state::catalog::{CheckRow, Status, watch_node};
use crate::state::{State, Subject};

const NODE: &str = "/v1/health/node/";
const CHECKS: &str = "/v1/health/checks/";
const SERVICE: &str = "/v1/health/service/";
const STATE: &str = "/v1/health/state/";

/// `GET /v1/health/node/:node`
pub async fn node(call: Call) -> Outcome {
    let name = named(&call, NODE, "Missing node name")?;
    let checks = |state: &State| Some(shown::all(state.catalog().checks_on(&name), shown::check));
    call.answer_subject(Scope::Prefix(Subject::Check, watch_node(&name)), checks).await
}

/// `GET /v1/health/checks/:service`
pub async fn checks(call: Call) -> Outcome {
    let name = named(&call, CHECKS, "Missing service name")?;
    let wanted = Wanted::of(&call.query()?)?;
    let checks = |state: &State| {
        let catalog = state.catalog();
        let rows = catalog.instances(&name).filter(|row| wanted.has(catalog, row));
        let own = rows.flat_map(|row| {
            let of_it = |check: &&std::sync::Arc<CheckRow>| !check.check.service_id.is_empty();
            catalog.checks_of(&row.node_name, &row.service.id).filter(of_it)
        });
        Some(shown::all(own, shown::check))
    };
    call.answer_subject(of_service(&name), checks).await
}

/// `GET /v1/health/service/:service`
pub async fn service(call: Call) -> Outcome {
    let name = named(&call, SERVICE, "Missing service name")?;
    let query = call.query()?;
    let wanted = Wanted::of(&query)?;
    // Bare, or as a Boolean: Consul's rule.
    let passing = match query.text("passing").as_deref() {
        None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
        Some("" | "true" | "1" | "t" | "T" | "TRUE" | "True") => true,
        Some(_) => return Err(Failure::bad_request("Invalid value for ?passing")),
    };
    let instances = |state: &State| {
        let catalog = state.catalog();
        let well = |row: &crate::state::catalog::ServiceRow| {
            !passing
                || catalog.checks_of(&row.node_name, &row.service.id).all(|row| row.check.status == Status::Passing)
        };
        let rows = catalog.instances(&name).filter(|row| wanted.has(catalog, row) && well(row));
        Some(rows.filter_map(|row| shown::service_entry(catalog, row)).collect::<Vec<_>>())
    };
    call.answer_subject(of_service(&name), instances).await
}

/// `GET /v1/health/state/:state`
pub async fn state(call: Call) -> Outcome {
    let name = named(&call, STATE, "Missing check state")?;
    let wanted = Wanted::of(&call.query()?)?;
    let status = match name.as_str() {
        "any" => None,
        name => Some(shown::status_named(name).ok_or_else(|| {
            Failure::bad_request(format!("Invalid check state {name:?}: there are any, passing, warning and critical"))
        })?),
    };
    let checks = |state: &State| {
        let catalog = state.catalog();
        let on = |row: &CheckRow| catalog.node(&row.node_name).is_some_and(|node| wanted.has_meta(&node.node.meta));
        let rows = catalog.checks().filter(|row| status.is_none_or(|status| row.check.status == status) && on(row));
        Some(shown::all(rows, shown::check))
    };
    call.answer_subject(Scope::Prefix(Subject::Check, "".into()), checks).await
}

fn named(call: &Call, route: &str, missing: &'static str) -> Result<String, Failure> {
    call.query()?.refuse_filter()?;
    let name = extract::rest(&call.head.uri, route)?;
    if name.is_empty() { Err(Failure::bad_request(missing)) } else { Ok(name) }
}
