//! What the reads of one key tell about its writes: which revision is whose.
//!
//! A value is written at most once per key, so a value names its put and a read that found it tells the put's revision.
//! Only the first read of a revision and of a value is believed: whether the others agree is for the checkers to say.

use std::collections::BTreeMap;

use crate::history::{Found, Operation};

/// A put whose revision is known, because a read found it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version<'a> {
    pub put: &'a Operation,
    pub seen: Found,
    pub seen_by: &'a Operation,
}

/// The versions of one key.
#[derive(Default)]
pub(super) struct Versions<'a> {
    puts: BTreeMap<u64, &'a Operation>,
    by_index: BTreeMap<u64, Version<'a>>,
    index_of: BTreeMap<u64, u64>,
}

impl<'a> Versions<'a> {
    pub fn learn(operations: &[&'a Operation]) -> Self {
        let mut versions = Versions::default();
        for &operation in operations {
            if let Some(value) = operation.written_value() {
                versions.puts.insert(value, operation);
            }
        }
        for &seen_by in operations {
            let Some(seen) = seen_by.found() else { continue };
            let Some(&put) = versions.puts.get(&seen.value) else { continue };
            let is_new = !versions.by_index.contains_key(&seen.modify_index);
            if is_new && !versions.index_of.contains_key(&seen.value) {
                versions.by_index.insert(seen.modify_index, Version { put, seen, seen_by });
                versions.index_of.insert(seen.value, seen.modify_index);
            }
        }
        versions
    }

    /// The put that wrote a value.
    pub fn put_of(&self, value: u64) -> Option<&'a Operation> {
        self.puts.get(&value).copied()
    }

    /// The version at an index.
    pub fn at(&self, index: u64) -> Option<&Version<'a>> {
        self.by_index.get(&index)
    }

    /// The version that an operation wrote, if it was ever read.
    pub fn of(&self, put: &Operation) -> Option<&Version<'a>> {
        self.at(*self.index_of.get(&put.written_value()?)?)
    }

    /// The version that a value is, if it was ever read.
    pub fn with_value(&self, value: u64) -> Option<&Version<'a>> {
        self.at(*self.index_of.get(&value)?)
    }

    /// The oldest version with at least this index.
    pub fn from(&self, index: u64) -> Option<&Version<'a>> {
        self.by_index.range(index..).next().map(|(_, version)| version)
    }

    /// The newest version below this index.
    pub fn below(&self, index: u64) -> Option<&Version<'a>> {
        self.by_index.range(..index).next_back().map(|(_, version)| version)
    }

    /// All of them, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &Version<'a>> {
        self.by_index.values()
    }
}
