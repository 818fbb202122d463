//! The machines that servers and clients run on: a `quorate::world::World` each, made of simulated parts.
//!
//! A [`Machine`] outlives the processes on it: its disk, its checkpoint, its clock's rate. Each start of a process gets a
//! new [`World`] from [`Machine::boot`]. What is left to the engine is a handful of primitives: [`Engine`].
//!
//! [`Engine`]: crate::engine::Primitives

pub mod checkpoint;
pub mod clock;
pub mod disk;
pub mod entropy;
mod pages;
pub mod spawn;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate::world::World;

use self::checkpoint::Platter;
use self::clock::{Drift, SimClock};
use self::disk::SimDisk;
use self::entropy::SimEntropy;
use self::spawn::{Gate, SimSpawn};
use crate::engine::Primitives;
use crate::rng::Rng;

/// One machine.
pub struct Machine {
    /// `n1`, `c3`.
    pub name: String,
    /// Its files.
    pub disk: SimDisk,
    /// Its checkpoint's rows, which the product keeps in a database of its own and we keep here.
    pub checkpoint: Arc<Platter>,
    /// What holds back its tasks.
    pub gate: Arc<Gate>,
    /// How its clocks are wrong.
    pub drift: Arc<Drift>,
    seed: u64,
    boots: AtomicU32,
}

impl Machine {
    /// A new machine with an empty disk.
    pub fn new(seed: u64, name: &str) -> Arc<Self> {
        let stream = |part: &str| Rng::named(seed, &format!("{name}/{part}"));
        Arc::new(Machine {
            name: name.into(),
            disk: SimDisk::new(stream("disk")),
            checkpoint: Arc::new(Platter::new(stream("checkpoint"))),
            gate: Arc::new(Gate::new(name, stream("gate"))),
            drift: Arc::default(),
            seed,
            boots: AtomicU32::new(0),
        })
    }

    /// How many processes have been started on it.
    pub fn boots(&self) -> u32 {
        self.boots.load(Ordering::Relaxed)
    }

    /// The world of a process that starts now. Call it where the engine's primitives work: in a task of this host.
    pub fn boot(&self, engine: Primitives) -> World {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let entropy = Rng::named(self.seed, &format!("{}/entropy/{boot}", self.name));
        World {
            clock: Arc::new(SimClock::new(engine.time.clone(), self.drift.clone())),
            net: engine.net,
            disk: Arc::new(self.disk.mount(engine.time.clone())),
            entropy: Arc::new(SimEntropy::new(entropy)),
            spawn: Arc::new(SimSpawn::new(self.gate.clone(), engine.time.clone(), engine.spawn)),
        }
    }
}

/// Everything here runs on one thread per seed; a lock is only what `Send` costs. A panic ends the run.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
