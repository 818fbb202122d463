//! `quorate kv delete`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;
use crate::client::kv;

/// Deletes a key, or every key with a prefix
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate kv delete web/port\n  \
    quorate kv delete -cas -modify-index=97 web/port    only if unchanged\n  \
    quorate kv delete -recurse web/                     every key that begins with web/\n  \
    quorate kv delete -lock=web/leader -fence=97 web/port    only under that fence\n\n\
    Under `quorate lock` a key is deleted only while the lock is held, unless -no-fence says otherwise.")]
pub struct Delete {
    /// Delete only if the key's ModifyIndex is -modify-index
    #[arg(long, conflicts_with = "recurse", requires = "modify_index")]
    cas: bool,
    /// For -cas
    #[arg(long, requires = "cas", value_name = "INDEX")]
    modify_index: Option<u64>,
    #[command(flatten)]
    under: super::Under,
    /// Delete every key that begins with KEY
    #[arg(long)]
    recurse: bool,
    /// The key, or what keys begin with
    #[arg(default_value = "", hide_default_value = true)]
    key: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// Deletes, and says what came of it.
pub async fn run(cx: &mut Context, delete: Delete) -> anyhow::Result<ExitCode> {
    let key = super::key(&delete.key);
    if key.is_empty() && !delete.recurse {
        bail!("Missing KEY argument");
    }
    let what = match delete.modify_index {
        Some(index) => kv::Delete::Unchanged(index),
        None if delete.recurse => kv::Delete::Prefix,
        None => kv::Delete::Key,
    };
    let under = delete.under.named(cx)?;
    let client = delete.http.client(cx).await?;
    let done = client.kv_delete(key, &what, under.as_ref(), delete.http.datacenter.as_deref()).await?;
    match what {
        _ if !done => bail!("Did not delete key {key}: CAS failed"),
        kv::Delete::Prefix => writeln!(cx.out, "Success! Deleted keys with prefix: {key}")?,
        _ => writeln!(cx.out, "Success! Deleted key: {key}")?,
    }
    Ok(ExitCode::SUCCESS)
}
