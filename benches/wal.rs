//! The log on a real disk: append, one write, one sync, callback. The directory lies under the build's target directory, so
//! it is the disk that you work on.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate::storage::Wal;
use quorate::storage::wal::{EntryKind, LogEntry, Position};
use quorate::world::real;
use tokio::sync::oneshot;

/// Bytes of each entry: a key, a value of 256 bytes, and what is around them.
const ENTRY: usize = 300;

fn entries(from: u64, count: u64, bytes: &Bytes) -> Vec<LogEntry> {
    let entry = |index| {
        let at = Position { term: 1, index };
        LogEntry { at, kind: EntryKind::Command, bytes: bytes.clone() }
    };
    (from..from + count).map(entry).collect()
}

async fn append(wal: &Wal, entries: Vec<LogEntry>) {
    let (send, receive) = oneshot::channel();
    wal.append(entries, Box::new(move |result| drop(send.send(result))));
    receive.await.expect("the callback is called").expect("the disk works");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn append_and_sync(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = real::world();
    let bytes = Bytes::from(vec![7; ENTRY]);
    let mut group = c.benchmark_group("append_and_sync");
    for count in [1, 29, 64] {
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory");
        let wal = runtime.block_on(Wal::open(&world, dir.path(), quorate::limits::SEGMENT_BYTES)).expect("a log");
        let mut next = 0;
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count}_entries"), |b| {
            b.iter_custom(|iterations| {
                runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        append(&wal, black_box(entries(next, count, &bytes))).await;
                        next += count;
                        // Purged as a node would, so that segments are recycled and memory stays flat.
                        if wal.bytes() > 16 << 20 {
                            let upto = Position { term: 1, index: next - 1 };
                            wal.purge(upto, Box::new(|_| ()));
                        }
                    }
                    start.elapsed()
                })
            });
        });
        runtime.block_on(wal.close());
    }
    group.finish();
}

criterion_group!(benches, append_and_sync);
criterion_main!(benches);
