//! A correct store and its concurrent clients, drawn by proptest: what it shows is fine by construction.

use proptest::prelude::*;

use crate::history::{Call, Found, History, Operation, OperationId, Outcome};
use crate::player::Player;

/// One request of a plan.
#[derive(Debug, Clone)]
pub struct Request {
    client: u8,
    key: u8,
    kind: u8,
    condition: u8,
    fate: Fate,
}

/// What the network and the servers make of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    /// Applied, but the answer is lost.
    AnswerLost,
    /// The request is lost; the client gives up.
    RequestLost,
    /// The client gives up first, and the request is applied later.
    Late,
}

/// Requests and the order in which things happen to them.
#[derive(Debug, Clone)]
pub struct Plan {
    requests: Vec<Request>,
    schedule: Vec<u8>,
}

/// Plans of `requests` requests by three clients on `keys` keys.
pub fn plans(requests: std::ops::RangeInclusive<usize>, keys: u8) -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Refused),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::Late),
    ];
    let request = (0..3u8, 0..keys, 0..10u8, 0..9u8, fate);
    let request =
        request.prop_map(|(client, key, kind, condition, fate)| Request { client, key, kind, condition, fate });
    let steps = *requests.end() * 4;
    (prop::collection::vec(request, requests), prop::collection::vec(any::<u8>(), steps))
        .prop_map(|(requests, schedule)| Plan { requests, schedule })
}

#[derive(Default)]
struct Store {
    rows: std::collections::BTreeMap<String, Found>,
    revision: u64,
    /// Newest change of any key.
    newest: u64,
}

impl Store {
    fn apply(&mut self, key: &str, call: Call) -> Outcome {
        let row = self.rows.get(key).copied();
        let index = row.map_or(0, |row| row.modify_index);
        let applied = match call {
            Call::Get => return Outcome::Read { found: row, index: row.map_or(self.newest.max(1), |_| index) },
            Call::Put { cas, .. } => cas.is_none_or(|cas| cas == index),
            Call::Delete { cas } => row.is_none() || cas.is_none_or(|cas| cas == index),
        };
        match call {
            Call::Put { value, .. } if applied => {
                self.revision += 1;
                self.newest = self.revision;
                let create_index = row.map_or(self.revision, |row| row.create_index);
                self.rows.insert(key.into(), Found { value, modify_index: self.revision, create_index });
            }
            Call::Delete { .. } if applied && row.is_some() => {
                self.revision += 1;
                self.newest = self.revision;
                self.rows.remove(key);
            }
            _ => {}
        }
        Outcome::Written { applied }
    }
}

/// A request that is on its way.
struct Open {
    id: OperationId,
    key: String,
    call: Call,
    fate: Fate,
    answer: Option<Outcome>,
}

/// Distance between two events: room for tests that move one.
pub const TICK: u64 = 100;

/// Runs a plan and returns what the clients saw.
pub fn run(plan: &Plan) -> History {
    let mut store = Store { revision: 2, ..Store::default() };
    let (mut history, mut now) = (History::default(), 0);
    let mut waiting: Vec<Vec<&Request>> = vec![Vec::new(); 3];
    plan.requests.iter().rev().for_each(|request| waiting[usize::from(request.client)].push(request));
    let mut open: [Option<Open>; 3] = [None, None, None];
    let mut late: Vec<Open> = Vec::new();
    let mut value = 0;
    let drain = (0..3u8).cycle().take(plan.requests.len() * 9);
    for choice in plan.schedule.iter().copied().chain(drain) {
        now += TICK;
        if choice >= 224 && !late.is_empty() {
            let late = late.remove(usize::from(choice) % late.len());
            store.apply(&late.key, late.call);
            continue;
        }
        let client = usize::from(choice % 3);
        match open[client].take() {
            None => {
                let Some(request) = waiting[client].pop() else { continue };
                value += 1;
                let key = format!("k{}", request.key);
                let call = request.call(value, &store, &key);
                let id = history.invoke(now, Player::client(client as u32), &key, call);
                open[client] = Some(Open { id, key, call, fate: request.fate, answer: None });
            }
            Some(Open { id, answer: Some(answer), .. }) => history.complete(now, id, answer),
            Some(mut request) => match request.fate {
                Fate::Refused => history.complete(now, request.id, Outcome::Failed),
                // Half of the clients hang up without a word.
                Fate::RequestLost if choice < 128 => {}
                Fate::RequestLost => history.complete(now, request.id, Outcome::Unknown),
                Fate::Late => late.push(request),
                Fate::Answered | Fate::AnswerLost => {
                    let answer = store.apply(&request.key, request.call);
                    let known = request.fate == Fate::Answered;
                    request.answer = Some(if known { answer } else { Outcome::Unknown });
                    open[client] = Some(request);
                }
            },
        }
    }
    history
}

impl Request {
    fn call(&self, value: u64, store: &Store, key: &str) -> Call {
        let index = store.rows.get(key).map_or(0, |row| row.modify_index);
        let cas = match self.condition {
            0 => Some(0),
            1..=3 => Some(index),
            4 => Some(index + 1),
            5 => Some(store.revision + 1),
            _ => None,
        };
        match self.kind {
            0..5 => Call::Put { value, cas },
            5..9 => Call::Get,
            _ => Call::Delete { cas },
        }
    }
}

/// A change to a history that may or may not be one that a correct store could have shown.
pub type Mutation = (u8, u8, u8);

/// Applies a mutation.
pub fn mutate(operations: &mut [Operation], (which, how, what): Mutation) {
    let count = operations.len();
    let written: Vec<u64> = operations.iter().filter_map(Operation::written_value).collect();
    let which = usize::from(which) % count;
    let step = u64::from(what % 8);
    let operation = &mut operations[which];
    if how % 4 == 0 && operation.end.is_some() {
        // Ends earlier or later than it did; the last digits keep positions distinct.
        let moved = (operation.end.unwrap_or(0) + step * TICK).saturating_sub(4 * TICK).max(operation.start);
        operation.end = Some(moved / TICK * TICK + 1 + which as u64);
        return;
    }
    operation.outcome = match operation.outcome {
        Outcome::Read { .. } if how % 5 == 0 => Outcome::Read { found: None, index: step + 1 },
        Outcome::Read { found: Some(found), .. } if how % 2 == 0 => {
            let modify_index = (found.modify_index + step).saturating_sub(3).max(1);
            Outcome::Read { found: Some(Found { modify_index, ..found }), index: modify_index }
        }
        Outcome::Read { found: Some(found), index } if how % 7 == 0 => {
            let create_index = (found.create_index + step).saturating_sub(3).max(1);
            Outcome::Read { found: Some(Found { create_index, ..found }), index }
        }
        Outcome::Read { .. } if !written.is_empty() => {
            let value = written[usize::from(what) % written.len()];
            let found = Found { value, modify_index: step + 3, create_index: 3 + step / 2 };
            Outcome::Read { found: Some(found), index: found.modify_index }
        }
        Outcome::Written { applied } if how % 2 == 0 => Outcome::Written { applied: !applied },
        Outcome::Unknown if operation.call != Call::Get && operation.end.is_some() => {
            Outcome::Written { applied: how % 2 == 0 }
        }
        Outcome::Written { .. } if how % 3 == 0 => Outcome::Failed,
        Outcome::Written { .. } => Outcome::Unknown,
        other => other,
    };
}
