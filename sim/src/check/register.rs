//! The sequential specification of one key (consul.md 2.1), as far as its clients can tell.
//!
//! Revisions are names here, not numbers: that 7 comes after 5 is not used, so that the search over it is an opinion of
//! its own beside [`revision_order`](super::revision_order).

use super::versions::Versions;
use crate::history::{Call, Operation, Outcome};

/// What the key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Absent,
    /// A row that some read found.
    Revision(u64),
    /// A row that no read found. Nobody knows its revision, and nothing tells two such rows apart.
    Unread,
}

/// What must be true of the content where an operation takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A read that found this.
    Read(Content),
    /// A write that took effect if its condition held, and whether it did.
    Write { condition: Condition, held: bool, becomes: Content },
    /// An answer that no store can give.
    Impossible,
}

/// When a write takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    cas: Option<Content>,
    /// A delete of what is absent succeeds, whatever its `cas`.
    or_absent: bool,
}

impl Step {
    /// The step of an operation that took effect or was answered.
    pub fn new(operation: &Operation, versions: &Versions) -> Step {
        let held = operation.outcome != Outcome::Written { applied: false };
        match (operation.call, operation.read()) {
            (Call::Get, Some((None, _))) => Step::Read(Content::Absent),
            (Call::Get, Some((Some(found), _))) => match versions.at(found.modify_index) {
                Some(version) if version.seen.value == found.value => Step::Read(Content::Revision(found.modify_index)),
                _ => Step::Impossible,
            },
            (Call::Get, None) => Step::Impossible,
            _ => {
                // To expect a revision that no read found is to expect some row that no read found. That is too
                // generous when there are several, never too strict.
                let cas = operation.cas().map(|cas| match cas {
                    0 => Content::Absent,
                    cas if versions.at(cas).is_some() => Content::Revision(cas),
                    _ => Content::Unread,
                });
                let or_absent = matches!(operation.call, Call::Delete { .. });
                let version = versions.of(operation).map(|version| Content::Revision(version.seen.modify_index));
                let becomes = if or_absent { Content::Absent } else { version.unwrap_or(Content::Unread) };
                Step::Write { condition: Condition { cas, or_absent }, held, becomes }
            }
        }
    }

    /// The content after this step, `None` if the step is not possible here.
    pub fn apply(self, content: Content) -> Option<Content> {
        match self {
            Step::Impossible => None,
            Step::Read(found) => (found == content).then_some(content),
            Step::Write { condition, held: true, becomes } => condition.may_hold(content).then_some(becomes),
            Step::Write { condition, held: false, .. } => condition.may_fail(content).then_some(content),
        }
    }

    /// Whether it is a write with a condition.
    pub fn is_conditional(self) -> bool {
        matches!(self, Step::Write { condition: Condition { cas: Some(_), .. }, .. })
    }
}

impl Condition {
    /// Every condition under which a write may change this content.
    pub fn that_hold(content: Content) -> [Condition; 4] {
        [(None, false), (None, true), (Some(content), false), (Some(content), true)]
            .map(|(cas, or_absent)| Condition { cas, or_absent })
    }

    /// Every condition that may hold more than once. A [`Content::Revision`] does not come back once it is replaced.
    pub fn that_recur() -> [Condition; 5] {
        let [put, delete, unread_put, unread_delete] = Condition::that_hold(Content::Unread);
        let [_, _, create, _] = Condition::that_hold(Content::Absent);
        [put, delete, unread_put, unread_delete, create]
    }

    fn may_hold(self, content: Content) -> bool {
        self.cas.is_none_or(|cas| cas == content) || (self.or_absent && content == Content::Absent)
    }

    fn may_fail(self, content: Content) -> bool {
        match content {
            Content::Absent if self.or_absent => false,
            // The row may be the one that is expected, or another.
            Content::Unread => self.cas.is_some(),
            _ => self.cas.is_some_and(|cas| cas != content),
        }
    }
}
