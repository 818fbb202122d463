//! [`raft`](crate::check::raft): one planted fault for each of its rules.

use crate::check::NodeView;
use crate::check::raft::check;

fn view(node: &str, time: u64) -> NodeView {
    NodeView {
        node: node.into(),
        incarnation: 0,
        time,
        term: 2,
        leader: Some("a".into()),
        state: if node == "a" { "Leader" } else { "Follower" }.into(),
        applied: 10,
        entries: 8,
        revision: 5,
        digest: "d8".into(),
    }
}

fn is_broken(views: &[NodeView]) -> bool {
    check(views).is_violation()
}

#[test]
fn servers_that_agree_are_fine() {
    let behind = NodeView { applied: 9, entries: 7, revision: 5, digest: "d7".into(), ..view("b", 2) };
    let elected = NodeView { term: 3, leader: Some("b".into()), state: "Leader".into(), ..view("b", 4) };
    assert!(!is_broken(&[view("a", 1), behind, view("b", 3), elected]));
}

#[test]
fn two_leaders_of_a_term_are_found() {
    let believer = NodeView { leader: Some("c".into()), ..view("b", 2) };
    assert!(is_broken(&[view("a", 1), believer]));
    let claimant = NodeView { leader: None, state: "Leader".into(), ..view("c", 2) };
    assert!(is_broken(&[NodeView { leader: None, ..view("a", 1) }, claimant]));
}

#[test]
fn a_running_server_does_not_forget_but_a_restarted_one_may() {
    let older = NodeView { entries: 7, revision: 4, digest: "d7".into(), ..view("a", 2) };
    for fallen in [
        NodeView { term: 1, leader: None, state: "Follower".into(), ..view("a", 2) },
        NodeView { applied: 9, ..view("a", 2) },
        older.clone(),
    ] {
        assert!(is_broken(&[view("a", 1), fallen.clone()]), "{fallen}");
        assert!(!is_broken(&[view("a", 1), NodeView { incarnation: 1, ..fallen }]));
    }
}

#[test]
fn replicas_that_differ_are_found() {
    assert!(is_broken(&[view("a", 1), NodeView { digest: "other".into(), ..view("b", 2) }]));
    assert!(is_broken(&[view("a", 1), NodeView { revision: 6, ..view("b", 2) }]));
    let backwards = NodeView { applied: 11, entries: 9, revision: 4, digest: "d9".into(), ..view("b", 2) };
    assert!(is_broken(&[view("a", 1), backwards]));
}
