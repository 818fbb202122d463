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
use crate::error::Result;
use crate::limits;
use crate::state::catalog::{Check, Node, Service, Status};
use crate::state::session::SERF_HEALTH;
use crate::state::{Catalog, Command, Registration, Reply, State, Subject};
use crate::world::Instant;

/// The service that servers are instances of.
const SERVICE: &str = "consul";

/// What a leader remembers between two looks at its servers.
#[derive(Debug, Default)]
struct Registrar {
    /// The servers that are not heard, since when.
    silent: BTreeMap<Uuid, Instant>,
    /// What was refused, and the catalog's index then: until that moves the answer would be the same.
    refused: BTreeMap<Uuid, (Registration, u64)>,
}

impl Registrar {
    /// What to propose so that the catalog has exactly these servers, and says of each whether it lives. One that is not heard
    /// counts as alive for [`limits::SILENCE`]: a check that turns critical ends sessions.
    fn reconcile(
        &mut self,
        own: &Identity,
        servers: &[Server],
        alive: &BTreeSet<Uuid>,
        (catalog, index): (&Catalog, u64),
        now: Instant,
    ) -> Vec<Command> {
        self.refused.retain(|id, (_, at)| *at == index && servers.iter().any(|server| server.id == *id));
        self.silent.retain(|id, _| servers.iter().any(|server| server.id == *id) && !alive.contains(id));
        let mut commands = Vec::new();
        for server in servers {
            let lives =
                alive.contains(&server.id) || now.since(*self.silent.entry(server.id).or_insert(now)) < limits::SILENCE;
            let registration = registration(own, server, lives, catalog);
            let refused = self.refused.get(&server.id).map(|(refused, _)| refused);
            commands.extend(registration.filter(|it| refused != Some(it)).map(Command::Register));
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

    /// Something was refused that the catalog at this index, or a later one, would not take.
    fn learn(&mut self, refused: Command, index: u64) {
        if let Command::Register(registration) = refused
            && let Some(id) = registration.node.id
        {
            self.refused.insert(id, (registration, index));
        }
    }
}

/// Moves whenever the answer to a registration may.
fn index(state: &State) -> u64 {
    let subjects = [Subject::Node, Subject::NodeServices, Subject::Check];
    subjects.into_iter().map(|subject| state.index_of(subject)).max().unwrap_or_default()
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
            let servers = raft.servers(true).await.unwrap_or_default();
            let (now, alive) = (inner.world.clock.now(), raft.alive());
            let view = raft.view();
            let catalog = (view.state.catalog(), index(&view.state));
            let commands = registrar.reconcile(&inner.identity, &servers, &alive, catalog, now);
            for command in commands {
                match raft.propose_in(term, command.clone()).await.map(|response| response.reply) {
                    // Two servers may have the same name.
                    Ok(Reply::Refused(why)) => {
                        tracing::warn!(%why, "cannot register a server");
                        registrar.learn(command, catalog.1);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a server's registration is left to the next look"),
                }
            }
            if let Err(error) = authority::keep_root(&inner.world, raft, term).await {
                tracing::debug!(%error, "the root certificate is left to the next look");
            }
            if let Err(error) = keep_history(&inner, term).await {
                tracing::debug!(%error, "the bounds of the history are left to the next look");
            }
            let pause = inner.world.sleep(limits::RECONCILE);
            tokio::select! {
                () = pause => {}
                () = raft.leads_no_more_in(Some(term)) => {}
            }
        }
    }
}

/// The leader's bounds hold for all: the history is replicated.
async fn keep_history(inner: &Inner, term: u64) -> Result<()> {
    let (wanted, raft) = (inner.settings.history, &inner.raft);
    if raft.view().state.kv().history().bounds() != wanted {
        raft.propose_in(term, Command::KeepHistory(wanted)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::raft::Member;
    use crate::state::{Entry, LogTime};

    const OWN: Uuid = Uuid::from_u128(1);

    fn server(id: u128, name: &str) -> Server {
        let member = Member { name: name.into(), address: format!("10.0.0.{id}:8300") };
        Server { id: Uuid::from_u128(id), member, leader: id == 1, voter: true, last_index: 1 }
    }

    fn identity() -> Identity {
        let advertise = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (name, datacenter) = ("one".into(), "dc1".into());
        Identity { id: OWN, name, datacenter, server: true, advertise, server_port: 8300, version: "1.0.0" }
    }

    /// One look, all of whose commands are executed; how many there were.
    fn round(registrar: &mut Registrar, state: &mut State, servers: &[Server], alive: &[u128], now: u64) -> usize {
        let alive = alive.iter().map(|id| Uuid::from_u128(*id)).collect();
        let before = index(state);
        let now = Instant(now * 1_000_000_000);
        let commands = registrar.reconcile(&identity(), servers, &alive, (state.catalog(), before), now);
        for command in &commands {
            let entry = Entry { time: LogTime(0), request: None, command: command.clone() };
            if let Reply::Refused(_) = state.apply(1, &entry, &mut Vec::new()).reply {
                registrar.learn(command.clone(), before);
            }
        }
        commands.len()
    }

    #[test]
    fn nothing_is_proposed_when_nothing_has_changed() {
        let (mut registrar, mut state) = (Registrar::default(), State::default());
        let servers = [server(1, "one"), server(2, "two")];
        let mut rounds = |alive: &[u128], now| round(&mut registrar, &mut state, &servers, alive, now);
        assert_eq!([rounds(&[1, 2], 0), rounds(&[1, 2], 1)], [2, 0]);
        assert_eq!(
            [rounds(&[1], 2), rounds(&[1], 6), rounds(&[1], 7), rounds(&[1], 8)],
            [0, 0, 1, 0],
            "5 s of silence"
        );
        assert_eq!([rounds(&[1, 2], 9), rounds(&[1, 2], 10)], [1, 0]);
    }

    /// Found by the simulator: a name with two servers filled the log for ever.
    #[test]
    fn what_was_refused_is_not_proposed_again_until_the_catalog_changes() {
        let (mut registrar, mut state) = (Registrar::default(), State::default());
        let servers = [server(1, "one"), server(2, "two"), server(3, "two")];
        let mut rounds = |servers: &[Server], now| round(&mut registrar, &mut state, servers, &[1, 2, 3], now);
        assert_eq!(rounds(&servers, 0), 3, "two are taken, and one is refused");
        // Tried once more, because what was taken in the same round might have changed the answer.
        assert_eq!([rounds(&servers, 1), rounds(&servers, 2), rounds(&servers, 3)], [1, 0, 0]);
        let left = [server(1, "one"), server(3, "two")];
        let told = [rounds(&left, 4), rounds(&left, 5), rounds(&left, 6)];
        assert_eq!(told, [1, 1, 0], "the other one goes, and then its name is free");
    }
}
