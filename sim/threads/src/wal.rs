//! The log's hand-off: what callers queue and the writer takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use shuttle::future::block_on;
use shuttle::thread;

use self::record::Record;
use self::shared::Shared;
use self::tail::Tail;

pub use quorate::storage::wal::{Done, EntryKind, LogEntry, Position, Vote};

#[path = "../../../src/storage/wal/record.rs"]
pub mod record;
#[path = "../../../src/storage/wal/shared.rs"]
pub mod shared;
#[path = "../../../src/storage/wal/tail.rs"]
pub mod tail;

fn entry(index: u64) -> Record {
    Record::Entry(LogEntry { at: Position { term: 1, index }, kind: EntryKind::Command, bytes: Bytes::new() })
}

/// Callers change the log while its writer takes batches, until it is closed or its disk fails: each caller is told exactly
/// once, and the writer ends.
pub fn against_writer(fails: bool) {
    let shared = Arc::new(Shared::new(Tail::default()));
    let (told, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (shared, written) = (shared.clone(), written.clone());
        thread::spawn(move || {
            block_on(async {
                let error = quorate::error::Error::Operator("the disk failed".into());
                while let Some(batch) = shared.next_batch(1 << 20).await {
                    written.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
                    let result = if fails { Err(error.clone()) } else { Ok(()) };
                    batch.dones.into_iter().for_each(|done| done(result.clone()));
                    if fails {
                        shared.fail(&error);
                    }
                }
            });
        })
    };
    let watcher = fails.then(|| {
        let shared = shared.clone();
        thread::spawn(move || drop(block_on(shared.failed())))
    });
    for index in 0..3 {
        let told = told.clone();
        shared.change([entry(index)], Box::new(move |_| _ = told.fetch_add(1, Ordering::Relaxed)));
    }
    if !fails {
        shared.close();
    }
    writer.join().unwrap();
    watcher.into_iter().for_each(|watcher| watcher.join().unwrap());
    assert_eq!(told.load(Ordering::Relaxed), 3, "everyone is told once");
    if !fails {
        assert_eq!(written.load(Ordering::Relaxed), 3, "what was queued before the end is written");
    }
}
