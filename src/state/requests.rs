//! Request ids (R3): a repeated write gets the first answer, or an honest "forgotten", and is never applied twice.
//!
//! A writer numbers its writes from 1 within one incarnation, and says below which number it will repeat nothing: the
//! watermark. What is remembered of an incarnation are the answers from the watermark on, at most [`OPEN_REQUESTS`].
//! They are rows: they outlive failover, restart and snapshot. A write without an id costs nothing here.
//!
//! # New or forgotten?
//! Memory is bounded, so an incarnation is forgotten: when it was idle for [`REQUEST_MEMORY`], or as the least recently
//! used of too many. Its late repeat looks like the first write of a new incarnation, and nothing the writer counts can
//! tell them apart: with nothing acknowledged yet, both are number 1. So an id also says when its incarnation was
//! *born*, as the number of entries that had been applied in a state that the writer knew by then, and we keep the
//! number of the newest entry that used a now forgotten incarnation, `forgotten_before`:
//! - a forgotten incarnation was used after it was born, so `born < forgotten_before`: its repeats are refused for ever;
//! - an incarnation with `born >= forgotten_before` was never forgotten, so if it is unknown it is new.
//!
//! A new incarnation with an old `born`, of a writer that had not heard of the cluster for long, is refused without need.
//! Such a writer has sent one copy only, so it knows that nothing was applied, and starts again with a newer `born`.
//! Entries are counted, not timed, because two entries may have the same log time.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, RowHash};
use super::table::{self, Row, Table};
use super::{Key, LogTime, RequestId, Response, StoredRow};
use crate::codec::Stored;
use crate::limits::{MAX_ANSWERS, MAX_INCARNATIONS, OPEN_REQUESTS, REQUEST_MEMORY};

/// The row of a writer's incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Incarnation {
    /// Answers below this sequence are not remembered.
    pub watermark: u64,
    /// Number of the last entry that used it.
    pub used: u64,
    /// Log time of that entry.
    pub time: LogTime,
}

impl Stored for Incarnation {
    const NAME: &'static str = "incarnation";
    const VERSION: u8 = 1;
}

impl Row for Incarnation {
    const TABLE: u8 = table::id::INCARNATIONS;

    fn fields(&self, hash: &mut RowHash) {
        hash.number(self.watermark);
        hash.number(self.used);
        hash.number(self.time.0);
    }
}

impl Stored for Response {
    const NAME: &'static str = "remembered answer";
    const VERSION: u8 = 1;
}

impl Row for Response {
    const TABLE: u8 = table::id::ANSWERS;
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is the first copy: execute it and [remember](Requests::remember) the answer.
    First,
    /// This was the answer.
    Repeat(Response),
    /// It cannot be known whether it is the first copy.
    Forgotten,
    /// The id breaks the rules.
    Refused(String),
}

/// The number and the log time of the entry that is being applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub entry: u64,
    pub time: LogTime,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    incarnations: Table<Incarnation>,
    /// By incarnation and sequence.
    answers: Table<Response>,
    /// Incarnations by the entry that used them last. Follows from the rows: not stored.
    by_use: OrdMap<u64, Key>,
    forgotten_before: u64,
}

impl Requests {
    /// Decides about a request. Only [`Admission::First`] and [`Admission::Repeat`] change anything: the incarnation is
    /// used, and what its writer acknowledged is dropped, at most [`OPEN_REQUESTS`] answers.
    pub fn admit(&mut self, id: &RequestId, place: Place) -> Admission {
        if id.sequence == 0 {
            return Admission::Refused("request id: sequences count from 1".into());
        }
        if id.born >= place.entry {
            return Admission::Refused("request id: its incarnation was born in the future".into());
        }
        let known = self.incarnations.get(id.incarnation.as_bytes());
        if known.is_none() && id.born < self.forgotten_before {
            return Admission::Forgotten;
        }
        let watermark = id.acknowledged_below.max(known.map_or(1, |known| known.watermark));
        if id.sequence < watermark {
            return Admission::Forgotten;
        }
        if id.sequence - watermark >= OPEN_REQUESTS as u64 {
            return Admission::Refused(format!("request id: more than {OPEN_REQUESTS} requests are open"));
        }
        let answer = self.answers.get(answer_key(id).as_bytes()).map(|answer| Response::clone(answer));
        self.use_incarnation(id, watermark, place);
        answer.map_or(Admission::First, Admission::Repeat)
    }

    /// Remembers the answer of a request that was admitted as the first, and makes room for it.
    pub fn remember(&mut self, id: &RequestId, response: &Response) {
        self.answers.insert(answer_key(id), response.clone());
        // One entry adds at most one of each, and every incarnation has an answer: forgetting one makes room for it.
        if self.incarnations.len() > MAX_INCARNATIONS || self.answers.len() > MAX_ANSWERS {
            self.forget_oldest();
        }
    }

    /// Forgets an incarnation that was idle for too long. One per entry keeps up, because an entry adds at most one.
    pub fn forget_due(&mut self, now: LogTime) {
        let oldest = self.by_use.get_min().and_then(|(_, key)| self.incarnations.get(key.as_bytes()));
        if oldest.is_some_and(|oldest| oldest.time + REQUEST_MEMORY <= now) {
            self.forget_oldest();
        }
    }

    /// See the module's text.
    pub fn forgotten_before(&self) -> u64 {
        self.forgotten_before
    }

    fn use_incarnation(&mut self, id: &RequestId, watermark: u64, place: Place) {
        let key = Key::from(&id.incarnation.as_bytes()[..]);
        let row = Incarnation { watermark, used: place.entry, time: place.time };
        self.by_use.insert(place.entry, key.clone());
        let Some(old) = self.incarnations.insert(key, row) else { return };
        self.by_use.remove(&old.used);
        if old.watermark < watermark {
            let acknowledged = RequestId { sequence: watermark, ..*id };
            self.drop_answers(&id.incarnation.as_bytes()[..], Some(&answer_key(&acknowledged)));
        }
    }

    fn forget_oldest(&mut self) {
        let Some((used, incarnation)) = self.by_use.get_min().cloned() else { return };
        self.by_use.remove(&used);
        self.incarnations.remove(incarnation.as_bytes());
        self.drop_answers(incarnation.as_bytes(), None);
        self.forgotten_before = self.forgotten_before.max(used);
    }

    /// Drops an incarnation's answers below a key, or all.
    fn drop_answers(&mut self, incarnation: &[u8], below: Option<&Key>) {
        let answers = self.answers.prefix(incarnation, None).map(|(key, _)| key);
        let doomed: Vec<Key> = answers.take_while(|key| below.is_none_or(|below| *key < below)).cloned().collect();
        doomed.iter().for_each(|key| drop(self.answers.remove(key.as_bytes())));
    }

    pub fn digest(&self) -> Digest {
        [self.incarnations.digest(), self.answers.digest()].into_iter().sum()
    }

    pub fn visit(&self, visit: &mut dyn FnMut(StoredRow)) {
        self.incarnations.visit(visit);
        self.answers.visit(visit);
    }

    pub fn visit_changes(&self, older: &Self, visit: &mut dyn FnMut(StoredRow)) {
        self.incarnations.visit_changes(&older.incarnations, visit);
        self.answers.visit_changes(&older.answers, visit);
    }

    pub fn load_incarnation(&mut self, key: Key, row: Incarnation) {
        self.by_use.insert(row.used, key.clone());
        self.incarnations.insert(key, row);
    }

    pub fn load_answer(&mut self, key: Key, row: Response) {
        self.answers.insert(key, row);
    }

    pub fn load_forgotten_before(&mut self, entry: u64) {
        self.forgotten_before = entry;
    }
}

/// The incarnation, then the sequence with its highest byte first, so that answers stand in order of their sequence.
fn answer_key(id: &RequestId) -> Key {
    let mut key = [0; 24];
    key[..16].copy_from_slice(id.incarnation.as_bytes());
    key[16..].copy_from_slice(&id.sequence.to_be_bytes());
    Key::from(&key[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Reply;
    use uuid::Uuid;

    const DONE: Response = Response { revision: 1, reply: Reply::Done(true) };

    fn id(incarnation: u64, born: u64, sequence: u64) -> RequestId {
        RequestId { incarnation: Uuid::from_u128(incarnation.into()), born, sequence, acknowledged_below: 1 }
    }

    fn first(requests: &mut Requests, id: RequestId, entry: u64) {
        assert_eq!(requests.admit(&id, Place { entry, time: LogTime(0) }), Admission::First);
        requests.remember(&id, &DONE);
    }

    #[test]
    fn one_incarnation_too_many_forgets_the_least_recently_used() {
        let mut requests = Requests::default();
        let full = MAX_INCARNATIONS as u64;
        for n in 1..=full {
            first(&mut requests, id(n, 0, 1), n);
        }
        // 1 is used again, so 2 is the oldest.
        let place = |entry| Place { entry, time: LogTime(0) };
        assert_eq!(requests.admit(&id(1, 0, 1), place(full + 1)), Admission::Repeat(DONE));
        first(&mut requests, id(full + 1, full, 1), full + 2);

        assert_eq!(requests.admit(&id(1, 0, 1), place(full + 3)), Admission::Repeat(DONE));
        assert_eq!(requests.admit(&id(2, 0, 1), place(full + 4)), Admission::Forgotten);
        assert_eq!(requests.incarnations.len(), MAX_INCARNATIONS);
        assert_eq!(requests.by_use.len(), MAX_INCARNATIONS);
    }

    #[test]
    fn one_answer_too_many_forgets_the_least_recently_used() {
        let mut requests = Requests::default();
        let mut entry = 0;
        for n in 0..=MAX_ANSWERS as u64 {
            entry += 1;
            let (incarnation, sequence) = (n / OPEN_REQUESTS as u64 + 1, n % OPEN_REQUESTS as u64 + 1);
            first(&mut requests, id(incarnation, 0, sequence), entry);
        }
        assert_eq!(requests.answers.len(), MAX_ANSWERS + 1 - OPEN_REQUESTS);
        assert_eq!(requests.admit(&id(1, 0, 1), Place { entry: entry + 1, time: LogTime(0) }), Admission::Forgotten);
    }
}
