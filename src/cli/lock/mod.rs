//! `quorate lock PREFIX CHILD…`: runs a program while a lock is held, and never longer (walkthrough D1, D3, D4).
//!
//! This command keeps the lock. The program is run by a supervisor ([`supervise`]), a process of its own that stops it before
//! the lease ends, whatever becomes of this one. What this never does: free the lock while the program may still run.
//!
//! Start with [`run`]; [`held`] is what is held, a lock or one of several places; [`attend`] is while the child runs.

mod attend;
mod held;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::argv::go_bool;
use super::context::Context;
use super::http_flags::HttpFlags;
use crate::api::duration::GoDuration;
use crate::client::keeper::Loss;
use crate::world::real::Signals;
use crate::world::real::supervise::{self, Exit, Job, Margins};
use attend::{Attendance, Reason};
use held::{Held, Wanted};

/// Runs a program while it holds a lock
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate lock service/leader ./run.sh            one at a time, on any number of hosts\n  \
    quorate lock -n=3 pool ./worker                 up to three at a time\n  \
    quorate lock -timeout=10s -child-exit-code job './backup.sh && ./upload.sh'\n  \
    quorate lock -shell=false job rsync -a /data/ backup:/data/\n\n\
    The key of the lock is PREFIX/.lock; all who use a PREFIX must agree on -n. The lock is held by a session that is renewed while \
    CHILD runs; CHILD is stopped with SIGTERM, and then SIGKILL, before the session's lease can end, even if this command is hung \
    or killed.\n\n\
    CHILD finds in its environment: CONSUL_LOCK_HELD=true, QUORATE_LOCK_KEY, QUORATE_LOCK_FENCE and QUORATE_LOCK_SESSION. \
    `quorate kv put` and `quorate kv delete` in it are refused as soon as another one holds the lock.\n\n\
    Exits with 0 when CHILD has ended, with 2 if it failed and -child-exit-code was given, and with 1 if the lock was not \
    acquired or was lost.")]
pub struct Lock {
    /// Exit with 2 if the child did not succeed
    #[arg(long)]
    child_exit_code: bool,
    /// Taken for Consul's sake: failures to look at the lock are no loss of it before its lease ends
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    monitor_retry: u32,
    /// How many may hold it at a time
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    n: usize,
    /// Name of the session, for people [default: quorate lock PREFIX]
    #[arg(long)]
    name: Option<String>,
    /// Give the child this command's standard input instead of none
    #[arg(long)]
    pass_stdin: bool,
    /// Have $SHELL, or /bin/sh, run CHILD as a command line
    #[arg(long, default_value = "true", value_name = "true|false", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set,
        value_parser = |text: &str| go_bool(text).ok_or("use true or false"))]
    shell: bool,
    /// How long to wait for the lock; by default for ever
    #[arg(long, alias = "try", value_name = "DURATION")]
    timeout: Option<GoDuration>,
    /// How soon after this host's death another one gets the lock; for how long an outage of the agent is borne
    #[arg(long, default_value = "15s", value_name = "DURATION")]
    ttl: GoDuration,
    /// Say on standard error what happens
    #[arg(long)]
    verbose: bool,
    /// Where the lock is
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// What to run, with its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    child: Vec<OsString>,
    #[command(flatten)]
    http: HttpFlags,
}

/// Takes the lock, runs the child, gives the lock up.
pub async fn run(cx: &mut Context, lock: Lock) -> anyhow::Result<ExitCode> {
    let prefix = lock.prefix.trim_matches('/');
    if prefix.is_empty() || lock.child.is_empty() {
        bail!("PREFIX and CHILD are needed: the lock, and what to run while it is held");
    }
    if lock.n == 0 {
        bail!("-n=0: at least one must be able to hold the lock");
    }
    if lock.http.datacenter.is_some() {
        bail!("-datacenter: a lock is held where its agent is; set -http-addr to an agent of that datacenter");
    }
    let ttl = lock.ttl.to_std().filter(|ttl| !ttl.is_zero()).context("-ttl must be above 0s")?;
    let patience = lock.timeout.map(|timeout| timeout.to_std().context("-timeout must not be negative"));
    let patience = patience.transpose()?.filter(|patience| !patience.is_zero());
    let client = lock.http.client(cx).await?;
    let name = lock.name.clone().unwrap_or_else(|| format!("quorate lock {prefix}"));
    let wanted = Wanted::new(&client, prefix, lock.n, &name, ttl);
    let mut signals = Signals::new().context("cannot listen for signals")?;

    say(cx, &lock, format_args!("Waiting for the lock at {prefix}"))?;
    let mut signal = None;
    let called_off = async { signal = Some(signals.next().await) };
    let Some(held) = wanted.acquire(patience, called_off).await? else {
        match (signal, patience) {
            (Some(_), _) => bail!("Stopped while waiting for the lock at {prefix}"),
            (None, patience) => bail!("Did not get the lock at {prefix} within {:?}", patience.unwrap_or_default()),
        }
    };
    say(cx, &lock, format_args!("Holds {}{}", held.key(), fence(&held)))?;
    if !held.keeper().leased() {
        writeln!(
            cx.err,
            "Warning: this agent promises no leases and gives no fences, as Consul: the session can be ended before its time, and \
             writes of a holder that was paused are not refused"
        )?;
    }
    let job = job(cx, &lock, &held, ttl)?;
    let (exit, reason) = {
        let (err, verbose) = (&mut cx.err, lock.verbose);
        // Nobody is there to be told that nobody can be told.
        let mut tell = |what: String| drop(verbose.then(|| writeln!(err, "{what}")));
        match Attendance::begin(cx.world.clone(), &held, job, &mut tell) {
            Ok(attendance) => attendance.attend(&mut signals).await,
            Err(reason) => (None, Some(reason)),
        }
    };
    give_up(cx, &lock, &wanted, held, reason.as_ref()).await?;
    match (reason, exit) {
        (Some(Reason::Lost(loss)), _) => bail!("Lost the lock at {prefix}: {loss}. CHILD was stopped"),
        (Some(Reason::Late(why)), _) => {
            bail!(
                "Lost the lock at {prefix}: its lease was about to end, and was not renewed: {why}. CHILD was stopped"
            )
        }
        (Some(Reason::Unsupervised), _) => bail!("The supervisor of CHILD was killed, so CHILD was too"),
        (Some(Reason::Unstarted(why)), _) => bail!("Cannot run CHILD: {why}"),
        (_, Some(Exit::Code(supervise::CANNOT_RUN))) if !lock.shell => bail!("CHILD was not run"),
        (_, Some(Exit::Code(0))) => Ok(ExitCode::SUCCESS),
        (_, Some(_)) if lock.child_exit_code => Ok(ExitCode::from(2)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn fence(held: &Held) -> String {
    held.fence().map_or_else(String::new, |fence| format!(" under fence {fence}"))
}

fn say(cx: &mut Context, lock: &Lock, what: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    if lock.verbose { writeln!(cx.err, "{what}") } else { Ok(()) }
}

fn job(cx: &Context, lock: &Lock, held: &Held, ttl: Duration) -> anyhow::Result<Job> {
    let mut vars = vec![
        ("CONSUL_LOCK_HELD", Some("true".to_string())),
        ("QUORATE_LOCK_KEY", Some(held.key())),
        ("QUORATE_LOCK_FENCE", held.fence().map(|fence| fence.to_string())),
        ("QUORATE_LOCK_SESSION", Some(held.keeper().session().to_string())),
    ];
    if lock.http.names_address() {
        let address = lock.http.address(cx)?.to_string();
        vars.extend(["CONSUL_HTTP_ADDR", "QUORATE_HTTP_ADDR"].map(|name| (name, Some(address.clone()))));
    }
    let (words, shell, pass_stdin) = (lock.child.clone(), lock.shell, lock.pass_stdin);
    Ok(Job { words, shell, pass_stdin, vars, margins: Margins::of(ttl) })
}

/// Frees the lock, now that the child has ended, and removes its key if nobody else uses it.
async fn give_up(
    cx: &mut Context,
    lock: &Lock,
    wanted: &Wanted,
    held: Held,
    reason: Option<&Reason>,
) -> anyhow::Result<()> {
    // Of what is lost nothing is left to free, and perhaps nobody to tell.
    if matches!(reason, Some(Reason::Late(_) | Reason::Lost(Loss::Ended | Loss::RanOut(_)))) {
        return Ok(());
    }
    let key = held.key();
    let released = held.release().await;
    let released =
        released.with_context(|| format!("{key} was not released; it is free when its session has run out"))?;
    if released {
        say(cx, lock, format_args!("Released {key}"))?;
    }
    // In use again, or out of reach: then it stays.
    if wanted.remove().await.unwrap_or(false) {
        say(cx, lock, format_args!("Deleted the key: nobody uses it"))?;
    }
    Ok(())
}
