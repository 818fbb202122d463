//! Agreement: one log, in one order, on every server (openraft), behind a plain handle.
//!
//! **A write.** [`Raft::propose`] is carried to the leader if it is made elsewhere (`forward.rs`). There it takes a place in
//! the bounded queue, waits until the node is a ready leader, stamps log time, encodes the entry once, and gives it to openraft. openraft merges what is queued, our log syncs the batch, and
//! once a majority has it the state machine applies it, publishes the new state, and the writer has its answer.
//!
//! **A read.** [`Raft::linearizable`] joins the next read-index round, on any server, and returns the published [`View`];
//! [`Raft::view`] is the newest one here, without asking anybody.
//!
//! openraft's types stop at this module's door. What it never does: read a command (that is `state`), decide who may
//! write, or repeat a proposal whose outcome it does not know, unless a request id makes the repeat exact.
//!
//! Start with [`Raft`]; then `state_machine.rs`, `log_store.rs`, `reads.rs`, `checkpointer.rs`. Between servers: what is
//! said is in `message.rs`, who says it in `network.rs`, who answers in `service.rs`; `join.rs` and `membership.rs` are the
//! life of a cluster; `duties.rs` is what a leader does beside the log.

mod checkpointer;
mod cluster;
mod duties;
mod forward;
mod join;
mod leadership;
mod links;
mod log_clock;
mod log_store;
mod membership;
mod message;
mod network;
mod reads;
mod runtime;
mod service;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::codec;
use crate::error::{Error, Result};
use crate::limits;
use crate::state::{Command, Entry, RequestId, Response};
use crate::storage::{CheckpointStore, Wal};
use crate::world::{Task, World};
use checkpointer::Checkpointer;
use forward::{Leader, Numbers};
use join::Meeting;
use leadership::Leadership;
use links::Links;
use log_clock::LogClock;
use log_store::LogStore;
use reads::Reads;
use state_machine::StateMachine;
use types::{OpenRaft, Proposal};
use view::Published;

pub use checkpointer::Checkpoints;
pub use cluster::{Cluster, read_id, write_id};
pub use duties::Duties;
pub use join::Finding;
pub use membership::Server;
pub use service::Service;
pub use types::{Member, checkpoint_index};
pub use view::{Observer, View};

/// What a server needs to take part.
pub struct Options {
    /// This server's id, which is random and as old as its data, and its cluster's.
    pub cluster: Cluster,
    /// What others know it by.
    pub member: Member,
    /// Makes a cluster of this one server if its data is empty.
    pub bootstrap: bool,
    /// Stretches heartbeats and election time-outs; see [`limits::RAFT_MULTIPLIER`].
    pub multiplier: u32,
    /// When the log is shortened.
    pub checkpoints: Checkpoints,
    /// How it finds the others if it is not a member yet.
    pub finding: Finding,
}

/// One server's part in the agreement. Cloning gives another handle.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    raft: OpenRaft,
    wal: Wal,
    published: Arc<Published>,
    links: Arc<Links>,
    meeting: Meeting,
    multiplier: u32,
    numbers: Numbers,
    reads: Reads,
    leadership: Leadership,
    /// Makes changes of the membership take turns on the leader: each is two steps.
    membership: tokio::sync::Mutex<()>,
    /// Kept by the layer above, which keeps us.
    duties: OnceLock<Weak<dyn Duties>>,
    /// One permit per admitted command, and per [`PERMIT_BYTES`] of it.
    commands: Semaphore,
    bytes: Semaphore,
    /// How many permits there are of `bytes`.
    permits: usize,
    /// What runs until this server stops.
    tasks: OnceLock<Vec<Task<()>>>,
}

/// Bytes that one permit of `Inner::bytes` stands for: a semaphore counts to 2^32 at most.
const PERMIT_BYTES: usize = 1024;

impl Raft {
    /// Recovers this server from its log and checkpoint, and starts it.
    ///
    /// # Errors
    /// [`Error::Operator`] if what is stored cannot be trusted, or log and checkpoint do not belong together.
    pub async fn start(
        world: &World,
        options: Options,
        wal: Wal,
        store: Arc<dyn CheckpointStore>,
        observer: Arc<dyn Observer>,
    ) -> Result<Raft> {
        let checkpointer = Arc::new(Checkpointer::open(world, store).await?);
        let stored = View::clone(&checkpointer.stored());
        if wal.purged().map(types::to_log_id) > stored.applied {
            return Err(Error::Operator(format!(
                "the log begins after raft index {}, but the checkpoint ends at {}: one of them was lost or replaced. \
                 Restore the data directory as a whole, or rebuild this server under a new id",
                wal.purged().map_or(0, |position| position.index),
                stored.applied_index().map_or_else(|| "nothing".into(), |index| index.to_string()),
            )));
        }
        let published = Arc::new(Published::new(stored, observer));
        let state_machine = StateMachine::new(published.clone(), checkpointer);
        let log = LogStore::new(wal.clone());
        let config = Arc::new(config(options.multiplier)?);
        let links = Arc::new(Links::new(world, options.cluster.clone()));
        let id = options.cluster.identity().node;
        let network = network::Network { links: links.clone() };
        // Boxed: the state machine is in there several times.
        let raft = Box::pin(OpenRaft::new(id, config, network, log, state_machine)).await;
        let raft = raft.map_err(|fatal| stopped(&wal, &fatal))?;
        first_leader(&raft, &options, &wal).await?;

        let (reads, waiting) = Reads::new(world, published.clone());
        let leadership = leadership::follow(world, raft.clone(), published.clone());
        let permits = limits::admitted_bytes(wal.segment_bytes()) / PERMIT_BYTES;
        let inner = Inner {
            world: world.clone(),
            raft,
            wal,
            published,
            links,
            meeting: Meeting::new(id, options.member, options.finding),
            multiplier: options.multiplier,
            numbers: Numbers::default(),
            reads,
            leadership,
            membership: tokio::sync::Mutex::default(),
            duties: OnceLock::new(),
            commands: Semaphore::new(limits::ADMITTED_COMMANDS),
            bytes: Semaphore::new(permits),
            permits,
            tasks: OnceLock::new(),
        };
        let raft = Raft { inner: Arc::new(inner) };
        raft.run(options.checkpoints, waiting);
        Ok(raft)
    }

    fn run(&self, checkpoints: Checkpoints, waiting: reads::Queue) {
        let Inner { world, raft, wal, .. } = &*self.inner;
        let tasks = vec![
            world.spawn(checkpointer::run(world.clone(), raft.clone(), wal.clone(), checkpoints)),
            world.spawn(reads::run(self.clone(), waiting)),
            world.spawn(membership::addresses(self.clone())),
            world.spawn(membership::promote(self.clone())),
            world.spawn(join::run(self.clone())),
        ];
        let _ = self.inner.tasks.set(tasks);
    }

    /// Has the cluster agree on a command and apply it, from any server; returns what came of it.
    ///
    /// # Errors
    /// [`Error::Retry`], [`Error::Busy`] or [`Error::Operator`] if it was certainly not applied: no leader, too many
    /// waiting, the disk full.
    /// [`Error::Unknown`] if it may have been (R3). [`Error::TooLarge`] if no log entry holds it.
    pub async fn propose(&self, request: Option<RequestId>, command: Command) -> Result<Response> {
        self.propose_anywhere(request, command).await
    }

    /// [`Raft::propose`] on the leader.
    async fn propose_here(&self, request: Option<RequestId>, command: &Command) -> Result<Response> {
        let inner = &*self.inner;
        inner.writable()?;
        let proposal = inner.seal(self.log_clock().await?, request, command.clone())?;
        let _admitted = inner.admit(proposal.0.len()).await?;
        let write = inner.raft.client_write(proposal);
        match inner.world.timeout(limits::WRITE_WAIT, write).await {
            Some(Ok(written)) => Ok(written.data),
            Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(no_leader()),
            // A discarded entry may have been replicated first: its fate is another leader's to decide.
            Some(Err(error)) => Err(unknown(&error.to_string())),
            None => Err(unknown("no majority of the servers answered in time")),
        }
    }

    /// A view that holds every write acknowledged before this call (R1).
    ///
    /// # Errors
    /// [`Error::Retry`] if there is no leader, or it cannot reach a majority.
    pub async fn linearizable(&self) -> Result<Arc<View>> {
        let start = self.inner.world.clock.now();
        loop {
            let read = self.inner.reads.linearizable().await;
            let waited = self.inner.world.clock.now().since(start);
            if read.is_ok() || waited >= limits::LEADER_WAIT {
                return read;
            }
            self.inner.world.sleep(limits::FORWARD_RETRY).await;
        }
    }

    /// How long ago what this server holds was certainly the newest there is: nothing on a leader that a majority follows;
    /// else the time since a leader was heard, whether there is one now or not. `None` if none ever was.
    pub fn last_contact(&self) -> Option<Duration> {
        match self.whereabouts() {
            Some(Leader::Here) => self.followed(),
            _ => self.inner.links.heard(),
        }
    }

    /// Whether there is a leader that this server can hear; a leader must hear a majority.
    pub fn knows_leader(&self) -> bool {
        let fresh = |contact| contact <= membership::patience(self.inner.multiplier);
        self.whereabouts().is_some() && self.last_contact().is_some_and(fresh)
    }

    /// How long ago a majority followed this leader. For as long as the others start no election after that, it is as good as
    /// now.
    fn followed(&self) -> Option<Duration> {
        let inner = &*self.inner;
        if inner.raft.voter_ids().eq([inner.meeting.id]) {
            return Some(Duration::ZERO);
        }
        let acked = inner.raft.data_metrics().borrow_watched().last_quorum_acked;
        // Just elected, it has heard nobody yet; but its predecessor.
        let Some(acked) = acked else { return inner.links.heard() };
        let silent = inner.world.clock.now().since(acked.into_inner().0);
        Some(if silent < limits::ELECTION * inner.multiplier { Duration::ZERO } else { silent })
    }

    /// The cluster's id, once this server belongs to one.
    pub fn cluster(&self) -> Option<Uuid> {
        self.inner.links.cluster.id()
    }

    /// The newest view on this server. It may be behind the cluster.
    pub fn view(&self) -> Arc<View> {
        self.inner.published.view()
    }

    /// The leader, as far as this server knows.
    pub fn leader(&self) -> Option<(Uuid, Member)> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&id)?.clone();
        Some((id, member))
    }

    /// Whether this server leads and is ready to act on it.
    pub fn is_leader(&self) -> bool {
        self.inner.leadership.borrow().is_some()
    }

    /// The voting servers.
    pub fn voters(&self) -> Vec<(Uuid, Member)> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters = membership.voter_ids().collect::<std::collections::BTreeSet<_>>();
        membership.nodes().filter(|(id, _)| voters.contains(id)).map(|(id, member)| (*id, member.clone())).collect()
    }

    /// Figures for people, by Consul's names where it has them.
    pub fn stats(&self) -> BTreeMap<&'static str, String> {
        let inner = &*self.inner;
        let data = inner.raft.data_metrics();
        let (data, server) = (data.borrow_watched(), inner.raft.metrics().borrow_watched().clone());
        let index = |log_id: Option<types::LogId>| log_id.map_or(0, |log_id| log_id.index).to_string();
        BTreeMap::from([
            ("applied_index", index(data.last_applied)),
            ("commit_index", index(data.cluster_committed)),
            ("last_log_index", index(data.last_log)),
            ("last_log_term", data.last_log.map_or(0, |id| id.committed_leader_id().term).to_string()),
            ("last_snapshot_index", index(data.snapshot)),
            ("last_snapshot_term", data.snapshot.map_or(0, |id| id.committed_leader_id().term).to_string()),
            ("log_bytes", inner.wal.bytes().to_string()),
            ("num_peers", self.voters().len().saturating_sub(1).to_string()),
            ("state", format!("{:?}", server.state)),
            ("term", server.current_term.to_string()),
        ])
    }

    /// The log clock, once this node is a ready leader; an error as soon as it leads no more.
    async fn log_clock(&self) -> Result<LogClock> {
        let mut leadership = self.inner.leadership.clone();
        if let Some(clock) = *leadership.borrow_and_update() {
            return Ok(clock);
        }
        let mut metrics = self.inner.raft.server_metrics();
        let ready = async {
            loop {
                let _ = metrics.borrow_and_update();
                if let Some(clock) = *leadership.borrow_and_update() {
                    return Ok(clock);
                }
                self.lead()?;
                let changed = tokio::select! {
                    changed = leadership.changed() => changed.is_ok(),
                    changed = metrics.changed() => changed.is_ok(),
                };
                if !changed {
                    return Err(no_leader());
                }
            }
        };
        self.inner.world.timeout(limits::LEADER_WAIT, ready).await.unwrap_or_else(|| Err(no_leader()))
    }

    /// Why this server can take no further part, once it cannot; pends until then.
    pub async fn failed(&self) -> Error {
        let (all, mut server) = (self.inner.raft.metrics(), self.inner.raft.server_metrics());
        let mut gave_up = self.inner.meeting.gave_up.subscribe();
        loop {
            // These seldom change, and are closed when openraft ends; the others change with every entry and every heartbeat.
            let _ = server.borrow_and_update();
            if let Err(fatal) = &all.borrow_watched().running_state {
                return stopped(&self.inner.wal, fatal);
            }
            if let Some(error) = &*gave_up.borrow_and_update() {
                return error.clone();
            }
            // openraft hears of a failed log only when it appends, and a leader whose log has failed takes no more writes.
            let changed = tokio::select! {
                changed = server.changed() => changed.is_ok(),
                changed = gave_up.changed() => changed.is_ok(),
                error = self.inner.wal.failed() => return error,
            };
            if !changed {
                let why = all.borrow_watched().running_state.clone().err();
                return stopped(&self.inner.wal, &why.unwrap_or(Fatal::Stopped));
            }
        }
    }

    /// Stops taking part. What is acknowledged is on disk already, so there is nothing to save.
    pub async fn shutdown(&self) {
        for task in self.inner.tasks.get().into_iter().flatten() {
            task.abort();
        }
        // An error here says that it has stopped before, which is what we want.
        let _ = self.inner.raft.shutdown().await;
        self.inner.wal.close().await;
    }
}

impl Inner {
    /// Stamps and encodes an entry, once for the log and every follower.
    fn seal(&self, clock: LogClock, request: Option<RequestId>, command: Command) -> Result<Proposal> {
        let entry = Entry { time: clock.at(self.world.clock.now()), request, command };
        let sealed = codec::seal(&entry).map_err(|e| Error::TooLarge(e.to_string()))?;
        Ok(Proposal(sealed.into()))
    }

    /// Refuses what the disk could not take.
    fn writable(&self) -> Result<()> {
        self.wal.writable()?;
        let bytes = self.wal.bytes();
        if bytes > limits::MAX_LOG_BYTES {
            return Err(Error::Retry(format!(
                "write refused: the log holds {bytes} bytes because no checkpoint succeeds; see this server's log for why"
            )));
        }
        Ok(())
    }

    async fn admit(&self, size: usize) -> Result<impl Drop> {
        // The largest entry takes more than all with the smallest segments, in which it fits alone.
        let permits = u32::try_from((size / PERMIT_BYTES).min(self.permits)).unwrap_or(u32::MAX);
        let admit = async {
            let command = self.commands.acquire().await.ok()?;
            let bytes = self.bytes.acquire_many(permits).await.ok()?;
            Some((command, bytes))
        };
        let admitted = self.world.timeout(limits::ADMISSION_WAIT, admit).await.flatten();
        let (command, bytes) = admitted
            .ok_or_else(|| Error::Busy("write refused: too many are waiting for their turn on this server".into()))?;
        Ok(Admitted { _command: command, _bytes: bytes })
    }
}

struct Admitted<'a> {
    _command: tokio::sync::SemaphorePermit<'a>,
    _bytes: tokio::sync::SemaphorePermit<'a>,
}

impl Drop for Admitted<'_> {
    // The permits give themselves back; this only makes the guard nameable as `impl Drop`.
    fn drop(&mut self) {}
}

fn config(multiplier: u32) -> Result<Config> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64 * u64::from(multiplier);
    let config = Config {
        cluster_name: "quorate".into(),
        heartbeat_interval: millis(limits::HEARTBEAT),
        election_timeout_min: millis(limits::ELECTION),
        election_timeout_max: millis(limits::ELECTION) * 2,
        enable_pre_vote: Some(true),
        // A restarted leader must ask for votes again: resuming its old term, it would answer reads from a state that
        // may lack what it had acknowledged (simulation.md, "Known traps").
        enable_leader_restore: Some(false),
        // Checkpoints are taken by bytes and time, and the log is let go by bytes: `checkpointer::run`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    };
    config.validate().map_err(|e| Error::Bug(format!("raft timers: {e}")))
}

/// Founds a cluster of one, or has the only voter of one lead at once instead of after an election time-out.
async fn first_leader(raft: &OpenRaft, options: &Options, wal: &Wal) -> Result<()> {
    let initialized = raft.is_initialized().await.map_err(|fatal| stopped(wal, &fatal))?;
    let id = options.cluster.identity().node;
    if !initialized && options.bootstrap {
        options.cluster.found().await?;
        let members = BTreeMap::from([(id, options.member.clone())]);
        match raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(Error::Bug(format!("cannot found the cluster: {error}"))),
        }
    }
    let voters: Vec<Uuid> = raft.voter_ids().collect();
    if initialized && voters == [id] {
        // A cluster of one from before there were cluster ids has none yet.
        options.cluster.found().await?;
        raft.trigger().elect(false).await.map_err(|fatal| stopped(wal, &fatal))?;
    }
    Ok(())
}

/// Consul's words; clients look for them.
fn no_leader() -> Error {
    Error::Retry("No cluster leader".into())
}

fn unknown(why: &str) -> Error {
    Error::Unknown(format!("the write may or may not have been applied: {why}"))
}

/// The log knows better than openraft why it failed.
fn stopped(wal: &Wal, fatal: &Fatal<types::TypeConfig>) -> Error {
    wal.failure().unwrap_or_else(|| match fatal {
        Fatal::Stopped => Error::Retry("this node is stopping; ask another".into()),
        Fatal::StorageError(error) => Error::Operator(format!("storage failed: {error}")),
        Fatal::Panicked => Error::Bug("raft panicked; see the log".into()),
    })
}
