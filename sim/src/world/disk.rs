//! A disk that fails like disks do.
//!
//! Each file has two contents: what a reader sees, and what the platter keeps. A sync carries the written sectors from one
//! to the other; a power loss carries a random half of them, so that writes are lost, kept and torn at sectors. Names are
//! kept the same way, change by change: a created file whose directory was not synced may be gone, and with a directory
//! all that is in it. A failed sync carries some sectors, forgets about the others, and the next one succeeds.
//!
//! The disk outlives the processes that mount it. Handles of an earlier process are dead.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use quorate::world::{Disk, File, Lock, OpenMode};

use super::hold;
use super::pages::{Pages, SECTOR};
use crate::engine::Time;
use crate::rng::Rng;

/// A machine's disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

struct Platter {
    rng: Rng,
    names: Names,
    kept_names: Names,
    /// Changes of names since their directory was synced, oldest first.
    changes: Vec<Change>,
    contents: Vec<Contents>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier process are dead.
    process: u64,
    faults: DiskFaults,
    syncs: u64,
}

/// What is wrong with a disk, until it is set right again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Every sync takes this much longer.
    pub slow_sync: Duration,
    /// No sync returns.
    pub stuck: bool,
    /// The next sync of a file fails, and loses what it should have kept.
    pub fail_next_sync: bool,
    /// Of a thousand calls, so many fail with an I/O error and do nothing.
    pub errors_per_mille: u64,
    /// Nothing grows.
    pub full: bool,
    /// Whether a sync has failed. The disk sets it; a process that ends has had its reason.
    pub sync_failed: bool,
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Default)]
struct Contents {
    seen: Pages,
    kept: Pages,
    /// Sectors whose last write is not known to be kept.
    dirty: BTreeSet<u64>,
    /// Sectors that the last sync kept: what is lost of these looks as if it had never been written.
    newest: BTreeSet<u64>,
}

/// What may happen to what a disk has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A bit turns over.
    Rot,
    /// A sector's write went over another one.
    Misdirected,
}

enum Change {
    Link(PathBuf, Node),
    /// A name is a number in a directory: the new name leads to the file that was renamed, whatever else is lost.
    Rename(PathBuf, PathBuf, Node),
    Unlink(PathBuf),
}

impl Change {
    /// The directory whose sync makes it last.
    fn directory(&self) -> Option<&Path> {
        match self {
            Change::Link(path, _) | Change::Rename(_, path, _) | Change::Unlink(path) => path.parent(),
        }
    }

    fn apply(self, names: &mut Names) {
        match self {
            Change::Link(path, node) => drop(names.insert(path, node)),
            Change::Rename(from, to, node) => {
                if names.get(&from) == Some(&node) {
                    names.remove(&from);
                }
                names.insert(to, node);
            }
            Change::Unlink(path) => drop(names.remove(&path)),
        }
    }
}

impl SimDisk {
    /// An empty disk with a root directory.
    pub fn new(rng: Rng) -> Self {
        let names = Names::from([(PathBuf::from("/"), Node::Directory)]);
        SimDisk(Arc::new(Mutex::new(Platter {
            rng,
            kept_names: names.clone(),
            names,
            changes: Vec::new(),
            contents: Vec::new(),
            locks: BTreeSet::new(),
            process: 0,
            faults: DiskFaults::default(),
            syncs: 0,
        })))
    }

    /// Makes a directory that lasts: what the operator prepared.
    pub fn prepare(&self, dir: &Path) {
        let mut platter = self.platter();
        platter.names.insert(dir.into(), Node::Directory);
        platter.kept_names.insert(dir.into(), Node::Directory);
    }

    /// The disk as a process sees it that starts now.
    pub fn mount(&self, time: Arc<dyn Time>) -> Mounted {
        Mounted { disk: self.clone(), process: self.platter().process, time }
    }

    /// Sets what is wrong from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.platter().faults);
    }

    /// What is wrong now.
    pub fn faults(&self) -> DiskFaults {
        self.platter().faults.clone()
    }

    /// The process has ended; the operating system goes on and keeps what was written.
    pub fn end_process(&self) {
        let mut platter = self.platter();
        platter.process += 1;
        platter.locks.clear();
    }

    /// The machine lost power: of what was not synced a random half is kept.
    pub fn lose_power(&self) {
        let platter = &mut *self.platter();
        for contents in &mut platter.contents {
            contents.carry(&mut platter.rng, |rng| rng.chance(500));
            contents.seen = contents.kept.clone();
        }
        for change in std::mem::take(&mut platter.changes) {
            if platter.rng.chance(500) {
                change.apply(&mut platter.kept_names);
            }
        }
        platter.kept_names = reachable(&platter.kept_names);
        platter.names = platter.kept_names.clone();
        platter.process += 1;
        platter.locks.clear();
    }

    /// Damages what was synced, but never what a file's last sync kept: nobody can tell that from a write that was not synced.
    /// Returns where, if there is anything to damage.
    pub fn damage(&self, damage: Damage) -> Option<String> {
        let Platter { kept_names, contents, rng, .. } = &mut *self.platter();
        let mut places = Vec::new();
        for (path, node) in kept_names.iter() {
            let Node::File(id) = *node else { continue };
            let Contents { kept, dirty, newest, .. } = &contents[id];
            let old = kept.written_sectors().filter(|sector| !newest.contains(sector) && !dirty.contains(sector));
            places.extend(old.map(|sector| (path, id, sector)));
        }
        if places.is_empty() {
            return None;
        }
        let (path, id, sector) = *rng.pick(&places);
        let place = format!("{} sector {sector}", path.display());
        match damage {
            Damage::Rot => {
                let (byte, bit) = (rng.below(SECTOR) as usize, rng.below(8));
                contents[id].alter(sector, |bytes| {
                    let byte = byte % bytes.len();
                    bytes[byte] ^= 1 << bit;
                });
                Some(place)
            }
            Damage::Misdirected => {
                let (other_path, other, over) = *rng.pick(&places);
                let written = contents[id].kept.read(sector * SECTOR, SECTOR as usize);
                contents[id].alter(sector, |bytes| bytes.fill(0));
                contents[other].alter(over, |bytes| bytes.iter_mut().zip(written).for_each(|(to, from)| *to = from));
                Some(format!("{place} over {} sector {over}", other_path.display()))
            }
        }
    }

    /// The disk is lost, and an empty one takes its place.
    pub fn wipe(&self) {
        let platter = &mut *self.platter();
        platter.names = Names::from([(PathBuf::from("/"), Node::Directory)]);
        platter.kept_names = platter.names.clone();
        platter.changes.clear();
        platter.contents.clear();
        platter.process += 1;
        platter.locks.clear();
    }

    /// Syncs of files that succeeded.
    pub fn syncs(&self) -> u64 {
        self.platter().syncs
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        hold(&self.0)
    }
}

/// The names whose directories exist.
fn reachable(names: &Names) -> Names {
    let mut kept = Names::new();
    // A directory sorts before what is in it.
    for (path, node) in names {
        let parent = path.parent().map(|parent| kept.get(parent));
        if parent.is_none_or(|parent| parent == Some(&Node::Directory)) {
            kept.insert(path.clone(), *node);
        }
    }
    kept
}

impl Contents {
    /// Changes a sector behind everybody's back.
    fn alter(&mut self, sector: u64, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.kept.read(sector * SECTOR, SECTOR as usize);
        change(&mut bytes);
        self.kept.write(sector * SECTOR, &bytes);
        self.seen.write(sector * SECTOR, &bytes);
    }

    /// Carries dirty sectors to the platter, as far as `keep` says; none is dirty afterwards.
    fn carry(&mut self, rng: &mut Rng, keep: impl Fn(&mut Rng) -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if keep(rng) {
                self.kept.copy_sector(&self.seen, sector);
            }
        }
        // A longer size without the bytes: the blocks were allocated, their data was not written.
        if self.kept.len() < self.seen.len() && keep(rng) {
            self.kept.grow(self.seen.len());
        }
    }
}

impl Platter {
    /// Any call to the disk by this process.
    fn call(&mut self, process: u64) -> io::Result<()> {
        if process != self.process {
            return Err(io::Error::other("this process has ended"));
        }
        if self.faults.errors_per_mille > 0 && self.rng.chance(self.faults.errors_per_mille) {
            return Err(input_output());
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn directory_of(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.names.get(parent)) {
            Some(Node::Directory) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync(&mut self, id: usize) -> io::Result<()> {
        let fails = std::mem::take(&mut self.faults.fail_next_sync);
        let contents = &mut self.contents[id];
        if fails {
            self.faults.sync_failed = true;
            contents.carry(&mut self.rng, |rng| rng.chance(500));
            return Err(input_output());
        }
        if !contents.dirty.is_empty() {
            contents.newest = contents.dirty.clone();
        }
        contents.carry(&mut self.rng, |_| true);
        self.syncs += 1;
        Ok(())
    }
}

/// EIO.
fn input_output() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// The disk as one process sees it.
pub struct Mounted {
    disk: SimDisk,
    process: u64,
    time: Arc<dyn Time>,
}

impl Mounted {
    fn call(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.disk.platter();
        platter.call(self.process)?;
        Ok(platter)
    }
}

#[async_trait]
impl Disk for Mounted {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut platter = self.call()?;
        let id = if mode == OpenMode::Create {
            platter.directory_of(path)?;
            if platter.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if platter.faults.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let id = platter.contents.len();
            platter.contents.push(Contents::default());
            platter.names.insert(path.into(), Node::File(id));
            platter.change(Change::Link(path.into(), Node::File(id)));
            id
        } else {
            platter.file(path)?
        };
        Ok(Arc::new(OpenFile { disk: self.disk.clone(), process: self.process, time: self.time.clone(), id }))
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let platter = self.call()?;
        if platter.names.get(dir) != Some(&Node::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = platter.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut platter = self.call()?;
        let mut missing: Vec<&Path> = dir.ancestors().filter(|path| !platter.names.contains_key(*path)).collect();
        while let Some(path) = missing.pop() {
            platter.names.insert(path.into(), Node::Directory);
            platter.change(Change::Link(path.into(), Node::Directory));
        }
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.call()?;
        let node = Node::File(platter.file(from)?);
        platter.directory_of(to)?;
        platter.names.remove(from);
        platter.names.insert(to.into(), node);
        platter.change(Change::Rename(from.into(), to.into(), node));
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.call()?;
        platter.file(path)?;
        platter.names.remove(path);
        platter.change(Change::Unlink(path.into()));
        Ok(())
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (delay, _) = latency(&self.disk);
        self.time.sleep(delay).await;
        let platter = &mut *self.call()?;
        let (lasting, rest) =
            std::mem::take(&mut platter.changes).into_iter().partition(|c| c.directory() == Some(dir));
        platter.changes = rest;
        let lasting: Vec<Change> = lasting;
        lasting.into_iter().for_each(|change| change.apply(&mut platter.kept_names));
        Ok(())
    }

    async fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut platter = self.call()?;
        if !platter.locks.insert(path.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Locked { disk: self.disk.clone(), process: self.process, path: path.into() }))
    }
}

struct Locked {
    disk: SimDisk,
    process: u64,
    path: PathBuf,
}

impl Lock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut platter = self.disk.platter();
        // The lock of a process that has ended was released then; another may hold it now.
        if platter.process == self.process {
            platter.locks.remove(&self.path);
        }
    }
}

struct OpenFile {
    disk: SimDisk,
    process: u64,
    time: Arc<dyn Time>,
    id: usize,
}

/// Between two looks whether a sync still does not return.
const STUCK: Duration = Duration::from_millis(50);

/// How long a sync takes, and whether a write takes a turn: drawn for each call.
fn latency(disk: &SimDisk) -> (Duration, bool) {
    let platter = &mut *disk.platter();
    let usual = Duration::from_micros(platter.rng.between(100, 3000));
    (usual + platter.faults.slow_sync, platter.rng.chance(300))
}

impl OpenFile {
    fn call(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.disk.platter();
        platter.call(self.process)?;
        Ok(platter)
    }

    async fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if latency(&self.disk).1 {
            super::spawn::turn().await;
        }
        let mut platter = self.call()?;
        let full = platter.faults.full;
        let contents = &mut platter.contents[self.id];
        let end = offset + bytes.len() as u64;
        if full && end > contents.seen.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = contents.seen.write(offset, bytes);
        for (first, last) in written {
            contents.dirty.extend(first / SECTOR..last.div_ceil(SECTOR));
        }
        Ok(())
    }
}

#[async_trait]
impl File for OpenFile {
    async fn size(&self) -> io::Result<u64> {
        Ok(self.call()?.contents[self.id].seen.len())
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.call()?.contents[self.id].seen.read(offset, len))
    }

    async fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.write(offset, &bytes).await
    }

    async fn sync(&self) -> io::Result<()> {
        let (delay, _) = latency(&self.disk);
        self.time.sleep(delay).await;
        while self.call()?.faults.stuck {
            self.time.sleep(STUCK).await;
        }
        self.call()?.sync(self.id)
    }

    async fn write_and_sync(&self, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        self.write(offset, &bytes).await?;
        self.sync().await?;
        Ok(bytes)
    }
}
