//! Random registrations against a model that is too simple to be wrong: three maps. After each command the catalog must be
//! what the model says, whatever is looked at and has changed must wake who waits for it, sessions without a TTL must live
//! exactly as long as their checks, and the state must survive being taken apart and put together.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::state::catalog::{Check, CheckRow, Node, NodeRow, Service, ServiceRow, Status, watch_key, watch_node};

/// Spelled in several ways, so that commands meet.
const NODES: [&str; 4] = ["a", "A", "b", "ab"];
const SERVICES: [&str; 3] = ["web", "Web", "db"];
const IDS: [&str; 3] = ["1", "x", "X"];
const CHECKS: [&str; 3] = ["c", "C", "d"];

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    /// By name in lower case.
    nodes: BTreeMap<String, Node>,
    /// By node and id in lower case.
    services: BTreeMap<(String, String), Service>,
    checks: BTreeMap<(String, String), Check>,
    /// The node and the check that each is bound to.
    sessions: BTreeMap<Uuid, (String, String)>,
}

fn low(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Model {
    /// What the command does, or `None` if it is refused.
    fn after(&self, command: &Command) -> Option<Model> {
        let mut model = self.clone();
        match command {
            Command::Register(all) => model.register(all)?,
            Command::Deregister { node, check: Some(check), .. } => {
                model.checks.remove(&(low(node), low(check)));
            }
            Command::Deregister { node, service: Some(service), .. } => {
                if model.services.remove(&(low(node), low(service))).is_some() {
                    model.checks.retain(|(on, _), check| *on != low(node) || low(&check.service_id) != low(service));
                }
            }
            Command::Deregister { node, .. } => model.remove(&low(node)),
            Command::SessionCreate { id, session } => {
                let key = (low(&session.node), low(&session.node_checks[0]));
                let check = model.checks.get(&key).filter(|_| model.nodes.contains_key(&key.0))?;
                if check.status == Status::Critical || model.sessions.contains_key(id) {
                    return None;
                }
                model.sessions.insert(*id, key);
            }
            other => panic!("not drawn: {other:?}"),
        }
        let passing = |check: &Check| check.status != Status::Critical;
        model.sessions.retain(|_, key| model.checks.get(key).is_some_and(passing));
        Some(model)
    }

    fn register(&mut self, all: &Registration) -> Option<()> {
        let name = low(&all.node.name);
        if all.skip_node {
            self.nodes.get(&name)?;
        } else {
            let old = self.nodes.get(&name).cloned();
            if let Some(id) = all.node.id {
                // Nothing here is named serfHealth, so a name that has an id is taken.
                if old.as_ref().and_then(|old| old.id).is_some_and(|other| other != id) {
                    return None;
                }
                let before = self.nodes.iter().find(|(_, node)| node.id == Some(id)).map(|(name, _)| name.clone());
                before.filter(|before| *before != name).into_iter().for_each(|before| self.remove(&before));
            }
            let id = all.node.id.or(old.and_then(|old| old.id));
            self.nodes.insert(name.clone(), Node { id, ..all.node.clone() });
        }
        if let Some(service) = &all.service {
            self.services.insert((name.clone(), low(&service.id)), service.clone());
        }
        for check in &all.checks {
            let mut check = check.clone();
            if !check.service_id.is_empty() {
                let of = self.services.get(&(name.clone(), low(&check.service_id)))?;
                (check.service_name, check.service_tags) = (of.name.clone(), of.tags.clone());
            }
            self.checks.insert((name.clone(), low(&check.id)), check);
        }
        Some(())
    }

    fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
        self.services.retain(|(on, _), _| on != node);
        self.checks.retain(|(on, _), _| on != node);
    }
}

fn compare(state: &State, model: &Model) {
    let catalog = state.catalog();
    assert!(catalog.nodes().map(|row| &row.node).eq(model.nodes.values()));
    assert!(catalog.all_services().map(|row| &row.service).eq(model.services.values()));
    assert!(catalog.checks().map(|row| &row.check).eq(model.checks.values()));
    assert!(state.sessions().iter().map(|(id, _)| id).eq(model.sessions.keys().copied()));
    for name in SERVICES {
        let named = model.services.values().filter(|service| low(&service.name) == low(name));
        assert!(catalog.instances(name).map(|row| &row.service).eq(named), "{name}");
    }
    for (id, node) in model.nodes.values().filter_map(|node| Some((node.id?, node))) {
        assert_eq!(catalog.node_by_id(id).map(|row| &row.node), Some(node));
    }
}

type Rows = (Vec<NodeRow>, Vec<ServiceRow>, Vec<CheckRow>);

/// Everything that can be waited for, and what is seen there.
fn views(state: &State) -> BTreeMap<(Subject, Key), Rows> {
    let catalog = state.catalog();
    let mut views = BTreeMap::new();
    let checks: Vec<CheckRow> = catalog.checks().map(|row| (**row).clone()).collect();
    views.insert((Subject::Node, "".into()), (catalog.nodes().map(|row| (**row).clone()).collect(), vec![], vec![]));
    views.insert((Subject::Check, "".into()), (vec![], vec![], checks));
    for node in ["a", "b", "ab"] {
        let row = || catalog.node(node).map(|row| (**row).clone()).into_iter().collect();
        let services = catalog.services_on(node).map(|row| (**row).clone()).collect();
        let checks = catalog.checks_on(node).map(|row| (**row).clone()).collect();
        views.insert((Subject::NodeServices, node.into()), (row(), services, vec![]));
        views.insert((Subject::Check, watch_node(node)), (vec![], vec![], checks));
    }
    for name in ["web", "db"] {
        let instances: Vec<ServiceRow> = catalog.instances(name).map(|row| (**row).clone()).collect();
        let nodes = instances.iter().filter_map(|row| Some((**catalog.node(&row.node_name)?).clone())).collect();
        let checks = instances.iter().flat_map(|row| catalog.checks_of(&row.node_name, &row.service.id));
        let checks = checks.map(|row| (**row).clone()).collect();
        views.insert((Subject::Service, watch_key(name, "", "")), (nodes, instances, checks));
    }
    views
}

fn command() -> impl Strategy<Value = Command> {
    let pick = |names: &'static [&'static str]| proptest::sample::select(names).prop_map(String::from);
    let node = (pick(&NODES), proptest::option::of((1..4u128).prop_map(Uuid::from_u128)), 0..2u8);
    let node =
        node.prop_map(|(name, id, address)| Node { name, id, address: format!("10.0.0.{address}"), ..Node::default() });
    let service = (pick(&IDS), pick(&SERVICES), 0..2u16);
    let service = service.prop_map(|(id, name, port)| Service { id, name, port, ..Service::default() });
    let status = proptest::sample::select(&[Status::Passing, Status::Warning, Status::Critical][..]);
    let of = prop_oneof![Just(String::new()), pick(&IDS)];
    let check = (pick(&CHECKS), status, of);
    let check = check.prop_map(|(id, status, service_id)| Check { id, status, service_id, ..Check::default() });
    // Each check once: between two of one registration there is a moment that the model does not know.
    let checks = proptest::collection::vec(check, 0..3).prop_map(|mut checks| {
        checks.sort_by_key(|check| low(&check.id));
        checks.dedup_by_key(|check| low(&check.id));
        checks
    });
    prop_oneof![
        8 => (node, any::<bool>(), proptest::option::of(service), checks).prop_map(|(node, skip_node, service, checks)| {
            Command::Register(Registration { node, skip_node, service, checks })
        }),
        3 => (pick(&NODES), proptest::option::of(pick(&IDS)), proptest::option::of(pick(&CHECKS)))
            .prop_map(|(node, service, check)| Command::Deregister { node, service, check }),
        3 => ((1..4u128).prop_map(Uuid::from_u128), pick(&NODES), pick(&CHECKS)).prop_map(|(id, node, check)| {
            Command::SessionCreate { id, session: Session { node, node_checks: vec![check], ..Session::default() } }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_catalog_does_what_the_model_does_and_wakes_who_waits(commands in proptest::collection::vec(command(), 1..40)) {
        let (mut state, mut model) = (State::default(), Model::default());
        for command in commands {
            let (before, revision) = (views(&state), state.revision());
            let mut touched = Vec::new();
            let response = state.apply(1, &entry(command.clone()), &mut touched);
            let expected = model.after(&command);
            let refused = matches!(response.reply, Reply::Refused(_));
            assert_eq!(refused, expected.is_none(), "{command:?}: {response:?}");
            let changed = expected.as_ref().is_some_and(|expected| *expected != model);
            model = expected.unwrap_or(model);
            compare(&state, &model);

            assert_eq!(state.revision() > revision, changed, "the index moves if and only if something has changed");
            for ((subject, key), view) in views(&state) {
                if before.get(&(subject, key.clone())) == Some(&view) {
                    continue;
                }
                let woken = |it: &Touched| it.subject == subject && it.key.as_bytes().starts_with(key.as_bytes());
                assert!(touched.iter().any(woken), "{command:?} wakes nobody at {subject:?} {key:?}: {touched:?}");
                assert_eq!(state.index_of(subject), state.revision());
            }
            let loaded = load(rows(&state)).unwrap();
            compare(&loaded, &model);
            assert_eq!(loaded.digest(), state.digest());
        }
    }
}
