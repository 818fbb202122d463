//! `quorate kv import`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use indicatif::ProgressBar;

use super::export::Entry;
use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;
use crate::client::kv::PutOptions;

/// Writes what `export` printed
///
/// Keys are written one after the other, not as one: if it fails midway, what was printed has been written.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate kv import @all.json\n  \
    quorate kv import -prefix=copy/ @web.json\n  \
    quorate kv export web/ | quorate kv import -http-addr=10.0.0.2:8500 -")]
pub struct Import {
    /// Put every key below this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// JSON, @FILE, or - for standard input
    data: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// Fewer keys than this are done before a progress bar would be read.
const WORTH_A_BAR: usize = 1_000;

/// Writes the keys.
pub async fn run(cx: &mut Context, import: Import) -> anyhow::Result<ExitCode> {
    let data = cx.data(&import.data).await?;
    if data.trim_ascii().is_empty() {
        bail!("DATA is empty: give the JSON that kv export printed");
    }
    let entries: Vec<Entry> = serde_json::from_slice(&data).context("Cannot unmarshal data")?;
    // Everything is decoded before anything is written, so that a damaged file does no half work.
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = STANDARD.decode(&entry.value);
        let value = value.with_context(|| format!("Cannot base64 decode value for key {}", entry.key))?;
        let key = join(&import.prefix, &entry.key);
        if key.is_empty() {
            bail!("an entry has no key");
        }
        rows.push((key, value, entry.flags));
    }
    let client = import.http.client(cx).await?;
    let bar = match cx.watched && rows.len() >= WORTH_A_BAR {
        true => ProgressBar::new(rows.len() as u64),
        false => ProgressBar::hidden(),
    };
    for (key, value, flags) in rows {
        let options = PutOptions { flags, datacenter: import.http.datacenter.clone(), ..PutOptions::default() };
        let done = client.kv_put(&key, value.into(), &options).await;
        if !done.with_context(|| format!("Failed writing data for key {key}"))? {
            bail!("Failed writing data for key {key}");
        }
        writeln!(cx.out, "Imported: {key}")?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

/// Joins as a path, but keeps a trailing slash: such a key is a folder to many tools. Without a prefix the key stays as
/// it is, which Consul's cleaning would not always allow.
fn join(prefix: &str, key: &str) -> String {
    match (super::key(prefix).trim_end_matches('/'), super::key(key)) {
        ("", key) => key.to_owned(),
        (prefix, key) => format!("{prefix}/{key}"),
    }
}
