//! Nodes, services and checks as the API shows them and takes them (consul.md 2.6).
//!
//! What is shown is written by serde. What is taken is read field by field, because an unknown field is an error and names match
//! in any case; [`Registration`] is the body of `PUT /v1/catalog/register`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decode::{self, DecodeError, Object};

type Result<T> = std::result::Result<T, DecodeError>;
type Pairs = BTreeMap<String, String>;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// A UUID, or empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub node: String,
    /// Where it is reached.
    pub address: String,
    /// Its datacenter.
    pub datacenter: String,
    /// More addresses, by what they are for.
    pub tagged_addresses: Pairs,
    /// Whatever else is to be known of it.
    pub meta: Pairs,
    /// The revision that registered it.
    pub create_index: u64,
    /// The revision that last changed it.
    pub modify_index: u64,
}

/// An address with a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceAddress {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// How much of the work an instance is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Weights {
    /// While its checks pass.
    pub passing: u32,
    /// While one warns.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Weights { passing: 1, warning: 1 }
    }
}

/// An instance of a service, where its node is named beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// Always empty: there is no mesh.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its id, unique on its node.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service.
    pub service: String,
    /// In the order given.
    pub tags: Vec<String>,
    /// Where it is reached; empty if at its node's address.
    pub address: String,
    /// More addresses, by what they are for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Whatever else is to be known of it.
    pub meta: Pairs,
    /// Its port.
    pub port: u16,
    /// How much of the work it is to get.
    pub weights: Weights,
    /// Whether others may change its tags in the catalog.
    pub enable_tag_override: bool,
    /// The revision that registered it.
    pub create_index: u64,
    /// The revision that last changed it.
    pub modify_index: u64,
}

/// An instance of a service with what a client needs of its node: an element of `GET /v1/catalog/service/:name`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogService {
    /// Its node's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its node.
    pub node: String,
    /// Its node's address.
    pub address: String,
    /// Its node's datacenter.
    pub datacenter: String,
    /// Its node's.
    pub tagged_addresses: Pairs,
    /// Its node's.
    pub node_meta: Pairs,
    /// Always empty.
    pub service_kind: String,
    /// See [`Service::id`].
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// See [`Service::service`].
    pub service_name: String,
    /// See [`Service::tags`].
    pub service_tags: Vec<String>,
    /// See [`Service::address`].
    pub service_address: String,
    /// See [`Service::tagged_addresses`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// See [`Service::weights`].
    pub service_weights: Weights,
    /// See [`Service::meta`].
    pub service_meta: Pairs,
    /// See [`Service::port`].
    pub service_port: u16,
    /// See [`Service::enable_tag_override`].
    pub service_enable_tag_override: bool,
    /// The revision that registered it.
    pub create_index: u64,
    /// The revision that last changed it.
    pub modify_index: u64,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// Its node.
    pub node: String,
    /// Its id, unique on its node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// Its name, for people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// For people.
    pub notes: String,
    /// What it printed last.
    pub output: String,
    /// The instance that it checks; empty if it checks the node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service of that instance.
    pub service_name: String,
    /// The tags of that instance.
    pub service_tags: Vec<String>,
    /// How it is run.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What it does.
    pub definition: Value,
    /// The revision that registered it.
    pub create_index: u64,
    /// The revision that last changed it.
    pub modify_index: u64,
}

/// An instance with its node and all checks that concern it: an element of `GET /v1/health/service/:name`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceEntry {
    /// Its node.
    pub node: Node,
    /// The instance.
    pub service: Service,
    /// Its own checks and its node's.
    pub checks: Vec<Check>,
}

/// The answer to `GET /v1/catalog/node/:node`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeServices {
    /// The node.
    pub node: Node,
    /// Its instances by id.
    pub services: BTreeMap<String, Service>,
}

/// The answer to `GET /v1/catalog/node-services/:node`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeServiceList {
    /// The node.
    pub node: Option<Node>,
    /// Its instances.
    pub services: Vec<Service>,
}

/// The body of `PUT /v1/catalog/register`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registration {
    /// The node.
    pub node: Node,
    /// The node stays as it is.
    pub skip_node: bool,
    /// An instance on it.
    pub service: Option<Service>,
    /// Checks on it.
    pub checks: Vec<Check>,
}

impl Registration {
    /// Reads a body.
    ///
    /// # Errors
    /// No JSON, a field of the wrong type, an unknown field, something of the mesh.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut body = Object::of(decode::parse(body)?)?;
        let mut node = node_fields(&mut body)?;
        node.meta = body.pairs("NodeMeta")?;
        let skip_node = body.flag("SkipNodeUpdate")?.unwrap_or_default();
        let service = body.take("Service").map(service).transpose()?;
        let one = body.take("Check").map(check).transpose()?;
        let checks = body.list("Checks")?.unwrap_or_default().into_iter().map(check).collect::<Result<Vec<_>>>()?;
        body.finish()?;
        Ok(Registration { node, skip_node, service, checks: one.into_iter().chain(checks).collect() })
    }
}

/// The body of `PUT /v1/catalog/deregister`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deregistration {
    /// The node.
    pub node: String,
    /// An instance on it; empty for none.
    pub service_id: String,
    /// A check on it; empty for none.
    pub check_id: String,
}

impl Deregistration {
    /// Reads a body.
    ///
    /// # Errors
    /// No JSON, a field of the wrong type, an unknown field.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut body = Object::of(decode::parse(body)?)?;
        let mut text = |name| Ok(body.text(name)?.unwrap_or_default());
        let read = Deregistration { node: text("Node")?, service_id: text("ServiceID")?, check_id: text("CheckID")? };
        for unread in ["Address", "Datacenter", "Namespace", "Partition"] {
            body.take(unread);
        }
        body.finish()?;
        Ok(read)
    }
}

fn node_fields(fields: &mut Object) -> Result<Node> {
    let mut text = |name| Ok(fields.text(name)?.unwrap_or_default());
    let (id, node, address, datacenter) = (text("ID")?, text("Node")?, text("Address")?, text("Datacenter")?);
    let tagged_addresses = fields.pairs("TaggedAddresses")?;
    without_tenancy(fields)?;
    Ok(Node { id, node, address, datacenter, tagged_addresses, ..Node::default() })
}

/// Reads a node of a transaction.
pub(super) fn node(value: Value) -> Result<Node> {
    let mut fields = Object::of(value)?;
    let mut node = node_fields(&mut fields)?;
    node.meta = fields.pairs("Meta")?;
    node.modify_index = index(&mut fields)?;
    fields.finish()?;
    Ok(node)
}

/// Reads an instance.
pub(super) fn service(value: Value) -> Result<Service> {
    let mut fields = Object::of(value)?;
    let mut text = |name| Ok(fields.text(name)?.unwrap_or_default());
    let (kind, id, service, address) = (text("Kind")?, text("ID")?, text("Service")?, text("Address")?);
    if !kind.is_empty() || !text("SocketPath")?.is_empty() {
        return Err(DecodeError("Kind and SocketPath belong to the service mesh, which quorate leaves out".into()));
    }
    for mesh in ["Proxy", "Connect", "Locality", "Ports"] {
        let empty = |value: &Value| value.as_object().is_some_and(|object| object.values().all(is_nothing));
        if fields.take(mesh).is_some_and(|value| !empty(&value)) {
            return Err(DecodeError(format!("{mesh} belongs to the service mesh, which quorate leaves out")));
        }
    }
    let mut tagged_addresses = BTreeMap::new();
    for (tag, value) in fields.entries("TaggedAddresses")? {
        let mut address = Object::of(value)?;
        let read =
            ServiceAddress { address: address.text("Address")?.unwrap_or_default(), port: address.port("Port")? };
        address.finish()?;
        tagged_addresses.insert(tag, read);
    }
    let weights = match fields.take("Weights") {
        None => Weights::default(),
        Some(value) => {
            let mut weights = Object::of(value)?;
            let mut weight = |name| Ok(u32::try_from(weights.number(name)?.unwrap_or(1)).unwrap_or(u32::MAX));
            let read = Weights { passing: weight("Passing")?, warning: weight("Warning")? };
            weights.finish()?;
            read
        }
    };
    let read = Service {
        kind,
        // Consul's rule.
        id: if id.is_empty() { service.clone() } else { id },
        service,
        tags: fields.texts("Tags")?.unwrap_or_default(),
        address,
        tagged_addresses,
        meta: fields.pairs("Meta")?,
        port: fields.port("Port")?,
        weights,
        enable_tag_override: fields.flag("EnableTagOverride")?.unwrap_or_default(),
        create_index: 0,
        modify_index: index(&mut fields)?,
    };
    without_tenancy(&mut fields)?;
    fields.take("ContentHash");
    fields.finish()?;
    Ok(read)
}

/// Reads a check.
pub(super) fn check(value: Value) -> Result<Check> {
    let mut fields = Object::of(value)?;
    let mut text = |name| Ok(fields.text(name)?.unwrap_or_default());
    let (check_id, name, status) = (text("CheckID")?, text("Name")?, text("Status")?);
    if !["", "passing", "warning", "critical"].contains(&status.as_str()) {
        return Err(DecodeError(format!("Invalid check status {status:?}: there are passing, warning and critical")));
    }
    let read = Check {
        node: text("Node")?,
        // Consul's rules.
        check_id: if check_id.is_empty() { name.clone() } else { check_id },
        name,
        status: if status.is_empty() { "critical".into() } else { status },
        notes: text("Notes")?,
        output: text("Output")?,
        service_id: text("ServiceID")?,
        service_name: text("ServiceName")?,
        kind: text("Type")?,
        service_tags: fields.texts("ServiceTags")?.unwrap_or_default(),
        definition: fields.take("Definition").unwrap_or_default(),
        create_index: 0,
        modify_index: index(&mut fields)?,
    };
    without_tenancy(&mut fields)?;
    for shown in ["Interval", "Timeout", "ExposedPort"] {
        fields.take(shown);
    }
    fields.finish()?;
    Ok(read)
}

/// What `cas` and `delete-cas` compare; sent back, with its companion, by clients that read a thing and write it again.
fn index(fields: &mut Object) -> Result<u64> {
    fields.take("CreateIndex");
    Ok(fields.number("ModifyIndex")?.unwrap_or_default())
}

/// Refuses what only Consul Enterprise has, if it says something.
fn without_tenancy(fields: &mut Object) -> Result<()> {
    for name in ["Namespace", "Partition", "PeerName"] {
        if fields.text(name)?.is_some_and(|text| !text.is_empty()) {
            return Err(DecodeError(format!("{name} belongs to Consul Enterprise")));
        }
    }
    Ok(())
}

/// Whether a value says what its absence would.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.values().all(is_nothing),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_read_with_consuls_defaults() {
        let body = r#"{"node": "n", "Address": "10.0.0.1", "NodeMeta": {"a": "b"}, "Service": {"Service": "web", "Port": 80,
            "Tags": null, "Proxy": null, "Connect": {}}, "Check": {"Name": "alive"}, "Checks": [{"CheckID": "c", "Status": "passing"}]}"#;
        let read = Registration::parse(body.as_bytes()).unwrap();
        assert_eq!((read.node.node.as_str(), read.node.meta["a"].as_str()), ("n", "b"));
        let service = read.service.unwrap();
        assert_eq!((service.id.as_str(), service.port, service.weights), ("web", 80, Weights::default()));
        let checks: Vec<_> = read.checks.iter().map(|check| (check.check_id.as_str(), check.status.as_str())).collect();
        assert_eq!(checks, [("alive", "critical"), ("c", "passing")]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let said = |body: &str| Registration::parse(body.as_bytes()).unwrap_err().0;
        assert_eq!(said(r#"{"Nod": "n"}"#), "json: unknown field \"Nod\"");
        assert_eq!(said(r#"{"Service": {"Porte": 1}}"#), "json: unknown field \"Porte\"");
        assert_eq!(said(r#"{"Service": {"Port": 65536}}"#), "Port must be a port, 0 to 65535");
        assert!(said(r#"{"Service": {"Kind": "connect-proxy"}}"#).contains("mesh"));
        assert!(said(r#"{"Service": {"Connect": {"Native": true}}}"#).contains("mesh"));
        assert!(said(r#"{"Check": {"Status": "green"}}"#).contains("there are passing"));
        assert!(said(r#"{"Partition": "p"}"#).contains("Enterprise"));
        assert_eq!(said(r#"{"NodeMeta": {"a": 1}}"#), "NodeMeta must be texts by name, found a number");
    }
}
