//! What the servers say about themselves (R6, L18, and Raft's election safety and state machine safety: Ongaro and
//! Ousterhout 2014, figure 3).
//!
//! It compares samples and sees only what is sampled: two leaders of one term must both be asked while they lead. It never
//! looks at what clients were told.

use std::collections::BTreeMap;
use std::fmt;

use super::verdict::{Verdict, Violation};

/// One answer of a server to `GET /v1/agent/self`. All figures must stem from one moment, `term`, `leader` and `state` from
/// one vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The server's id.
    pub node: String,
    /// How many times it was started before. What was not synced is lost between two, so figures may fall.
    pub incarnation: u32,
    /// Virtual time, in milliseconds. Views are given in its order.
    pub time: u64,
    /// Its current term.
    pub term: u64,
    /// Id of the server that it takes for the leader of that term.
    pub leader: Option<String>,
    /// Its role: `Leader`, or another.
    pub state: String,
    /// Index of the newest raft entry that it applied.
    pub applied: u64,
    /// Entries that its state has executed.
    pub entries: u64,
    /// Its state's revision.
    pub revision: u64,
    /// Its state's digest. Comparable while all servers write one state format.
    pub digest: String,
}

/// Checks what the servers of one run said, in the order of time.
pub fn check(views: &[NodeView]) -> Verdict {
    one_leader(views).or_else(|| no_fall(views)).or_else(|| one_truth(views)).unwrap_or(Verdict::Ok)
}

/// Election safety: a term has at most one leader.
fn one_leader(views: &[NodeView]) -> Option<Verdict> {
    let mut leaders: BTreeMap<u64, (&str, &NodeView)> = BTreeMap::new();
    views.iter().find_map(|view| {
        let itself = (view.state == "Leader").then_some(&view.node);
        itself.into_iter().chain(&view.leader).find_map(|leader| {
            let (first, said_by) = *leaders.entry(view.term).or_insert((leader, view));
            let sentence = || format!("term {} has two leaders, {first} and {leader}", view.term);
            (first != leader).then(|| broken("election safety", sentence(), said_by, view))
        })
    })
}

/// A server that runs does not forget.
fn no_fall(views: &[NodeView]) -> Option<Verdict> {
    let mut newest: BTreeMap<(&str, u32), &NodeView> = BTreeMap::new();
    views.iter().find_map(|view| {
        let before = newest.insert((&view.node, view.incarnation), view)?;
        let figures = |view: &NodeView| {
            [("term", view.term), ("applied", view.applied), ("entries", view.entries), ("revision", view.revision)]
        };
        let mut pairs = figures(before).into_iter().zip(figures(view));
        let ((name, from), (_, to)) = pairs.find(|((_, from), (_, to))| to < from)?;
        Some(broken("state machine safety", format!("{name} fell from {from} to {to}"), before, view))
    })
}

/// State machine safety: after the same number of entries every server has the same state, and revisions rise with the
/// entries, whoever is asked.
fn one_truth(views: &[NodeView]) -> Option<Verdict> {
    let mut by_entries: BTreeMap<u64, &NodeView> = BTreeMap::new();
    let differ = views.iter().find_map(|view| {
        let first = *by_entries.entry(view.entries).or_insert(view);
        let same = (&first.digest, first.revision) == (&view.digest, view.revision);
        (!same).then(|| broken("R6", format!("different states after {} entries", view.entries), first, view))
    });
    let pairs = || by_entries.values().zip(by_entries.values().skip(1));
    differ.or_else(|| {
        let (few, many) = pairs().find(|(few, many)| many.revision < few.revision)?;
        Some(broken("R6", "more entries have led to a smaller revision".into(), few, many))
    })
}

fn broken(invariant: &'static str, sentence: String, first: &NodeView, second: &NodeView) -> Verdict {
    let sentence = format!("{sentence}\n  {first}\n  {second}");
    Verdict::Violation(Violation { invariant, sentence, proof: Vec::new(), context: Vec::new() })
}

impl fmt::Display for NodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeView { node, incarnation, time, term, leader, state, applied, entries, revision, digest } = self;
        let leader = leader.as_deref().unwrap_or("none");
        write!(f, "{time:>8} ms  {node}#{incarnation}  {state} in term {term}, leader {leader}, applied {applied}, ")?;
        write!(f, "entries {entries}, revision {revision}, digest {digest}")
    }
}
