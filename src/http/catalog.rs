//! `/v1/catalog`: nodes and services, read and registered (consul.md 2.6).

use std::collections::BTreeMap;

use axum_core::body::Body;
use http::HeaderMap;

use super::body::{self, Limit};
use super::extract::{self, Query};
use super::reply::{self, Failure};
use super::{Call, Outcome, shown};
use crate::agent::Scope;
use crate::api::catalog::{Deregistration, NodeServiceList, NodeServices, Registration};
use crate::api::json;
use crate::state::catalog::{ServiceRow, watch_key};
use crate::state::{self, Catalog, Command, Key, Reply, State, Subject};

const SERVICE: &str = "/v1/catalog/service/";
const NODE: &str = "/v1/catalog/node/";
const NODE_SERVICES: &str = "/v1/catalog/node-services/";

/// `GET /v1/catalog/datacenters`
pub async fn datacenters(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    let body = json::to_vec(&[&call.edge.agent.identity().datacenter], style);
    Ok(reply::json(&call.head.headers, HeaderMap::new(), body))
}

/// `GET /v1/catalog/nodes`
pub async fn nodes(call: Call) -> Outcome {
    let query = call.query()?;
    query.refuse_filter()?;
    let wanted = Wanted::of(&query)?;
    let nodes = |state: &State| {
        let nodes = state.catalog().nodes().filter(|row| wanted.has_meta(&row.node.meta));
        Some(shown::all(nodes, shown::node))
    };
    call.answer_subject(Scope::Prefix(Subject::Node, "".into()), nodes).await
}

/// `GET /v1/catalog/services`
pub async fn services(call: Call) -> Outcome {
    let query = call.query()?;
    query.refuse_filter()?;
    let wanted = Wanted::of(&query)?;
    let services = |state: &State| {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let catalog = state.catalog();
        for row in catalog.all_services().filter(|row| wanted.has_node(catalog, row)) {
            let tags = found.entry(row.service.name.clone()).or_default();
            tags.extend(row.service.tags.iter().cloned());
        }
        for tags in found.values_mut() {
            tags.sort();
            tags.dedup();
        }
        Some(found)
    };
    call.answer_subject(Scope::Prefix(Subject::Service, "".into()), services).await
}

/// `GET /v1/catalog/service/:name`
pub async fn service(call: Call) -> Outcome {
    let name = extract::rest(&call.head.uri, SERVICE)?;
    if name.is_empty() {
        return Err(Failure::bad_request("Missing service name"));
    }
    let query = call.query()?;
    query.refuse_filter()?;
    let wanted = Wanted::of(&query)?;
    let instances = |state: &State| {
        let catalog = state.catalog();
        let rows = catalog.instances(&name).filter(|row| wanted.has(catalog, row));
        Some(rows.filter_map(|row| shown::catalog_service(catalog, row)).collect::<Vec<_>>())
    };
    call.answer_subject(of_service(&name), instances).await
}

/// `GET /v1/catalog/node/:node`
pub async fn node(call: Call) -> Outcome {
    let name = node_named(&call, NODE)?;
    let found = |state: &State| {
        let node = shown::node(state.catalog().node(&name)?);
        let services = state.catalog().services_on(&name).map(|row| (row.service.id.clone(), shown::service(row)));
        Some(NodeServices { node, services: services.collect() })
    };
    call.answer_subject(on_node(&name), |state| Some(found(state))).await
}

/// `GET /v1/catalog/node-services/:node`
pub async fn node_services(call: Call) -> Outcome {
    let name = node_named(&call, NODE_SERVICES)?;
    let found = |state: &State| {
        let node = state.catalog().node(&name).map(|row| shown::node(row));
        let services = shown::all(state.catalog().services_on(&name), shown::service);
        Some(NodeServiceList { node, services })
    };
    call.answer_subject(on_node(&name), found).await
}

fn node_named(call: &Call, route: &str) -> Result<String, Failure> {
    call.query()?.refuse_filter()?;
    let name = extract::rest(&call.head.uri, route)?;
    if name.is_empty() { Err(Failure::bad_request("Missing node name")) } else { Ok(name) }
}

/// What is waited for where a node is read with its services.
fn on_node(name: &str) -> Scope {
    Scope::Key(Subject::NodeServices, Key::from(&*name.to_ascii_lowercase()))
}

/// What is waited for where a service is read.
pub fn of_service(name: &str) -> Scope {
    Scope::Prefix(Subject::Service, watch_key(name, "", ""))
}

/// `PUT /v1/catalog/register`
pub async fn register(call: Call, body: Body) -> Outcome {
    call.query()?;
    let body = read(&call, body).await?;
    let all = Registration::parse(&body).map_err(body::undecoded)?;
    let datacenter = &call.edge.agent.identity().datacenter;
    if all.node.node.is_empty() || (all.node.address.is_empty() && !all.skip_node) {
        return Err(Failure::internal("Must provide node and address"));
    }
    if let Some(other) = all.checks.iter().find(|check| !check.node.is_empty() && check.node != all.node.node) {
        let (node, check) = (&all.node.node, &other.check_id);
        return Err(Failure::internal(format!("check {check:?} is of node {:?}, not of {node:?}", other.node)));
    }
    let registration = state::Registration {
        node: shown::taken_node(all.node, datacenter)?,
        skip_node: all.skip_node,
        service: all.service.map(shown::taken_service).transpose()?,
        checks: all.checks.into_iter().map(shown::taken_check).collect(),
    };
    write(&call, Command::Register(registration)).await
}

/// `PUT /v1/catalog/deregister`
pub async fn deregister(call: Call, body: Body) -> Outcome {
    call.query()?;
    let body = read(&call, body).await?;
    let Deregistration { node, service_id, check_id } = Deregistration::parse(&body).map_err(body::undecoded)?;
    if node.is_empty() {
        return Err(Failure::internal("Must provide node"));
    }
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    write(&call, Command::Deregister { node, service: filled(service_id), check: filled(check_id) }).await
}

async fn read(call: &Call, body: Body) -> Result<bytes::Bytes, Failure> {
    let limit = Limit::new("Request body", call.edge.config.max_body, "limits.txn_max_req_len");
    body::read(call.edge.agent.world(), &call.head.headers, body, &limit).await
}

async fn write(call: &Call, command: Command) -> Outcome {
    let request = extract::request_id(&call.head.headers, call.edge.agent.entries())?;
    match call.edge.agent.write(request, command).await?.reply {
        // Consul says 500 to a registration that cannot be.
        Reply::Refused(text) => Err(Failure::internal(text)),
        reply => super::kv::done(reply),
    }
}

/// Which instances a query wants (consul.md 2.6 "Filters"): all tags, all pairs of its node's metadata.
pub struct Wanted {
    tags: Vec<String>,
    meta: Vec<(String, String)>,
}

impl Wanted {
    /// Reads `tag` and `node-meta`, each of which may repeat.
    pub fn of(query: &Query<'_>) -> Result<Self, Failure> {
        let pair = |text: String| match text.split_once(':') {
            Some((key, value)) => (key.to_string(), value.to_string()),
            None => (text, String::new()),
        };
        let tags = query.texts("tag").map(|tag| tag.to_lowercase()).filter(|tag| !tag.is_empty()).collect();
        Ok(Wanted { tags, meta: query.texts("node-meta").map(pair).collect() })
    }

    /// Whether an instance is wanted.
    pub fn has(&self, catalog: &Catalog, row: &ServiceRow) -> bool {
        let tagged = |tag: &String| row.service.tags.iter().any(|own| own.to_lowercase() == *tag);
        self.tags.iter().all(tagged) && self.has_node(catalog, row)
    }

    fn has_node(&self, catalog: &Catalog, row: &ServiceRow) -> bool {
        self.meta.is_empty() || catalog.node(&row.node_name).is_some_and(|row| self.has_meta(&row.node.meta))
    }

    /// Whether a node with this metadata is wanted.
    pub fn has_meta(&self, meta: &BTreeMap<String, String>) -> bool {
        self.meta.iter().all(|(key, value)| meta.get(key) == Some(value))
    }
}
