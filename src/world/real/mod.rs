//! The real world: this machine. The only place in the product that touches the operating system.
//!
//! What it never does: decide anything. Each file turns one trait of [`crate::world`] into system calls.

// The clippy denials exist to keep everything else out of here.
#![allow(clippy::disallowed_methods)]

pub mod child;
mod clock;
mod disk;
mod net;
pub mod process;
pub mod supervise;

use std::future::Future;
use std::io;
use std::sync::Arc;

use super::{Abort, BoxTask, Entropy, Spawn, World};

pub use clock::RealClock;
pub use disk::RealDisk;
pub use net::RealNetwork;

/// This machine.
pub fn world() -> World {
    World {
        clock: Arc::new(RealClock),
        net: Arc::new(RealNetwork),
        disk: Arc::new(RealDisk::new()),
        entropy: Arc::new(RealEntropy),
        spawn: Arc::new(RealSpawn),
    }
}

/// Runs a future on this machine until it ends, on a runtime of one thread: on two cores that beats two workers by a
/// quarter on one node and by half on three, as a prototype of this server showed.
///
/// # Errors
/// If the operating system gives us no event queue.
pub fn block_on<F: Future>(future: impl FnOnce(World) -> F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = world();
    let output = runtime.block_on(world.enter(future(world.clone())));
    // Blocking work that is still running (a sync, a checkpoint) is not waited for: what it does is safe to cut.
    runtime.shutdown_background();
    Ok(output)
}

/// The operating system's random bytes.
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        // There is no safe way to go on without randomness, and Linux cannot fail here once it has booted.
        getrandom::fill(buffer).expect("the operating system has randomness");
    }
}

/// Tokio's tasks and its pool for blocking work.
pub struct RealSpawn;

impl Spawn for RealSpawn {
    fn spawn(&self, task: BoxTask) -> Box<dyn Abort> {
        Box::new(TokioTask(tokio::spawn(task)))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}

struct TokioTask(tokio::task::JoinHandle<()>);

impl Abort for TokioTask {
    fn abort(&self) {
        self.0.abort();
    }
}

/// What the operating system tells a process to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, systemd.
    Terminate,
    /// `kill -HUP`: read the configuration again.
    Hangup,
}

/// The signals of this process, from when this is made.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over the three signals.
    ///
    /// # Errors
    /// If the operating system refuses to tell us about them.
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}
