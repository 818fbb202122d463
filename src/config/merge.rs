//! Many layers become one tree, by Consul's rules: scalars are replaced, maps overlaid, lists appended.
//!
//! Beside each key the tree remembers which source had the last word on it, so that an error found later can say where
//! to look.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::keys::{self, Kind};
use super::raw::{Layer, parts};

/// All layers so far.
#[derive(Debug, Default)]
pub struct Merged {
    tree: BTreeMap<String, Setting>,
}

/// The value of one key of the table.
#[derive(Debug)]
pub struct Setting {
    /// What it is.
    pub value: Value,
    /// Who said so last.
    pub source: String,
}

impl Merged {
    /// Lays a checked layer over the others.
    pub fn add(&mut self, layer: Layer) {
        self.add_section("", &layer.tree, &layer.source);
    }

    fn add_section(&mut self, prefix: &str, section: &Map<String, Value>, source: &str) {
        for (name, value) in section {
            let path = format!("{prefix}{name}");
            match keys::find(&path).map(|key| key.kind) {
                Some(Kind::Section) => {
                    for part in parts(value) {
                        self.add_section(&format!("{path}."), part, source);
                    }
                }
                // In Consul a key that is null says nothing, so it replaces nothing.
                _ if value.is_null() => {}
                Some(Kind::Texts) if value.is_string() => self.set(path, Value::Array(vec![value.clone()]), source),
                _ => self.set(path, value.clone(), source),
            }
        }
    }

    fn set(&mut self, path: String, value: Value, source: &str) {
        match self.tree.entry(path) {
            Entry::Vacant(free) => {
                free.insert(Setting { value, source: source.into() });
            }
            Entry::Occupied(mut taken) => {
                overlay(&mut taken.get_mut().value, value);
                taken.get_mut().source = source.into();
            }
        }
    }

    /// The value of a key, if any layer has one.
    pub fn get(&self, path: &str) -> Option<&Setting> {
        debug_assert!(keys::find(path).is_some(), "{path} is not in the table of keys");
        self.tree.get(path)
    }

    /// Every key with its value, for telling what changed between two readings.
    pub fn values(&self) -> BTreeMap<String, Value> {
        self.tree.iter().map(|(path, setting)| (path.clone(), setting.value.clone())).collect()
    }

    /// One sentence for each key that was written and has no effect.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.tree.iter().filter_map(|(path, setting)| {
            let sentence = keys::find(path)?.fate.warning(path, &setting.value)?;
            Some(format!("{}: {sentence}", setting.source))
        })
    }
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(under) => overlay(under, value),
                    None => drop(below.insert(key, value)),
                }
            }
        }
        (Value::Array(below), Value::Array(above)) => below.extend(above),
        (below, above) => *below = above,
    }
}
