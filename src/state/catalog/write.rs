//! Registering and deregistering (consul.md 2.6). What is registered again unchanged keeps its index and wakes nobody.

use uuid::Uuid;

use super::super::{Key, Registration, Reply, State, Step, Subject};
use super::{Check, CheckRow, Node, NodeRow, Service, ServiceRow, Status, inner_key, node_key, watch_key};
use crate::error::{Error, Result};
use crate::limits::{MAX_CHECK_OUTPUT, MAX_META_KEY, MAX_META_VALUE, MAX_NAME, MAX_PAIRS};
use crate::state::session::SERF_HEALTH;

impl State {
    /// Registers a node and what is on it. The caller undoes what was done if a part is refused.
    pub(in crate::state) fn register(&mut self, all: &Registration, step: &mut Step<'_>) -> Result<Reply> {
        match all.skip_node {
            true => drop(self.registered(&all.node.name)?),
            false => self.put_node(&all.node, step)?,
        }
        if let Some(service) = &all.service {
            self.put_service(&all.node.name, service, step)?;
        }
        for check in &all.checks {
            self.put_check(&all.node.name, check, step)?;
        }
        Ok(Reply::Done(true))
    }

    /// Deregisters a check, or an instance, or the node. What does not exist is.
    pub(in crate::state) fn deregister(
        &mut self,
        node: &str,
        service: Option<&str>,
        check: Option<&str>,
        step: &mut Step<'_>,
    ) -> bool {
        match (service, check) {
            (_, Some(check)) => self.remove_check(node, check, step),
            (Some(service), None) => self.remove_service(node, service, step),
            (None, None) => self.remove_node(node, step),
        }
        true
    }

    /// Registers a node. With an id that another name had, the node has a new name, and what was under the old one is gone. A
    /// name belongs to the id that has it, unless its node is known not to live.
    pub(in crate::state) fn put_node(&mut self, node: &Node, step: &mut Step<'_>) -> Result<()> {
        check_node(node)?;
        if let Some(id) = node.id {
            self.make_way(node, id, step)?;
        }
        let key = node_key(&node.name);
        let old = self.catalog.nodes.get(key.as_bytes());
        // Who registers without an id does not take the id away.
        let node = Node { id: node.id.or(old.and_then(|old| old.node.id)), ..node.clone() };
        if old.is_some_and(|old| old.node == node) {
            return Ok(());
        }
        let create_index = old.map_or(step.revision, |old| old.create_index);
        let node_name = node.name.clone();
        self.catalog.load_node(key.clone(), NodeRow { node, node_name, create_index, modify_index: step.revision });
        self.touch_node(&key, step);
        Ok(())
    }

    /// Frees the name and the id of a node.
    fn make_way(&mut self, node: &Node, id: Uuid, step: &mut Step<'_>) -> Result<()> {
        let before = self.catalog.node_by_id(id).map(|row| row.node.name.clone());
        if let Some(other) = self.catalog.node(&node.name).and_then(|row| row.node.id).filter(|other| *other != id) {
            let lives = self.catalog.check(&node.name, SERF_HEALTH);
            if lives.is_none_or(|row| row.check.status != Status::Critical) {
                return Err(Error::Request(format!(
                    "the node name {} is taken by the node with id {other}",
                    node.name
                )));
            }
        }
        match before {
            Some(name) if !name.eq_ignore_ascii_case(&node.name) => self.remove_node(&name, step),
            _ => {}
        }
        Ok(())
    }

    /// Registers an instance of a service on a node that is registered.
    pub(in crate::state) fn put_service(&mut self, node: &str, service: &Service, step: &mut Step<'_>) -> Result<()> {
        check_service(service)?;
        let node = self.registered(node)?;
        let key = inner_key(&node, &service.id);
        let old = self.catalog.services.get(key.as_bytes());
        if old.is_some_and(|old| old.service == *service) {
            return Ok(());
        }
        let create_index = old.map_or(step.revision, |old| old.create_index);
        let renamed = old.map(|old| old.service.name.clone()).filter(|name| *name != service.name);
        let (service, modify_index) = (service.clone(), step.revision);
        step.touch(Subject::Service, watch_key(&service.name, &node, &service.id));
        if let Some(name) = renamed {
            step.touch(Subject::Service, watch_key(&name, &node, &service.id));
        }
        step.touch(Subject::NodeServices, node_key(&node));
        self.catalog.load_service(key, ServiceRow { service, node_name: node, create_index, modify_index });
        Ok(())
    }

    /// Registers a check on a node that is registered; of an instance, if it names one that is.
    pub(in crate::state) fn put_check(&mut self, node: &str, check: &Check, step: &mut Step<'_>) -> Result<()> {
        check_check(check)?;
        let node = self.registered(node)?;
        let mut check = check.clone();
        (check.service_name, check.service_tags) = match check.service_id.as_str() {
            "" => (String::new(), Vec::new()),
            id => {
                let service = self.catalog.service(&node, id);
                let service = service
                    .ok_or_else(|| Error::Request(format!("no service {id:?} is registered on node {node:?}")))?;
                (service.service.name.clone(), service.service.tags.clone())
            }
        };
        let key = inner_key(&node, &check.id);
        let old = self.catalog.checks.get(key.as_bytes());
        if old.is_some_and(|old| old.check == check) {
            return Ok(());
        }
        let create_index = old.map_or(step.revision, |old| old.create_index);
        let moved = old.map(|old| old.check.service_id.clone()).filter(|id| *id != check.service_id);
        let critical = check.status == Status::Critical;
        self.touch_check(&node, &check.id, &check.service_id, step);
        if let Some(service_id) = moved {
            self.touch_check(&node, &check.id, &service_id, step);
        }
        let row = CheckRow { check, node_name: node.clone(), create_index, modify_index: step.revision };
        self.catalog.load_check(key, row);
        if critical {
            self.end_sessions_without_checks(&node, step);
        }
        Ok(())
    }

    /// Deregisters a node with all that is on it; one that does not exist is.
    pub(in crate::state) fn remove_node(&mut self, name: &str, step: &mut Step<'_>) {
        let key = node_key(name);
        if self.catalog.nodes.get(key.as_bytes()).is_none() {
            return;
        }
        self.touch_node(&key, step);
        let checks: Vec<Key> = self.catalog.checks.under(inner_key(name, "")).map(|(key, _)| key.clone()).collect();
        for check in checks {
            self.catalog.checks.remove(check.as_bytes());
            step.touch(Subject::Check, check);
        }
        let services: Vec<Key> = self.catalog.services.under(inner_key(name, "")).map(|(key, _)| key.clone()).collect();
        services.iter().for_each(|service| drop(self.catalog.forget_service(service)));
        if let Some(id) = self.catalog.nodes.remove(key.as_bytes()).and_then(|row| row.node.id) {
            self.catalog.by_id.remove(&id);
        }
        self.end_sessions_without_checks(name, step);
    }

    /// Deregisters an instance with its checks; one that does not exist is.
    pub(in crate::state) fn remove_service(&mut self, node: &str, id: &str, step: &mut Step<'_>) {
        let key = inner_key(node, id);
        let Some(old) = self.catalog.forget_service(&key) else { return };
        step.touch(Subject::Service, watch_key(&old.service.name, node, id));
        step.touch(Subject::NodeServices, node_key(node));
        let of_it = |row: &CheckRow| row.check.service_id.eq_ignore_ascii_case(id);
        let checks: Vec<String> =
            self.catalog.checks_on(node).filter(|row| of_it(row)).map(|row| row.check.id.clone()).collect();
        checks.iter().for_each(|check| self.remove_check(node, check, step));
    }

    /// Deregisters a check; one that does not exist is.
    pub(in crate::state) fn remove_check(&mut self, node: &str, id: &str, step: &mut Step<'_>) {
        let Some(old) = self.catalog.checks.remove(inner_key(node, id).as_bytes()) else { return };
        self.touch_check(node, id, &old.check.service_id, step);
        self.end_sessions_without_checks(node, step);
    }

    /// The name of a registered node, as it is spelled.
    fn registered(&self, node: &str) -> Result<String> {
        let row = self.catalog.node(node);
        let row = row.ok_or_else(|| Error::Request(format!("no node {node:?} is registered")))?;
        Ok(row.node.name.clone())
    }

    /// A change of a node is one of every instance on it.
    fn touch_node(&self, key: &Key, step: &mut Step<'_>) {
        step.touch(Subject::Node, key.clone());
        step.touch(Subject::NodeServices, key.clone());
        let mut under = key.as_bytes().to_vec();
        under.push(0);
        for (_, row) in self.catalog.services.under(Key::from(&under[..])) {
            step.touch(Subject::Service, watch_key(&row.service.name, &row.node_name, &row.service.id));
        }
    }

    /// A change of a check is one of its instance, or of every instance on its node.
    fn touch_check(&self, node: &str, id: &str, service_id: &str, step: &mut Step<'_>) {
        step.touch(Subject::Check, inner_key(node, id));
        let concerned = |id: &str| service_id.is_empty() || id.eq_ignore_ascii_case(service_id);
        for row in self.catalog.services_on(node).filter(|row| concerned(&row.service.id)) {
            step.touch(Subject::Service, watch_key(&row.service.name, node, &row.service.id));
        }
    }
}

// The edges check the rest, with better sentences; here is what holds for whatever gets into the log.

fn check_node(node: &Node) -> Result<()> {
    check_name("node", &node.name)?;
    if node.address.is_empty() {
        return Err(Error::Request("a node needs an address".into()));
    }
    check_pairs("tagged addresses", &node.tagged_addresses)?;
    check_pairs("meta", &node.meta)
}

fn check_service(service: &Service) -> Result<()> {
    check_name("service", &service.name)?;
    check_name("service id", &service.id)?;
    if service.tags.len() > MAX_PAIRS || service.tags.iter().any(|tag| tag.len() > MAX_NAME) {
        return Err(Error::Request(format!("a service has at most {MAX_PAIRS} tags of {MAX_NAME} bytes")));
    }
    if service.tagged_addresses.len() > MAX_PAIRS {
        return Err(Error::Request(format!("a service has at most {MAX_PAIRS} tagged addresses")));
    }
    check_pairs("meta", &service.meta)
}

fn check_check(check: &Check) -> Result<()> {
    check_name("check id", &check.id)?;
    let long = [&check.output, &check.notes, &check.definition].into_iter().any(|text| text.len() > MAX_CHECK_OUTPUT);
    if long || check.name.len() > MAX_NAME {
        return Err(Error::TooLarge(format!("a check's texts have at most {MAX_CHECK_OUTPUT} bytes each")));
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Request(format!("the {what} has no name")));
    }
    if name.len() > MAX_NAME || name.contains('\0') {
        return Err(Error::Request(format!(
            "the name of the {what} is longer than {MAX_NAME} bytes, or has a zero byte"
        )));
    }
    Ok(())
}

fn check_pairs(what: &str, pairs: &std::collections::BTreeMap<String, String>) -> Result<()> {
    let long = pairs.iter().any(|(key, value)| key.len() > MAX_META_KEY || value.len() > MAX_META_VALUE);
    if long || pairs.len() > MAX_PAIRS {
        return Err(Error::Request(format!(
            "{what}: at most {MAX_PAIRS} pairs, with keys of {MAX_META_KEY} and values of {MAX_META_VALUE} bytes"
        )));
    }
    Ok(())
}
