//! The file of a backup: what it holds, how it is written, and how it is read by someone who trusts none of it.
//!
//! Consul's envelope: gzip around a tar with exactly three files. `meta.json` describes the backup, `state.bin` is the state,
//! `SHA256SUMS` has the sum of each of the two. Tools that look at the envelope alone can check and file our backups like
//! Consul's. `state.bin` is ours: one line with a version, then sealed chunks of rows, each behind its length (u32,
//! little-endian). The last word on whether it is right has the state's own digest, so a backup that was read has been
//! loaded as well.
//!
//! What this module never does: I/O of its own, or read a clock. The same state gives the same bytes. What it reads it bounds
//! before it makes room for it.
//!
//! Start with [`write`] and [`read()`]; `unpacking.rs` is the careful half.

mod unpacking;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::limits;
use crate::state::{STATE_FORMAT, State};

pub use unpacking::read;

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";

/// What `state.bin` begins with; a number and the end of the line follow.
const MAGIC: &str = "quorate state ";
/// The number: of how chunks follow each other. What is in them has [`STATE_FORMAT`].
const LAYOUT: u32 = 1;

/// The unit of a tar.
const BLOCK: u64 = 512;

/// Where a backup was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The cluster.
    pub cluster: Uuid,
    /// The log entry up to which it reaches.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The voting servers: id and address.
    pub servers: Vec<(Uuid, String)>,
}

/// `meta.json`. The names are those of Consul's raft library, except in [`Own`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// Always 1: the version of this description.
    pub version: u64,
    /// Names the backup: `<term>-<index>-<revision>`.
    #[serde(rename = "ID")]
    pub id: String,
    /// The log entry up to which it reaches.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Nothing: an older form of the next.
    pub peers: Option<String>,
    /// Who were the servers.
    pub configuration: Configuration,
    /// Always 0: ours is not told apart by entries.
    pub configuration_index: u64,
    /// Bytes of the state, before they are compressed.
    pub size: u64,
    /// What only our backups say.
    #[serde(default, rename = "Quorate")]
    pub own: Own,
}

/// The servers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Configuration {
    /// Null where there are none.
    pub servers: Option<Vec<Server>>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Server {
    /// 0: it votes.
    pub suffrage: u64,
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its address.
    pub address: String,
}

/// What only our backups say of themselves. All zeros where nothing is said: then it is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Own {
    /// [`STATE_FORMAT`] of the state.
    pub format: u8,
    /// The cluster that it was made in.
    pub cluster: Uuid,
    /// The state's revision: the highest index that a client of it can have seen.
    pub revision: u64,
    /// The state's epoch.
    pub epoch: u64,
}

/// A backup that was read, and is right.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its description.
    pub meta: Meta,
    /// The state's rows, packed.
    pub chunks: Vec<Bytes>,
    /// The state.
    pub state: State,
}

/// How much there is of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Of what.
    pub name: String,
    /// How many.
    pub count: u64,
    /// How many bytes, as they are stored.
    pub size: u64,
}

impl Archive {
    /// What the state is made of, the largest first.
    pub fn kinds(&self) -> Vec<Share> {
        let mut shares = Shares::default();
        self.state.rows(&mut |row| {
            let size = row.key.len() + row.row.as_ref().map_or(0, Vec::len);
            shares.add(row.kind().to_string(), size);
        });
        shares.sorted()
    }

    /// The keys that begin with `prefix`, together by their first `depth` parts between slashes, the largest first.
    pub fn keys(&self, prefix: &str, depth: usize) -> Vec<Share> {
        let mut shares = Shares::default();
        for (key, row) in self.state.kv().prefix(prefix.as_bytes()) {
            let name = String::from_utf8_lossy(key.as_bytes());
            let parts: Vec<&str> = name.split('/').take(depth.max(1)).collect();
            shares.add(parts.join("/"), key.as_bytes().len() + row.value.len());
        }
        shares.sorted()
    }
}

#[derive(Default)]
struct Shares(BTreeMap<String, (u64, u64)>);

impl Shares {
    fn add(&mut self, name: String, size: usize) {
        let (count, total) = self.0.entry(name).or_default();
        *count += 1;
        *total += size as u64;
    }

    fn sorted(self) -> Vec<Share> {
        let mut shares: Vec<Share> =
            self.0.into_iter().map(|(name, (count, size))| Share { name, count, size }).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.size));
        shares
    }
}

/// Writes the backup of a state. The state is gone through twice, once for its size and sum, so that it is never in memory
/// as a whole before it is compressed.
///
/// # Errors
/// [`Error::Operator`], if `out` fails or the state is too large.
pub fn write(state: &State, origin: &Origin, out: &mut dyn Write) -> Result<()> {
    let failed = |error: io::Error| Error::io("cannot write the backup", &error);
    let mut measured = Measured::default();
    write_state(state, &mut measured).map_err(failed)?;
    let Measured { size, sum } = measured;
    // The envelope counts when it is read.
    let most = limits::MAX_ARCHIVE - 2 * limits::MAX_ARCHIVE_META;
    if size > most {
        return Err(Error::Operator(format!(
            "the state takes {size} bytes, and a backup at most {most}: delete what is not needed"
        )));
    }
    let meta = serde_json::to_vec(&describe(state, origin, size)).map_err(|error| Error::Bug(error.to_string()))?;
    let sums = format!("{}  {META}\n{}  {STATE}\n", hex(&Sha256::digest(&meta)), hex(&sum.finalize()));

    let mut tar = GzEncoder::new(out, Compression::fast());
    write_file(&mut tar, META, meta.len() as u64, |out| out.write_all(&meta)).map_err(failed)?;
    write_file(&mut tar, STATE, size, |out| write_state(state, out)).map_err(failed)?;
    write_file(&mut tar, SUMS, sums.len() as u64, |out| out.write_all(sums.as_bytes())).map_err(failed)?;
    // Two empty blocks are the end of a tar.
    tar.write_all(&[0; 2 * BLOCK as usize]).map_err(failed)?;
    tar.finish().map_err(failed)?.flush().map_err(failed)
}

fn describe(state: &State, origin: &Origin, size: u64) -> Meta {
    let server = |(id, address): &(Uuid, String)| Server { suffrage: 0, id: id.to_string(), address: address.clone() };
    Meta {
        version: 1,
        id: format!("{}-{}-{}", origin.term, origin.index, state.revision()),
        index: origin.index,
        term: origin.term,
        peers: None,
        configuration: Configuration { servers: Some(origin.servers.iter().map(server).collect()) },
        configuration_index: 0,
        size,
        own: Own { format: STATE_FORMAT, cluster: origin.cluster, revision: state.revision(), epoch: state.epoch() },
    }
}

/// One file of the tar.
fn write_file(
    out: &mut dyn Write,
    name: &str,
    size: u64,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o600);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    content(out)?;
    let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default();
    out.write_all(&[0; BLOCK as usize][..padding])
}

/// `state.bin`.
fn write_state(state: &State, out: &mut dyn Write) -> io::Result<()> {
    let mut written = out.write_all(format!("{MAGIC}{LAYOUT}\n").as_bytes());
    state.pack(&mut |chunk| {
        if written.is_ok() {
            written = write_chunk(&chunk, out);
        }
    });
    written
}

fn write_chunk(chunk: &Bytes, out: &mut dyn Write) -> io::Result<()> {
    let len = u32::try_from(chunk.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(chunk)
}

/// Sum and size of what is written to it.
#[derive(Default)]
struct Measured {
    sum: Sha256,
    size: u64,
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
