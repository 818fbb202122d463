//! The certificate authority's root: made once, when the cluster begins, and kept for ever.
//!
//! Clients wait for it after a start (consul.md 0.1). Nothing is signed with it: its key was thrown away when it was made,
//! because the service mesh is not part of this server.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::table::{self, Row, Table};
use super::{Key, Step, Subject};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits::MAX_ROOT;

/// A self-signed root certificate, and what its readers are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its fingerprint: bytes in hexadecimal, with colons.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its serial number.
    pub serial: u64,
    /// The fingerprint of its key.
    pub signing_key_id: String,
    /// The trust domain, before the `.consul`.
    pub trust_domain: Uuid,
    /// When it begins to hold, in seconds since 1970.
    pub not_before: u64,
    /// When it ends to hold.
    pub not_after: u64,
    /// The certificate in PEM.
    pub certificate: String,
}

/// A [`Root`] as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRow {
    /// The certificate.
    pub root: Root,
    /// Revision that kept it.
    pub create_index: u64,
}

impl Stored for RootRow {
    const NAME: &'static str = "root certificate";
    const VERSION: u8 = 1;
}

impl Row for RootRow {
    const TABLE: u8 = table::id::ROOTS;
}

/// The root, if it has been made.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    /// At most one row, under the empty key.
    pub(super) roots: Table<RootRow>,
}

impl Authority {
    /// The root.
    pub fn root(&self) -> Option<&RootRow> {
        self.roots.get(b"").map(|row| &**row)
    }

    /// Keeps a root if there is none yet: of two leaders that each made one, the first one's stays.
    pub(super) fn keep(&mut self, root: &Root, step: &mut Step<'_>) -> Result<bool> {
        let len = root.certificate.len();
        if len > MAX_ROOT {
            return Err(Error::Request(format!("the root certificate has {len} bytes, the limit is {MAX_ROOT}")));
        }
        if self.root().is_some() {
            return Ok(false);
        }
        self.roots.insert(Key::from(""), RootRow { root: root.clone(), create_index: step.revision });
        step.touch(Subject::Root, Key::from(""));
        Ok(true)
    }

    pub(super) fn load(&mut self, key: Key, row: RootRow) {
        self.roots.insert(key, row);
    }
}
