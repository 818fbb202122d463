//! Tests of the whole state machine: scripts that show one behaviour each, random commands against a naive model, and
//! the stored formats byte by byte.

mod format;
mod model;
mod past;
mod registrations;
mod restored;
mod script;

use super::*;

/// All rows of a state.
fn rows(state: &State) -> Vec<StoredRow> {
    let mut rows = Vec::new();
    state.rows(&mut |row| rows.push(row));
    rows
}

/// A state from rows; recomputes the digest.
fn load(rows: impl IntoIterator<Item = StoredRow>) -> Result<State> {
    let mut loader = State::loader();
    rows.into_iter().try_for_each(|row| loader.row(row))?;
    loader.finish()
}

fn set(key: &str, value: &str) -> Command {
    Command::KvSet { key: key.into(), value: value.to_owned().into(), flags: 0, cas: None }
}

/// Registers a node with nothing on it.
fn register(name: &str) -> Command {
    let node = catalog::Node { name: name.into(), address: "10.0.0.1".into(), ..Default::default() };
    Command::Register(Registration { node, ..Default::default() })
}

fn entry(command: Command) -> Entry {
    Entry { time: LogTime(0), request: None, command }
}

#[test]
fn the_last_index_is_used_and_then_writes_are_refused() {
    let mut state = State { revision: MAX_REVISION - 2, ..State::default() };
    let last = state.apply(1, &entry(set("a", "1")), &mut Vec::new());
    assert_eq!(last, Response { revision: MAX_REVISION - 1, reply: Reply::Done(true) });

    let mut touched = Vec::new();
    let refused = state.apply(1, &entry(set("a", "2")), &mut touched);
    assert_eq!((refused.revision, touched), (MAX_REVISION - 1, Vec::new()));
    assert!(matches!(refused.reply, Reply::Refused(_)));
}

#[test]
fn keys_and_values_beyond_their_limits_are_refused_and_those_at_them_are_not() {
    use crate::limits::{MAX_KEY, MAX_VALUE_CEILING};
    let apply = |command| State::default().apply(1, &entry(command), &mut Vec::new()).reply;
    let with = |key: usize, value: usize| set(&"k".repeat(key), &"v".repeat(value));
    let delete = |key: usize| Command::KvDelete { key: "k".repeat(key).as_str().into(), cas: None };
    let delete_tree = |key: usize| Command::KvDeleteTree { prefix: "k".repeat(key).as_str().into() };

    for fits in [with(MAX_KEY, MAX_VALUE_CEILING), with(1, 0), delete(MAX_KEY), delete_tree(MAX_KEY), delete_tree(0)] {
        assert_eq!(apply(fits), Reply::Done(true));
    }
    for beyond in [with(MAX_KEY + 1, 0), with(0, 0), with(1, MAX_VALUE_CEILING + 1), delete(MAX_KEY + 1), delete(0)] {
        assert!(matches!(apply(beyond), Reply::Refused(_)));
    }
    assert!(matches!(apply(delete_tree(MAX_KEY + 1)), Reply::Refused(_)));
}

#[test]
fn a_clone_does_not_see_later_changes() {
    let mut state = State::default();
    state.apply(1, &entry(set("a", "1")), &mut Vec::new());
    let before = state.clone();
    state.apply(1, &entry(set("a", "2")), &mut Vec::new());
    assert_eq!(before.kv().get(b"a").map(|row| &row.value[..]), Some(&b"1"[..]));
    assert_eq!(state.kv().get(b"a").map(|row| &row.value[..]), Some(&b"2"[..]));
}

#[test]
fn the_first_root_stays() {
    let root = |id: &str| Root { id: id.into(), ..format::root() };
    let mut state = State::default();
    let mut keep = |id: &str| {
        let response = state.apply(1, &entry(Command::KeepRoot(root(id).into())), &mut Vec::new());
        let kept = load(rows(&state)).unwrap().authority().root().map(|row| (row.root.id.clone(), row.create_index));
        (response.reply, kept, state.index_of(Subject::Root))
    };
    assert_eq!(keep("a"), (Reply::Done(true), Some(("a".into(), 2)), 2));
    assert_eq!(keep("b"), (Reply::Done(false), Some(("a".into(), 2)), 2));
}

#[test]
fn a_lost_changed_or_foreign_row_is_found_at_load() {
    let mut state = State::default();
    state.apply(1, &entry(set("a", "1")), &mut Vec::new());
    state.apply(1, &entry(set("b", "1")), &mut Vec::new());
    let good = rows(&state);
    assert_eq!(rows(&load(good.clone()).unwrap()), good);
    assert_eq!(rows(&load(good.iter().rev().cloned()).unwrap()), good, "in any order");

    let sentence = |rows: Vec<StoredRow>| match load(rows) {
        Err(Error::Operator(sentence)) => sentence,
        other => panic!("not an operator's error: {other:?}"),
    };
    assert!(sentence(good[..2].to_vec()).contains("digest"));
    assert!(sentence(good[1..].to_vec()).contains("no header"));
    let mut swapped = good.clone();
    swapped[1].key = b"c".to_vec();
    assert!(sentence(swapped).contains("digest"));
    let mut foreign = good.clone();
    foreign[1].table = 99;
    assert!(sentence(foreign).contains("table 99"));
    let mut removed = good.clone();
    removed[1].row = None;
    assert!(sentence(removed).contains("no content"));
    let mut rotten = good;
    rotten[1].row.as_mut().unwrap()[7] ^= 1;
    assert!(sentence(rotten).contains("checksum"));
}

#[test]
fn every_field_of_the_header_is_in_the_digest() {
    let base = State::default();
    let mut kv = base.kv.clone();
    kv.load_floor(1);
    let mut requests = base.requests.clone();
    requests.load_forgotten_before(1);
    let mut indexes = base.indexes.clone();
    indexes.raise(Subject::Session, 1);
    let mut floor = base.kv.clone();
    floor.history.bind(history::Bounds { revisions: 1, bytes: u64::MAX });
    let mut bytes = base.kv.clone();
    bytes.history.bind(history::Bounds { bytes: 1, ..history::Bounds::default() });
    let stage = restore::Stage::Begin { foreign: false };
    let mut begun = base.clone();
    begun.apply(1, &entry(Command::Restore { id: Uuid::nil(), stage }), &mut Vec::new());
    let begun = begun.staging;
    let changed = [
        State { kv: floor, ..base.clone() },
        State { kv: bytes, ..base.clone() },
        State { revision: 1, ..base.clone() },
        State { entries: 1, ..base.clone() },
        State { log_time: LogTime(1), ..base.clone() },
        State { kv, ..base.clone() },
        State { requests, ..base.clone() },
        State { indexes, ..base.clone() },
        State { epoch: 1, ..base.clone() },
        State { staging: begun, ..base.clone() },
    ];
    for (n, state) in changed.iter().enumerate() {
        assert_ne!(state.digest(), base.digest(), "field {n}");
    }
}
