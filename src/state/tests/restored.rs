//! Random commands, a backup, more random commands, and its restore: the content is what it was, no index goes back, and whoever
//! held a lock on either side is followed by nobody before it can have stopped believing (G1.8).

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{self, Draw};
use super::*;
use crate::limits::FOREIGN_JUMP;
use crate::state::restore::Stage;
use crate::state::session::Behavior;

fn apply(state: &mut State, time: u64, command: Command) -> Response {
    state.apply(model::TERM, &Entry { time: LogTime(time), request: None, command }, &mut Vec::new())
}

/// Runs commands from a moment on, and says when the last one was.
fn run(state: &mut State, draws: Vec<Draw>) {
    for draw in draws {
        let time = state.log_time().0 + draw.elapsed;
        apply(state, time, draw.command);
    }
}

/// When each lock may be granted again if all is left behind `now`: after the TTL of whoever holds it, or what was left of its delay
/// in the last moment that the state knew.
fn beliefs(state: &State, last: u64, now: u64) -> BTreeMap<Key, u64> {
    let free = model::KEYS.map(Key::from).into_iter().map(|key| {
        let holder = state.kv().get(key.as_bytes()).and_then(|row| row.holder);
        let session = holder.and_then(|holder| state.sessions().get(holder.session));
        let belief = session.map_or(0, |row| row.session.ttl.max(row.session.lock_delay).as_millis() as u64);
        let left = state.delays.until(&key).map_or(0, |until| until.0.saturating_sub(last));
        (key, now + belief.max(left))
    });
    free.collect()
}

fn check(before: Vec<Draw>, after: Vec<Draw>, foreign: bool) {
    let mut state = State::default();
    apply(&mut state, 0, register(model::NODE));
    run(&mut state, before);
    let then = state.clone();
    let mut parts = Vec::new();
    then.backup().pack(&mut |part| parts.push(part));
    run(&mut state, after);
    let (now, indexes) = (state.log_time().0 + 1, model::indexes(&state));
    let mut free = beliefs(&state, now, now);
    for (key, until) in beliefs(&then, then.log_time().0, now) {
        let free = free.entry(key).or_default();
        *free = until.max(*free);
    }

    let id = Uuid::from_u128(7);
    let stages = (0..).zip(parts.clone()).map(|(number, rows)| Stage::Part { number, rows });
    let stages = [Stage::Begin { foreign }].into_iter().chain(stages);
    for stage in stages.chain([Stage::Seal { parts: parts.len() as u32 }, Stage::Switch]) {
        let response = apply(&mut state, now, Command::Restore { id, stage });
        assert_eq!(response.reply, Reply::Done(true));
    }

    let revision = state.revision();
    assert_eq!(state.epoch(), revision);
    let jump = if foreign { FOREIGN_JUMP } else { 0 };
    assert!(revision > then.revision() + jump && indexes.iter().all(|index| *index < revision));
    assert!(model::indexes(&state).iter().all(|index| *index == revision), "everything is as new as the restore");
    let ephemeral = |row: &KvRow| {
        let session = row.holder.and_then(|holder| then.sessions().get(holder.session));
        session.is_some_and(|row| row.session.behavior == Behavior::Delete)
    };
    let content = |state: &State| -> Vec<_> {
        let rows = state.kv().prefix(b"").map(|(key, row)| (key.clone(), row.value.clone(), row.flags, row.lock_index));
        rows.collect()
    };
    let mut expected = content(&then);
    expected.retain(|(key, ..)| !then.kv().get(key.as_bytes()).is_some_and(|row| ephemeral(row)));
    assert_eq!(content(&state), expected);
    assert!(state.sessions().is_empty() && state.queues().is_empty() && !state.is_sealed());
    assert!(state.kv().prefix(b"").all(|(_, row)| row.holder.is_none()));
    let loaded = load(rows(&state)).unwrap();
    assert_eq!((loaded.digest(), loaded.epoch()), (state.digest(), state.epoch()));

    // Each lock, in the order in which they become free: refused just before, granted then, under a larger fence than any.
    let session = Session { node: model::NODE.into(), ..Session::default() };
    apply(&mut state, now, Command::SessionCreate { id, session });
    let mut locks: Vec<(u64, Key)> = free.into_iter().map(|(key, until)| (until, key)).collect();
    locks.sort();
    for (until, key) in locks {
        let acquire = || Command::KvAcquire { key: key.clone(), value: Default::default(), flags: 0, session: id };
        if until > state.log_time().0 + 1 {
            assert_eq!(apply(&mut state, until - 1, acquire()).reply, Reply::Done(false), "{key} is granted too early");
        }
        let granted = apply(&mut state, until, acquire()).reply;
        assert!(matches!(granted, Reply::Granted { fence } if fence > revision), "{key}: {granted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restore_makes_the_content_what_it_was_and_frees_no_lock_too_early(
        before in proptest::collection::vec(prop_oneof![model::draw(), model::lock_draw()], 0..40),
        after in proptest::collection::vec(prop_oneof![model::draw(), model::lock_draw()], 0..40),
        foreign in any::<bool>(),
    ) {
        check(before, after, foreign);
    }
}
