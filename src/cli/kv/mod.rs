//! `quorate kv …`: keys and values, with Consul's output and exit codes.

mod delete;
mod export;
mod get;
mod import;
mod put;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::context::Context;
use crate::client::kv;

/// Reads and writes keys
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    quorate kv put web/port 8080\n  \
    quorate kv get web/port\n  \
    quorate kv get -recurse web/\n  \
    quorate kv delete -recurse web/\n  \
    quorate kv export web/ > web.json && quorate kv import @web.json")]
pub enum Kv {
    /// Deletes a key, or every key with a prefix
    Delete(delete::Delete),
    /// Prints keys with a prefix as JSON, for `import`
    Export(export::Export),
    /// Prints a key's value, or many keys
    Get(get::Get),
    /// Writes what `export` printed
    Import(import::Import),
    /// Writes a key, or takes or gives up a lock
    Put(put::Put),
}

/// Runs one of them.
pub async fn run(cx: &mut Context, kv: Kv) -> anyhow::Result<ExitCode> {
    match kv {
        Kv::Delete(delete) => delete::run(cx, delete).await,
        Kv::Export(export) => export::run(cx, export).await,
        Kv::Get(get) => get::run(cx, get).await,
        Kv::Import(import) => import::run(cx, import).await,
        Kv::Put(put) => put::run(cx, put).await,
    }
}

/// The lock that a write is done under.
#[derive(Args)]
struct Under {
    /// The fence that -lock is held under
    #[arg(long, requires = "lock", value_name = "NUMBER")]
    fence: Option<u64>,
    /// Write only while this lock is held under -fence
    #[arg(long, requires = "fence", value_name = "KEY")]
    lock: Option<String>,
}

impl Under {
    fn named(&self) -> Option<kv::Under> {
        let lock = key(self.lock.as_deref()?).to_owned();
        Some(kv::Under { lock, fence: self.fence? })
    }
}

/// A key as typed: people write a leading slash, which keys do not have.
pub fn key(typed: &str) -> &str {
    typed.strip_prefix('/').unwrap_or(typed)
}
