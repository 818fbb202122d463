//! The command line: parse, call, print.
//!
//! One file per command. Flags take one dash or two and stop at the first argument, as in Consul ([`argv`]); errors go
//! to standard error with exit code 1. What this module never does: know how anything works. Commands other than
//! `agent` are clients of an agent's HTTP API.
//!
//! Start with [`Command`].

pub mod agent;
mod argv;
mod bench;
mod completion;
mod context;
mod http_flags;
mod info;
mod kv;
mod lock;
mod members;
mod operator;
mod session;
mod snapshot;
mod table;
mod txn;
mod version;
mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::world::{World, real};
use context::Context;

/// A strongly consistent store for configuration, service discovery, locks and leader election.
#[derive(Parser)]
#[command(name = "quorate", version)]
#[command(after_help = "Flags take one dash or two, and come before arguments: quorate kv get -recurse web/\n\
    Try it:  quorate agent -dev    then    quorate kv put greeting hello")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Command {
    /// Runs a node: a server, or a client that forwards to servers
    Agent(Box<agent::Agent>),
    /// Measures an agent under load, or checks that it loses no acknowledged write
    Bench(bench::Bench),
    /// Prints a completion script for a shell
    Completion(completion::Completion),
    /// Prints an agent's figures
    Info(info::Info),
    /// Reads and writes keys
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Runs a program while it holds a lock
    Lock(Box<lock::Lock>),
    /// Lists the nodes of the cluster
    Members(members::Members),
    /// Looks after the cluster
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Makes, renews and ends sessions, which hold locks
    #[command(subcommand)]
    Session(session::Sessions),
    /// Saves, inspects and restores backups of everything
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Does several things or none of them
    Txn(txn::Txn),
    /// Prints the version
    Version(version::Version),
    /// Prints what is there, or runs a command each time it changes
    Watch(watch::Watch),
}

/// What `main` does: runs the command that the process was started with.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The processes that `quorate lock` starts: they depend on no event loop.
    if let Some(code) = real::supervise::hidden(&args) {
        return code;
    }
    match real::block_on(|world: World| async move { run(&mut Context::real(world), args).await }) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error! the operating system gives no event queue: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command line, the program's name first.
async fn run(cx: &mut Context, args: Vec<OsString>) -> ExitCode {
    let outcome = match parse(args) {
        Ok(cli) => dispatch(cx, cli.command).await,
        Err(usage) => {
            // Help that was asked for is a result; anything else is an error, with Consul's exit code for it.
            let (out, code) = match usage.use_stderr() {
                true => (&mut cx.err, ExitCode::FAILURE),
                false => (&mut cx.out, ExitCode::SUCCESS),
            };
            let usage = hint_order(usage);
            let text = if cx.colours { usage.render().ansi().to_string() } else { usage.render().to_string() };
            out.write_all(text.as_bytes()).map(|()| code).map_err(Into::into)
        }
    };
    match outcome.and_then(|code| Ok(cx.out.flush().map(|()| code)?)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            // If standard error is gone too, the exit code is all that is left to say.
            let _ = writeln!(cx.err, "Error! {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A flag behind an argument is an argument, which surprises those who know other tools.
fn hint_order(mut usage: clap::Error) -> clap::Error {
    let late = matches!(usage.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if flag_like(arg));
    if usage.kind() == ErrorKind::UnknownArgument && late {
        let hint = StyledStr::from("flags come before arguments");
        usage.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    usage
}

/// Every flag that was understood as one has two dashes by now.
fn flag_like(arg: &str) -> bool {
    arg.starts_with('-') && !arg.starts_with("--")
}

fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut root = Cli::command();
    root.build();
    let args = argv::normalize(&root, args);
    Cli::from_arg_matches(&Cli::command().try_get_matches_from(args)?)
}

async fn dispatch(cx: &mut Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // Boxed: a whole node is in there.
        Command::Agent(agent) => Box::pin(agent::run(cx, *agent)).await,
        Command::Bench(bench) => bench::run(cx, bench).await,
        Command::Completion(completion) => completion::run(cx, &completion),
        Command::Info(info) => info::run(cx, info).await,
        Command::Kv(kv) => kv::run(cx, kv).await,
        Command::Lock(lock) => Box::pin(lock::run(cx, *lock)).await,
        Command::Members(members) => members::run(cx, members).await,
        Command::Operator(operator) => operator::run(cx, operator).await,
        Command::Session(session) => session::run(cx, session).await,
        Command::Snapshot(snapshot) => snapshot::run(cx, snapshot).await,
        Command::Txn(txn) => txn::run(cx, txn).await,
        Command::Version(version) => version::run(cx, &version),
        Command::Watch(watch) => watch::run(cx, watch).await,
    }
}

/// `quorate kv export | head`: whoever read our output has seen enough, which is no error worth a word.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
