//! Real servers on loopback that make one cluster: founded by three, killed, restarted, added, moved.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::support::{Agent, free_port, request, wait_until};

/// Servers that know each other's addresses; each keeps its data in a directory of the cluster's.
pub struct Cluster {
    dir: tempfile::TempDir,
    /// Ports of each server for HTTP and for other servers.
    pub ports: Vec<(u16, u16)>,
    /// The servers that run.
    pub agents: BTreeMap<usize, Agent>,
}

impl Cluster {
    /// Starts three servers that found a cluster.
    pub fn found() -> Cluster {
        let ports = (0..3).map(|_| (free_port(), free_port())).collect();
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), ports, agents: BTreeMap::new() };
        for number in 0..3 {
            cluster.start(number);
        }
        cluster.wait_for_leader();
        // Sessions belong to nodes.
        wait_until("the servers to be in the catalog", || {
            let nodes = request(cluster.http(0), "GET", "/v1/catalog/nodes", &[], b"");
            nodes
                .is_ok_and(|nodes| nodes.status == 200 && nodes.json().as_array().is_some_and(|nodes| nodes.len() == 3))
        });
        cluster
    }

    /// Where a server keeps its data.
    pub fn data(&self, number: usize) -> PathBuf {
        self.dir.path().join(number.to_string())
    }

    /// Starts a server that is to join the others, on the data it has if it ran before. The first three expect three.
    pub fn start(&mut self, number: usize) {
        let mut args: Vec<String> = self.ports.iter().map(|(_, rpc)| format!("-retry-join=127.0.0.1:{rpc}")).collect();
        if number < 3 {
            args.push("-bootstrap-expect=3".into());
        }
        self.start_with(number, &args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Starts a server with nothing but its own place and these arguments.
    pub fn start_with(&mut self, number: usize, more: &[&str]) {
        let (http, rpc) = self.ports[number];
        let mut args = vec![
            "agent".to_string(),
            "-server".into(),
            "-bind=127.0.0.1".into(),
            format!("-node=s{number}"),
            format!("-http-port={http}"),
            format!("-server-port={rpc}"),
            format!("-data-dir={}", self.data(number).display()),
            "-retry-interval=1s".into(),
            "-hcl=limits { http_max_conns_per_client = 1000 }".into(),
        ];
        args.extend(more.iter().map(|arg| arg.to_string()));
        self.agents.insert(number, Agent::spawn_on(&args, http));
    }

    /// Starts one more server, with a number of its own, and waits until it votes.
    pub fn add(&mut self) -> usize {
        let (number, voters) = (self.ports.len(), self.peers().len());
        self.ports.push((free_port(), free_port()));
        self.start(number);
        wait_until("one more voter", || self.peers().len() == voters + 1);
        number
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        self.agents.remove(&number).unwrap().kill();
    }

    /// `kill -9` of all at once; their numbers.
    pub fn kill_all(&mut self) -> Vec<usize> {
        // All get the signal before any end is waited for.
        self.agents.values().for_each(|agent| agent.signal("KILL"));
        let numbers = self.agents.keys().copied().collect();
        self.agents.clear();
        numbers
    }

    /// Where a server's HTTP API is.
    pub fn http(&self, number: usize) -> SocketAddr {
        self.agents[&number].http
    }

    /// The HTTP addresses of all that run.
    pub fn all(&self) -> Vec<SocketAddr> {
        self.agents.values().map(|agent| agent.http).collect()
    }

    /// Waits until every server knows a leader.
    pub fn wait_for_leader(&self) {
        wait_until("every server to know a leader", || {
            self.agents.values().all(|agent| {
                request(agent.http, "GET", "/v1/status/leader", &[], b"")
                    .is_ok_and(|answer| answer.text().contains(':'))
            })
        });
    }

    /// Which of the servers leads, as they say themselves.
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_until("one leader", || {
            let leads = |agent: &Agent| stat(agent.http, "consul", "leader") == "true";
            let leaders: Vec<usize> = self.agents.iter().filter(|(_, agent)| leads(agent)).map(|(n, _)| *n).collect();
            found = leaders.first().copied().filter(|_| leaders.len() == 1);
            found.is_some()
        });
        found.unwrap()
    }

    /// One that does not lead.
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        *self.agents.keys().find(|number| **number != leader).unwrap()
    }

    /// Addresses of the voting servers, as the first that answers says.
    pub fn peers(&self) -> Vec<String> {
        let ask = |agent: &Agent| request(agent.http, "GET", "/v1/status/peers", &[], b"").ok();
        let answer = self.agents.values().find_map(ask).unwrap();
        answer.json().as_array().unwrap().iter().map(|peer| peer.as_str().unwrap().to_string()).collect()
    }

    /// A server's id, from its own data.
    pub fn id(&self, number: usize) -> String {
        std::fs::read_to_string(self.data(number).join("node-id")).unwrap().trim().to_string()
    }

    /// Waits until all replicas are the same (R6).
    pub fn wait_for_one_truth(&self) {
        wait_until("equal digests", || {
            let facts = |agent: &Agent| (stat(agent.http, "state", "entries"), stat(agent.http, "state", "digest"));
            let all: Vec<_> = self.agents.values().map(facts).collect();
            all.iter().all(|facts| *facts == all[0] && !facts.1.is_empty())
        });
    }
}

/// A figure of `/v1/agent/self`; empty if there is no answer.
pub fn stat(http: SocketAddr, section: &str, name: &str) -> String {
    let own = request(http, "GET", "/v1/agent/self", &[], b"");
    own.ok().and_then(|own| own.json()["Stats"][section][name].as_str().map(String::from)).unwrap_or_default()
}

/// Whether a write was acknowledged.
pub fn put(http: SocketAddr, key: &str, value: &str) -> bool {
    request(http, "PUT", &format!("/v1/kv/{key}"), &[], value.as_bytes())
        .is_ok_and(|answer| answer.text().trim() == "true")
}

/// A key's value.
pub fn get(http: SocketAddr, key: &str) -> Option<String> {
    let answer = request(http, "GET", &format!("/v1/kv/{key}?raw"), &[], b"").ok()?;
    (answer.status == 200).then(|| answer.text())
}
