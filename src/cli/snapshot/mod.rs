//! `quorate snapshot …`: backups of everything, with Consul's output and exit codes.
//!
//! A backup that this program says it has saved was read back from its file and loaded as a restore would load it.

mod inspect;
mod restore;
mod save;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use super::context::Context;
use crate::archive::{self, Archive};

/// Saves, inspects and restores backups of everything
///
/// A backup is one consistent state: keys with their locks, sessions, nodes, services and checks. It is taken and restored while
/// the servers serve.
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    quorate snapshot save backup.snap\n  \
    quorate snapshot inspect backup.snap\n  \
    quorate snapshot restore backup.snap")]
pub enum Snapshot {
    /// Shows what a backup holds
    Inspect(inspect::Inspect),
    /// Replaces everything by what a backup holds
    Restore(restore::Restore),
    /// Saves a backup to a file
    Save(save::Save),
}

/// Runs one of them.
pub async fn run(cx: &mut Context, snapshot: Snapshot) -> anyhow::Result<ExitCode> {
    match snapshot {
        Snapshot::Inspect(inspect) => inspect::run(cx, inspect).await,
        Snapshot::Restore(restore) => restore::run(cx, restore).await,
        Snapshot::Save(save) => save::run(cx, save).await,
    }
}

/// What a file holds, read and checked as a whole.
async fn read(cx: &Context, path: &Path, bytes: impl AsRef<[u8]> + Send + 'static) -> anyhow::Result<Archive> {
    let read = cx.world.blocking(move || archive::read(&mut bytes.as_ref())).await?;
    read.with_context(|| path.display().to_string())
}
