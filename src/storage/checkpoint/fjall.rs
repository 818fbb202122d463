//! The checkpoint in fjall, an LSM tree: changed rows are written as one sorted file, and merged in the background.
//!
//! Layout: each generation is a database of its own, in a directory that is named by its number. It has one keyspace: the
//! meta row first, then the rows, keyed by a tag, the table and the key. An `install` builds the next generation as
//! `<n>.new`; renaming it to `<n>` makes it current, since the highest number is. Then the old one is removed.
//!
//! Nothing here goes through fjall's journal and memtables. Rows arrive in order, so they are *ingested*: written
//! straight into a sorted table file, synced, and made visible by one atomic switch of the keyspace's manifest. Meta and
//! rows share a keyspace, hence the switch, so a `write` needs nothing else to be atomic. Against a batch through the
//! journal, this
//! - holds one block in memory, not the batch;
//! - writes a row once, not twice, and leaves no 64 MiB journals;
//! - cannot be left with a torn journal, which fjall takes for damage if a page in the middle of a batch is missing;
//! - never believes bytes whose sync failed: a retry writes a new file;
//! - cannot hang in the back-pressure that waits for a flush by a worker that died on a full disk.
//!
//! Why not a keyspace per generation: when fjall 3.1 opens a database, it does not look at the sequence numbers of its own
//! list of keyspaces. A keyspace that is created then can get the id of a removed one and an older number than that
//! removal, so that it is gone at the next start. The contract test found this.
//!
//! What this module never does: work on a database after an error. The database is dropped then, and the next call opens
//! it again, which removes whatever the failed call has left: unregistered table files, a generation that was not renamed.
//!
//! fjall opens files and starts one thread by itself (`fjall:worker`, for merging), so this is the one place outside
//! `world::real` that touches the operating system; it does so on [`World::blocking`] threads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::{CheckpointRow, CheckpointStore, Rows};
use crate::codec::{self, CodecError, Stored};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::World;

/// The only keyspace of a generation.
const ROWS: &str = "rows";
/// Ends the name of a generation that is not complete.
const NEW: &str = ".new";
/// Key of the meta row. It sorts before every row, since ingestion wants ascending keys.
const META: &[u8] = &[0];
/// First byte of a row's key; the table and the key follow.
const ROW: u8 = 1;

/// What the caller says about a checkpoint.
#[derive(Serialize, Deserialize)]
struct Meta {
    bytes: Vec<u8>,
}

impl Stored for Meta {
    const NAME: &'static str = "checkpoint meta row";
    const VERSION: u8 = 1;
}

/// A checkpoint in a directory of its own, which one process at a time may use. Dropping it closes the database and
/// releases its lock; that waits for the merge that is running to notice, some milliseconds.
pub struct FjallCheckpoint {
    world: World,
    dir: Arc<PathBuf>,
    /// Empty after a failure, and while a call works on it.
    slot: Arc<Mutex<Option<Generations>>>,
}

impl FjallCheckpoint {
    /// Opens the checkpoint in `dir`, which is created if it is missing. Leftovers of an interrupted install are removed.
    ///
    /// # Errors
    /// [`Error::Operator`] if the directory cannot be written, is locked by another process, or is damaged.
    pub async fn open(world: &World, dir: &Path) -> Result<Self> {
        let store = Self { world: world.clone(), dir: Arc::new(dir.to_path_buf()), slot: Arc::default() };
        store.with_open("open", |_| Ok(())).await?;
        Ok(store)
    }

    /// Runs work on the open database, away from the tasks. The database is given back only if the work succeeds.
    async fn with_open<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Generations) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let (slot, dir) = (self.slot.clone(), self.dir.clone());
        let done = self.world.blocking(move || {
            // A panic leaves the slot empty, which is a state like any other.
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = match slot.take().filter(Generations::is_healthy) {
                Some(open) => open,
                None => Generations::open(&dir)?,
            };
            let output = work(&mut open)?;
            *slot = Some(open);
            Ok(output)
        });
        done.await.unwrap_or(Err(Failure::Lost)).map_err(|failure| failure.explain(doing, &self.dir))
    }
}

#[async_trait]
impl CheckpointStore for FjallCheckpoint {
    async fn load(&self, mut sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>> {
        self.with_open("load", move |open| open.load(&mut sink)).await
    }

    async fn write(&self, meta: Vec<u8>, changes: Box<dyn Rows>) -> Result<()> {
        self.with_open("write", move |open| match &open.current {
            Some(current) => current.ingest(meta, changes.as_ref()),
            None => open.install(meta, changes.as_ref()),
        })
        .await
    }

    async fn install(&self, meta: Vec<u8>, rows: Box<dyn Rows>) -> Result<()> {
        self.with_open("install", move |open| open.install(meta, rows.as_ref())).await
    }
}

/// The open directory. Everything from here on blocks.
struct Generations {
    dir: PathBuf,
    current: Option<Generation>,
}

/// One open database.
struct Generation {
    number: u64,
    db: Database,
    rows: Keyspace,
}

impl Generations {
    fn open(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let (mut complete, mut leftovers) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Ok(number) = name.parse::<u64>() {
                complete.push(number);
            } else if name.strip_suffix(NEW).is_some_and(|number| number.parse::<u64>().is_ok()) {
                leftovers.push(name);
            }
        }
        let number = complete.iter().copied().max();
        // Opening locks it, so nothing is removed under another process that works here.
        let current = number.map(|number| Generation::open(dir, number)).transpose()?;
        let old = complete.into_iter().filter(|other| Some(*other) != number);
        // The last rename may have failed to sync, and what it replaced is about to go.
        sync_dir(dir)?;
        for name in old.map(|number| number.to_string()).chain(leftovers) {
            std::fs::remove_dir_all(dir.join(name))?;
        }
        Ok(Generations { dir: dir.to_path_buf(), current })
    }

    /// False once the worker has failed to merge: it ends then, and nothing would ever be merged again.
    fn is_healthy(&self) -> bool {
        // Nothing is ever in the journal, so this only asks fjall whether it is poisoned.
        self.current.as_ref().is_none_or(|current| current.db.persist(PersistMode::Buffer).is_ok())
    }

    fn load(&self, sink: &mut dyn FnMut(CheckpointRow)) -> Result<Option<Vec<u8>>, Failure> {
        let Some(current) = &self.current else { return Ok(None) };
        let mut rows = current.rows.iter();
        let first = rows.next().map(fjall::Guard::into_inner).transpose()?;
        let meta: Meta = match first {
            Some((key, bytes)) if &*key == META => codec::open(&bytes)?,
            _ => return Err(Failure::Damaged("its meta row is missing".into())),
        };
        for row in rows {
            let (key, bytes) = row.into_inner()?;
            let [ROW, table, key @ ..] = &*key else {
                return Err(Failure::Damaged(format!("it has a row under the unknown key {key:?}")));
            };
            sink(CheckpointRow { table: *table, key: key.to_vec(), row: Some(bytes.to_vec()) });
        }
        Ok(Some(meta.bytes))
    }

    fn install(&mut self, meta: Vec<u8>, rows: &dyn Rows) -> Result<(), Failure> {
        let number = self.current.as_ref().map_or(1, |current| current.number + 1);
        let new = self.dir.join(format!("{number}{NEW}"));
        // Closed again before it is renamed: fjall remembers its paths.
        Generation::create(number, &new)?.ingest(meta, rows)?;
        std::fs::rename(&new, self.dir.join(number.to_string()))?;
        sync_dir(&self.dir)?;
        // From here on it is the checkpoint, also after a power loss.
        let next = Generation::open(&self.dir, number)?;
        if let Some(old) = self.current.replace(next) {
            let path = self.dir.join(old.number.to_string());
            drop(old);
            std::fs::remove_dir_all(path)?;
        }
        Ok(())
    }
}

impl Generation {
    fn open(dir: &Path, number: u64) -> Result<Self, Failure> {
        let db = open_database(&dir.join(number.to_string()))?;
        if !db.keyspace_exists(ROWS) {
            return Err(Failure::Damaged(format!("generation {number} has no rows")));
        }
        let rows = db.keyspace(ROWS, keyspace_options)?;
        Ok(Generation { number, db, rows })
    }

    /// Creates an empty database, durably but for its own name.
    fn create(number: u64, path: &Path) -> Result<Self, Failure> {
        let db = open_database(path)?;
        let rows = db.keyspace(ROWS, keyspace_options)?;
        if let Some(parent) = rows.path().parent() {
            // fjall syncs what is in a keyspace's directory, not the directory's name.
            sync_dir(parent)?;
        }
        sync_dir(path)?;
        Ok(Generation { number, db, rows })
    }

    /// Writes the meta and ascending rows. They become visible together, and are synced, when this returns.
    fn ingest(&self, meta: Vec<u8>, rows: &dyn Rows) -> Result<(), Failure> {
        let meta = codec::seal(&Meta { bytes: meta })?;
        let mut ingestion = self.rows.start_ingestion()?;
        ingestion.write(META, meta)?;
        let mut put = |key: &[u8], row: Option<Vec<u8>>| match row {
            Some(row) => ingestion.write(key, row),
            None => ingestion.write_tombstone(key),
        };
        let (mut last, mut result) = (META.to_vec(), Ok(()));
        rows.each(&mut |row| {
            // A visit cannot be stopped, but it can do nothing more.
            if result.is_ok() {
                result = put_row(&mut put, &mut last, row);
            }
        });
        result?;
        Ok(ingestion.finish()?)
    }
}

/// fjall, as small as it goes: it is read once, at start, and written by one caller, whose rows stay in memory anyway.
fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .worker_threads(1)
        .cache_size(limits::CHECKPOINT_CACHE_BYTES)
        .max_cached_files(Some(limits::CHECKPOINT_OPEN_FILES))
        .open()
}

/// Large blocks and no filters: rows are only ever read by walking through all of them.
fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .data_block_size_policy(BlockSizePolicy::all(limits::CHECKPOINT_BLOCK_BYTES))
        .filter_policy(FilterPolicy::disabled())
}

/// Writes or removes one key of an ingestion.
type Put<'a> = dyn FnMut(&[u8], Option<Vec<u8>>) -> fjall::Result<()> + 'a;

fn put_row(put: &mut Put<'_>, last: &mut Vec<u8>, row: CheckpointRow) -> Result<(), Failure> {
    let CheckpointRow { table, key, row } = row;
    if key.len() > limits::MAX_CHECKPOINT_KEY {
        return Err(Failure::Bug(format!("a key of table {table} has {} bytes", key.len())));
    }
    let key = [&[ROW, table], key.as_slice()].concat();
    // fjall panics if they are not.
    if key <= *last {
        return Err(Failure::Bug(format!("the rows of table {table} are not in ascending order")));
    }
    put(&key, row)?;
    *last = key;
    Ok(())
}

/// Makes the names in a directory survive a power loss.
fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().read(true).open(dir)?.sync_all()
}

/// Why an operation failed, before it is told to anyone.
enum Failure {
    Fjall(fjall::Error),
    Damaged(String),
    Bug(String),
    /// The work ended without a result: the node is stopping, or fjall met damage that it only asserts about.
    Lost,
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Self {
        Failure::Fjall(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Fjall(error.into())
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::TooLarge(..) => Failure::Bug(error.to_string()),
            _ => Failure::Damaged(error.to_string()),
        }
    }
}

impl Failure {
    /// The sentence for whoever must act.
    fn explain(self, doing: &str, dir: &Path) -> Error {
        let dir = dir.display();
        let (cause, cure) = match self {
            Failure::Bug(what) => return Error::Bug(format!("cannot {doing} the checkpoint in {dir}: {what}")),
            Failure::Damaged(what) => (what, DAMAGED),
            Failure::Lost => ("it stopped half-way".into(), LOST),
            Failure::Fjall(error) => match &error {
                fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => (io.to_string(), io_cure(io)),
                fjall::Error::Locked => {
                    ("another process has it open".into(), "stop that process, or use another data directory")
                }
                fjall::Error::InvalidVersion(_) => {
                    ("it has another format".into(), "start the version of quorate that wrote it")
                }
                fjall::Error::Poisoned => ("the disk failed earlier".into(), RETRIED),
                damage => (damage.to_string(), DAMAGED),
            },
        };
        Error::Operator(format!("cannot {doing} the checkpoint in {dir}: {cause}; {cure}"))
    }
}

const DAMAGED: &str = "it is damaged: remove this node's data directory and let it join again";
const LOST: &str =
    "if it does so at every start, it is damaged: remove this node's data directory and let it join again";
const RETRIED: &str = "it is tried again, so nothing is lost once the disk works";

fn io_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space: it is tried again",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the user that runs quorate write there"
        }
        // lsm-tree reports a file that ends too early like this.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => DAMAGED,
        _ => RETRIED,
    }
}
