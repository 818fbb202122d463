//! `quorate agent`: runs a node until a signal or a fault ends it.
//!
//! Exit codes are Consul's: 0 once the node has left its cluster, 1 if it stopped without leaving (which is what a
//! server does by default, so that it can come back), and 1 with a sentence if it failed.

mod banner;
mod flags;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tracing::{error, info, warn};

use super::context::Context;
use crate::config::{Config, Flags, LogLevel};
use crate::error::Error;
use crate::limits;
use crate::node::{self, Node};
use crate::telemetry::log::{self, Logs};
use crate::world::real::process::own_pid;
use crate::world::real::{Signal, Signals};
use crate::world::{OpenMode, World};

/// Runs a node: a server, or a client that forwards to servers
///
/// Settings come from configuration files (JSON or HCL, with Consul's keys) and from flags. Flags that hold one value
/// win over files; lists from both are joined.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate agent -dev                                     one node in memory, for trying things out\n  \
    quorate agent -server -bootstrap -data-dir /var/lib/quorate\n  \
    quorate agent -config-dir /etc/quorate.d\n\n\
    Signals: HUP reads the configuration again; INT and TERM stop the node, a second one at once.")]
pub struct Agent {
    #[command(flatten)]
    flags: flags::AgentFlags,
}

/// Runs the node.
pub async fn run(cx: &mut Context, agent: Agent) -> anyhow::Result<ExitCode> {
    let world = cx.world.clone();
    let flags = agent.flags.0;
    let config = Config::load(&world, &flags).await?;
    let (subscriber, logs) =
        log::logger(level(config.log_level), config.log_json, world.clock.clone(), std::io::stdout);
    tracing::subscriber::set_global_default(subscriber).context("a logger is running already")?;
    let mut signals = Signals::new().context("cannot listen for signals")?;

    writeln!(cx.out, "==> Starting quorate agent...")?;
    cx.out.flush()?;
    for warning in &config.warnings {
        warn!(target: "quorate::agent", "{warning}");
    }
    let mut node = tokio::select! {
        started = node::start(world.clone(), config.clone()) => started?,
        signal = stop_signal(&mut signals) => {
            info!(target: "quorate::agent", ?signal, "caught a signal while starting");
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(path) = &config.pid_file
        && let Err(error) = write_pid(&world, path).await
    {
        node.shutdown().await;
        return Err(error).with_context(|| format!("cannot write pid_file {}", path.display()));
    }
    cx.out.write_all(banner::banner(&config, &node, &world).as_bytes())?;
    cx.out.flush()?;

    let code = match serve(&world, &flags, config.clone(), &logs, &mut signals, &mut node).await {
        End::Failed(error) => {
            error!(target: "quorate::agent", %error, "the node has failed");
            writeln!(cx.err, "Error! the node has failed: {error}")?;
            ExitCode::FAILURE
        }
        End::Signal(signal) => stop(&world, &config, signal, &mut signals, node).await,
    };
    if let Some(path) = &config.pid_file
        && let Err(error) = world.disk.remove(path).await
    {
        warn!(target: "quorate::agent", %error, path = %path.display(), "cannot remove pid_file");
    }
    Ok(code)
}

/// Why a node that ran runs no more.
enum End {
    /// It cannot go on.
    Failed(Error),
    /// It was told to stop.
    Signal(Signal),
}

async fn serve(
    world: &World,
    flags: &Flags,
    mut config: Config,
    logs: &Logs,
    signals: &mut Signals,
    node: &mut Node,
) -> End {
    loop {
        tokio::select! {
            error = node.stopped() => return End::Failed(error),
            signal = signals.next() => match signal {
                Signal::Hangup => reload(world, flags, &mut config, logs).await,
                Signal::Interrupt | Signal::Terminate => return End::Signal(signal),
            },
        }
    }
}

/// Reads the configuration again and applies what can be changed while running.
async fn reload(world: &World, flags: &Flags, config: &mut Config, logs: &Logs) {
    let new = match Config::load(world, flags).await {
        Ok(new) => new,
        Err(error) => {
            error!(target: "quorate::agent", %error, "cannot reload, the old configuration stays");
            return;
        }
    };
    let changed = config.changed_keys(&new);
    if changed.is_empty() {
        info!(target: "quorate::agent", "reloaded the configuration, nothing has changed");
        return;
    }
    for key in changed {
        if key == "log_level" {
            logs.set_level(level(new.log_level));
            info!(target: "quorate::agent", key, "reloaded");
        } else {
            warn!(target: "quorate::agent", key, "changed, but takes effect only after a restart");
        }
    }
    // What needs a restart is told again at each reload until the restart has happened.
    config.set_log_level(&new);
}

/// Stops the node. A second signal, or [`limits::LEAVE_WAIT`], ends it at once.
async fn stop(world: &World, config: &Config, signal: Signal, signals: &mut Signals, node: Node) -> ExitCode {
    let leaves = match signal {
        Signal::Interrupt => !config.skip_leave_on_interrupt,
        _ => config.leave_on_terminate,
    };
    let name = if signal == Signal::Interrupt { "interrupt" } else { "terminate" };
    info!(target: "quorate::agent", signal = name, leaves, "caught a signal, stopping");
    let left = tokio::select! {
        done = world.timeout(limits::LEAVE_WAIT, end(node, leaves)) => {
            let Some(left) = done else {
                error!(target: "quorate::agent", "did not stop within {:?}, ending at once", limits::LEAVE_WAIT);
                return ExitCode::FAILURE;
            };
            left
        }
        _ = stop_signal(signals) => {
            warn!(target: "quorate::agent", "caught a second signal, ending at once");
            return ExitCode::FAILURE;
        }
    };
    info!(target: "quorate::agent", "stopped");
    if left { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves the cluster if that was asked for, and stops. Whether it has left.
async fn end(node: Node, leaves: bool) -> bool {
    let left = if leaves { node.leave().await } else { Ok(()) };
    if let Err(error) = &left {
        warn!(target: "quorate::agent", %error, "could not leave the cluster; remove this server with operator raft remove-peer");
    }
    node.shutdown().await;
    leaves && left.is_ok()
}

/// The next signal that ends a process.
async fn stop_signal(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::Hangup => {}
            signal => return signal,
        }
    }
}

fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Trace => tracing::Level::TRACE,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Error => tracing::Level::ERROR,
    }
}

/// The file of a process that is gone may still lie there.
async fn write_pid(world: &World, path: &Path) -> io::Result<()> {
    match world.disk.remove(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = world.disk.open(path, OpenMode::Create).await?;
    file.write_at(0, format!("{}\n", own_pid()).into_bytes()).await
}
