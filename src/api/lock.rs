//! Queued locks as the API shows them (guarantees.md G6): an addition to Consul's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The answer to a lock that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Granted {
    /// The fence that it is held under.
    pub fence: u64,
    /// The revision that granted it: the same number.
    pub index: u64,
}

/// A lock: who holds it, and who waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lock {
    /// Its key.
    pub key: String,
    /// The session that holds it; null while nobody does.
    pub session: Option<Uuid>,
    /// The fence that it is held under; 0 while nobody holds it.
    pub fence: u64,
    /// Who waits, first the next.
    pub queue: Vec<Waiting>,
}

/// One that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Waiting {
    /// The session.
    pub session: Uuid,
    /// Its place: the revision at which it came.
    pub place: u64,
}
