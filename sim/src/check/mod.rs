//! The checkers: each judges what one run showed, from the outside, against one promise. Start at [`run`].
//!
//! A checker never reports what a correct store could have shown, so every violation is a bug: of the store, or of the
//! simulator. None looks into the servers; the clients' answers and the servers' own figures are all there is.
//!
//! Which there are, and what each is about: [`CHECKERS`].

pub mod index;
pub mod linear;
pub mod locks;
pub mod raft;
mod realtime;
mod register;
pub mod revision_order;
pub mod stream;
#[cfg(test)]
mod tests;
mod verdict;
mod versions;

use std::collections::BTreeMap;
use std::fmt;

pub use raft::NodeView;
pub use verdict::{Verdict, Violation};

use crate::history::History;
use crate::workload::locks::Book;
use crate::workload::restores::Restores;
use crate::workload::streams::Tape;

/// Names, and the promises that they are about. The first five are alarms of the run itself.
pub const CHECKERS: &[(&str, &str)] = &[
    ("panic", "nothing panics"),
    ("engine", "every run comes to an end"),
    ("process", "no server ends without cause, and no checkpoint goes back (R2)"),
    (
        "liveness",
        "in calm all servers agree within 60 s, answer, grant every lock, wake every watcher, and let go of what they held",
    ),
    ("contradiction", "what one client alone can tell: L6, L8, L9, L12, L13, L17, L19, R1, R4"),
    ("revision-order", "R1, R2, R3: the servers' revisions as the order of writes (Gibbons and Korach 1997)"),
    ("linear", "R1: a search for an order (Wing and Gong 1993, Lowe 2017)"),
    ("index", "R4: indexes never go back"),
    ("locks", "L1, L2, L4, L10, L11: no two holders, fences rise, no delay is cut short, no waiter is overtaken"),
    ("stream", "R5: the event stream has no gap, and tells everybody the same"),
    ("raft", "R6, L18, one leader per term, one state per entry (Ongaro and Ousterhout 2014)"),
];

/// One checker's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The checker's name.
    pub checker: &'static str,
    /// The key it looked at, if it looks at one.
    pub key: Option<String>,
    /// What it found.
    pub verdict: Verdict,
}

/// All verdicts on one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In a fixed order: the same run gives the same report.
    pub checks: Vec<Check>,
}

/// Has every checker judge a run. `budget` bounds the search on each key, in steps: [`linear::BUDGET`] unless the caller
/// has a reason.
pub fn run(
    history: &History,
    book: &Book,
    restores: &Restores,
    tapes: &[Tape],
    views: &[NodeView],
    budget: u64,
) -> Report {
    let mut report = Report::default();
    for (key, operations) in history.by_key() {
        report.add("revision-order", Some(key), revision_order::check(&operations));
        report.add("linear", Some(key), linear::check(&operations, budget));
        report.add("index", Some(key), index::check_key(&operations));
    }
    for subject in index::SUBJECTS {
        report.add("index", None, index::check_subject(history, subject));
    }
    report.add("locks", None, locks::check(book, restores));
    report.add("stream", None, stream::check(tapes, history));
    report.add("raft", None, raft::check(views));
    report
}

impl Report {
    fn add(&mut self, checker: &'static str, key: Option<&str>, verdict: Verdict) {
        self.checks.push(Check { checker, key: key.map(String::from), verdict });
    }

    /// Whether no checker found a violation. One that gave up found none.
    pub fn is_ok(&self) -> bool {
        self.violations().next().is_none()
    }

    /// What is wrong, and who says so.
    pub fn violations(&self) -> impl Iterator<Item = (&'static str, &Violation)> {
        self.checks.iter().filter_map(|check| match &check.verdict {
            Verdict::Violation(violation) => Some((check.checker, violation)),
            Verdict::Ok | Verdict::GaveUp { .. } => None,
        })
    }

    /// How many searches gave up.
    pub fn gave_up(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.verdict, Verdict::GaveUp { .. })).count()
    }
}

/// A line per checker with its counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        for check in &self.checks {
            let column = match check.verdict {
                Verdict::Ok => 0,
                Verdict::Violation(_) => 1,
                Verdict::GaveUp { .. } => 2,
            };
            counts.entry(check.checker).or_default()[column] += 1;
        }
        write!(f, "{:<14}  {:>6}  {:>10}  {:>7}", "checker", "ok", "violations", "gave up")?;
        for (checker, [ok, violations, gave_up]) in counts {
            write!(f, "\n{checker:<14}  {ok:>6}  {violations:>10}  {gave_up:>7}")?;
        }
        Ok(())
    }
}
