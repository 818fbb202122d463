//! Random commands against a model that is too simple to be wrong: a `BTreeMap` and linear searches. After each command
//! the state must answer every read as the model does, no index may have gone back, and the state must survive being
//! taken apart into rows and put together again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::past::Past;
use super::*;
use crate::limits::{OPEN_REQUESTS, REQUEST_MEMORY, TOMBSTONE_TTL};
use crate::state::history::Bounds;
use crate::state::session::Behavior;
use crate::state::txn::KvVerb;

/// Few and nested, so that commands meet.
pub(super) const KEYS: [&str; 9] = ["a", "a/", "a/b", "a/b/c", "a/b/d", "a/c", "ab", "b", "\u{ff}"];
/// Where the sessions are.
pub(super) const NODE: &str = "node";
/// The term of all entries.
pub(super) const TERM: u64 = 1;
const PREFIXES: [&str; 8] = ["", "a", "a/", "a/b", "a/b/", "b", "\u{ff}", "none"];

#[derive(Debug, Clone)]
struct Row {
    value: Bytes,
    flags: u64,
    created: u64,
    modified: u64,
    holder: Option<Holder>,
    locks: u64,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<Key, Row>,
    sessions: BTreeMap<Uuid, Session>,
    /// Until when a key cannot be locked.
    delays: BTreeMap<Key, LogTime>,
    /// Who waits for a key: place, session, until when, when it asked last.
    queues: BTreeMap<Key, Vec<(u64, Uuid, LogTime, u64)>>,
    revision: u64,
    time: LogTime,
    entries: u64,
    writers: BTreeMap<Uuid, Writer>,
    /// Incarnations that were forgotten must stay so.
    gone: Vec<Uuid>,
}

struct Writer {
    watermark: u64,
    used: u64,
    time: LogTime,
    answers: BTreeMap<u64, Response>,
}

impl Model {
    fn apply(&mut self, entry: &Entry) -> (Response, Vec<Key>) {
        self.entries += 1;
        self.time = self.time.max(entry.time);
        let idle = self.writers.iter().filter(|(_, writer)| writer.time + REQUEST_MEMORY <= self.time);
        if let Some((&id, _)) = idle.min_by_key(|(_, writer)| writer.used) {
            self.writers.remove(&id);
            self.gone.push(id);
        }
        let Some(id) = &entry.request else { return self.execute(&entry.command) };
        let forgotten = Response { revision: self.revision, reply: Reply::Forgotten };
        if self.gone.contains(&id.incarnation) {
            return (forgotten, Vec::new());
        }
        let known = self.writers.get(&id.incarnation);
        let watermark = known.map_or(1, |writer| writer.watermark).max(id.acknowledged_below);
        if id.sequence < watermark {
            return (forgotten, Vec::new());
        }
        if id.sequence >= watermark + OPEN_REQUESTS as u64 {
            let reply = Reply::Refused(format!("request id: more than {OPEN_REQUESTS} requests are open"));
            return (Response { revision: self.revision, reply }, Vec::new());
        }
        let mut answers = known.map_or_else(BTreeMap::new, |writer| writer.answers.clone());
        let (answer, touched) = match answers.get(&id.sequence) {
            Some(answer) => (answer.clone(), Vec::new()),
            None => self.execute(&entry.command),
        };
        answers.insert(id.sequence, answer.clone());
        answers.retain(|sequence, _| *sequence >= watermark);
        self.writers.insert(id.incarnation, Writer { watermark, used: self.entries, time: self.time, answers });
        (answer, touched)
    }

    fn execute(&mut self, command: &Command) -> (Response, Vec<Key>) {
        let next = self.revision.max(1) + 1;
        let mut touched = Vec::new();
        let mut changed = false;
        let held_before: Vec<Key> =
            self.rows.iter().filter(|(_, row)| row.holder.is_some()).map(|(k, _)| k.clone()).collect();
        // What may be handed over by this command, if it is free then.
        let mut candidates: Vec<Key> = Vec::new();
        let reply = match command {
            Command::LockQueue { lock, session, wait } => {
                let holder = self.holder(lock);
                if !self.sessions.contains_key(session) {
                    Reply::Refused(String::new())
                } else if let Some(holder) = holder.filter(|holder| holder.session == *session) {
                    Reply::Granted { fence: holder.fence }
                } else if holder.is_none() && self.free_for(lock, *session) {
                    self.grant(lock, *session, next, &mut touched);
                    Reply::Granted { fence: next }
                } else if wait.is_zero() {
                    Reply::Done(false)
                } else {
                    let queue = self.queues.entry(lock.clone()).or_default();
                    let until = self.time + *wait;
                    changed = true;
                    candidates.push(lock.clone());
                    match queue.iter_mut().find(|waiter| waiter.1 == *session) {
                        Some(waiter) => {
                            (waiter.2, waiter.3) = (until, next);
                            Reply::Queued { place: waiter.0 }
                        }
                        None => {
                            queue.push((next, *session, until, next));
                            Reply::Queued { place: next }
                        }
                    }
                }
            }
            Command::LockCallOff { lock, session, asked } => {
                let queue = self.queues.entry(lock.clone()).or_default();
                let before = queue.len();
                queue.retain(|waiter| (waiter.3, waiter.1) != (*asked, *session));
                changed = queue.len() < before;
                Reply::Done(changed)
            }
            Command::LockRelease { lock, session, fence } => {
                let holds = |held: Holder| held.session == *session && fence.is_none_or(|fence| fence == held.fence);
                let done = self.holder(lock).is_some_and(holds);
                if done {
                    let row = self.rows.get_mut(lock).unwrap();
                    (row.holder, row.modified) = (None, next);
                    touched.push(lock.clone());
                }
                Reply::Done(done)
            }
            Command::LockPass => {
                for queue in self.queues.values_mut() {
                    let before = queue.len();
                    queue.retain(|waiter| waiter.2 > self.time);
                    changed |= queue.len() < before;
                }
                candidates = self.queues.keys().cloned().collect();
                candidates.sort_by_key(|lock| (self.delays.get(lock).copied(), lock.clone()));
                Reply::Done(false)
            }
            Command::KvAcquire { key, value, flags, session } => {
                let old = self.rows.get(key).cloned();
                let holder = old.as_ref().and_then(|row| row.holder);
                if !self.sessions.contains_key(session) {
                    Reply::Refused(String::new())
                } else if holder.is_some_and(|holder| holder.session != *session)
                    || (holder.is_none() && !self.free_for(key, *session))
                {
                    Reply::Done(false)
                } else {
                    let fence = holder.map_or(next, |holder| holder.fence);
                    let locks = old.as_ref().map_or(0, |row| row.locks) + u64::from(holder.is_none());
                    let same = old.as_ref().is_some_and(|row| row.value == *value && row.flags == *flags);
                    if holder.is_none() || !same {
                        let created = old.map_or(next, |row| row.created);
                        let holder = Some(Holder { session: *session, fence });
                        let row = Row { value: value.clone(), flags: *flags, created, modified: next, holder, locks };
                        self.rows.insert(key.clone(), row);
                        touched.push(key.clone());
                    }
                    self.queues.entry(key.clone()).or_default().retain(|waiter| waiter.1 != *session);
                    Reply::Granted { fence }
                }
            }
            Command::KvRelease { key, value, flags, session, fence } => {
                let held = self.rows.get_mut(key).filter(|row| {
                    row.holder
                        .is_some_and(|held| held.session == *session && fence.is_none_or(|fence| fence == held.fence))
                });
                let done = held.is_some();
                if let Some(row) = held {
                    *row = Row { value: value.clone(), flags: *flags, modified: next, holder: None, ..row.clone() };
                    touched.push(key.clone());
                }
                Reply::Done(done)
            }
            Command::SessionCreate { id, session } => {
                changed = !self.sessions.contains_key(id);
                if changed {
                    self.sessions.insert(*id, session.clone());
                    Reply::Session(*id)
                } else {
                    Reply::Refused(String::new())
                }
            }
            Command::SessionDestroy { id } => {
                changed = self.end(*id, next, &mut touched);
                Reply::Done(true)
            }
            Command::SessionExpire { id, term } => {
                changed = *term == TERM && self.end(*id, next, &mut touched);
                Reply::Done(changed)
            }
            Command::KvFenced { lock, fence, key, verb } => {
                let current = self.rows.get(lock).and_then(|row| row.holder).map(|holder| holder.fence);
                if current == Some(*fence) {
                    Reply::Done(self.write(&unfenced(key, verb), next, &mut touched))
                } else {
                    Reply::FencedOff { current }
                }
            }
            command => Reply::Done(self.write(command, next, &mut touched)),
        };
        candidates.extend(held_before.into_iter().filter(|key| self.holder(key).is_none()));
        for lock in candidates {
            let delayed = self.delays.get(&lock).is_some_and(|until| *until > self.time);
            let first = self.queues.get(&lock).and_then(|queue| queue.first()).map(|waiter| waiter.1);
            if let Some(first) = first.filter(|_| !delayed && self.holder(&lock).is_none()) {
                self.grant(&lock, first, next, &mut touched);
            }
        }
        changed |= !touched.is_empty();
        if changed {
            self.revision = next;
        }
        let reply = if *command == Command::LockPass { Reply::Done(changed) } else { reply };
        (Response { revision: self.revision, reply }, touched)
    }

    fn holder(&self, key: &Key) -> Option<Holder> {
        self.rows.get(key).and_then(|row| row.holder)
    }

    fn free_for(&self, lock: &Key, session: Uuid) -> bool {
        self.delays.get(lock).is_none_or(|until| *until <= self.time)
            && self.queues.get(lock).and_then(|queue| queue.first()).is_none_or(|first| first.1 == session)
    }

    fn grant(&mut self, lock: &Key, session: Uuid, next: u64, touched: &mut Vec<Key>) {
        let new = Row { value: Bytes::new(), flags: 0, created: next, modified: next, holder: None, locks: 0 };
        let row = self.rows.entry(lock.clone()).or_insert(new);
        (row.holder, row.modified) = (Some(Holder { session, fence: next }), next);
        row.locks += 1;
        self.queues.entry(lock.clone()).or_default().retain(|waiter| waiter.1 != session);
        touched.push(lock.clone());
    }

    fn end(&mut self, id: Uuid, next: u64, touched: &mut Vec<Key>) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.queues.values_mut().for_each(|queue| queue.retain(|waiter| waiter.1 != id));
        let held: Vec<Key> = self
            .rows
            .iter()
            .filter(|(_, row)| row.holder.is_some_and(|h| h.session == id))
            .map(|(k, _)| k.clone())
            .collect();
        for key in held {
            match session.behavior {
                Behavior::Delete => drop(self.rows.remove(&key)),
                Behavior::Release => {
                    let row = self.rows.get_mut(&key).unwrap();
                    (row.holder, row.modified) = (None, next);
                }
            }
            let until = self.delays.entry(key.clone()).or_default();
            *until = (*until).max(self.time + session.lock_delay);
            touched.push(key);
        }
        true
    }

    fn write(&mut self, command: &Command, next: u64, touched: &mut Vec<Key>) -> bool {
        match command {
            Command::KvSet { key, value, flags, cas } => {
                let old = self.rows.get(key);
                let allowed = match cas {
                    None => true,
                    Some(0) => old.is_none(),
                    Some(index) => old.is_some_and(|row| row.modified == *index),
                };
                if allowed && old.is_none_or(|row| row.value != *value || row.flags != *flags) {
                    let created = old.map_or(next, |row| row.created);
                    let (holder, locks) = old.map_or((None, 0), |row| (row.holder, row.locks));
                    let row = Row { value: value.clone(), flags: *flags, created, modified: next, holder, locks };
                    self.rows.insert(key.clone(), row);
                    touched.push(key.clone());
                }
                allowed
            }
            Command::KvDelete { key, cas } => {
                let old = self.rows.get(key);
                let allowed = old.is_none_or(|row| cas.is_none_or(|index| row.modified == index));
                if allowed && self.rows.remove(key).is_some() {
                    touched.push(key.clone());
                }
                allowed
            }
            Command::KvDeleteTree { prefix } => {
                *touched = self.under(prefix.as_bytes()).map(|(key, _)| key.clone()).collect();
                touched.iter().for_each(|key| drop(self.rows.remove(key)));
                true
            }
            Command::KeepHistory(_) => true,
            other => panic!("not drawn: {other:?}"),
        }
    }

    fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Key, &'a Row)> {
        self.rows.iter().filter(move |(key, _)| key.as_bytes().starts_with(prefix))
    }
}

/// The same write without a fence.
fn unfenced(key: &Key, verb: &KvVerb) -> Command {
    let key = key.clone();
    match verb.clone() {
        KvVerb::Set { value, flags } => Command::KvSet { key, value, flags, cas: None },
        KvVerb::Cas { value, flags, index } => Command::KvSet { key, value, flags, cas: Some(index) },
        KvVerb::Delete => Command::KvDelete { key, cas: None },
        KvVerb::DeleteCas(index) => Command::KvDelete { key, cas: Some(index) },
        KvVerb::DeleteTree => Command::KvDeleteTree { prefix: key },
        other => panic!("not drawn: {other:?}"),
    }
}

/// What a random entry is made of; incarnations are made fresh by `writer`, so that one is never reused after its end.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    pub elapsed: u64,
    /// Writer, sequence, how many below it are still open.
    request: Option<(u8, u64, u64)>,
    pub command: Command,
}

pub(super) fn draw() -> impl Strategy<Value = Draw> {
    let ttl = TOMBSTONE_TTL.as_millis() as u64;
    let elapsed = prop_oneof![8 => 0..3u64, 2 => 1..ttl / 3, 1 => ttl - 1..ttl + 2];
    let key = proptest::sample::select(&KEYS[..]).prop_map(Key::from);
    let prefix = proptest::sample::select(&PREFIXES[..]).prop_map(Key::from);
    let cas = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 2 => (1..30u64).prop_map(Some)];
    let command = prop_oneof![
        6 => (key.clone(), 0..3u8, 0..2u64, cas.clone()).prop_map(|(key, value, flags, cas)| {
            Command::KvSet { key, value: Bytes::from(vec![value; usize::from(value)]), flags, cas }
        }),
        3 => (key.clone(), cas).prop_map(|(key, cas)| Command::KvDelete { key, cas }),
        5 => (key.clone(), 0..2u8, session()).prop_map(|(key, value, session)| {
            Command::KvAcquire { key, value: Bytes::from(vec![value]), flags: 0, session }
        }),
        4 => (key.clone(), 1..20u64, key.clone(), verb()).prop_map(|(lock, fence, key, verb)| {
            Command::KvFenced { lock, fence, key, verb }
        }),
        2 => (key, 0..2u8, session(), proptest::option::of(1..30u64)).prop_map(|(key, value, session, fence)| {
            Command::KvRelease { key, value: Bytes::from(vec![value]), flags: 0, session, fence }
        }),
        3 => (1..4u128, any::<bool>(), 0..5u128).prop_map(|(number, delete, delay)| create(number, delete, delay)),
        1 => session().prop_map(|id| Command::SessionDestroy { id }),
        1 => (session(), TERM - 1..TERM + 2).prop_map(|(id, term)| Command::SessionExpire { id, term }),
        1 => prefix.prop_map(|prefix| Command::KvDeleteTree { prefix }),
        1 => (0..20u64, 0..5_000u64).prop_map(|(revisions, bytes)| Command::KeepHistory(Bounds { revisions, bytes })),
    ];
    let sequence = prop_oneof![20 => 1..8u64, 1 => 4090..4110u64];
    let request = proptest::option::of((0..4u8, sequence, 0..4u64));
    (elapsed, request, command).prop_map(|(elapsed, request, command)| Draw { elapsed, request, command })
}

/// Few locks, many who want them.
pub(super) fn lock_draw() -> impl Strategy<Value = Draw> {
    let key = proptest::sample::select(&KEYS[..2]).prop_map(Key::from);
    let fence = proptest::option::of(1..30u64);
    let command = prop_oneof![
        8 => (key.clone(), session(), 0..9u64).prop_map(|(lock, session, wait)| {
            Command::LockQueue { lock, session, wait: Duration::from_millis(wait) }
        }),
        5 => (key.clone(), session(), fence).prop_map(|(lock, session, fence)| Command::LockRelease { lock, session, fence }),
        2 => (key.clone(), session(), 1..40u64)
            .prop_map(|(lock, session, asked)| Command::LockCallOff { lock, session, asked }),
        4 => Just(Command::LockPass),
        3 => (key.clone(), session())
            .prop_map(|(key, session)| Command::KvAcquire { key, value: Bytes::new(), flags: 0, session }),
        3 => session().prop_map(|id| Command::SessionDestroy { id }),
        4 => (1..4u128, any::<bool>(), 0..6u128).prop_map(|(number, delete, delay)| create(number, delete, delay)),
        2 => key.clone().prop_map(|key| Command::KvDelete { key, cas: None }),
        1 => key.prop_map(|prefix| Command::KvDeleteTree { prefix }),
    ];
    (0..3u64, command).prop_map(|(elapsed, command)| Draw { elapsed, request: None, command })
}

fn create(number: u128, delete: bool, delay: u128) -> Command {
    let behavior = if delete { Behavior::Delete } else { Behavior::Release };
    let lock_delay = Duration::from_millis(delay as u64);
    let session =
        Session { node: NODE.into(), ttl: Duration::from_secs(10), behavior, lock_delay, ..Session::default() };
    Command::SessionCreate { id: Uuid::from_u128(number), session }
}

fn verb() -> impl Strategy<Value = KvVerb> {
    let value = (0..3u8).prop_map(|value| Bytes::from(vec![value]));
    prop_oneof![
        3 => value.clone().prop_map(|value| KvVerb::Set { value, flags: 0 }),
        2 => (value, 0..30u64).prop_map(|(value, index)| KvVerb::Cas { value, flags: 1, index }),
        1 => Just(KvVerb::Delete),
        1 => (1..30u64).prop_map(KvVerb::DeleteCas),
        1 => Just(KvVerb::DeleteTree),
    ]
}

fn session() -> impl Strategy<Value = Uuid> {
    (1..4u128).prop_map(Uuid::from_u128)
}

/// A writer that is born at its first write, with what it knows then.
fn writer(births: &mut BTreeMap<u8, u64>, state: &State, request: (u8, u64, u64)) -> RequestId {
    let (name, sequence, open) = request;
    let born = *births.entry(name).or_insert(state.entries());
    let acknowledged_below = sequence.saturating_sub(open);
    RequestId { incarnation: Uuid::from_u128(name.into()), born, sequence, acknowledged_below }
}

fn compare_reads(state: &State, model: &Model) {
    let kv = state.kv();
    assert_eq!((state.revision(), state.log_time(), state.entries()), (model.revision, model.time, model.entries));
    assert_eq!(kv.len(), model.rows.len());
    let sessions: Vec<Uuid> = state.sessions().iter().map(|(id, _)| id).collect();
    assert!(sessions.iter().eq(model.sessions.keys()));
    let on_node: Vec<Uuid> = state.sessions().on_node(&NODE.to_uppercase()).map(|(id, _)| id).collect();
    assert_eq!(on_node, sessions);
    let waiting = model.queues.values().flatten().count();
    assert_eq!(state.queues().len(), waiting);
    for key in KEYS {
        let queue: Vec<_> = state
            .queues()
            .of(&key.into())
            .map(|(place, waiter)| (place, waiter.session, waiter.until, waiter.asked))
            .collect();
        assert_eq!(queue, model.queues.get(&Key::from(key)).cloned().unwrap_or_default(), "the queue of {key}");
        for id in (1..4).map(Uuid::from_u128) {
            let place = queue.iter().find(|waiter| waiter.1 == id).map(|waiter| waiter.0);
            assert_eq!(state.queues().place_of(&key.into(), id), place);
        }
        let found = kv
            .get(key.as_bytes())
            .map(|row| (row.value.clone(), row.flags, row.create_index, row.modify_index, row.holder, row.lock_index));
        let expected = model.rows.get(&Key::from(key));
        assert_eq!(
            found,
            expected.map(|row| (row.value.clone(), row.flags, row.created, row.modified, row.holder, row.locks)),
            "{key}"
        );
    }
    for prefix in PREFIXES {
        let found: Vec<&Key> = kv.prefix(prefix.as_bytes()).map(|(key, _)| key).collect();
        let expected: Vec<&Key> = model.under(prefix.as_bytes()).map(|(key, _)| key).collect();
        assert_eq!(found, expected, "{prefix}");
        for after in KEYS {
            let page: Vec<&Key> = kv.prefix_after(prefix.as_bytes(), after.as_bytes()).map(|(key, _)| key).collect();
            let rest: Vec<&Key> = expected.iter().filter(|key| key.as_bytes() > after.as_bytes()).copied().collect();
            assert_eq!(page, rest, "{prefix} after {after}");
        }
    }
}

/// An answer without the words of a refusal.
fn wordless(mut response: Response) -> Response {
    if let Reply::Refused(why) = &mut response.reply {
        why.clear();
    }
    response
}

/// The indexes of all reads: of each key, of each prefix, of the table.
pub(super) fn indexes(state: &State) -> Vec<u64> {
    let keys = KEYS.iter().map(|key| state.kv().key_index(key.as_bytes()));
    let prefixes = PREFIXES.iter().map(|prefix| state.kv().prefix_index(prefix.as_bytes()));
    keys.chain(prefixes).chain([state.kv().index()]).collect()
}

/// R4, and what makes a blocking query wake: an index moves with every change under it, and never beyond the revision.
fn check_indexes(before: &[u64], state: &State, touched: &[Key]) {
    let after = indexes(state);
    let names = KEYS.iter().chain(&PREFIXES).chain(&["table"]);
    for (n, (name, (before, after))) in names.zip(before.iter().zip(&after)).enumerate() {
        assert!(after >= before, "the index of {name} went back from {before} to {after}");
        assert!((1..=state.revision().max(1)).contains(after), "{name} has index {after}");
        let concerned = touched.iter().any(|key| match n {
            n if n < KEYS.len() => key.as_bytes() == name.as_bytes(),
            n if n < KEYS.len() + PREFIXES.len() => key.as_bytes().starts_with(name.as_bytes()),
            _ => true,
        });
        assert!(!concerned || *after == state.revision(), "the index of {name} stayed at {after}");
    }
}

/// Rows of `older` with the changes of `newer` are the rows of `newer`, and load to the same state.
fn check_rows(older: &State, newer: &State) {
    let mut merged: BTreeMap<(u8, Vec<u8>), StoredRow> = BTreeMap::new();
    rows(older).into_iter().for_each(|row| drop(merged.insert((row.table, row.key.clone()), row)));
    let mut changes = Vec::new();
    newer.changes_since(older, &mut |row| changes.push((row.table, row.key.clone(), row)));
    assert!(changes.is_sorted_by(|a, b| (a.0, &a.1) < (b.0, &b.1)), "changes come in ascending order");
    for (table, key, row) in changes {
        let same = merged.insert((table, key.clone()), row.clone());
        assert!(same != Some(row.clone()) || table == 0, "unchanged and visited: {row:?}");
        if row.row.is_none() {
            assert!(same.is_some(), "removed and never there: {row:?}");
            merged.remove(&(table, key));
        }
    }
    let merged: Vec<StoredRow> = merged.into_values().collect();
    assert_eq!(merged, rows(newer));
    let loaded = load(merged).unwrap();
    assert_eq!(loaded.digest(), newer.digest());
    assert_eq!(indexes(&loaded), indexes(newer));
    assert_eq!(loaded.next_due(), newer.next_due());
    assert!(loaded.kv().history().after(0).eq(newer.kv().history().after(0)));
}

fn compare(draws: Vec<Draw>, reload: usize) {
    let (mut state, mut model) = (State::default(), Model::default());
    state.apply(TERM, &entry(register(NODE)), &mut Vec::new());
    (model.revision, model.entries) = (state.revision(), state.entries());
    let mut births = BTreeMap::new();
    let mut older = state.clone();
    let mut past = Past::default();
    for (n, draw) in draws.into_iter().enumerate() {
        let request = draw.request.map(|request| writer(&mut births, &state, request));
        let entry = Entry { time: LogTime(model.time.0 + draw.elapsed), request, command: draw.command };
        let before = indexes(&state);
        let mut touched = Vec::new();
        let response = state.apply(TERM, &entry, &mut touched);
        let (expected, keys) = model.apply(&entry);

        assert_eq!(wordless(response.clone()), wordless(expected), "{entry:?}");
        let found: Vec<Key> = touched
            .iter()
            .filter(|touched| touched.subject == Subject::Kv)
            .map(|touched| touched.key.clone())
            .collect();
        assert!(touched.iter().all(|touched| touched.revision == response.revision));
        assert_eq!(found, keys);
        compare_reads(&state, &model);
        check_indexes(&before, &state, &keys);
        check_rows(&older, &state);
        past.check(&state, &PREFIXES[..3]);
        if n % 7 == 0 {
            older = state.clone();
        }
        // From here on with a state that was loaded: nothing that matters may live outside the rows.
        if n == reload {
            state = load(rows(&state)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_does_what_the_model_does(draws in proptest::collection::vec(draw(), 1..60), reload in 0..60usize) {
        compare(draws, reload);
    }

    #[test]
    fn locks_and_queues_do_what_the_model_does(draws in proptest::collection::vec(lock_draw(), 1..60), reload in 0..60usize) {
        let sessions = (1..4u128).map(|number| Draw { elapsed: 0, request: None, command: create(number, number % 2 == 0, number) });
        compare(sessions.chain(draws).collect(), reload);
    }
}
