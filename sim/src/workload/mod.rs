//! The clients: what they ask the servers for, over real HTTP, and how they misbehave.
//!
//! A workload is a future for each client host. It knows its own [`World`](quorate::world::World) and the servers'
//! addresses, and records what it saw; what that proves is for the checkers.

pub mod counters;
pub mod http;
pub mod kv;
pub mod locks;
pub mod operator;
pub mod registers;
pub mod restores;
pub mod streams;
pub mod tenants;
pub mod waits;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::history::{Call, History, OperationId, Outcome};
use crate::observer::Observations;
use crate::player::Player;
use crate::run::Alarm;
use crate::trace;
use crate::workload::operator::Errands;
use crate::workload::restores::Restores;

/// What all clients of a run share.
pub struct Shared {
    /// The servers' HTTP addresses.
    pub servers: Vec<SocketAddr>,
    /// What the clients did and saw.
    pub history: Mutex<Recorder>,
    /// What the lockers did and believed.
    pub book: Mutex<locks::Book>,
    /// What contradicts itself already in what one client saw.
    pub contradictions: Mutex<Vec<Alarm>>,
    /// What the watchers saw last.
    pub watched: Mutex<waits::Watched>,
    /// What was counted under locks.
    pub tally: Mutex<counters::Tally>,
    /// What the readers of the event stream were told.
    pub streams: Mutex<streams::Tapes>,
    /// Restores of backups.
    pub restores: Mutex<Restores>,
    /// What the observer saw.
    pub observations: Mutex<Observations>,
    /// What the operator is to do.
    pub errands: Arc<Errands>,
    phase: AtomicU8,
    quiet: Notify,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients work, faults happen.
    Storm,
    /// Clients finish what they have begun, nothing goes wrong any more.
    Calm,
    /// Clients have hung up.
    Quiet,
    /// Everything has been looked at.
    Over,
}

impl Shared {
    /// The beginning of a run.
    pub fn new(servers: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Shared {
            servers,
            history: Mutex::default(),
            book: Mutex::default(),
            contradictions: Mutex::default(),
            watched: Mutex::default(),
            tally: Mutex::default(),
            streams: Mutex::default(),
            restores: Mutex::default(),
            observations: Mutex::default(),
            errands: Arc::default(),
            phase: AtomicU8::new(Phase::Storm as u8),
            quiet: Notify::new(),
        })
    }

    /// Something cannot be.
    pub fn contradict(&self, invariant: &'static str, sentence: String) {
        crate::event!("wrong", "{invariant} {sentence}");
        let (text, at) = (format!("{invariant}: {sentence}"), Some(trace::now()));
        crate::world::hold(&self.contradictions).push(Alarm { checker: "contradiction", text, at });
    }

    /// Something cannot be that was otherwise at an earlier moment, unless a backup was restored since.
    pub fn contradict_since(&self, moment: Duration, invariant: &'static str, sentence: String) {
        if !crate::world::hold(&self.restores).since(moment) {
            self.contradict(invariant, sentence);
        }
    }

    /// The largest fence that a lock was held under.
    pub fn lasts(&self, lock: &str) -> u64 {
        let book = crate::world::hold(&self.book);
        book.claims.iter().filter(|claim| claim.lock == lock).map(|claim| claim.fence).max().unwrap_or(0)
    }

    /// Where the run stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Storm,
            1 => Phase::Calm,
            2 => Phase::Quiet,
            _ => Phase::Over,
        }
    }

    /// The run goes on to this phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        if phase == Phase::Quiet {
            self.quiet.notify_waiters();
        }
    }

    /// Runs a client until it ends, or hangs up for it when all is to be quiet.
    pub async fn until_quiet(&self, client: impl Future<Output = ()>) {
        let quiet = self.quiet.notified();
        tokio::select! {
            biased;
            () = quiet => {}
            () = client => {}
        }
    }
}

/// The history while it is written: it numbers the events of all clients.
#[derive(Debug, Default)]
pub struct Recorder {
    history: History,
    /// Virtual time of each event, by its number: the first is 1.
    times: Vec<Duration>,
}

impl Recorder {
    /// A client is about to send an operation.
    pub fn begin(&mut self, client: Player, key: &str, call: Call) -> OperationId {
        self.times.push(trace::now());
        self.history.invoke(self.times.len() as u64, client, key, call)
    }

    /// The client knows what came of it. Of an unknown outcome nothing is written: it may come true at any later time.
    pub fn end(&mut self, id: OperationId, outcome: Outcome) {
        self.times.push(trace::now());
        if outcome != Outcome::Unknown {
            self.history.complete(self.times.len() as u64, id, outcome);
        }
    }

    /// Names values that a restore brought back.
    pub fn rename(&mut self, restores: &Restores) {
        self.history.rename(|register, found| restores.rename(register, found));
    }

    /// What was written.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Virtual time of an event of the history.
    pub fn time_of(&self, event: u64) -> Duration {
        self.times.get(event.saturating_sub(1) as usize).copied().unwrap_or_default()
    }
}
