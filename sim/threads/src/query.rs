//! A blocking query against the writer whose change it waits for.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use crate::raft::Observer;
use crate::state::{Subject, Touched};
use crate::sync::Mutex;
use crate::watch::{Scope, WatchIndex};

fn touched(revision: u64) -> Touched {
    Touched { revision, subject: Subject::Kv, key: "k".into() }
}

/// A query registers, looks, and waits; a writer changes the state, then publishes. Whatever the order, the query ends
/// with the last change.
pub fn against_writer(register_first: bool) {
    let index = Arc::new(WatchIndex::default());
    let state = Arc::new(Mutex::new(0));
    let writer = {
        let (index, state) = (index.clone(), state.clone());
        thread::spawn(move || {
            for revision in 1..=3 {
                *state.lock().unwrap() = revision;
                index.published(&Arc::default(), Some(&[touched(revision)]));
            }
        })
    };
    let other = {
        let index = index.clone();
        thread::spawn(move || drop(index.wait(Scope::Prefix(Subject::Kv, "".into())).unwrap()))
    };
    let wait = || index.wait(Scope::Key(Subject::Kv, "k".into())).unwrap();
    let first = register_first.then(wait);
    let mut seen = *state.lock().unwrap();
    let wait = first.unwrap_or_else(wait);
    while seen < 3 {
        block_on(wait.changed());
        seen = *state.lock().unwrap();
    }
    drop(wait);
    writer.join().unwrap();
    other.join().unwrap();
    assert_eq!(index.waiting(), 0, "whoever hangs up frees its wait");
}
