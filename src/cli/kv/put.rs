//! `quorate kv put`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;
use crate::client::kv::{PutOptions, When};

/// Writes a key, or takes or gives up a lock
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate kv put web/port 8080\n  \
    quorate kv put web/config @config.json      from a file\n  \
    date | quorate kv put web/started -         from standard input\n  \
    quorate kv put -cas -modify-index=0 web/port 8080    only if there is no such key\n  \
    quorate kv put -acquire -session=ID web/leader me\n  \
    quorate kv put -lock=web/leader -fence=97 web/config @config.json    only under that fence\n\n\
    Under `quorate lock` a write is done only while the lock is held, unless -no-fence says otherwise.\n\
    Exits with 1 if the condition did not hold.")]
pub struct Put {
    /// Take the lock on the key for -session
    #[arg(long, conflicts_with_all = ["release", "cas", "lock"])]
    acquire: bool,
    /// DATA is base64; write what it stands for
    #[arg(long)]
    base64: bool,
    /// Write only if the key's ModifyIndex is -modify-index
    #[arg(long)]
    cas: bool,
    /// A number to keep beside the value
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    flags: u64,
    /// For -cas; 0 means that there must be no such key
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    modify_index: u64,
    #[command(flatten)]
    under: super::Under,
    /// Give up the lock on the key that -session holds; with -fence only under that fence
    #[arg(long, conflicts_with_all = ["cas", "lock"])]
    release: bool,
    /// Whose lock it is
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    session: String,
    /// The key
    key: String,
    /// The value, @FILE, or - for standard input
    data: Option<String>,
    #[command(flatten)]
    http: HttpFlags,
}

/// Writes, and says what came of it.
pub async fn run(cx: &mut Context, put: Put) -> anyhow::Result<ExitCode> {
    let key = super::key(&put.key);
    if key.is_empty() {
        bail!("Missing KEY argument");
    }
    let when = condition(&put)?;
    let mut value = cx.data(put.data.as_deref().unwrap_or("")).await?;
    if put.base64 {
        value = STANDARD.decode(value.trim_ascii()).context("Cannot base64 decode data")?.into();
    }
    let client = put.http.client(cx).await?;
    // Who takes or gives up a lock names its own.
    let under = if put.acquire || put.release { None } else { put.under.named(cx)? };
    let options = PutOptions { flags: put.flags, when, under, datacenter: put.http.datacenter.clone() };
    let done = client.kv_put(key, value, &options).await?;
    match (options.when, done) {
        (When::Acquire(_), true) => writeln!(cx.out, "Success! Lock acquired on: {key}")?,
        (When::Release(..), true) => writeln!(cx.out, "Success! Lock released on: {key}")?,
        (_, true) => writeln!(cx.out, "Success! Data written to: {key}")?,
        (When::Acquire(_), false) => bail!("Did not acquire lock"),
        (When::Release(..), false) => bail!("Did not release lock"),
        (When::Unchanged(0), false) => {
            bail!("Did not write to {key}: CAS performed with index=0 and key already exists.")
        }
        (_, false) => bail!("Did not write to {key}: CAS failed"),
    }
    Ok(ExitCode::SUCCESS)
}

fn condition(put: &Put) -> anyhow::Result<When> {
    if (put.acquire || put.release) == put.session.is_empty() {
        match (put.acquire, put.release) {
            (true, _) => bail!("Missing -session (required with -acquire)"),
            (_, true) => bail!("Missing -session (required with -release)"),
            _ => bail!("-session needs -acquire or -release"),
        }
    }
    if put.acquire && put.under.fence.is_some() {
        bail!("-fence goes with -lock or -release: to acquire a lock gives it a new one");
    }
    if put.modify_index != 0 && !put.cas {
        bail!("-modify-index needs -cas");
    }
    Ok(match (put.acquire, put.release, put.cas) {
        (true, _, _) => When::Acquire(put.session.clone()),
        (_, true, _) => When::Release(put.session.clone(), put.under.fence),
        (_, _, true) => When::Unchanged(put.modify_index),
        _ => When::Always,
    })
}
