//! Reads configuration files and directories from the world's disk.

use std::io;
use std::path::{Path, PathBuf};

use super::raw::{Format, Layer};
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{OpenMode, World};

/// The layers of these paths in their order; a directory's files in ascending order of their names, not those of its
/// directories.
pub async fn read(
    world: &World,
    paths: &[PathBuf],
    format: Option<Format>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for path in paths {
        match contents(world, path).await {
            Ok(text) => layers.push(file(path, &text, format)?),
            Err(error) => match names(world, path, &error).await? {
                Some(names) => directory(world, path, names, format, warnings, &mut layers).await?,
                None => return Err(unreadable(path, &error)),
            },
        }
    }
    Ok(layers)
}

fn file(path: &Path, text: &str, format: Option<Format>) -> Result<Layer> {
    let source = path.display().to_string();
    let Some(format) = format.or_else(|| Format::of_name(&source)) else {
        let why = "cannot tell its format: name it .json or .hcl, or give -config-format";
        return Err(Error::Operator(format!("{source}: {why}")));
    };
    Layer::parse(&source, text, format)
}

async fn directory(
    world: &World,
    path: &Path,
    names: Vec<String>,
    format: Option<Format>,
    warnings: &mut Vec<String>,
    layers: &mut Vec<Layer>,
) -> Result<()> {
    if names.len() > limits::MAX_CONFIG_FILES {
        let (found, most) = (names.len(), limits::MAX_CONFIG_FILES);
        return Err(Error::Operator(format!("{}: holds {found} files, more than {most}", path.display())));
    }
    for name in names {
        let path = path.join(&name);
        if format.or_else(|| Format::of_name(&name)).is_none() {
            warnings.push(format!("{}: skipped, its name ends neither in .json nor in .hcl", path.display()));
            continue;
        }
        match contents(world, &path).await {
            Ok(text) => layers.push(file(&path, &text, format)?),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                warnings.push(format!("{}: skipped, directories inside a directory are not read", path.display()));
            }
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(())
}

/// The names in a directory, or `None` if the path, which could not be read as a file because of `error`, is none. A
/// disk in memory has no directories of its own: there, a path with files below it counts as one.
async fn names(world: &World, path: &Path, error: &io::Error) -> Result<Option<Vec<String>>> {
    match error.kind() {
        io::ErrorKind::IsADirectory => {
            let names = world.disk.list(path).await;
            names.map(Some).map_err(|error| unreadable(path, &error))
        }
        io::ErrorKind::NotFound => Ok(world.disk.list(path).await.ok().filter(|names| !names.is_empty())),
        _ => Ok(None),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::io(format!("cannot read the configuration {}", path.display()), error)
}

async fn contents(world: &World, path: &Path) -> io::Result<String> {
    let file = world.disk.open(path, OpenMode::Read).await?;
    let most = limits::MAX_CONFIG_FILE;
    let len = file.size().await?;
    if len > most {
        return Err(io::Error::other(format!("larger than {} MiB", most / limits::MIB as u64)));
    }
    let bytes = file.read_at(0, usize::try_from(len).map_err(io::Error::other)?).await?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}
