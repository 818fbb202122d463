//! What the servers register of themselves: each its node, the service `consul` and the check `serfHealth` (consul.md 2.6).
//! The leader does it for all, from the membership and from whom it hears, until nodes gossip.
//!
//! [`Registrar`] is a value that is told what there is and tells what to propose; it knows no clock, no task and no network.
//! Nothing is proposed when nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::{Identity, Inner, Server, authority};
use crate::limits;
use crate::state::catalog::{Check, Node, Service, Status};
use crate::state::session::SERF_HEALTH;
use crate::state::{Catalog, Command, Registration};
use crate::world::Instant;

/// The service that servers are instances of.
const SERVICE: &str = "consul";

/// What a leader remembers between two looks at its servers.
#[derive(Debug, Default)]
struct Registrar {
    /// The servers that are not heard, since when.
    silent: BTreeMap<Uuid, Instant>,
}

impl Registrar {
    /// What to propose so that the catalog has exactly these servers, and says of each whether it lives. One that is not heard
    /// counts as alive for [`limits::SILENCE`]: a check that turns critical ends sessions.
    fn reconcile(
        &mut self,
        own: &Identity,
        servers: &[Server],
        alive: &BTreeSet<Uuid>,
        catalog: &Catalog,
        now: Instant,
    ) -> Vec<Command> {
        self.silent.retain(|id, _| servers.iter().any(|server| server.id == *id) && !alive.contains(id));
        let mut commands = Vec::new();
        for server in servers {
            let lives =
                alive.contains(&server.id) || now.since(*self.silent.entry(server.id).or_insert(now)) < limits::SILENCE;
            commands.extend(registration(own, server, lives, catalog).map(Command::Register));
        }
        let gone = catalog.instances(SERVICE).filter(|row| {
            let id = catalog.node(&row.node_name).and_then(|row| row.node.id);
            row.service.id == SERVICE && !servers.iter().any(|server| Some(server.id) == id)
        });
        commands.extend(gone.map(|row| Command::Deregister {
            node: row.node_name.clone(),
            service: None,
            check: None,
        }));
        commands
    }
}

/// The registration of a server, unless the catalog has it.
fn registration(own: &Identity, server: &Server, lives: bool, catalog: &Catalog) -> Option<Registration> {
    let address: SocketAddr = server.member.address.parse().ok()?;
    let (name, ip) = (server.member.name.clone(), address.ip().to_string());
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let tagged = ["lan", "wan"].into_iter().flat_map(|net| [net.to_string(), format!("{net}_{family}")]);
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let node = Node {
        id: Some(server.id),
        name: name.clone(),
        address: ip.clone(),
        datacenter: own.datacenter.clone(),
        tagged_addresses: tagged.map(|tag| (tag, ip.clone())).collect(),
        meta: pairs(&[("consul-network-segment", ""), ("consul-version", own.version)]),
    };
    let service = Service {
        id: SERVICE.into(),
        name: SERVICE.into(),
        port: address.port(),
        meta: pairs(&[("version", own.version), ("raft_version", crate::api::operator::PROTOCOL)]),
        ..Service::default()
    };
    let (status, output) = match lives {
        true => (Status::Passing, "Agent alive and reachable"),
        false => (Status::Critical, "Agent not live or unreachable"),
    };
    let check = Check {
        id: SERF_HEALTH.into(),
        name: "Serf Health Status".into(),
        status,
        output: output.into(),
        ..Check::default()
    };
    let there = catalog.node(&name).is_some_and(|row| row.node == node)
        && catalog.service(&name, SERVICE).is_some_and(|row| row.service == service)
        && catalog.check(&name, SERF_HEALTH).is_some_and(|row| row.check == check);
    (!there).then(|| Registration { node, skip_node: false, service: Some(service), checks: vec![check] })
}

/// Keeps the servers registered while this server leads, and has the root certificate made. Runs until the node stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let raft = &inner.raft;
    loop {
        let Some(term) = raft.leads_in() else {
            raft.leads_no_more_in(None).await;
            continue;
        };
        let mut registrar = Registrar::default();
        while raft.leads_in() == Some(term) {
            if let Err(error) = authority::keep_root(&inner.world, raft, term).await {
                tracing::debug!(%error, "the root certificate is left to the next look");
            }
            let servers = raft.servers(true).await.unwrap_or_default();
            let (now, alive) = (inner.world.clock.now(), raft.alive());
            let commands = registrar.reconcile(&inner.identity, &servers, &alive, raft.view().state.catalog(), now);
            for command in commands {
                // A refusal too is worth a word only: two servers may have the same name.
                match raft.propose_in(term, command).await.map(|response| response.reply) {
                    Ok(crate::state::Reply::Refused(why)) => tracing::warn!(%why, "cannot register a server"),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a server's registration is left to the next look"),
                }
            }
            let pause = inner.world.sleep(limits::RECONCILE);
            tokio::select! {
                () = pause => {}
                () = raft.leads_no_more_in(Some(term)) => {}
            }
        }
    }
}
