//! `quorate snapshot save`: to a name beside the file first, and over it only what was read back and is right.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::archive::Meta;
use crate::cli::context::Context;
use crate::cli::http_flags::HttpFlags;
use crate::client::http::Http;
use crate::world::OpenMode;

/// Saves a backup to a file
///
/// The backup is written to FILE.unverified, read back and loaded, and only then renamed to FILE: what is there from before is
/// replaced by a good one or not at all.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate snapshot save backup.snap\n  \
    quorate snapshot save -append-filename=version,dc backup.snap    to backup-VERSION-DC.snap\n  \
    quorate snapshot save -stale backup.snap                         from a server that knows no leader, too")]
pub struct Save {
    /// Adds these to the file's name, in front of its ending
    #[arg(long, value_name = "FACTS", value_delimiter = ',')]
    append_filename: Vec<Fact>,
    /// Where to save it
    file: PathBuf,
    #[command(flatten)]
    http: HttpFlags,
}

/// What can be added to a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fact {
    /// The agent's version
    Version,
    /// The agent's datacenter
    Dc,
}

/// Saves it.
pub async fn run(cx: &mut Context, save: Save) -> anyhow::Result<ExitCode> {
    let client = save.http.client(cx).await?;
    let path = place(&save, &client).await?;
    let saved = client.snapshot_save(save.http.stale, save.http.datacenter.as_deref()).await?;
    let meta = keep(cx, &path, saved.archive).await?;
    writeln!(cx.out, "Saved and verified snapshot to index {}", meta.index)?;
    Ok(ExitCode::SUCCESS)
}

/// Where to save it.
async fn place(save: &Save, client: &Http) -> anyhow::Result<PathBuf> {
    if save.file.file_name().is_none() {
        bail!("{} is no name of a file", save.file.display());
    }
    if save.append_filename.is_empty() {
        return Ok(save.file.clone());
    }
    let facts = client.facts().await?;
    let fact = |fact: &Fact| match fact {
        Fact::Version => facts.version.clone(),
        Fact::Dc => facts.datacenter.clone(),
    };
    Ok(extended(&save.file, &save.append_filename.iter().map(fact).collect::<Vec<_>>()))
}

/// `a/b.snap` and `1`, `2` give `a/b-1-2.snap`.
fn extended(path: &Path, facts: &[String]) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    for fact in facts {
        name.push("-");
        name.push(fact);
    }
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// Puts a backup where it belongs, once it was read back from the disk and is right.
async fn keep(cx: &Context, path: &Path, archive: Bytes) -> anyhow::Result<Meta> {
    let disk = &cx.world.disk;
    let mut unverified = path.as_os_str().to_os_string();
    unverified.push(".unverified");
    let unverified = PathBuf::from(unverified);
    // Left by a save that was killed.
    match disk.remove(&unverified).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", unverified.display()));
        }
        _ => {}
    }
    let keeping = async {
        let written = write(cx, &unverified, archive).await;
        let written = written.with_context(|| format!("cannot write {}", unverified.display()))?;
        let meta = super::read(cx, &unverified, written).await?.meta;
        let renaming = async {
            disk.rename(&unverified, path).await?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            disk.sync_dir(dir.unwrap_or(Path::new("."))).await
        };
        renaming.await.with_context(|| format!("cannot rename {} to {}", unverified.display(), path.display()))?;
        Ok(meta)
    };
    let kept = keeping.await;
    if kept.is_err() {
        // It may not even be there.
        let _ = disk.remove(&unverified).await;
    }
    kept
}

/// Writes a new file; what it holds then.
async fn write(cx: &Context, path: &Path, archive: Bytes) -> io::Result<Vec<u8>> {
    let file = cx.world.disk.open(path, OpenMode::Create).await?;
    file.write_at(0, archive.into()).await?;
    file.sync().await?;
    let len = usize::try_from(file.size().await?).map_err(io::Error::other)?;
    file.read_at(0, len).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_stand_before_the_ending_of_a_name() {
        let facts = ["1.2.3".to_string(), "dc1".to_string()];
        for (path, extended_path) in [
            ("backup.snap", "backup-1.2.3-dc1.snap"),
            ("/a.b/backup", "/a.b/backup-1.2.3-dc1"),
            ("a/b.c.snap", "a/b.c-1.2.3-dc1.snap"),
        ] {
            assert_eq!(extended(Path::new(path), &facts), Path::new(extended_path));
        }
    }
}
