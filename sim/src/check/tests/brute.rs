//! A judge for histories of a few operations on one key: tries every order of every set of operations. It shares nothing
//! with the checkers.

use std::collections::BTreeSet;

use crate::history::{Call, Operation, Outcome};

/// Which part of the answers is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Revisions are only names of versions.
    Names,
    /// Revisions are numbers that rise, and creation indexes count.
    Numbers,
}

#[derive(Clone, Copy)]
struct Row {
    value: u64,
    modified: u64,
    created: u64,
}

#[derive(Clone, Copy)]
struct Store {
    row: Option<Row>,
    /// No smaller revision can be given any more.
    revision: u64,
}

/// A row whose revision no read tells, under [`Rule::Names`].
const NAMELESS: u64 = u64::MAX;

/// Whether a correct store could have shown this.
pub fn is_possible(operations: &[&Operation], rule: Rule) -> bool {
    let asked = |operation: &&&Operation| {
        operation.outcome != Outcome::Failed && (operation.call != Call::Get || operation.outcome != Outcome::Unknown)
    };
    let operations: Vec<&Operation> = operations.iter().filter(asked).copied().collect();
    let judge = Judge { operations: &operations, rule };
    // A name is the name of one row.
    let clash = |a: (u64, u64), b: (u64, u64)| (a.0 == b.0) != (a.1 == b.1);
    if judge.rows_read().any(|a| judge.rows_read().any(|b| clash(a, b))) {
        return false;
    }
    judge.can_go_on(&mut vec![false; operations.len()], Store { row: None, revision: 0 })
}

struct Judge<'a> {
    operations: &'a [&'a Operation],
    rule: Rule,
}

impl Judge<'_> {
    fn can_go_on(&self, done: &mut Vec<bool>, store: Store) -> bool {
        let left = || (0..done.len()).filter(|&i| !done[i]);
        let must = |i: &usize| self.operations[*i].outcome != Outcome::Unknown;
        let Some(first_end) = left().filter(must).filter_map(|i| self.operations[i].end).min() else { return true };
        let next: Vec<usize> = left().filter(|&i| self.operations[i].start < first_end).collect();
        next.into_iter().any(|i| {
            done[i] = true;
            let possible = self.after(self.operations[i], store).into_iter().any(|store| self.can_go_on(done, store));
            done[i] = false;
            possible
        })
    }

    /// Every store that there may be after an operation.
    fn after(&self, operation: &Operation, store: Store) -> Vec<Store> {
        let held = match operation.outcome {
            Outcome::Read { found: None, index } if self.rule == Rule::Numbers => {
                let fits = store.row.is_none() && index >= store.revision;
                return if fits { vec![Store { revision: index, ..store }] } else { vec![] };
            }
            Outcome::Read { found, .. } => {
                let same = match (found, store.row) {
                    (None, None) => true,
                    (Some(found), Some(row)) => {
                        let created = self.rule == Rule::Names || found.create_index == row.created;
                        created && (found.value, found.modify_index) == (row.value, row.modified)
                    }
                    _ => false,
                };
                return if same { vec![store] } else { vec![] };
            }
            Outcome::Written { applied } => applied,
            Outcome::Unknown | Outcome::Failed => true,
        };
        if !self.condition(operation, store).contains(&held) {
            return vec![];
        }
        match operation.call {
            Call::Put { value, .. } if held => self
                .revisions_of(value, store)
                .into_iter()
                .map(|modified| {
                    let created = store.row.map_or(modified, |row| row.created);
                    Store { row: Some(Row { value, modified, created }), revision: modified }
                })
                .collect(),
            Call::Delete { .. } if held && store.row.is_some() => {
                vec![Store { row: None, revision: store.revision.saturating_add(1) }]
            }
            _ => vec![store],
        }
    }

    /// What a write's condition may say.
    fn condition(&self, operation: &Operation, store: Store) -> Vec<bool> {
        let (cas, delete) = match operation.call {
            Call::Put { cas, .. } => (cas, false),
            Call::Delete { cas } => (cas, true),
            Call::Get => return vec![],
        };
        match (cas, store.row) {
            (None, _) => vec![true],
            (Some(_), None) if delete => vec![true],
            (Some(cas), None) => vec![cas == 0],
            (Some(cas), Some(row)) if row.modified == NAMELESS => {
                let named = cas == 0 || self.rows_read().any(|(_, modified)| modified == cas);
                if named { vec![false] } else { vec![true, false] }
            }
            (Some(cas), Some(row)) => vec![cas == row.modified],
        }
    }

    /// The revisions that a put of this value may get: the one that was read, or any; of those only the next and the ones
    /// that some answer or condition names make a difference.
    fn revisions_of(&self, value: u64, store: Store) -> Vec<u64> {
        let read = self.rows_read().find(|(read, _)| *read == value).map(|(_, modified)| modified);
        if self.rule == Rule::Names {
            return vec![read.unwrap_or(NAMELESS)];
        }
        if let Some(read) = read {
            return if read > store.revision { vec![read] } else { vec![] };
        }
        let named = self.operations.iter().flat_map(|operation| {
            [operation.cas(), operation.found().map(|found| found.create_index), Some(store.revision + 1)]
        });
        let later: BTreeSet<u64> = named.flatten().filter(|&revision| revision > store.revision).collect();
        later.into_iter().collect()
    }

    fn rows_read(&self) -> impl Iterator<Item = (u64, u64)> {
        self.operations.iter().filter_map(|read| read.found()).map(|found| (found.value, found.modify_index))
    }
}
