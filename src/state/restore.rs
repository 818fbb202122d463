//! A state as it is packed for a backup, and taken from one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Loader, State, StoredRow};
use crate::codec::{self, Stored};
use crate::error::{Error, Result};
use crate::limits;

/// Rows of a state, some at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Chunk {
    rows: Vec<(u8, Bytes, Bytes)>,
}

impl Stored for Chunk {
    const NAME: &'static str = "rows of a backup";
    const VERSION: u8 = 1;
}

impl State {
    /// What a backup holds of this state.
    pub fn backup(&self) -> State {
        self.clone()
    }

    /// How often the state was replaced by a backup.
    pub fn epoch(&self) -> u64 {
        0
    }

    /// Visits all rows in sealed chunks, ascending.
    pub fn pack(&self, visit: &mut dyn FnMut(Bytes)) {
        let (mut chunk, mut bytes) = (Chunk::default(), 0);
        let seal = |chunk: &Chunk| Bytes::from(codec::seal(chunk).expect("a chunk is bounded"));
        self.rows(&mut |row| {
            let content = row.row.unwrap_or_default();
            let size = row.key.len() + content.len();
            if bytes + size > limits::SNAPSHOT_CHUNK && !chunk.rows.is_empty() {
                visit(seal(&std::mem::take(&mut chunk)));
                bytes = 0;
            }
            chunk.rows.push((row.table, row.key.into(), content.into()));
            bytes += size;
        });
        visit(seal(&chunk));
    }
}

/// Gives the rows of a chunk to a loader.
///
/// # Errors
/// [`Error::Operator`], if it is damaged.
pub fn unpack(chunk: &Bytes, loader: &mut Loader) -> Result<()> {
    let chunk: Chunk = codec::open(chunk).map_err(|error| Error::Operator(error.to_string()))?;
    for (table, key, row) in chunk.rows {
        loader.row(StoredRow { table, key: key.into(), row: Some(row.into()) })?;
    }
    Ok(())
}
