//! The checkpoint in fjall: what changed is written every few seconds, and all of it is read once, at start.

#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate::storage::CheckpointStore;
use quorate::storage::checkpoint::{CheckpointRow, FjallCheckpoint};
use quorate::world::real;

const META: &[u8] = b"meta";

fn rows(count: u32) -> Vec<CheckpointRow> {
    let row = |key: u32| CheckpointRow {
        table: 1,
        key: format!("service/web/instances/{key:08}").into_bytes(),
        row: Some(key.to_le_bytes().repeat(75)),
    };
    (0..count).map(row).collect()
}

fn checkpoint(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The runtime is only there for its threads: each measured call is awaited on its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = real::world();
    let store = runtime.block_on(FjallCheckpoint::open(&world, dir.path())).expect("an empty directory opens");
    runtime.block_on(store.install(META.to_vec(), Box::new(rows(100_000)))).expect("the disk works");

    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(20);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("write_10k_rows_of_300_bytes", |b| {
        b.iter_batched(
            || Box::new(rows(10_000)),
            |rows| runtime.block_on(store.write(META.to_vec(), rows)).expect("the disk works"),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("load_100k_rows_of_300_bytes", |b| {
        b.iter(|| {
            let sink = Box::new(|row| drop(std::hint::black_box(row)));
            runtime.block_on(store.load(sink)).expect("the disk works").expect("there is a checkpoint")
        });
    });
    group.finish();
}

criterion_group!(benches, checkpoint);
criterion_main!(benches);
