//! Linearizability by search (R1): is there any order of one key's operations, true to real time, that the sequential
//! [`register`](super::register) could have answered in this way? The second opinion beside
//! [`revision_order`](super::revision_order): exponential at worst, so it has a budget, and it trusts no order of revisions.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of configurations (2017): take the operations that may come
//! next, try one, go on, take it back. Two configurations with the same operations done and the same content have the same
//! future, so none is tried twice.
//!
//! Unknown outcomes make that expensive: such a write may come at any time, or never. Three facts tame it. A write that
//! was read did happen, before that read ended. A write that nobody read matters only to conditions and to reads that
//! miss the key. And such writes are alike if their condition is, so of each condition only the oldest is tried.

use std::collections::{BTreeMap, BTreeSet};

use super::register::{Condition, Content, Step};
use super::verdict::Verdict;
use super::versions::Versions;
use crate::history::{Operation, Outcome};

/// Steps for one key that a search may take unless told otherwise: about a second and 100 MB at worst.
pub const BUDGET: u64 = 1_000_000;

/// Searches an order of the operations of one key, given in the order of their starts, in at most `budget` steps. To
/// explain a violation takes at most as many again.
pub fn check(operations: &[&Operation], budget: u64) -> Verdict {
    match Search::new(operations).run(budget) {
        Found::Order { .. } => Verdict::Ok,
        Found::OutOfBudget => Verdict::GaveUp { steps: budget },
        Found::NoOrder { until, .. } => explain(operations, until, budget),
    }
}

enum Found {
    Order {
        steps: u64,
    },
    /// No order gets beyond the end of an operation at `until`.
    NoOrder {
        until: u64,
        steps: u64,
    },
    OutOfBudget,
}

/// An operation of the search.
struct Task {
    step: Step,
    start: u64,
    /// Before this position it has taken effect.
    deadline: u64,
}

/// Writes that may have happened, that nobody read, and that differ only in their starts, which are in order.
#[derive(Default)]
struct Twins {
    tasks: Vec<Task>,
    /// As many of the oldest are done.
    done: usize,
}

/// One operation that the search chose, and how to go on once it is taken back.
struct Choice {
    task: Cursor,
    content: Content,
}

/// The operation that the search looks at.
#[derive(Clone, Copy)]
enum Cursor {
    /// An event in the list of required operations.
    Required { event: usize },
    /// The oldest optional operation under one of [`Condition::that_hold`], which must have started before a position.
    Optional { nth: usize, until: u64 },
}

/// The events of operations that must have happened, in order, without those of the operations that are done. Event 0 is
/// before the first; the last is after all others.
struct Events {
    /// The operation of each event, `None` at both ends.
    tasks: Vec<Option<usize>>,
    /// The event that ends an operation, by operation.
    ends: Vec<usize>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

struct Search {
    required: Vec<Task>,
    optional: BTreeMap<Condition, Twins>,
    events: Events,
    fingerprint: u128,
    content: Content,
    /// Where the search has been; see [`Search::visit`].
    visited: BTreeMap<(u128, Content), Vec<[usize; 5]>>,
}

impl Search {
    fn new(operations: &[&Operation]) -> Search {
        let versions = Versions::learn(operations);
        // A put has happened before the first end of a read that found its value.
        let mut read_by: BTreeMap<u64, u64> = BTreeMap::new();
        for read in operations {
            let Some(found) = read.found() else { continue };
            let end = read_by.entry(found.value).or_insert(u64::MAX);
            *end = read.settled().min(*end);
        }
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        for &operation in operations {
            let is_known = operation.outcome != Outcome::Unknown;
            if operation.outcome == Outcome::Failed || !(is_known || operation.may_be_applied()) {
                continue;
            }
            let read = operation.written_value().and_then(|value| read_by.get(&value).copied());
            // If the read ended before the put began, the search ends there too: nothing explains that read.
            let deadline = read.map_or(operation.settled(), |read| read.min(operation.settled()));
            let task = Task { step: Step::new(operation, &versions), start: operation.start, deadline };
            if is_known || read.is_some() { required.push(task) } else { optional.push(task) }
        }
        drop_irrelevant(&required, &mut optional);
        let mut twins: BTreeMap<Condition, Twins> = BTreeMap::new();
        for task in optional {
            if let Step::Write { condition, .. } = task.step {
                twins.entry(condition).or_default().tasks.push(task);
            }
        }
        let events = Events::new(&required);
        let content = Content::Absent;
        Search { required, optional: twins, events, fingerprint: 0, content, visited: BTreeMap::new() }
    }

    fn run(mut self, budget: u64) -> Found {
        let mut choices: Vec<Choice> = Vec::new();
        let mut cursor = Cursor::Required { event: self.events.first() };
        let mut furthest = 0;
        for steps in 0..budget {
            let chosen = match cursor {
                Cursor::Required { event } => {
                    let Some(task) = self.events.tasks[event] else { return Found::Order { steps } };
                    if self.events.ends[task] == event {
                        // It has to be done before anything else may start: only what need not be done can still help.
                        let until = self.required[task].deadline;
                        furthest = furthest.max(until);
                        cursor = Cursor::Optional { nth: 0, until };
                        continue;
                    }
                    self.choose(task)
                }
                Cursor::Optional { nth, until } => {
                    let Some(&condition) = Condition::that_hold(self.content).get(nth) else {
                        let Some(choice) = choices.pop() else { return Found::NoOrder { until: furthest, steps } };
                        self.take_back(&choice);
                        cursor = self.after(choice.task);
                        continue;
                    };
                    self.choose_optional(condition, until)
                }
            };
            let Some(content) = chosen else {
                cursor = self.after(cursor);
                continue;
            };
            choices.push(Choice { task: cursor, content: self.content });
            self.content = content;
            if let Cursor::Required { event } = cursor {
                self.events.remove(event);
            }
            cursor = Cursor::Required { event: self.events.first() };
        }
        Found::OutOfBudget
    }

    /// Marks an operation as done and returns the content after it, if it is possible next and leads to where the search
    /// has not been.
    fn choose(&mut self, task: usize) -> Option<Content> {
        let Task { step, start, .. } = self.required[task];
        let content = step.apply(self.content)?;
        let fingerprint = self.fingerprint ^ fingerprint(start);
        self.visit(fingerprint, content).then(|| {
            self.fingerprint = fingerprint;
            content
        })
    }

    /// The same for the oldest of the writes under a condition, if it would change anything.
    fn choose_optional(&mut self, condition: Condition, until: u64) -> Option<Content> {
        let twins = self.optional.get_mut(&condition)?;
        let task = twins.tasks.get(twins.done).filter(|task| task.start < until)?;
        let content = task.step.apply(self.content).filter(|&content| content != self.content)?;
        twins.done += 1;
        if self.visit(self.fingerprint, content) {
            return Some(content);
        }
        self.give_back(condition);
        None
    }

    fn give_back(&mut self, condition: Condition) {
        self.optional.get_mut(&condition).expect("one of them was chosen").done -= 1;
    }

    /// Whether a configuration is new: the required operations that are done, the content, and how many of the optional
    /// operations are spent. To have come here with no more of any spent was no worse.
    fn visit(&mut self, fingerprint: u128, content: Content) -> bool {
        let spent =
            Condition::that_recur().map(|condition| self.optional.get(&condition).map_or(0, |twins| twins.done));
        let no_worse = |a: &[usize; 5], b: &[usize; 5]| a.iter().zip(b).all(|(a, b)| a <= b);
        let visits = self.visited.entry((fingerprint, content)).or_default();
        if visits.iter().any(|before| no_worse(before, &spent)) {
            return false;
        }
        visits.retain(|before| !no_worse(&spent, before));
        visits.push(spent);
        true
    }

    fn take_back(&mut self, choice: &Choice) {
        self.content = choice.content;
        match choice.task {
            Cursor::Required { event } => {
                let task = self.events.restore(event);
                self.fingerprint ^= fingerprint(self.required[task].start);
            }
            Cursor::Optional { nth, .. } => self.give_back(Condition::that_hold(choice.content)[nth]),
        }
    }

    fn after(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Required { event } => Cursor::Required { event: self.events.next[event] },
            Cursor::Optional { nth, until } => Cursor::Optional { nth: nth + 1, until },
        }
    }

    /// Where the optional operations start.
    fn optional_starts(&self) -> BTreeSet<u64> {
        self.optional.values().flat_map(|twins| &twins.tasks).map(|task| task.start).collect()
    }
}

/// Drops unknown writes whose effect nobody can have noticed: nobody read them, so all they can do is to hold or to break
/// a condition, or, by a delete, to have a read miss the key.
fn drop_irrelevant(required: &[Task], optional: &mut Vec<Task>) {
    let is_delete = |task: &Task| matches!(task.step, Step::Write { becomes: Content::Absent, .. });
    if required.iter().any(|task| task.step.is_conditional()) {
        return;
    }
    if !required.iter().any(|task| task.step == Step::Read(Content::Absent)) {
        optional.clear();
    } else if !optional.iter().any(|task| is_delete(task) && task.step.is_conditional()) {
        optional.retain(is_delete);
    }
}

impl Events {
    fn new(required: &[Task]) -> Events {
        // A start and an end never share a position; two ends may, and then their order does not matter.
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (i, task) in required.iter().enumerate() {
            events.extend([(task.start, false, i), (task.deadline, true, i)]);
        }
        events.sort_unstable();
        let mut ends = vec![0; required.len()];
        for (i, &(_, is_end, task)) in events.iter().enumerate() {
            if is_end {
                ends[task] = i + 1;
            }
        }
        let last = events.len() + 1;
        let tasks = events.iter().map(|&(_, _, task)| Some(task));
        let tasks = [None].into_iter().chain(tasks).chain([None]).collect();
        let next = (0..=last).map(|event| (event + 1).min(last)).collect();
        let previous = (0..=last).map(|event| event.saturating_sub(1)).collect();
        Events { tasks, ends, next, previous }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    /// Removes the operation that starts at an event.
    fn remove(&mut self, start: usize) {
        for event in [Some(start), self.end(start)].into_iter().flatten() {
            let (next, previous) = (self.next[event], self.previous[event]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Puts back the operation that was removed last, and returns it.
    fn restore(&mut self, start: usize) -> usize {
        for event in [self.end(start), Some(start)].into_iter().flatten() {
            let (next, previous) = (self.next[event], self.previous[event]);
            self.next[previous] = event;
            self.previous[next] = event;
        }
        self.tasks[start].expect("only events of operations are removed")
    }

    fn end(&self, start: usize) -> Option<usize> {
        self.tasks[start].map(|task| self.ends[task])
    }
}

/// A hash of a set of operations is the exclusive or of these, one for each start (Zobrist 1970). That two of a million sets share one has a
/// probability below 2^-88; a set itself would take space for every operation of the key.
fn fingerprint(start: u64) -> u128 {
    let half = |seed: u64| {
        // SplitMix64 (Steele, Lea and Flood 2014).
        let x = start.wrapping_mul(2).wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}

/// Finds few operations that already contradict each other: those after the first dead end are left out, then the answers
/// of as many others as possible are forgotten, halving what is tried (Zeller's delta debugging, 1999). An answer is only
/// ever taken for unknown, never a request for not made, so what remains is a proof.
fn explain(operations: &[&Operation], until: u64, budget: u64) -> Verdict {
    let mut steps_left = budget;
    let mut is_proof = |kept: &BTreeSet<u64>| {
        let found = weakened(operations, kept).run(steps_left);
        steps_left -= match found {
            Found::Order { steps } | Found::NoOrder { steps, .. } => steps,
            Found::OutOfBudget => steps_left,
        };
        matches!(found, Found::NoOrder { .. })
    };
    let starts = |early: &dyn Fn(&Operation) -> bool| -> BTreeSet<u64> {
        operations.iter().filter(|operation| early(operation)).map(|operation| operation.start).collect()
    };
    // Later reads may have told which revision was whose: then they are needed.
    let early = starts(&|operation| operation.settled() <= until);
    let mut kept = if is_proof(&early) { early } else { starts(&|_| true) };
    let all: Vec<u64> = kept.iter().copied().collect();
    let mut ranges = vec![&all[..]];
    while let Some(range) = ranges.pop() {
        let without: BTreeSet<u64> = kept.iter().copied().filter(|start| range.binary_search(start).is_err()).collect();
        if is_proof(&without) {
            kept = without;
        } else if range.len() > 1 {
            let (first, second) = range.split_at(range.len() / 2);
            ranges.extend([second, first]);
        }
    }
    violation(operations, &kept)
}

/// A search over operations that knows only some of the answers.
fn weakened(operations: &[&Operation], kept: &BTreeSet<u64>) -> Search {
    let weaken = |operation: &&Operation| {
        let outcome = match operation.outcome {
            outcome if kept.contains(&operation.start) => outcome,
            // That it had no effect is kept, why is forgotten.
            Outcome::Written { applied: false } | Outcome::Failed => Outcome::Failed,
            _ => Outcome::Unknown,
        };
        Operation { outcome, ..(*operation).clone() }
    };
    let operations: Vec<Operation> = operations.iter().map(weaken).collect();
    Search::new(&operations.iter().collect::<Vec<_>>())
}

fn violation(operations: &[&Operation], kept: &BTreeSet<u64>) -> Verdict {
    let answers = || operations.iter().filter(|operation| kept.contains(&operation.start));
    let read: BTreeSet<u64> = answers().filter_map(|read| read.found()).map(|found| found.value).collect();
    let end = answers().map(|operation| operation.settled()).max().unwrap_or_default();
    // The puts that were read belong to the proof. Of the other writes only those are shown that the search had to try.
    let (proof, others): (Vec<&Operation>, Vec<&Operation>) = operations.iter().copied().partition(|operation| {
        kept.contains(&operation.start) || operation.written_value().is_some_and(|value| read.contains(&value))
    });
    let tried = weakened(operations, kept).optional_starts();
    let context = others.into_iter().filter(|write| tried.contains(&write.start) && write.start < end);
    let mut verdict = Verdict::violation("R1", "no order of these operations explains their answers", proof);
    if let Verdict::Violation(violation) = &mut verdict {
        violation.context = context.cloned().collect();
    }
    verdict
}
