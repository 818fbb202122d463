//! A disk that fails like disks do, and a world around it.
//!
//! Each file has two contents: what a reader sees, and what the platter has. A sync carries the written sectors from
//! one to the other; a power loss carries a random half of them. Names are kept the same way, change by change. Handles
//! that were opened before a crash are dead after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::world::{Clock, Disk, Entropy, File, Instant, Lock, MemoryDisk, OpenMode, Sleep, WallTime, World, real};

pub(super) const SECTOR: usize = 512;

/// Handles share the disk.
#[derive(Clone)]
pub(super) struct FaultyDisk(Arc<Mutex<Platter>>);

pub(super) struct Platter {
    files: BTreeMap<PathBuf, usize>,
    kept_names: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    contents: Vec<Contents>,
    /// Handles of an earlier epoch are dead.
    epoch: u64,
    random: u64,
    /// Calls until the machine stops; nothing works from then on until it is started again.
    pub(super) stop_in: Option<u64>,
    /// Syncs of files until one fails.
    pub(super) fail_sync_in: Option<u64>,
    /// Whether every write fails.
    pub(super) broken: bool,
    /// Bytes that all files together may have.
    pub(super) room: usize,
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    kept: Vec<u8>,
    dirty: BTreeSet<usize>,
}

enum Change {
    Link(PathBuf, usize),
    /// A name is a number in a directory: the new name leads to the file that was renamed, whatever else is lost.
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

impl Change {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Link(path, id) => drop(names.insert(path, id)),
            Change::Rename(from, to, id) => {
                if names.get(&from) == Some(&id) {
                    names.remove(&from);
                }
                names.insert(to, id);
            }
            Change::Unlink(path) => drop(names.remove(&path)),
        }
    }
}

impl Platter {
    fn coin(&mut self) -> bool {
        splitmix(&mut self.random) & 1 == 1
    }

    /// One call to the disk: the machine may stop in it.
    fn call(&mut self, epoch: u64) -> io::Result<()> {
        if epoch != self.epoch || self.stop_in == Some(0) {
            return Err(io::Error::other("the machine is off"));
        }
        self.stop_in = self.stop_in.map(|calls| calls - 1);
        Ok(())
    }

    fn carry(&mut self, id: usize, keep: impl Fn(&mut Self) -> bool) {
        for sector in std::mem::take(&mut self.contents[id].dirty) {
            if keep(self) {
                let contents = &mut self.contents[id];
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(contents.seen.len());
                if contents.kept.len() < range.end {
                    contents.kept.resize(range.end, 0);
                }
                contents.kept[range.clone()].copy_from_slice(&contents.seen[range]);
            }
        }
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.stop_in = None;
        self.fail_sync_in = None;
        self.broken = false;
        self.room = usize::MAX;
    }
}

impl FaultyDisk {
    pub(super) fn new(seed: u64) -> Self {
        FaultyDisk(Arc::new(Mutex::new(Platter {
            files: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            changes: Vec::new(),
            contents: Vec::new(),
            epoch: 0,
            random: seed,
            stop_in: None,
            fail_sync_in: None,
            broken: false,
            room: usize::MAX,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// The process dies; the operating system goes on and keeps what was written.
    pub(super) fn kill(&self) {
        self.lock().restart();
    }

    /// The machine loses power: of what was not synced a random half is kept.
    pub(super) fn power_loss(&self) {
        let platter = &mut *self.lock();
        for id in 0..platter.contents.len() {
            platter.carry(id, Platter::coin);
            let contents = &mut platter.contents[id];
            contents.seen = contents.kept.clone();
        }
        for change in std::mem::take(&mut platter.changes) {
            if platter.coin() {
                change.apply(&mut platter.kept_names);
            }
        }
        platter.files = platter.kept_names.clone();
        platter.restart();
    }

    /// A copy that shares nothing, as it is after a crash that keeps everything.
    pub(super) fn copy(&self) -> Self {
        let old = self.lock();
        let copy = FaultyDisk::new(old.random);
        let mut new = copy.lock();
        new.files = old.files.clone();
        new.kept_names = old.files.clone();
        new.contents = old.contents.clone();
        for contents in &mut new.contents {
            contents.kept = contents.seen.clone();
        }
        drop(new);
        copy
    }

    /// Changes the bytes of a file behind everyone's back.
    pub(super) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.lock();
        let id = platter.files[path];
        let contents = &mut platter.contents[id];
        change(&mut contents.seen);
        contents.kept = contents.seen.clone();
    }

    /// Removes a file behind everyone's back.
    pub(super) fn forget(&self, path: &Path) {
        let mut platter = self.lock();
        platter.files.remove(path).expect("a file");
        platter.kept_names.remove(path);
    }

    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        let platter = self.lock();
        platter.contents[platter.files[path]].seen.clone()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().files.keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// Handles from now on, and a world with this disk in it, which must be made anew after each crash.
    pub(super) fn world(&self) -> World {
        let (epoch, seed) = {
            let mut platter = self.lock();
            (platter.epoch, splitmix(&mut platter.random))
        };
        World {
            clock: Arc::new(HastyClock(AtomicU64::new(0))),
            net: Arc::new(real::RealNetwork),
            disk: Arc::new(Mounted { disk: self.clone(), epoch }),
            entropy: Arc::new(Seeded(Mutex::new(seed))),
            spawn: Arc::new(real::RealSpawn),
        }
    }
}

/// The disk as one run of a process sees it.
struct Mounted {
    disk: FaultyDisk,
    epoch: u64,
}

struct OpenFile {
    disk: FaultyDisk,
    epoch: u64,
    id: usize,
}

#[async_trait]
impl Disk for Mounted {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        let id = match (platter.files.get(path).copied(), mode) {
            (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Create) => {
                let id = platter.contents.len();
                platter.contents.push(Contents::default());
                platter.files.insert(path.into(), id);
                platter.changes.push(Change::Link(path.into(), id));
                id
            }
            (found, _) => found.ok_or(io::ErrorKind::NotFound)?,
        };
        Ok(Arc::new(OpenFile { disk: self.disk.clone(), epoch: self.epoch, id }))
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        let inside = platter.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    async fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        self.disk.lock().call(self.epoch)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        let id = platter.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.files.insert(to.into(), id);
        platter.changes.push(Change::Rename(from.into(), to.into(), id));
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        platter.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        platter.changes.push(Change::Unlink(path.into()));
        Ok(())
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let platter = &mut *self.disk.lock();
        platter.call(self.epoch)?;
        for change in std::mem::take(&mut platter.changes) {
            change.apply(&mut platter.kept_names);
        }
        Ok(())
    }

    async fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        MemoryDisk::default().lock(path).await
    }
}

#[async_trait]
impl File for OpenFile {
    async fn size(&self) -> io::Result<u64> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        Ok(platter.contents[self.id].seen.len() as u64)
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        let seen = &platter.contents[self.id].seen;
        let start = (offset as usize).min(seen.len());
        Ok(seen[start..(start + len).min(seen.len())].to_vec())
    }

    async fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        // Other tasks run while the disk works.
        tokio::task::yield_now().await;
        let mut platter = self.disk.lock();
        platter.call(self.epoch)?;
        if platter.broken {
            return Err(io::Error::from_raw_os_error(5));
        }
        let end = offset as usize + bytes.len();
        let used: usize = platter.files.values().map(|id| platter.contents[*id].seen.len()).sum();
        let room = platter.room;
        let contents = &mut platter.contents[self.id];
        let growth = end.saturating_sub(contents.seen.len());
        if growth > 0 && used + growth > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if contents.seen.len() < end {
            contents.seen.resize(end, 0);
        }
        contents.seen[offset as usize..end].copy_from_slice(&bytes);
        contents.dirty.extend(offset as usize / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        tokio::task::yield_now().await;
        let platter = &mut *self.disk.lock();
        platter.call(self.epoch)?;
        if let Some(left) = &mut platter.fail_sync_in {
            if *left == 0 {
                platter.fail_sync_in = None;
                // Some sectors made it; all of them count as clean from now on, and a reader still sees them.
                platter.carry(self.id, Platter::coin);
                return Err(io::Error::from_raw_os_error(5));
            }
            *left -= 1;
        }
        platter.carry(self.id, |_| true);
        Ok(())
    }

    async fn write_and_sync(&self, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        self.write_at(offset, bytes.clone()).await?;
        self.sync().await?;
        Ok(bytes)
    }
}

/// A clock on which every sleep is over as soon as others had a turn.
struct HastyClock(AtomicU64);

impl Clock for HastyClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.fetch_max(deadline.0, Ordering::Relaxed);
        Box::pin(async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        })
    }
}

struct Seeded(Mutex<u64>);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&splitmix(&mut state).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Sebastiano Vigna's SplitMix64: enough chance for a test.
pub(super) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
