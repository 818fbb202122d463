//! `quorate snapshot restore`: nothing is sent that was not read and found right here.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;

/// Replaces everything by what a backup holds
///
/// It is done at one moment, while the servers serve: every key, node, service and check is as in the backup, and what was there
/// before is gone. All sessions end, and whatever was locked is delayed by its session's TTL. No index and no fence goes back.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate snapshot restore backup.snap\n  \
    quorate snapshot restore -http-addr=10.0.0.2:8500 backup.snap")]
pub struct Restore {
    /// What `snapshot save` wrote
    file: PathBuf,
    #[command(flatten)]
    http: HttpFlags,
}

/// Restores it.
pub async fn run(cx: &mut Context, restore: Restore) -> anyhow::Result<ExitCode> {
    let client = restore.http.client(cx).await?;
    let archive = Bytes::from(cx.file(&restore.file).await?);
    super::read(cx, &restore.file, archive.clone()).await?;
    client.snapshot_restore(archive, restore.http.datacenter.as_deref()).await?;
    writeln!(cx.out, "Restored snapshot")?;
    Ok(ExitCode::SUCCESS)
}
