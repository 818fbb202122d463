//! `quorate snapshot inspect`: what a backup says of itself, and what it is made of.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use uuid::Uuid;

use crate::archive::{Archive, Share};
use crate::cli::context::Context;
use crate::cli::table::columns;

/// Shows what a backup holds
///
/// The whole file is read and checked, as for a restore. It needs no agent.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate snapshot inspect backup.snap\n  \
    quorate snapshot inspect -kvdetails -kvdepth=3 -kvfilter=web/ backup.snap\n  \
    quorate snapshot inspect -format=json backup.snap")]
pub struct Inspect {
    /// How to print it
    #[arg(long, value_enum, default_value = "pretty")]
    format: Format,
    /// Show which keys take how much
    #[arg(long)]
    kvdetails: bool,
    /// Put keys together that have this many parts in common
    #[arg(long, value_name = "PARTS", default_value_t = 2, requires = "kvdetails")]
    kvdepth: usize,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true, requires = "kvdetails")]
    kvfilter: String,
    /// What `snapshot save` wrote
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Pretty,
    /// For programs
    Json,
}

/// What is shown, by Consul's names where it has them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    meta: Description,
    stats: Vec<Kind>,
    total_size: u64,
    #[serde(rename = "StatsKV", skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Kind>>,
    #[serde(rename = "TotalSizeKV", skip_serializing_if = "Option::is_none")]
    keys_size: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(rename = "ID")]
    id: String,
    size: u64,
    index: u64,
    term: u64,
    version: u64,
    cluster: Uuid,
    revision: u64,
    epoch: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kind {
    name: String,
    sum: u64,
    count: u64,
}

/// Shows it.
pub async fn run(cx: &mut Context, inspect: Inspect) -> anyhow::Result<ExitCode> {
    let bytes = cx.file(&inspect.file).await?;
    let archive = super::read(cx, &inspect.file, bytes).await?;
    let keys = inspect.kvdetails.then(|| archive.keys(&inspect.kvfilter, inspect.kvdepth));
    let shown = shown(&archive, keys);
    match inspect.format {
        Format::Pretty => write!(cx.out, "{}", pretty(&shown))?,
        Format::Json => {
            let mut text = Vec::new();
            shown.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"   ")))?;
            cx.out.write_all(&text)?;
            writeln!(cx.out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(archive: &Archive, keys: Option<Vec<Share>>) -> Shown {
    let (meta, own) = (&archive.meta, &archive.meta.own);
    let kinds = archive.kinds();
    let size = |shares: &[Share]| shares.iter().map(|share| share.size).sum();
    Shown {
        meta: Description {
            id: meta.id.clone(),
            size: meta.size,
            index: meta.index,
            term: meta.term,
            version: meta.version,
            cluster: own.cluster,
            revision: own.revision,
            epoch: own.epoch,
        },
        total_size: size(&kinds),
        stats: kinds.into_iter().map(Kind::from).collect(),
        keys_size: keys.as_deref().map(size),
        keys: keys.map(|keys| keys.into_iter().map(Kind::from).collect()),
    }
}

impl From<Share> for Kind {
    fn from(Share { name, count, size }: Share) -> Kind {
        Kind { name, sum: size, count }
    }
}

fn pretty(shown: &Shown) -> String {
    let Description { id, size, index, term, version, cluster, revision, epoch } = &shown.meta;
    let line = |name: &str, value: &dyn ToString| vec![name.to_string(), value.to_string()];
    let mut text = columns(&[
        line("ID", id),
        line("Size", size),
        line("Index", index),
        line("Term", term),
        line("Version", version),
        line("Cluster", cluster),
        line("Revision", revision),
        line("Epoch", epoch),
    ]);
    text += &format!("\n{}", table("Type", &shown.stats, shown.total_size));
    if let (Some(keys), Some(size)) = (&shown.keys, shown.keys_size) {
        text += &format!("\n{}", table("Key Name", keys, size));
    }
    text
}

fn table(title: &str, kinds: &[Kind], total: u64) -> String {
    let rule = || vec!["----".to_string(); 3];
    let row = |kind: &Kind| vec![kind.name.clone(), kind.count.to_string(), human(kind.sum)];
    let mut rows = vec![vec![title.to_string(), "Count".into(), "Size".into()], rule()];
    rows.extend(kinds.iter().map(row));
    let count: u64 = kinds.iter().map(|kind| kind.count).sum();
    rows.extend([rule(), vec!["Total".into(), count.to_string(), human(total)]]);
    columns(&rows)
}

/// A number of bytes, as short as people like it.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{size:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_add_up() {
        let kind = |name: &str, count, sum| Kind { name: name.into(), count, sum };
        let text = table("Type", &[kind("KVS", 120, 5_000_000), kind("Tombstone", 1, 900)], 5_000_900);
        assert_eq!(
            text,
            "Type       Count  Size\n----       ----   ----\nKVS        120    4.8MB\nTombstone  1      900B\n\
             ----       ----   ----\nTotal      121    4.8MB\n"
        );
    }
}
