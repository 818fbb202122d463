//! `quorate kv …`: keys and values, with Consul's output and exit codes.

mod delete;
mod export;
mod get;
mod import;
mod put;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
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

/// The lock that a write is done under. `quorate lock` gives its child one, in the environment.
#[derive(Args)]
struct Under {
    /// The fence that -lock is held under [env: QUORATE_LOCK_FENCE, with QUORATE_LOCK_KEY]
    #[arg(long, value_name = "NUMBER")]
    fence: Option<u64>,
    /// Write only while this lock is held under -fence [env: QUORATE_LOCK_KEY, with QUORATE_LOCK_FENCE]
    #[arg(long, requires = "fence", value_name = "KEY")]
    lock: Option<String>,
    /// Write whether or not the lock of the environment is still held
    #[arg(long, conflicts_with_all = ["fence", "lock"])]
    no_fence: bool,
}

impl Under {
    /// What was typed, or else what `quorate lock` says.
    fn named(&self, cx: &Context) -> anyhow::Result<Option<kv::Under>> {
        match (&self.lock, self.fence) {
            (Some(lock), Some(fence)) => Ok(Some(kv::Under { lock: key(lock).to_owned(), fence })),
            (None, Some(_)) => bail!("-fence needs the -lock that it belongs to"),
            _ if self.no_fence => Ok(None),
            _ => Under::inherited(cx),
        }
    }

    fn inherited(cx: &Context) -> anyhow::Result<Option<kv::Under>> {
        let (Some(lock), Some(fence)) = ((cx.var)("QUORATE_LOCK_KEY"), (cx.var)("QUORATE_LOCK_FENCE")) else {
            return Ok(None);
        };
        let fence = fence.parse().with_context(|| format!("QUORATE_LOCK_FENCE is \"{fence}\", which is no fence"))?;
        Ok(Some(kv::Under { lock, fence }))
    }
}

/// A key as typed: people write a leading slash, which keys do not have.
pub fn key(typed: &str) -> &str {
    typed.strip_prefix('/').unwrap_or(typed)
}
