//! The cost of applying one write to the state, as the store grows, and of publishing it.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate::state::{Command, Entry, Key, LogTime, State};

fn set(key: u64, value: &Bytes) -> Entry {
    let key = Key::from(format!("bench/{key:012}").as_str());
    let command = Command::KvSet { key, value: value.clone(), flags: 0, cas: None };
    Entry { time: LogTime(1), request: None, command }
}

fn filled(keys: u64, value: &Bytes) -> State {
    let mut state = State::default();
    let mut touched = Vec::new();
    for key in 0..keys {
        state.apply(1, &set(key, value), &mut touched);
        touched.clear();
    }
    state
}

/// Overwrites spread over the keys; a snapshot is taken every 32 entries, as publishing does under load.
fn overwrite(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply/overwrite");
    group.throughput(Throughput::Elements(32)).measurement_time(Duration::from_secs(3));
    let values = [Bytes::from(vec![1; 256]), Bytes::from(vec![2; 256])];
    for keys in [1_000u64, 100_000, 1_000_000] {
        let mut state = filled(keys, &Bytes::from(vec![0; 256]));
        let mut touched = Vec::new();
        let mut next = 0u64;
        group.bench_function(BenchmarkId::from_parameter(keys), |b| {
            b.iter(|| {
                let published = state.clone();
                for _ in 0..32 {
                    next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    black_box(state.apply(
                        1,
                        &set((next >> 33) % keys, &values[(next >> 32) as usize % 2]),
                        &mut touched,
                    ));
                }
                touched.clear();
                published
            });
        });
    }
    group.finish();
}

/// Comparing a state with an older one, as a checkpoint does: the cost follows the change.
fn changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply/changes_since");
    group.measurement_time(Duration::from_secs(3)).sample_size(10);
    let older = filled(1_000_000, &Bytes::from(vec![0; 256]));
    for changed in [1_000u64, 100_000] {
        let mut newer = older.clone();
        for key in 0..changed {
            newer.apply(1, &set(key * (1_000_000 / changed), &Bytes::from_static(b"changed")), &mut Vec::new());
        }
        group.bench_function(BenchmarkId::from_parameter(changed), |b| {
            b.iter(|| {
                let mut rows = 0u64;
                newer.changes_since(&older, &mut |row| {
                    black_box(row);
                    rows += 1;
                });
                rows
            });
        });
    }
    group.finish();
}

criterion_group!(benches, overwrite, changes);
criterion_main!(benches);
