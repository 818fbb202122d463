//! A real partition: holders of a lock in network namespaces of their own, behind a bridge from which one is unplugged. Nothing
//! says that its packets go nowhere.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::holder::{Holder, Log, wait_for_end_of, writes};
use super::support::{Agent, program, wait_until};

const TTL: &str = "-ttl=3s";

/// A bridge, removed when dropped. The address of this side is 10.213.0.1.
struct Bridge(String);

/// A namespace that is plugged into a bridge, removed when dropped.
struct Host {
    name: String,
    bridge: String,
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}: this test needs root");
}

impl Bridge {
    fn new() -> Bridge {
        let name = format!("qb{}", std::process::id());
        ip(&format!("link add {name} type bridge"));
        let bridge = Bridge(name);
        ip(&format!("addr add 10.213.0.1/24 dev {}", bridge.0));
        ip(&format!("link set {} up", bridge.0));
        bridge
    }

    fn host(&self, number: u8) -> Host {
        let host = Host { name: format!("qh{}-{number}", std::process::id()), bridge: self.0.clone() };
        let name = &host.name;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        host.plug();
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} addr add 10.213.0.{}/24 dev eth0", number + 2));
        ip(&format!("-n {name} link set eth0 up"));
        host
    }
}

impl Host {
    fn plug(&self) {
        ip(&format!("link set {} master {}", self.name, self.bridge));
    }

    fn unplug(&self) {
        ip(&format!("link set {} nomaster", self.name));
    }

    fn holds(&self, log: &Log, http: SocketAddr, script: &str) -> Holder {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program());
        Holder::start_by(command, log, http, &[TTL], script)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// D1: never both at once, not even across a partition, round after round, with the partition at different moments of a renewal.
#[test]
fn a_holder_that_is_cut_off_stops_its_child_before_another_one_runs() {
    let bridge = Bridge::new();
    let hosts = [bridge.host(0), bridge.host(1)];
    let agent = Agent::start(&["-dev", "-client=0.0.0.0"]);
    let http = SocketAddr::from(([10, 213, 0, 1], agent.http.port()));
    for round in 0..10u64 {
        let log = Log::new();
        let mut first = hosts[0].holds(&log, http, &writes("a"));
        log.wait_for("a");
        let second = hosts[1].holds(&log, http, &writes("b"));
        wait_until("it to wait", || !agent.get("/v1/lock/job/.lock").json()["Queue"].as_array().unwrap().is_empty());
        let child = first.child();
        thread::sleep(Duration::from_millis(round * 137));
        hosts[0].unplug();
        log.wait_for("b");
        wait_for_end_of(child);
        assert_eq!(first.wait(), Some(1));
        assert!(first.said().contains("Lost the lock at job"), "{}", first.said());
        assert_eq!(log.turns(), ["a", "b"], "round {round}");
        hosts[0].plug();
        drop(second);
        wait_until("the lock to be free", || agent.get("/v1/lock/job/.lock").status == 404);
    }
}
