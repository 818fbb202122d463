//! One source of configuration as it was written.
//!
//! A [`Layer`] is a tree of JSON values with the name of its source. [`Layer::check`] holds it against the table of
//! known keys: keys that exist, types that fit. What a value means (is this text a duration?) is decided later, once it
//! is known which layer won.

use serde_json::{Map, Value};

use super::FlagValue;
use super::keys::{self, Kind};
use crate::error::{Error, Result};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON. A key that is written twice counts as its last value.
    Json,
    /// HashiCorp's configuration language.
    Hcl,
}

impl Format {
    /// The format that a file's name tells, if it does.
    pub fn of_name(name: &str) -> Option<Format> {
        match name.rsplit_once('.')?.1 {
            "json" => Some(Format::Json),
            "hcl" => Some(Format::Hcl),
            _ => None,
        }
    }
}

/// One source as it was written.
#[derive(Debug)]
pub struct Layer {
    /// A file's path, or a flag as typed.
    pub source: String,
    /// Its keys.
    pub tree: Map<String, Value>,
}

impl Layer {
    /// A layer from a tree, which must be an object.
    pub fn new(source: impl Into<String>, tree: Value) -> Layer {
        let Value::Object(tree) = tree else { unreachable!("only objects are made into layers") };
        Layer { source: source.into(), tree }
    }

    /// The layer of one flag.
    pub fn of_flag(flag: &FlagValue) -> Layer {
        let nest = |value, key: &str| Value::Object(Map::from_iter([(key.to_owned(), value)]));
        Layer::new(flag.flag, flag.key.rsplit('.').fold(flag.value.clone(), nest))
    }

    /// Reads a file's or a flag's text.
    ///
    /// # Errors
    /// If it is not what its format says, or holds something other than keys at its top.
    pub fn parse(source: &str, text: &str, format: Format) -> Result<Layer> {
        let parsed = match format {
            Format::Json => serde_json::from_str(text).map_err(|e| format!("not JSON: {e}")),
            Format::Hcl => hcl::from_str::<Value>(text).map_err(|e| format!("not HCL: {e}")),
        };
        match parsed {
            Ok(Value::Object(tree)) => Ok(Layer { source: source.into(), tree }),
            Ok(_) => Err(Error::Operator(format!("{source}: a configuration is an object: {{ \"key\": value }}"))),
            Err(why) => Err(Error::Operator(format!("{source}: {why}"))),
        }
    }

    /// Holds the layer against the table of known keys.
    ///
    /// # Errors
    /// The first value of a wrong type; otherwise all unknown keys together.
    pub fn check(&self) -> Result<()> {
        let mut unknown = Vec::new();
        self.check_section("", &self.tree, &mut unknown)?;
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::Operator(format!("{}: {}", self.source, unknown.join("; "))))
    }

    fn check_section(&self, prefix: &str, section: &Map<String, Value>, unknown: &mut Vec<String>) -> Result<()> {
        for (name, value) in section {
            let path = format!("{prefix}{name}");
            let Some(key) = keys::find(&path) else {
                unknown.push(match keys::nearest(prefix, name) {
                    Some(known) => format!("unknown key \"{path}\" (did you mean \"{known}\"?)"),
                    None => format!("unknown key \"{path}\""),
                });
                continue;
            };
            if !key.kind.fits(value) {
                let (wanted, found) = (key.kind.wanted(), excerpt(value));
                return Err(Error::Operator(format!("{}: {path}: must be {wanted}, not {found}", self.source)));
            }
            if key.kind == Kind::Section {
                for part in parts(value) {
                    self.check_section(&format!("{path}."), part, unknown)?;
                }
            }
        }
        Ok(())
    }
}

/// The maps of a section: itself, or each of a list of maps, which is how HCL writes a block that occurs twice.
pub fn parts(section: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    let list = section.as_array().map(Vec::as_slice).unwrap_or_default();
    section.as_object().into_iter().chain(list.iter().filter_map(Value::as_object))
}

/// A value as it was written, cut where it gets long.
fn excerpt(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
