//! `quorate txn`: several things or none of them. Consul has no such command; what it takes and prints are its API's.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::context::Context;
use super::http_flags::HttpFlags;

/// Does several things or none of them
///
/// Takes what `PUT /v1/txn` takes: a JSON list of operations, values in base64. Prints what each of them gave, as JSON. If one
/// of them cannot be done, none is, and every one that cannot is named.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate txn @move.json\n  \
    quorate txn '[{\"KV\": {\"Verb\": \"delete\", \"Key\": \"old\"}},\n               \
    {\"KV\": {\"Verb\": \"set\", \"Key\": \"new\", \"Value\": \"aGVsbG8=\"}}]'\n  \
    make-operations | quorate txn -")]
pub struct Txn {
    /// JSON, @FILE, or - for standard input
    operations: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// Does them.
pub async fn run(cx: &mut Context, txn: Txn) -> anyhow::Result<ExitCode> {
    let operations = cx.data(&txn.operations).await?;
    if operations.trim_ascii().is_empty() {
        bail!("OPERATIONS is empty: give a JSON list, as in quorate txn -help");
    }
    let answer = txn.http.client(cx).await?.txn(operations).await?;
    let failed = answer.errors.unwrap_or_default();
    if failed.is_empty() {
        let mut text = Vec::new();
        let mut json = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
        answer.results.unwrap_or_default().serialize(&mut json)?;
        cx.out.write_all(&text)?;
        writeln!(cx.out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(cx.err, "Error! Nothing was done:")?;
    for failure in failed {
        writeln!(cx.err, "  operation {}: {}", failure.op_index, failure.what)?;
    }
    Ok(ExitCode::FAILURE)
}
