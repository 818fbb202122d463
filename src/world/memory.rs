//! A disk that forgets everything when its process ends: what `quorate agent -dev` runs on.
//!
//! It keeps what it is given until it is dropped, and knows no faults; a sync has nothing to do.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Disk, File, Lock, OpenMode};

/// Files in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Default)]
struct Tree {
    files: BTreeMap<PathBuf, Arc<Contents>>,
    locked: BTreeMap<PathBuf, ()>,
}

type Contents = Mutex<Vec<u8>>;

/// A panic elsewhere cannot leave these half changed, so poisoning carries no news.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

#[async_trait]
impl Disk for MemoryDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut tree = hold(&self.tree);
        let contents = match (tree.files.get(path), mode) {
            (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(contents), _) => contents.clone(),
            (None, OpenMode::Create) => tree.files.entry(path.to_path_buf()).or_default().clone(),
            (None, _) => return Err(missing(path)),
        };
        Ok(Arc::new(MemoryFile(contents)))
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let tree = hold(&self.tree);
        let inside = tree.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    async fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = hold(&self.tree);
        let contents = tree.files.remove(from).ok_or_else(|| missing(from))?;
        tree.files.insert(to.to_path_buf(), contents);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        hold(&self.tree).files.remove(path).map(drop).ok_or_else(|| missing(path))
    }

    async fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        if hold(&self.tree).locked.insert(path.to_path_buf(), ()).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { tree: self.tree.clone(), path: path.to_path_buf() }))
    }
}

struct MemoryLock {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
}
impl Lock for MemoryLock {}
impl Drop for MemoryLock {
    fn drop(&mut self) {
        hold(&self.tree).locked.remove(&self.path);
    }
}

struct MemoryFile(Arc<Contents>);

#[async_trait]
impl File for MemoryFile {
    async fn size(&self) -> io::Result<u64> {
        Ok(hold(&self.0).len() as u64)
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let contents = hold(&self.0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        Ok(contents[start..start.saturating_add(len).min(contents.len())].to_vec())
    }

    async fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        let mut contents = hold(&self.0);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[start..end].copy_from_slice(&bytes);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn write_and_sync(&self, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        self.write_at(offset, bytes.clone()).await?;
        Ok(bytes)
    }
}
