//! What the state holds as the API shows it, and what the API takes as the state holds it. Nothing is decided here.

use std::sync::Arc;

use uuid::Uuid;

use super::reply::Failure;
use crate::api::catalog as api;
use crate::api::duration::GoDuration;
use crate::api::session as api_session;
use crate::state::catalog::{Check, CheckRow, Node, NodeRow, Service, ServiceAddress, ServiceRow, Status, Weights};
use crate::state::session::Behavior;
use crate::state::{Catalog, SessionRow};

/// A session.
pub fn session(id: Uuid, row: &SessionRow) -> api_session::Session {
    let session = &row.session;
    let check = |id: &String| api_session::ServiceCheck { id: id.clone(), namespace: String::new() };
    let services: Vec<_> = session.service_checks.iter().map(check).collect();
    api_session::Session {
        id,
        name: session.name.clone(),
        node: session.node.clone(),
        lock_delay: u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX),
        behavior: match session.behavior {
            Behavior::Release => api_session::Behavior::Release,
            Behavior::Delete => api_session::Behavior::Delete,
        },
        ttl: if session.ttl.is_zero() { String::new() } else { GoDuration::from(session.ttl).to_string() },
        node_checks: session.node_checks.clone(),
        service_checks: (!services.is_empty()).then_some(services),
        create_index: row.create_index,
        modify_index: row.create_index,
    }
}

/// A node.
pub fn node(row: &NodeRow) -> api::Node {
    let Node { id, name, address, datacenter, tagged_addresses, meta } = row.node.clone();
    api::Node {
        id: id.map_or(String::new(), |id| id.to_string()),
        node: name,
        address,
        datacenter,
        tagged_addresses,
        meta,
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// An instance.
pub fn service(row: &ServiceRow) -> api::Service {
    let service = row.service.clone();
    let address = |address: ServiceAddress| api::ServiceAddress { address: address.address, port: address.port };
    api::Service {
        kind: String::new(),
        id: service.id,
        service: service.name,
        tags: service.tags,
        address: service.address,
        tagged_addresses: service.tagged_addresses.into_iter().map(|(tag, at)| (tag, address(at))).collect(),
        meta: service.meta,
        port: service.port,
        weights: api::Weights { passing: service.weights.passing, warning: service.weights.warning },
        enable_tag_override: service.enable_tag_override,
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// An instance beside its node.
pub fn catalog_service(catalog: &Catalog, row: &ServiceRow) -> Option<api::CatalogService> {
    let node = node(catalog.node(&row.node_name)?);
    let service = service(row);
    Some(api::CatalogService {
        id: node.id,
        node: node.node,
        address: node.address,
        datacenter: node.datacenter,
        tagged_addresses: node.tagged_addresses,
        node_meta: node.meta,
        service_kind: String::new(),
        service_id: service.id,
        service_name: service.service,
        service_tags: service.tags,
        service_address: service.address,
        service_tagged_addresses: service.tagged_addresses,
        service_weights: service.weights,
        service_meta: service.meta,
        service_port: service.port,
        service_enable_tag_override: service.enable_tag_override,
        create_index: service.create_index,
        modify_index: service.modify_index,
    })
}

/// An instance with its node and its checks.
pub fn service_entry(catalog: &Catalog, row: &ServiceRow) -> Option<api::ServiceEntry> {
    let checks = catalog.checks_of(&row.node_name, &row.service.id).map(|row| check(row)).collect();
    Some(api::ServiceEntry { node: node(catalog.node(&row.node_name)?), service: service(row), checks })
}

/// A check.
pub fn check(row: &CheckRow) -> api::Check {
    let check = row.check.clone();
    // What the log holds was JSON when it came.
    let definition = serde_json::from_str(&check.definition).unwrap_or_else(|_| serde_json::json!({}));
    api::Check {
        node: row.node_name.clone(),
        check_id: check.id,
        name: check.name,
        status: status(check.status).into(),
        notes: check.notes,
        output: check.output,
        service_id: check.service_id,
        service_name: check.service_name,
        service_tags: check.service_tags,
        kind: check.kind,
        definition,
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// How a check stands, in Consul's word.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Passing => "passing",
        Status::Warning => "warning",
        Status::Critical => "critical",
    }
}

/// The status with that name.
pub fn status_named(name: &str) -> Option<Status> {
    [Status::Passing, Status::Warning, Status::Critical].into_iter().find(|one| status(*one) == name)
}

/// A node as it is to be registered, in this datacenter.
pub fn taken_node(node: api::Node, datacenter: &str) -> Result<Node, Failure> {
    if !node.datacenter.is_empty() && node.datacenter != datacenter {
        return Err(Failure::internal("No path to datacenter"));
    }
    let id = match node.id.as_str() {
        "" => None,
        id => {
            Some(Uuid::try_parse(id).map_err(|_| Failure::bad_request(format!("Invalid node ID {id:?}: not a UUID")))?)
        }
    };
    Ok(Node {
        id,
        name: node.node,
        address: node.address,
        datacenter: datacenter.into(),
        tagged_addresses: node.tagged_addresses,
        meta: node.meta,
    })
}

/// An instance as it is to be registered.
pub fn taken_service(service: api::Service) -> Result<Service, Failure> {
    if ["0.0.0.0", "::", "[::]"].contains(&service.address.as_str()) {
        return Err(Failure::bad_request(format!(
            "Invalid service address {:?}: nobody can reach a service at every address",
            service.address
        )));
    }
    let address = |address: api::ServiceAddress| ServiceAddress { address: address.address, port: address.port };
    Ok(Service {
        id: service.id,
        name: service.service,
        tags: service.tags,
        address: service.address,
        tagged_addresses: service.tagged_addresses.into_iter().map(|(tag, at)| (tag, address(at))).collect(),
        meta: service.meta,
        port: service.port,
        weights: Weights { passing: service.weights.passing, warning: service.weights.warning },
        enable_tag_override: service.enable_tag_override,
    })
}

/// A check as it is to be registered.
pub fn taken_check(check: api::Check) -> Check {
    Check {
        id: check.check_id,
        name: check.name,
        status: status_named(&check.status).unwrap_or_default(),
        notes: check.notes,
        output: check.output,
        service_id: check.service_id,
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: check.kind,
        definition: if check.definition.is_null() { String::new() } else { check.definition.to_string() },
    }
}

/// All of them, shown.
pub fn all<'a, R: 'a, T>(rows: impl Iterator<Item = &'a Arc<R>>, show: impl Fn(&R) -> T) -> Vec<T> {
    rows.map(|row| show(row)).collect()
}
