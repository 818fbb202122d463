//! The two ids that live with a server's data: its own, and that of its cluster.
//!
//! The cluster's id is made once, by the server that founds the cluster, before there is a cluster. Every other server
//! takes it over from the answer to its join or from the first member that speaks to it, and keeps it before it answers.
//! From then on it talks to no other cluster, so two clusters can never grow into each other.
//!
//! A server that has left keeps that too, because what it has of the log may still call it a member.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::rpc::Identity;
use crate::world::{OpenMode, World};

/// A server's identity, and where the cluster's id is kept.
#[derive(Clone)]
pub struct Cluster {
    world: World,
    dir: PathBuf,
    identity: Identity,
    /// Makes two that would keep an id take turns.
    keeping: Arc<Mutex<()>>,
    left: Arc<AtomicBool>,
}

const FILE: &str = "cluster-id";
/// There while this server has left the cluster of this id and was not taken in again.
const LEFT: &str = "left-cluster-id";

impl Cluster {
    /// Reads the cluster's id from a data directory, if it is known there.
    ///
    /// # Errors
    /// [`Error::Operator`] if it cannot be read.
    pub async fn open(world: &World, dir: &Path, node: Uuid) -> Result<Self> {
        let identity = Identity::new(node);
        if let Some(id) = read_id(world, dir, FILE).await? {
            let _ = identity.cluster.set(id);
        }
        let left = Arc::new(AtomicBool::new(read_id(world, dir, LEFT).await?.is_some()));
        Ok(Cluster { world: world.clone(), dir: dir.into(), identity, keeping: Arc::default(), left })
    }

    /// Who this server is to others.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster's id, if there is one.
    pub fn id(&self) -> Option<Uuid> {
        self.identity.cluster()
    }

    /// Makes `id` the cluster's, for ever. It is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Operator`] if this server is of another cluster, or the disk refuses.
    pub(super) async fn adopt(&self, id: Uuid) -> Result<()> {
        let _turn = self.keeping.lock().await;
        match self.id() {
            Some(own) if own == id => return Ok(()),
            Some(own) => return Err(Error::Operator(format!("this server is of cluster {own}, not of {id}"))),
            None => {}
        }
        write_id(&self.world, &self.dir, FILE, id)
            .await
            .map_err(|e| Error::io(format!("cannot keep the cluster's id in {}", self.dir.display()), &e))?;
        let _ = self.identity.cluster.set(id);
        tracing::info!(cluster = %id, "belongs to a cluster");
        Ok(())
    }

    /// Whether this server has left the cluster, on purpose.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Keeps that this server has left the cluster: it does not join again by itself.
    ///
    /// # Errors
    /// [`Error::Operator`] if the disk refuses.
    pub async fn leave(&self) -> Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        let kept = write_id(&self.world, &self.dir, LEFT, id).await;
        kept.map_err(|e| Error::io(format!("cannot keep in {} that this server has left", self.dir.display()), &e))?;
        self.left.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets that this server had left: the cluster has taken it in again.
    pub(super) async fn come_back(&self) -> Result<()> {
        if self.has_left() {
            let removed = self.world.disk.remove(&self.dir.join(LEFT)).await;
            removed.map_err(|e| Error::io(format!("cannot remove {LEFT} from {}", self.dir.display()), &e))?;
            self.left.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The id this server would found a cluster under: the one it has, or a new one.
    pub(super) async fn found(&self) -> Result<()> {
        self.adopt(self.id().unwrap_or_else(|| self.world.entropy.uuid())).await
    }
}

/// Reads an id that [`write_id`] wrote; `None` if there is none.
///
/// # Errors
/// [`Error::Operator`] if the file cannot be read or holds something else.
pub async fn read_id(world: &World, dir: &Path, name: &str) -> Result<Option<Uuid>> {
    let path = dir.join(name);
    let failed = |e: io::Error| Error::io(format!("cannot read {}", path.display()), &e);
    let file = match world.disk.open(&path, OpenMode::Read).await {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let text = file.read_at(0, 64).await.map_err(failed)?;
    let id = Uuid::try_parse(String::from_utf8_lossy(&text).trim()).map_err(|_| {
        let (path, what) = (path.display(), name.replace('-', " "));
        Error::Operator(format!("{path} does not hold a {what} (a UUID): put back the file that belongs to this data"))
    })?;
    Ok(Some(id))
}

/// Keeps an id, whole or not at all: written beside, synced, then renamed.
///
/// # Errors
/// The disk's.
pub async fn write_id(world: &World, dir: &Path, name: &str, id: Uuid) -> io::Result<()> {
    let beside = dir.join(format!("{name}.tmp"));
    match world.disk.remove(&beside).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = world.disk.open(&beside, OpenMode::Create).await?;
    file.write_and_sync(0, format!("{id}\n").into_bytes()).await?;
    world.disk.rename(&beside, &dir.join(name)).await?;
    world.disk.sync_dir(dir).await
}
