//! What a change concerns, and the newest change of each: what reads that wait look at.
//!
//! Keys have finer indexes of their own (`kv.rs`). Of everything else a read answers the index of its whole subject, which
//! never goes back, whatever is deleted (R4), while a wait is woken only by what it looks at. So an index may be higher than
//! the newest change of what was read; it is never lower.

use serde::{Deserialize, Serialize};

use super::digest::RowHash;

/// What a change concerns. One change may concern several: a check, the instance of the service that it checks, its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Keys, by key.
    Kv,
    /// Sessions, by id.
    Session,
    /// Nodes, by name in lower case.
    Node,
    /// Nodes with their services, by name in lower case.
    NodeServices,
    /// Instances of services with their nodes and checks, by service, node and id: see [`super::catalog`].
    Service,
    /// Checks, by node and id.
    Check,
    /// The root certificate.
    Root,
    /// Locks, by key: who holds them, and who waits.
    Lock,
}

const COUNT: usize = Subject::Lock as usize + 1;

/// The newest change of every subject; 0 if there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Indexes([u64; COUNT]);

impl Indexes {
    /// Everything was changed at this revision.
    pub fn all(revision: u64) -> Indexes {
        Indexes([revision; COUNT])
    }

    pub fn of(&self, subject: Subject) -> u64 {
        self.0[subject as usize]
    }

    pub fn raise(&mut self, subject: Subject, revision: u64) {
        self.0[subject as usize] = revision;
    }

    pub fn fields(&self, hash: &mut RowHash) {
        self.0.iter().for_each(|index| hash.number(*index));
    }
}
