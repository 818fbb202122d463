//! Queues of locks (G6): who waits for a key, first come, first served, in the order of the log.
//!
//! A waiter is a session that asked for a lock which it could not have at once. It keeps its place until the lock is handed
//! to it, its time is up, its session ends, or it is called off. A lock is handed over by the very entry that frees it, in
//! the same revision; whoever comes later and does not queue gets nothing that somebody waits for. Only what time alone
//! brings about takes an entry of its own, which the leader proposes: the end of a wait, and of a delay
//! ([`State::next_due`], [`Command::LockPass`](super::Command::LockPass)).

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::{Digest, RowHash};
use super::table::{self, Row, Table};
use super::{Key, LogTime, Reply, State, Step, StoredRow, Subject};
use crate::codec::Stored;
use crate::error::{Error, Result};
use crate::limits::{DUE_WAITERS, MAX_LOCK_WAIT, MAX_WAITERS};

/// The row of a waiter. Its place, the revision at which it came, is in the row's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who waits.
    pub session: Uuid,
    /// First moment of log time at which it waits no more.
    pub until: LogTime,
    /// Revision at which it asked last. A request that was repeated is called off no more: the repeat waits.
    pub asked: u64,
}

impl Stored for Waiter {
    const NAME: &'static str = "waiter";
    const VERSION: u8 = 1;
}

impl Row for Waiter {
    const TABLE: u8 = table::id::WAITERS;

    fn fields(&self, hash: &mut RowHash) {
        hash.bytes(self.session.as_bytes());
        hash.number(self.until.0);
        hash.number(self.asked);
    }
}

/// All queues.
#[derive(Debug, Clone, Default)]
pub struct Queues {
    rows: Table<Waiter>,
    // What follows from the rows, and is not stored.
    by_session: OrdSet<(Uuid, Key)>,
    by_end: OrdSet<(LogTime, Key)>,
    /// Locks that are waited for and free: under a delay, by its end. Such a delay is kept until the lock is handed over.
    parked: OrdSet<(LogTime, Key)>,
}

impl Queues {
    /// The waiters for a lock with their places, in their order.
    pub fn of(&self, lock: &Key) -> impl Iterator<Item = (u64, &Arc<Waiter>)> {
        self.rows.under(prefix(lock)).map(|(key, waiter)| (place(key), waiter))
    }

    /// The place of a session that waits for a lock.
    pub fn place_of(&self, lock: &Key, session: Uuid) -> Option<u64> {
        let prefix = prefix(lock);
        let (of, key) = self.by_session.range((session, prefix.clone())..).next()?;
        (*of == session && key.as_bytes().starts_with(prefix.as_bytes())).then(|| place(key))
    }

    /// Whether somebody waits for a lock.
    pub fn waited_for(&self, lock: &Key) -> bool {
        self.of(lock).next().is_some()
    }

    /// Number of waiters over all locks.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&mut self, key: Key, waiter: Waiter) {
        let (session, until) = (waiter.session, waiter.until);
        if let Some(old) = self.rows.insert(key.clone(), waiter) {
            self.by_end.remove(&(old.until, key.clone()));
        }
        self.by_session.insert((session, key.clone()));
        self.by_end.insert((until, key));
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Waiter>> {
        let waiter = self.rows.remove(key.as_bytes())?;
        self.by_session.remove(&(waiter.session, key.clone()));
        self.by_end.remove(&(waiter.until, key.clone()));
        Some(waiter)
    }

    pub(super) fn load(&mut self, key: Key, waiter: Waiter) {
        self.put(key, waiter);
    }

    pub(super) fn digest(&self) -> Digest {
        self.rows.digest()
    }

    pub(super) fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit(visit);
    }

    pub(super) fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.rows.visit_changes(&older.rows, visit);
    }
}

/// What the keys of a lock's waiters begin with: its length first, so that no lock's begins with another's.
fn prefix(lock: &Key) -> Key {
    let bytes = lock.as_bytes();
    // Longer ones are refused wherever a lock is named.
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Key::from(&[&len.to_be_bytes()[..], bytes].concat()[..])
}

/// A waiter's key.
fn row_key(lock: &Key, place: u64) -> Key {
    Key::from(&[prefix(lock).as_bytes(), &place.to_be_bytes()].concat()[..])
}

fn place(key: &Key) -> u64 {
    let tail = key.as_bytes().last_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(tail)
}

fn lock_of(key: &Key) -> Key {
    let bytes = key.as_bytes();
    Key::from(bytes.get(2..bytes.len().saturating_sub(8)).unwrap_or_default())
}

impl State {
    /// Gives a session a lock, or a place in its queue: the one that it has, if it asks again. Without a wait it is asked for
    /// once, and gets no place.
    pub(super) fn queue_for(
        &mut self,
        lock: &Key,
        session: Uuid,
        wait: Duration,
        step: &mut Step<'_>,
    ) -> Result<Reply> {
        super::kv::check_key(lock)?;
        if wait > MAX_LOCK_WAIT {
            return Err(Error::Request(format!("the wait of {wait:?} is above {MAX_LOCK_WAIT:?}")));
        }
        self.existing(session)?;
        let holder = self.kv.get(lock.as_bytes()).and_then(|row| row.holder);
        if let Some(holder) = holder.filter(|holder| holder.session == session) {
            return Ok(Reply::Granted { fence: holder.fence });
        }
        if holder.is_none() && self.may_take(lock, session, step) {
            return Ok(Reply::Granted { fence: self.give(lock, session, step)? });
        }
        if wait.is_zero() {
            return Ok(Reply::Done(false));
        }
        let place = match self.queues.place_of(lock, session) {
            Some(place) => place,
            None if self.queues.len() >= MAX_WAITERS => {
                return Err(Error::Request(format!("{MAX_WAITERS} sessions wait for locks already: try again later")));
            }
            None => step.revision,
        };
        self.queues.put(row_key(lock, place), Waiter { session, until: step.time + wait, asked: step.revision });
        step.touch(Subject::Lock, lock.clone());
        // It may be free by now, for somebody who came before; or only delayed.
        self.hand_over(lock, step)?;
        Ok(Reply::Queued { place })
    }

    /// Takes a waiter out of a queue, unless it has asked again since; `false` if it waits on, or does not wait.
    pub(super) fn call_off(&mut self, lock: &Key, session: Uuid, asked: u64, step: &mut Step<'_>) -> bool {
        let Some(key) = self.queues.place_of(lock, session).map(|place| row_key(lock, place)) else { return false };
        let latest = self.queues.rows.get(key.as_bytes()).is_some_and(|waiter| waiter.asked == asked);
        if latest {
            self.leave(&key, step);
        }
        latest
    }

    /// Whether a session may be given a lock that is free: no delay holds, and nobody waits before it.
    pub(super) fn may_take(&self, lock: &Key, session: Uuid, step: &Step<'_>) -> bool {
        !self.delays.holds(lock, step.time)
            && self.queues.of(lock).next().is_none_or(|(_, first)| first.session == session)
    }

    /// A lock is held now: it is parked no more, and its holder does not wait for it.
    pub(super) fn granted(&mut self, lock: &Key, holder: Uuid, step: &mut Step<'_>) {
        self.unpark(lock);
        if let Some(place) = self.queues.place_of(lock, holder) {
            self.leave(&row_key(lock, place), step);
        }
    }

    fn unpark(&mut self, lock: &Key) {
        if let Some(until) = self.delays.until(lock) {
            self.queues.parked.remove(&(until, lock.clone()));
        }
    }

    /// Takes a session that has ended out of all queues.
    pub(super) fn leave_all(&mut self, session: Uuid, step: &mut Step<'_>) {
        let from = (session, Key::from(""));
        let waiting = self.queues.by_session.range(from..).take_while(|(id, _)| *id == session);
        let keys: Vec<Key> = waiting.map(|(_, key)| key.clone()).collect();
        keys.iter().for_each(|key| self.leave(key, step));
    }

    fn leave(&mut self, key: &Key, step: &mut Step<'_>) {
        if self.queues.remove(key).is_none() {
            return;
        }
        let lock = lock_of(key);
        if !self.queues.waited_for(&lock) {
            self.unpark(&lock);
        }
        step.touch(Subject::Lock, lock);
    }

    /// Hands over every lock that the step has freed.
    pub(super) fn hand_over_freed(&mut self, step: &mut Step<'_>) -> Result<()> {
        while let Some(lock) = step.freed.pop_first() {
            self.hand_over(&lock, step)?;
        }
        Ok(())
    }

    /// Gives a lock that is free to the first who waits for it, now or when its delay ends.
    fn hand_over(&mut self, lock: &Key, step: &mut Step<'_>) -> Result<()> {
        if self.kv.get(lock.as_bytes()).is_some_and(|row| row.holder.is_some()) {
            return Ok(());
        }
        let Some(session) = self.queues.of(lock).next().map(|(_, first)| first.session) else { return Ok(()) };
        if let Some(until) = self.delays.until(lock).filter(|until| *until > step.time) {
            self.queues.parked.insert((until, lock.clone()));
            return Ok(());
        }
        self.give(lock, session, step).map(drop)
    }

    /// Makes a session the holder of a lock that it may have; returns the fence.
    fn give(&mut self, lock: &Key, session: Uuid, step: &mut Step<'_>) -> Result<u64> {
        let fence = self.kv.grant(lock, session, step)?;
        self.granted(lock, session, step);
        Ok(fence)
    }

    /// Does what time has brought about: ends waits, and hands over locks whose delay has ended. At most [`DUE_WAITERS`] of
    /// each; the leader asks again while there are more.
    pub(super) fn pass_locks(&mut self, step: &mut Step<'_>) -> Result<bool> {
        for _ in 0..DUE_WAITERS {
            let Some((_, key)) = self.queues.by_end.get_min().filter(|(until, _)| *until <= step.time).cloned() else {
                break;
            };
            self.leave(&key, step);
        }
        for _ in 0..DUE_WAITERS {
            let Some(first) = self.queues.parked.get_min().filter(|(until, _)| *until <= step.time).cloned() else {
                break;
            };
            self.queues.parked.remove(&first);
            self.hand_over(&first.1, step)?;
        }
        Ok(step.changed)
    }

    /// When the next [`Command::LockPass`](super::Command::LockPass) has something to do.
    pub fn next_due(&self) -> Option<LogTime> {
        let ends = [&self.queues.by_end, &self.queues.parked].map(|set| set.get_min().map(|(until, _)| *until));
        ends.into_iter().chain([self.staging.until()]).flatten().min()
    }

    /// The queues.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// What follows from the rows of several tables, once all are loaded.
    pub(super) fn park_loaded(&mut self) {
        let mut locks: Vec<Key> = self.queues.by_session.iter().map(|(_, key)| lock_of(key)).collect();
        locks.sort();
        locks.dedup();
        for lock in locks {
            let held = self.kv.get(lock.as_bytes()).is_some_and(|row| row.holder.is_some());
            if let Some(until) = self.delays.until(&lock).filter(|_| !held) {
                self.queues.parked.insert((until, lock));
            }
        }
    }
}
