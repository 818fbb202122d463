//! The catalog: nodes, the instances of services on them, and their checks (consul.md 2.6). Here is what it holds and how it is
//! read; `write.rs` is what registering and deregistering does.
//!
//! Names and ids are told apart without regard to case (ASCII). The key of a node is its name in lower case; of an instance
//! and of a check its node's key, a zero byte, and its id in lower case. Watchers of a service wait under its name in lower
//! case and a zero byte: every change of an instance, of its checks or of its node is told there too.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Key;
use super::table::{self, Row, Table};
use crate::codec::Stored;

/// How a check stands, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Status {
    /// All is well.
    Passing,
    /// Something may be wrong.
    Warning,
    /// It does not work. A check that nobody has run yet is critical.
    #[default]
    Critical,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Names it for ever, if it has one.
    pub id: Option<Uuid>,
    /// Its name, as it was spelled.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Its datacenter.
    pub datacenter: String,
    /// More addresses, by what they are for.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Whatever else is to be known of it.
    pub meta: BTreeMap<String, String>,
}

/// An address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// How much of the work an instance is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Its id, unique on its node.
    pub id: String,
    /// The service that it is an instance of.
    pub name: String,
    /// In the order given.
    pub tags: Vec<String>,
    /// Where it is reached; empty if at its node's address.
    pub address: String,
    /// More addresses, by what they are for.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Whatever else is to be known of it.
    pub meta: BTreeMap<String, String>,
    /// Its port.
    pub port: u16,
    /// How much of the work it is to get.
    pub weights: Weights,
    /// Whether others may change its tags in the catalog.
    pub enable_tag_override: bool,
}

/// A check of a node, or of an instance on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Check {
    /// Its id, unique on its node.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// For people.
    pub notes: String,
    /// What it printed last.
    pub output: String,
    /// The instance that it checks; empty if it checks the node.
    pub service_id: String,
    /// The service and the tags of that instance, when the check was registered.
    pub service_name: String,
    /// See `service_name`.
    pub service_tags: Vec<String>,
    /// How it is run.
    pub kind: String,
    /// What it does, as JSON; empty if nobody said.
    pub definition: String,
}

macro_rules! row {
    ($(#[$doc:meta])* $row:ident { $field:ident: $what:ty } $table:ident $name:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $row {
            /// What was registered.
            pub $field: $what,
            /// The name of its node, as that is spelled.
            pub node_name: String,
            /// Revision at which it was registered.
            pub create_index: u64,
            /// Revision of its last change.
            pub modify_index: u64,
        }

        impl Stored for $row {
            const NAME: &'static str = $name;
            const VERSION: u8 = 1;
        }

        impl Row for $row {
            const TABLE: u8 = table::id::$table;
        }
    };
}

row!(/// The row of a node.
    NodeRow { node: Node } NODES "node row");
row!(/// The row of an instance.
    ServiceRow { service: Service } SERVICES "service row");
row!(/// The row of a check.
    CheckRow { check: Check } CHECKS "check row");

/// The catalog.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub(super) nodes: Table<NodeRow>,
    pub(super) services: Table<ServiceRow>,
    pub(super) checks: Table<CheckRow>,
    /// Nodes by their ids. Follows from the rows, as the next: not stored.
    by_id: OrdMap<Uuid, Key>,
    /// Instances by the name of their service in lower case.
    by_name: OrdSet<(Key, Key)>,
}

impl Catalog {
    /// A node, by name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeRow>> {
        self.nodes.get(node_key(name).as_bytes())
    }

    /// A node, by id.
    pub fn node_by_id(&self, id: Uuid) -> Option<&Arc<NodeRow>> {
        self.nodes.get(self.by_id.get(&id)?.as_bytes())
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRow>> {
        self.nodes.prefix(b"", None).map(|(_, row)| row)
    }

    /// The instances on a node, by id.
    pub fn services_on(&self, node: &str) -> impl Iterator<Item = &Arc<ServiceRow>> {
        self.services.under(inner_key(node, "")).map(|(_, row)| row)
    }

    /// An instance on a node.
    pub fn service(&self, node: &str, id: &str) -> Option<&Arc<ServiceRow>> {
        self.services.get(inner_key(node, id).as_bytes())
    }

    /// The instances of a service, by node and id.
    pub fn instances(&self, name: &str) -> impl Iterator<Item = &Arc<ServiceRow>> {
        let name = node_key(name);
        let from = (name.clone(), Key::from(""));
        let keys = self.by_name.range(from..).take_while(move |(own, _)| *own == name);
        keys.filter_map(|(_, key)| self.services.get(key.as_bytes()))
    }

    /// All services with the tags of all their instances, by name.
    pub fn services(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, row) in self.services.prefix(b"", None) {
            found.entry(&row.service.name).or_default().extend(row.service.tags.iter().map(String::as_str));
        }
        found
    }

    /// All instances, by node and id.
    pub fn all_services(&self) -> impl Iterator<Item = &Arc<ServiceRow>> {
        self.services.prefix(b"", None).map(|(_, row)| row)
    }

    /// A check on a node.
    pub fn check(&self, node: &str, id: &str) -> Option<&Arc<CheckRow>> {
        self.checks.get(inner_key(node, id).as_bytes())
    }

    /// The checks on a node, its instances' included, by id.
    pub fn checks_on(&self, node: &str) -> impl Iterator<Item = &Arc<CheckRow>> {
        self.checks.under(inner_key(node, "")).map(|(_, row)| row)
    }

    /// The checks that say whether an instance works: its own and its node's, by id.
    pub fn checks_of<'a>(&'a self, node: &'a str, service_id: &'a str) -> impl Iterator<Item = &'a Arc<CheckRow>> {
        self.checks_on(node)
            .filter(move |row| row.check.service_id.is_empty() || row.check.service_id.eq_ignore_ascii_case(service_id))
    }

    /// All checks, by node and id.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<CheckRow>> {
        self.checks.prefix(b"", None).map(|(_, row)| row)
    }

    pub(super) fn load_node(&mut self, key: Key, row: NodeRow) {
        if let Some(old) = self.nodes.get(key.as_bytes()).and_then(|old| old.node.id) {
            self.by_id.remove(&old);
        }
        if let Some(id) = row.node.id {
            self.by_id.insert(id, key.clone());
        }
        self.nodes.insert(key, row);
    }

    pub(super) fn load_service(&mut self, key: Key, row: ServiceRow) {
        self.forget_service(&key);
        self.by_name.insert((node_key(&row.service.name), key.clone()));
        self.services.insert(key, row);
    }

    pub(super) fn load_check(&mut self, key: Key, row: CheckRow) {
        self.checks.insert(key, row);
    }

    fn forget_service(&mut self, key: &Key) -> Option<Arc<ServiceRow>> {
        let old = self.services.remove(key.as_bytes())?;
        self.by_name.remove(&(node_key(&old.service.name), key.clone()));
        Some(old)
    }
}

/// The key of a node; of a service's name where only that is meant.
pub(super) fn node_key(name: &str) -> Key {
    Key::from(&*name.to_ascii_lowercase())
}

/// The key of what is on a node, and with an empty id, of all of it.
pub(super) fn inner_key(node: &str, id: &str) -> Key {
    Key::from(&*format!("{node}\0{id}").to_ascii_lowercase())
}

/// Where watchers of a service wait for this instance, and with an empty node, for all.
pub fn watch_key(name: &str, node: &str, id: &str) -> Key {
    match node {
        "" => inner_key(name, ""),
        _ => inner_key(name, &format!("{node}\0{id}")),
    }
}

/// Where watchers of what is on a node wait.
pub fn watch_node(node: &str) -> Key {
    inner_key(node, "")
}
