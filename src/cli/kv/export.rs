//! `quorate kv export`.

use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;

/// Prints keys with a prefix as JSON, for `import`
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate kv export > all.json\n  \
    quorate kv export web/ > web.json")]
pub struct Export {
    /// What keys begin with; all keys if it is left out
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// One key as it is exported.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its flags.
    #[serde(default)]
    pub flags: u64,
    /// Its value in base64.
    #[serde(default)]
    pub value: String,
}

/// Prints the keys.
pub async fn run(cx: &mut Context, export: Export) -> anyhow::Result<ExitCode> {
    let client = export.http.client(cx).await?;
    let pairs = client.kv_list(super::key(&export.prefix), &export.http.read_options()).await?.data;
    let entries = pairs.into_iter().map(|p| Entry { key: p.key, flags: p.flags, value: STANDARD.encode(&p.value) });
    let entries: Vec<Entry> = entries.collect();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    entries.serialize(&mut serde_json::Serializer::with_formatter(&mut cx.out, tabs)).map_err(std::io::Error::from)?;
    writeln!(cx.out)?;
    Ok(ExitCode::SUCCESS)
}
