//! The history against the states that were: whoever remembers each of them needs no undo log.

use std::collections::BTreeMap;

use super::*;

/// The keys after each revision so far.
#[derive(Default)]
pub(super) struct Past(BTreeMap<u64, Rows>);

type Rows = BTreeMap<Key, KvRow>;

fn keys(table: &KvTable, prefix: &str) -> Rows {
    table.prefix(prefix.as_bytes()).map(|(key, row)| (key.clone(), KvRow::clone(row))).collect()
}

impl Past {
    /// Remembers a state, and holds all that it says of the past against what was.
    pub(super) fn check(&mut self, state: &State, prefixes: &[&str]) {
        let (now, table) = (state.revision(), state.kv());
        self.0.insert(now, keys(table, ""));
        let history = table.history();
        assert!(history.len() as u64 <= history.bounds().bytes / crate::limits::HISTORY_OVERHEAD as u64);
        let revisions: std::collections::BTreeSet<u64> = history.after(0).map(|change| change.revision).collect();
        assert!(revisions.len() as u64 <= history.bounds().revisions && history.bytes() <= history.bounds().bytes);
        assert!(revisions.first().is_none_or(|first| *first > history.floor()));
        for at in history.floor()..=now {
            let Some((_, then)) = self.0.range(..=at).next_back() else { continue };
            for prefix in prefixes {
                let expected: Rows = under(then, prefix).collect();
                assert_eq!(keys(&table.as_of(at, prefix.as_bytes()), prefix), expected, "{prefix:?} at {at}");
                assert_eq!(self.replayed(table, prefix, at, expected), keys(table, prefix), "{prefix:?} from {at}");
            }
        }
    }

    /// What a reader of the stream, who begins with what there was, ends up with; every record is held against what was.
    fn replayed(&self, table: &KvTable, prefix: &str, at: u64, mut rows: Rows) -> Rows {
        let mut revisions: BTreeMap<u64, Vec<std::sync::Arc<Change>>> = BTreeMap::new();
        let changes = table.history().after(at).filter(|change| change.key.as_bytes().starts_with(prefix.as_bytes()));
        changes.for_each(|change| revisions.entry(change.revision).or_default().push(change.clone()));
        for (revision, changes) in revisions {
            let net = history::net(&changes);
            for change in &net {
                assert_eq!(rows.get(&change.key), change.before.as_deref(), "before {change:?}");
                match &change.after {
                    Some(row) => drop(rows.insert(change.key.clone(), KvRow::clone(row))),
                    None => drop(rows.remove(&change.key)),
                }
            }
            let distinct: std::collections::BTreeSet<&Key> = net.iter().map(|change| &change.key).collect();
            assert_eq!(distinct.len(), net.len(), "a key twice in revision {revision}");
            if let Some(then) = self.0.get(&revision) {
                assert_eq!(rows, under(then, prefix).collect(), "{prefix:?} after {revision}");
            }
        }
        rows
    }
}

fn under(rows: &Rows, prefix: &str) -> impl Iterator<Item = (Key, KvRow)> {
    let inside = rows.iter().filter(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()));
    inside.map(|(key, row)| (key.clone(), row.clone()))
}

#[test]
fn a_revision_that_is_larger_than_the_history_is_not_kept_in_part() {
    let mut state = State::default();
    let bounds = history::Bounds { revisions: 10, bytes: 3 * (crate::limits::HISTORY_OVERHEAD as u64 + 10) };
    state.apply(1, &entry(Command::KeepHistory(bounds)), &mut Vec::new());
    // Enough that there are more deletions behind the one that is too many.
    for key in ["a", "b", "c", "d", "e", "f"] {
        state.apply(1, &entry(set(key, "1")), &mut Vec::new());
    }
    assert_eq!((state.kv().history().len(), state.kv().history().floor()), (3, 4));
    state.apply(1, &entry(Command::KvDeleteTree { prefix: "".into() }), &mut Vec::new());
    let history = state.kv().history();
    assert_eq!((history.len(), history.bytes(), history.floor()), (0, 0, state.revision()));
    state.apply(1, &entry(set("a", "2")), &mut Vec::new());
    assert_eq!(state.kv().history().len(), 1, "and then it goes on");
    assert_eq!(rows(&load(rows(&state)).unwrap()), rows(&state));
}

#[test]
fn a_key_that_comes_and_goes_in_a_transaction_is_no_change() {
    let verb = |verb| txn::Operation::Kv { key: "a".into(), verb };
    let set = |value: &'static [u8]| verb(txn::KvVerb::Set { value: value.into(), flags: 0 });
    let mut state = State::default();
    let mut apply = |operations| {
        state.apply(1, &entry(Command::Txn(operations)), &mut Vec::new());
        let history = state.kv().history();
        let last: Vec<_> = history.after(state.revision() - 1).cloned().collect();
        (last.len(), history::net(&last))
    };
    assert_eq!(apply(vec![set(b"1"), verb(txn::KvVerb::Delete)]), (2, Vec::new()));
    let (changes, net) = apply(vec![set(b"1"), verb(txn::KvVerb::Delete), set(b"2")]);
    assert_eq!((changes, net.len()), (3, 1));
    assert_eq!((net[0].before.is_some(), net[0].after.as_ref().map(|row| &row.value[..])), (false, Some(&b"2"[..])));
}
