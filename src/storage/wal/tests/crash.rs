//! Random changes and random crashes, against a model that is a list of states.
//!
//! Each record moves the model to its next state. After a crash the log must be one of the states between the last one
//! that was acknowledged and the last one that was asked for: so nothing acknowledged is lost, nothing is half there,
//! nothing appears that was never written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::super::Vote;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appends this many entries of about this size with one call.
    Append(u64, usize),
    Vote(u64),
    /// Removes this many entries from the end.
    Truncate(u64),
    /// Forgets this many entries from the start, or goes beyond the end.
    Purge(u64),
    Committed,
    /// Waits until everything is acknowledged.
    Flush,
    /// Lets the background work go on a little.
    Turns(u8),
    /// The machine stops after this many more calls to its disk.
    StopIn(u64),
    FailSync(u64),
    Full(bool),
    Kill,
    PowerLoss,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..6u64, prop_oneof![0..40usize, 200..1500usize]).prop_map(|(count, size)| Step::Append(count, size)),
        3 => (1..100u64).prop_map(Step::Vote),
        2 => (0..8u64).prop_map(Step::Truncate),
        3 => (0..30u64).prop_map(Step::Purge),
        2 => Just(Step::Committed),
        3 => Just(Step::Flush),
        6 => (0..40u8).prop_map(Step::Turns),
        2 => (0..40u64).prop_map(Step::StopIn),
        1 => (0..10u64).prop_map(Step::FailSync),
        1 => any::<bool>().prop_map(Step::Full),
        1 => Just(Step::Kill),
        3 => Just(Step::PowerLoss),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    vote: Option<Vote>,
    purged: Option<Position>,
    entries: Vec<LogEntry>,
}

impl State {
    fn of(wal: &Wal) -> State {
        State { vote: wal.vote(), purged: wal.purged(), entries: wal.entries(0, u64::MAX) }
    }

    fn last(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.at).or(self.purged)
    }
}

/// The log, and what it may be after a crash.
struct Run {
    disk: FaultyDisk,
    wal: Wal,
    states: Vec<State>,
    /// The state that was acknowledged last.
    acked: Arc<AtomicUsize>,
    asked: usize,
    answered: Arc<AtomicUsize>,
    committed: Option<Position>,
    term: u64,
}

impl Run {
    async fn new(seed: u64) -> Run {
        let disk = FaultyDisk::new(seed);
        let wal = open(&disk).await.unwrap();
        let (acked, answered) = Default::default();
        Run { disk, wal, states: vec![State::default()], acked, asked: 0, answered, committed: None, term: 1 }
    }

    fn now(&self) -> State {
        self.states.last().unwrap().clone()
    }

    /// A callback for a change that leads to the newest state.
    fn done(&mut self) -> Done {
        let (state, acked, answered) = (self.states.len() - 1, self.acked.clone(), self.answered.clone());
        self.asked += 1;
        let number = self.asked;
        Box::new(move |result| {
            assert_eq!(answered.fetch_add(1, Ordering::Relaxed) + 1, number, "callbacks out of order");
            if result.is_ok() {
                acked.store(state, Ordering::Relaxed);
            }
        })
    }

    async fn step(&mut self, step: Step) {
        let failed = self.wal.failure().is_some();
        let mut state = self.now();
        match step {
            Step::Append(count, size) if !failed => {
                let mut entries = Vec::new();
                for _ in 0..count {
                    let index = state.last().map_or(0, |last| last.index + 1);
                    // No two entries ever have the same bytes.
                    let mut bytes = format!("{}-{index}-{}", self.term, self.states.len()).into_bytes();
                    bytes.resize(size.max(bytes.len()), bytes[0]);
                    entries.push(entry(self.term, index, bytes));
                    state.entries.extend(entries.last().cloned());
                    self.states.push(state.clone());
                }
                let done = self.done();
                self.wal.append(entries, done);
            }
            Step::Vote(term) if !failed => {
                let vote = Vote { term, candidate: 3, committed: term % 2 == 0 };
                self.states.push(State { vote: Some(vote), ..state });
                let done = self.done();
                self.wal.save_vote(vote, done);
            }
            Step::Truncate(count) if !failed => {
                // Raft never truncates what is committed.
                let committed =
                    state.entries.iter().filter(|entry| Some(entry.at.index) <= self.committed.map(|at| at.index));
                let keep = state.entries.len().saturating_sub(count as usize).max(committed.count());
                state.entries.truncate(keep);
                self.term += 1;
                let after = state.last().map(|last| last.index);
                self.states.push(state);
                let done = self.done();
                self.wal.truncate_after(after, done);
            }
            Step::Purge(count) if !failed => {
                let from = state.purged.map_or(0, |purged| purged.index + 1);
                let upto =
                    state.entries.get(count as usize).map_or(position(self.term, from + count), |entry| entry.at);
                state.entries.retain(|entry| entry.at.index > upto.index);
                self.states.push(State { purged: Some(upto), ..state });
                let done = self.done();
                self.wal.purge(upto, done);
            }
            Step::Committed if !failed => {
                self.committed = state.last();
                self.wal.save_committed(self.committed);
            }
            Step::Flush => self.flush().await,
            Step::Turns(count) => {
                for _ in 0..count {
                    tokio::task::yield_now().await;
                }
            }
            Step::StopIn(calls) => self.disk.lock().stop_in = Some(calls),
            Step::FailSync(syncs) => self.disk.lock().fail_sync_in = Some(syncs),
            Step::Full(full) => self.disk.lock().room = if full { 3 * SEGMENT } else { usize::MAX },
            Step::Kill => self.crash(FaultyDisk::kill).await,
            Step::PowerLoss => self.crash(FaultyDisk::power_loss).await,
            Step::Close => {
                self.flush().await;
                self.wal.close().await;
                self.crash(FaultyDisk::power_loss).await;
            }
            _ => {}
        }
        if self.wal.failure().is_none() {
            assert_eq!(State::of(&self.wal), self.now());
        }
    }

    async fn flush(&self) {
        let mut turns = 0;
        while self.answered.load(Ordering::Relaxed) < self.asked {
            turns += 1;
            assert!(turns < 100_000, "the log hangs");
            {
                let mut platter = self.disk.lock();
                platter.room = usize::MAX;
                if platter.stop_in == Some(0) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// The machine goes down in the given way and comes back, perhaps after going down again while it comes back.
    async fn crash(&mut self, down: impl Fn(&FaultyDisk)) {
        down(&self.disk);
        let again = self.disk.names().len() as u64 + self.states.len() as u64;
        if again.is_multiple_of(3) {
            self.disk.lock().stop_in = Some(again % 17);
            let _ = open(&self.disk).await;
            down(&self.disk);
        }
        self.wal = open(&self.disk).await.expect("a crash never damages the log");
        let found = State::of(&self.wal);
        let allowed = &self.states[self.acked.load(Ordering::Relaxed)..];
        assert!(allowed.contains(&found), "found {found:?}\nallowed {allowed:?}");
        let committed = self.wal.committed().map(|at| at.index);
        assert!(committed <= self.committed.map(|at| at.index) && committed <= found.last().map(|at| at.index));
        self.states = vec![found];
        self.committed = self.wal.committed();
        (self.acked, self.asked, self.answered) = Default::default();
        self.term += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_crash_the_log_holds_what_was_acknowledged_and_nothing_else_than_was_asked(
        seed in any::<u64>(),
        steps in steps(),
    ) {
        block_on(async {
            let mut run = Run::new(seed).await;
            for step in steps {
                run.step(step).await;
            }
            run.flush().await;
            run.crash(FaultyDisk::power_loss).await;
            // Nothing piles up: the segments that are needed, the next one, and two spares.
            settle().await;
            let bytes = run.wal.bytes() as usize;
            let names = run.disk.names();
            prop_assert!(names.len() <= 6 + 4 * bytes / SEGMENT, "{bytes} bytes in {names:?}");
            Ok(())
        })?;
    }
}

/// Fills segments, purges them and fills on in the recycled ones, as far as the machine lets it. The last index that
/// was acknowledged.
async fn recycle(wal: &Wal) -> Option<u64> {
    let mut acked = None;
    let from = wal.last().map_or(0, |last| last.index + 1);
    for index in from..from + 5 {
        let (done, result) = waiter();
        wal.append(vec![entry(1, index, vec![index as u8; 9000])], done);
        // It may be held for ever: a machine that has stopped makes no room.
        settle().await;
        if let Some(Ok(())) = result.now_or_never() {
            acked = Some(index);
        }
        if index % 2 == 1 {
            wal.purge(position(1, index - 1), Box::new(|_| ()));
            settle().await;
        }
    }
    acked
}

#[test]
fn a_power_loss_at_any_call_to_the_disk_leaves_a_log_that_can_go_on() {
    let mut calls = 0;
    for stop in 0.. {
        let mut stopped = false;
        for seed in 0..6 {
            block_on(async {
                let disk = FaultyDisk::new(seed);
                let wal = open(&disk).await.unwrap();
                disk.lock().stop_in = Some(stop);
                let acked = recycle(&wal).await;
                stopped = disk.lock().stop_in == Some(0);
                disk.power_loss();
                let wal = open(&disk).await.unwrap();
                assert!(wal.last().map(|last| last.index) >= acked, "call {stop}, seed {seed}");
                // Whatever came back of names and files, it serves for another round.
                let acked = recycle(&wal).await;
                settle().await;
                disk.power_loss();
                let wal = open(&disk).await.unwrap();
                assert_eq!(wal.last().map(|last| last.index), acked, "call {stop}, seed {seed}");
                for entry in wal.entries(0, u64::MAX) {
                    assert_eq!(entry, super::entry(1, entry.at.index, vec![entry.at.index as u8; 9000]));
                }
            });
        }
        calls = stop;
        if !stopped {
            break;
        }
    }
    assert!(calls > 40, "{calls} calls");
}
