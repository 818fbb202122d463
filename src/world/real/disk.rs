//! Files through system calls, on tokio's threads for blocking work; the log's synced writes on a thread of their own.
//!
//! A durable write waits for its sync, and one client's waits for nothing else: there each wake-up between threads counts.
//! A thread that does only this takes half the wake-ups of the shared pool (docs/performance.md).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::world::{Disk, File, Lock, OpenMode};

/// The machine's file systems.
pub struct RealDisk {
    syncer: Syncer,
}

impl RealDisk {
    /// The disk, with its thread for synced writes. The thread ends when the disk and its files are dropped.
    #[expect(clippy::new_without_default, reason = "a default that starts a thread would surprise")]
    pub fn new() -> Self {
        RealDisk { syncer: Syncer::start() }
    }
}

/// The thread that writes and syncs, in the order of the requests.
#[derive(Clone)]
struct Syncer(mpsc::Sender<Synced>);

/// One synced write.
struct Synced {
    file: Arc<fs::File>,
    offset: u64,
    bytes: Vec<u8>,
    done: oneshot::Sender<io::Result<Vec<u8>>>,
}

impl Syncer {
    fn start() -> Self {
        let (send, requests) = mpsc::channel::<Synced>();
        std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || requests.into_iter().for_each(Synced::run))
            // As for any thread at the start of a process: without it there is nothing to go on with.
            .expect("the operating system starts a thread");
        Syncer(send)
    }
}

impl Synced {
    fn run(self) {
        let written = self.file.write_all_at(&self.bytes, self.offset).and_then(|()| self.file.sync_data());
        // Whoever asked may be gone; the write has happened all the same.
        let _ = self.done.send(written.map(|()| self.bytes));
    }
}

/// Runs a system call where it may block.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[async_trait]
impl Disk for RealDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (path, syncer) = (path.to_path_buf(), self.syncer.clone());
        off_thread(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::Create);
            // A log and a backup hold every value: they are for nobody else to read.
            options.mode(0o600);
            let file = Arc::new(options.open(path)?);
            Ok(Arc::new(RealFile { file, syncer }) as Arc<dyn File>)
        })
        .await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = dir.to_path_buf();
        off_thread(move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_path_buf();
        off_thread(move || fs::create_dir_all(dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        off_thread(move || fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        off_thread(move || fs::remove_file(path)).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_path_buf();
        off_thread(move || fs::File::open(dir)?.sync_all()).await
    }

    async fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let path = path.to_path_buf();
        off_thread(move || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.try_lock().map_err(io::Error::from)?;
            Ok(Box::new(RealLock(file)) as Box<dyn Lock>)
        })
        .await
    }
}

/// Holds the lock by holding the file open.
struct RealLock(#[expect(dead_code, reason = "held, not read: the lock ends when the file is closed")] fs::File);
impl Lock for RealLock {}

struct RealFile {
    file: Arc<fs::File>,
    syncer: Syncer,
}

#[async_trait]
impl File for RealFile {
    async fn size(&self) -> io::Result<u64> {
        let file = self.file.clone();
        off_thread(move || Ok(file.metadata()?.len())).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.file.clone();
        off_thread(move || {
            let mut bytes = vec![0; len];
            let mut filled = 0;
            while filled < len {
                match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        })
        .await
    }

    async fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        let file = self.file.clone();
        off_thread(move || file.write_all_at(&bytes, offset)).await
    }

    async fn sync(&self) -> io::Result<()> {
        let file = self.file.clone();
        off_thread(move || file.sync_data()).await
    }

    async fn write_and_sync(&self, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let (done, written) = oneshot::channel();
        let request = Synced { file: self.file.clone(), offset, bytes, done };
        let ended = || io::Error::other("the disk's thread has ended");
        self.syncer.0.send(request).map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}
