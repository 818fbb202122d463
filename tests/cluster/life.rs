//! Servers come, go, are replaced and move to another address while clients write and read: no downtime (walkthrough E2).

use crate::cluster::Cluster;
use crate::support::{free_port, stderr, wait_until};
use crate::witness::Witness;

#[test]
fn servers_are_added_replaced_moved_and_removed_under_load() {
    let mut cluster = Cluster::found();
    let witness = Witness::start(cluster.all(), 4);
    witness.wait_for(100);

    // Add.
    let added = cluster.add();
    witness.use_servers(cluster.all());
    witness.wait_for(100);

    // Replace: one is lost with its disk, another takes its place, and the lost one is struck off.
    let lost = cluster.follower();
    cluster.kill(lost);
    let replacement = cluster.add();
    witness.use_servers(cluster.all());
    remove(&cluster, replacement, lost);
    witness.wait_for(100);

    // Move: the same server, with the same data, at another address; first one that follows, then one that leads.
    for moving in [cluster.follower(), cluster.leader()] {
        cluster.kill(moving);
        cluster.ports[moving].1 = free_port();
        cluster.start(moving);
        let address = format!("127.0.0.1:{}", cluster.ports[moving].1);
        wait_until("its new address to be known", || cluster.peers().contains(&address));
        assert_eq!(cluster.peers().len(), 4, "the old address is gone");
        witness.wait_for(100);
    }

    // Remove, while it runs: no client is to use it any more, and it serves no stale truth to one that does.
    witness.use_servers(cluster.all().into_iter().filter(|http| *http != cluster.http(added)).collect());
    let other = *cluster.agents.keys().find(|number| **number != added).unwrap();
    remove(&cluster, other, added);
    witness.wait_for(100);
    cluster.kill(added);
    assert_eq!(cluster.peers().len(), 3);
    witness.wait_for(100);
    witness.finish();
    cluster.wait_for_one_truth();
}

#[test]
fn a_server_that_left_joins_again_only_if_it_is_told_to() {
    let mut cluster = Cluster::found();
    let leaving = cluster.leader();
    let others = format!("-retry-join=127.0.0.1:{}", cluster.ports[(leaving + 1) % 3].1);
    let leaves = "-hcl=leave_on_terminate = true";
    cluster.kill(leaving);
    cluster.start_with(leaving, &[leaves]);
    cluster.wait_for_leader();
    for told in ["-rejoin", &others] {
        let mut agent = cluster.agents.remove(&leaving).unwrap();
        agent.signal("TERM");
        assert_eq!(agent.wait(), Some(0), "{}", agent.log());
        wait_until("two voters", || cluster.peers().len() == 2);

        cluster.start_with(leaving, &[leaves]);
        wait_until("its reason to stay out", || {
            cluster.agents[&leaving].log().contains("does not join again by itself")
        });
        cluster.kill(leaving);
        assert_eq!(cluster.peers().len(), 2);

        cluster.start_with(leaving, &[leaves, told]);
        wait_until("three voters", || cluster.peers().len() == 3);
        cluster.wait_for_leader();
    }
    cluster.wait_for_one_truth();
}

/// `operator raft remove-peer` of a server, asked of another.
fn remove(cluster: &Cluster, asked: usize, id: usize) {
    let id = format!("-id={}", cluster.id(id));
    let removed = cluster.agents[&asked].run(&["operator", "raft", "remove-peer", &id]);
    assert!(removed.status.success(), "{}", stderr(&removed));
}
