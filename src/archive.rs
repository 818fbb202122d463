//! The file format of backups. (Its other half lands with this module's own change.)

use bytes::Bytes;
use uuid::Uuid;

use crate::state::State;

/// Where a backup is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The cluster's id.
    pub cluster: Uuid,
    /// Raft's index of the last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Ids and addresses of the voting servers.
    pub servers: Vec<(Uuid, String)>,
}

/// What `meta.json` says.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Where it is from.
    pub origin: Origin,
}

/// A backup that was read and found whole.
#[derive(Debug, Clone)]
pub struct Archive {
    /// What it says of itself.
    pub meta: Meta,
    /// Its rows, as [`State::pack`] made them.
    pub chunks: Vec<Bytes>,
    /// The same.
    pub state: State,
}
