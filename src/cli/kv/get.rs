//! `quorate kv get`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;
use crate::client::kv::Pair;

/// Prints a key's value, or many keys
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate kv get web/port              the value and a line break\n  \
    quorate kv get -detailed web/port    everything known of the key\n  \
    quorate kv get -recurse web/         a line key:value for each key below web/\n  \
    quorate kv get -keys web/            the names directly below web/\n\n\
    Exits with 1 if there is no such key.")]
pub struct Get {
    /// Print values in base64
    #[arg(long)]
    base64: bool,
    /// Print flags, indexes and session too
    #[arg(long)]
    detailed: bool,
    /// Print the names that begin with KEY, cut at the separator
    #[arg(long, conflicts_with_all = ["recurse", "detailed"])]
    keys: bool,
    /// Print every key that begins with KEY
    #[arg(long)]
    recurse: bool,
    /// Where -keys cuts names; empty to see them whole
    #[arg(long, default_value = "/")]
    separator: String,
    /// The key, or what keys begin with
    #[arg(default_value = "", hide_default_value = true)]
    key: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// Prints what was asked for.
pub async fn run(cx: &mut Context, get: Get) -> anyhow::Result<ExitCode> {
    let key = super::key(&get.key);
    if key.is_empty() && !get.recurse && !get.keys {
        bail!("Missing KEY argument");
    }
    let (client, options) = (get.http.client(cx).await?, get.http.read_options());
    if get.keys {
        for name in client.kv_keys(key, &get.separator, &options).await?.data {
            writeln!(cx.out, "{name}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if get.recurse {
        let pairs = client.kv_list(key, &options).await?.data;
        for (i, pair) in pairs.iter().enumerate() {
            if get.detailed {
                cx.out.write_all(if i == 0 { b"" } else { b"\n" })?;
                detailed(&mut cx.out, pair, get.base64)?;
            } else {
                write!(cx.out, "{}:", pair.key)?;
                value(&mut cx.out, pair, get.base64)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    match client.kv_get(key, &options).await?.data {
        None => bail!("No key exists at: {key}"),
        Some(pair) if get.detailed => detailed(&mut cx.out, &pair, get.base64)?,
        Some(pair) => value(&mut cx.out, &pair, get.base64)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn value(out: &mut dyn Write, pair: &Pair, base64: bool) -> io::Result<()> {
    if base64 {
        return writeln!(out, "{}", STANDARD.encode(&pair.value));
    }
    out.write_all(&pair.value)?;
    out.write_all(b"\n")
}

fn detailed(out: &mut dyn Write, pair: &Pair, base64: bool) -> io::Result<()> {
    // Consul's column: the longest name and six blanks.
    let mut row = |name: &str, value: &dyn std::fmt::Display| writeln!(out, "{name:17}{value}");
    row("CreateIndex", &pair.create_index)?;
    row("Flags", &pair.flags)?;
    row("Key", &pair.key)?;
    row("LockIndex", &pair.lock_index)?;
    row("ModifyIndex", &pair.modify_index)?;
    row("Session", &pair.session.as_deref().filter(|session| !session.is_empty()).unwrap_or("-"))?;
    write!(out, "{:17}", "Value")?;
    value(out, pair, base64)
}
