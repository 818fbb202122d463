//! The configuration of an agent, from what was written to what is meant.
//!
//! Two steps, each with a type of its own: a [`raw::Layer`] is one source as it was written (a file, a flag), checked
//! only for keys that exist and JSON types that fit; [`Config`] is what all layers together mean, typed, with defaults
//! filled in. Between them [`merge`] applies Consul's rules: later layers win, scalars are replaced, maps overlaid,
//! lists appended. The layers, in that order: built-in defaults, `-dev` defaults, flags that hold lists, files and
//! directories in the order given, flags that hold one value, `-hcl` fragments.
//!
//! What this module never does: ignore anything in silence. An unknown key is an error that names the nearest known
//! one; a key of Consul's that has no effect here becomes one of [`Config::warnings`].
//!
//! Start with [`Config::load`], then the table in [`keys`].

mod address;
mod files;
pub mod keys;
mod meant;
mod merge;
pub mod raw;
mod rules;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::Result;
use crate::world::World;
pub use meant::{Addresses, Checkpoints, Config, Join, Limits, LogLevel, Performance, Ports};
use merge::Merged;
use raw::{Format, Layer};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `-dev`: one node in memory.
    pub dev: bool,
    /// `-config-file` and `-config-dir`, in the order given. Either may name a file or a directory.
    pub paths: Vec<PathBuf>,
    /// `-config-format`: how to read files whatever their names.
    pub format: Option<Format>,
    /// Flags that hold lists; files append to them.
    pub lists: Vec<FlagValue>,
    /// Flags that hold one value; they win over files.
    pub scalars: Vec<FlagValue>,
    /// `-hcl` fragments; they win over everything.
    pub hcl: Vec<String>,
}

/// One flag and the configuration key that it sets.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// As typed: `-http-port`.
    pub flag: &'static str,
    /// As in a file: `ports.http`.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
}

impl Config {
    /// Reads every source and says what they mean together.
    ///
    /// # Errors
    /// `Operator`, with the source and the key, for the first thing that is wrong; for unknown keys all of one source.
    pub async fn load(world: &World, flags: &Flags) -> Result<Config> {
        let mut warnings = Vec::new();
        let mut layers = Vec::new();
        if flags.dev {
            layers.push(dev_defaults());
        }
        layers.extend(flags.lists.iter().map(Layer::of_flag));
        layers.extend(files::read(world, &flags.paths, flags.format, &mut warnings).await?);
        layers.extend(flags.scalars.iter().map(Layer::of_flag));
        for fragment in &flags.hcl {
            layers.push(Layer::parse("-hcl", fragment, Format::Hcl)?);
        }
        let mut merged = Merged::default();
        for layer in layers {
            layer.check()?;
            merged.add(layer);
        }
        warnings.extend(merged.warnings());
        rules::config(&merged, flags.dev, world.net.as_ref(), warnings)
    }
}

/// What `-dev` sets before anything else is read.
fn dev_defaults() -> Layer {
    let tree = json!({ "bind_addr": "127.0.0.1", "server": true, "log_level": "DEBUG", "enable_debug": true });
    Layer::new("-dev", tree)
}
