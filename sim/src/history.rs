//! What the clients of one run asked and what they were told: the input of every checker.
//!
//! A history never says what the servers did, and is never repaired: a request that was abandoned stays open. Times are
//! positions in the total order of events of the run, which one thread makes well defined; virtual time would not do,
//! because many events share an instant. Start at [`Operation`].
//!
//! Three things the workload owes its checkers, and [`History`] asserts: a value is written at most once per key, so that
//! a read names the write it saw; keys are absent at the start; reads are not `stale`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::player::Player;

/// What a client asks about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Writes a value; with `cas` 0 only if the key is absent, with N only if its ModifyIndex is N.
    Put {
        /// Never written to this key by another put.
        value: u64,
        /// The condition.
        cas: Option<u64>,
    },
    /// Reads, in `default` or `consistent` mode.
    Get,
    /// Deletes. With `cas` N it refuses if the key is present with another ModifyIndex; deleting nothing succeeds.
    Delete {
        /// The condition.
        cas: Option<u64>,
    },
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The value, as a put named it.
    pub value: u64,
    /// Revision that wrote it.
    pub modify_index: u64,
    /// Revision that created the key.
    pub create_index: u64,
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The body of a write: `true`, or `false` because its condition did not hold.
    Written {
        /// The body.
        applied: bool,
    },
    /// The answer to a read.
    Read {
        /// The key's row; `None` for 404.
        found: Option<Found>,
        /// `X-Consul-Index`: the row's ModifyIndex, or for a missing key the whole table's index.
        index: u64,
    },
    /// Refused: certainly not applied.
    Failed,
    /// May have been applied, may yet be, or never will (R3).
    Unknown,
}

/// One request of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: Player,
    /// Of which key.
    pub key: String,
    /// What.
    pub call: Call,
    /// Position of the request in the total order of events.
    pub start: u64,
    /// Position of the answer. `None` if none came: then the outcome is [`Outcome::Unknown`].
    pub end: Option<u64>,
    /// The answer.
    pub outcome: Outcome,
}

impl Operation {
    /// The position before which the operation has taken effect if it ever does; `u64::MAX` if there is none. That an
    /// unknown outcome was reported at some time bounds nothing: the request may still be on its way.
    pub fn settled(&self) -> u64 {
        if self.outcome == Outcome::Unknown { u64::MAX } else { self.end.unwrap_or(u64::MAX) }
    }

    /// Whether it is a write that was acknowledged as applied. Of a delete this includes that there was nothing to delete.
    pub fn is_applied(&self) -> bool {
        self.outcome == Outcome::Written { applied: true }
    }

    /// Whether it is a write that may have been applied.
    pub fn may_be_applied(&self) -> bool {
        self.call != Call::Get && (self.is_applied() || self.outcome == Outcome::Unknown)
    }

    /// The value that a put writes.
    pub fn written_value(&self) -> Option<u64> {
        if let Call::Put { value, .. } = self.call { Some(value) } else { None }
    }

    /// The condition of a write.
    pub fn cas(&self) -> Option<u64> {
        match self.call {
            Call::Put { cas, .. } | Call::Delete { cas } => cas,
            Call::Get => None,
        }
    }

    /// What an answered read found, and its index.
    pub fn read(&self) -> Option<(Option<Found>, u64)> {
        if let Outcome::Read { found, index } = self.outcome { Some((found, index)) } else { None }
    }

    /// The row that an answered read found.
    pub fn found(&self) -> Option<Found> {
        self.read().and_then(|(found, _)| found)
    }
}

/// All operations of one run, in the order of their starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
    written: BTreeSet<(String, u64)>,
}

/// Names an open operation to the [`History`] that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

impl History {
    /// Records a request at position `start`. It is unknown until [`Self::complete`] says more.
    ///
    /// # Panics
    /// If an earlier put wrote the same value to the key, or `start` is not after the previous start: the workload is
    /// wrong, and no verdict would mean anything.
    pub fn invoke(&mut self, start: u64, client: Player, key: &str, call: Call) -> OperationId {
        self.push(Operation { client, key: key.into(), call, start, end: None, outcome: Outcome::Unknown });
        OperationId(self.operations.len() - 1)
    }

    /// Records the answer to a request at position `end`.
    ///
    /// # Panics
    /// If it has one already, if `end` is not after its start, or if the answer does not belong to the call.
    pub fn complete(&mut self, end: u64, id: OperationId, outcome: Outcome) {
        let operation = &mut self.operations[id.0];
        assert!(operation.end.is_none(), "answered twice: {operation:?}");
        operation.end = Some(end);
        operation.outcome = outcome;
        check_form(operation);
    }

    /// Records an operation whose outcome is known already.
    ///
    /// # Panics
    /// As [`Self::invoke`] and [`Self::complete`].
    pub fn push(&mut self, operation: Operation) {
        check_form(&operation);
        assert!(self.operations.last().is_none_or(|last| last.start < operation.start), "out of order: {operation:?}");
        if let Some(value) = operation.written_value() {
            assert!(self.written.insert((operation.key.clone(), value)), "value written twice: {operation:?}");
        }
        self.operations.push(operation);
    }

    /// Gives the values that were found other names.
    pub fn rename(&mut self, name: impl Fn(&str, &Found) -> u64) {
        for operation in &mut self.operations {
            if let Outcome::Read { found: Some(found), .. } = &mut operation.outcome {
                found.value = name(&operation.key, found);
            }
        }
    }

    /// Every operation, in the order of their starts.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations of each key, in the order of their starts. Linearizability is local (Herlihy and Wing 1990): the
    /// whole is linearizable if each key is, so no checker needs to search over more than one.
    pub fn by_key(&self) -> BTreeMap<&str, Vec<&Operation>> {
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }
}

impl FromIterator<Operation> for History {
    /// Takes operations in any order.
    ///
    /// # Panics
    /// As [`History::push`].
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> History {
        let mut operations: Vec<Operation> = operations.into_iter().collect();
        operations.sort_by_key(|operation| operation.start);
        let mut history = History::default();
        operations.into_iter().for_each(|operation| history.push(operation));
        history
    }
}

fn check_form(operation: &Operation) {
    let fits = match operation.outcome {
        Outcome::Written { .. } => operation.call != Call::Get,
        Outcome::Read { .. } => operation.call == Call::Get,
        Outcome::Failed | Outcome::Unknown => true,
    };
    assert!(fits, "the outcome does not belong to the call: {operation:?}");
    assert!(operation.end.is_none_or(|end| operation.start < end), "ends before it starts: {operation:?}");
    assert!(operation.end.is_some() || operation.outcome == Outcome::Unknown, "an outcome without end: {operation:?}");
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cas = match self {
            Call::Get => return f.pad("get"),
            Call::Put { cas, .. } | Call::Delete { cas } => cas.map(|cas| format!(" cas={cas}")).unwrap_or_default(),
        };
        match self {
            Call::Put { value, .. } => f.pad(&format!("put {value}{cas}")),
            _ => f.pad(&format!("delete{cas}")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Written { applied } => f.pad(&applied.to_string()),
            Outcome::Read { found: None, index } => f.pad(&format!("missing, index {index}")),
            Outcome::Read { found: Some(found), index } => {
                let Found { value, modify_index, create_index } = found;
                f.pad(&format!("{value}, index {index}, modified {modify_index}, created {create_index}"))
            }
            Outcome::Failed => f.pad("failed"),
            Outcome::Unknown => f.pad("unknown"),
        }
    }
}
