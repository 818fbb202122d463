//! What a command is run in: a world, three streams and the environment. Tests give it others.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;

use crate::limits;
use crate::world::{OpenMode, World};

/// What a command is run in.
pub struct Context {
    /// Network, disk, clock.
    pub world: World,
    /// Standard output: results.
    pub out: Box<dyn Write + Send>,
    /// Standard error: everything else.
    pub err: Box<dyn Write + Send>,
    /// Standard input.
    pub input: Box<dyn Read + Send>,
    /// Whether someone watches standard error, so that progress is worth showing.
    pub watched: bool,
    /// Whether help may be coloured.
    pub colours: bool,
    /// The environment.
    pub var: Variables,
}

/// Looks up an environment variable.
type Variables = Box<dyn Fn(&str) -> Option<String> + Send>;

impl Context {
    /// The process's own.
    pub fn real(world: World) -> Context {
        Context {
            world,
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            input: Box::new(io::stdin()),
            watched: io::stderr().is_terminal(),
            colours: io::stdout().is_terminal() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            var: Box::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
        }
    }

    /// Data given as an argument: itself, `@FILE`, or `-` for standard input.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than [`limits::MAX_INPUT`].
    pub async fn data(&mut self, arg: &str) -> anyhow::Result<Bytes> {
        if arg == "-" {
            let mut bytes = Vec::new();
            // One byte more than may be, to notice.
            let most = limits::MAX_INPUT as u64 + 1;
            self.input.by_ref().take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
            if bytes.len() > limits::MAX_INPUT {
                bail!("standard input is larger than {} MiB", limits::MAX_INPUT / limits::MIB);
            }
            return Ok(bytes.into());
        }
        match arg.strip_prefix('@') {
            Some(path) => self.file(Path::new(path)).await.map(Bytes::from),
            None => Ok(Bytes::copy_from_slice(arg.as_bytes())),
        }
    }

    /// A whole file.
    ///
    /// # Errors
    /// As [`Context::data`].
    pub async fn file(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        let read = async {
            let file = self.world.disk.open(path, OpenMode::Read).await?;
            let len = usize::try_from(file.size().await?).unwrap_or(usize::MAX);
            if len > limits::MAX_INPUT {
                return Err(io::Error::other(format!("larger than {} MiB", limits::MAX_INPUT / limits::MIB)));
            }
            file.read_at(0, len).await
        };
        read.await.with_context(|| format!("cannot read {}", path.display()))
    }
}
