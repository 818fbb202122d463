//! Full disks, failed disks, and the order of callbacks.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;

use super::super::record::{ENTRY_OVERHEAD, Record};
use super::*;

#[test]
fn callbacks_come_in_the_order_of_the_calls_and_entries_are_readable_before() {
    block_on(async {
        let wal = open(&FaultyDisk::new(1)).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        for index in 0..20 {
            let order = order.clone();
            wal.append(
                vec![entry(1, index, [0; 600])],
                Box::new(move |result| order.lock().unwrap().push((index, result))),
            );
            assert_eq!(wal.entries(index, index + 1), [entry(1, index, [0; 600])]);
        }
        assert!(order.lock().unwrap().is_empty());
        wal.close().await;
        assert_eq!(*order.lock().unwrap(), (0..20).map(|index| (index, Ok(()))).collect::<Vec<_>>());
        assert!(matches!(append(&wal, vec![entry(1, 20, [])]).await, Err(Error::Retry(_))));
    });
}

#[test]
fn an_append_of_nothing_waits_for_its_turn() {
    block_on(async {
        let wal = open(&FaultyDisk::new(1)).await.unwrap();
        let before = append(&wal, vec![entry(1, 0, [1; 100])]);
        let nothing = append(&wal, vec![]);
        assert_eq!(tokio::join!(before, nothing), (Ok(()), Ok(())));
    });
}

#[test]
fn a_full_disk_refuses_writes_holds_what_was_admitted_and_recovers() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        settle().await;
        disk.lock().room = 2 * SEGMENT + SEGMENT / 2;
        // The second segment is ready; taking it into use asks for a third, for which there is no room.
        let mut index = 0;
        while wal.writable().is_ok() {
            append(&wal, vec![entry(1, index, [3; 1000])]).await.unwrap();
            settle().await;
            index += 1;
        }
        let sentence = wal.writable().unwrap_err().to_string();
        assert!(sentence.starts_with("the disk of /data/wal is full"), "{sentence}");
        // What was admitted has half a segment of room.
        for _ in 0..SEGMENT / 2 / 1200 {
            append(&wal, vec![entry(1, index, [3; 1000])]).await.unwrap();
            index += 1;
        }
        // A follower goes on appending: held, not lost, and not acknowledged.
        let (done, held) = waiter();
        wal.append((index..index + 9).map(|index| entry(1, index, [4; 1000])).collect(), done);
        tokio::pin!(held);
        settle().await;
        assert!(futures_util::poll!(&mut held).is_pending());
        assert_eq!((wal.failure(), wal.last()), (None, Some(position(1, index + 8))));
        // A part of a file is of no use to anyone, and in the way of the one who makes room.
        assert!(!disk.names().contains(&"new.tmp".to_string()), "{:?}", disk.names());

        disk.lock().room = usize::MAX;
        assert_eq!(held.await, Ok(()));
        settle().await;
        assert_eq!(wal.writable(), Ok(()));
        disk.kill();
        assert_eq!(open(&disk).await.unwrap().last(), Some(position(1, index + 8)));
    });
}

#[test]
fn a_purge_makes_the_room_that_a_full_disk_lacks() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        settle().await;
        disk.lock().room = 2 * SEGMENT;
        let mut index = 0;
        while wal.writable().is_ok() {
            append(&wal, vec![entry(1, index, [3; 1000])]).await.unwrap();
            settle().await;
            index += 1;
        }
        purge(&wal, position(1, index - 1)).await.unwrap();
        settle().await;
        assert_eq!(wal.writable(), Ok(()));
    });
}

#[test]
fn closing_ends_the_wait_for_room() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        settle().await;
        disk.lock().room = 0;
        let (done, held) = waiter();
        wal.append((0..40).map(|index| entry(1, index, [4; 1000])).collect(), done);
        settle().await;
        wal.close().await;
        assert!(matches!(held.await, Err(Error::Retry(_))));
    });
}

#[test]
fn a_failed_sync_ends_the_log_and_everything_that_waits() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        settle().await;
        append(&wal, vec![entry(1, 0, "kept")]).await.unwrap();
        disk.lock().fail_sync_in = Some(0);
        let first = append(&wal, vec![entry(1, 1, "lost")]);
        let second = async {
            tokio::task::yield_now().await;
            append(&wal, vec![entry(1, 2, "never written")]).await
        };
        let (first, second) = tokio::join!(first, second);
        let failure = wal.failure().expect("a failure");
        assert!(failure.to_string().contains("the disk failed"), "{failure}");
        assert_eq!((first, second), (Err(failure.clone()), Err(failure.clone())));
        // The disk would take writes again. Nobody may ask it to.
        assert_eq!(append(&wal, vec![entry(1, 1, "again")]).await, Err(failure.clone()));
        assert_eq!(wal.writable(), Err(failure));
    });
}

#[test]
fn a_failure_that_meets_nobody_is_told() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        settle().await;
        append(&wal, vec![entry(1, 0, "kept")]).await.unwrap();
        let mut failed = pin!(wal.failed());
        assert!(failed.as_mut().now_or_never().is_none(), "nothing is wrong yet");
        disk.lock().fail_sync_in = Some(0);
        wal.purge(Position { term: 1, index: 0 }, Box::new(|_| ()));
        assert!(failed.await.to_string().contains("the disk failed"));
        assert!(wal.failed().now_or_never().is_some(), "it is known ever after");
    });
}

#[test]
fn a_batch_found_after_a_failed_sync_is_durable_before_it_is_shown() {
    for seed in 0..20 {
        block_on(async {
            let disk = FaultyDisk::new(seed);
            let wal = open(&disk).await.unwrap();
            settle().await;
            disk.lock().fail_sync_in = Some(0);
            let value = vec![7; 3000];
            append(&wal, vec![entry(1, 0, value.clone())]).await.unwrap_err();
            // The page cache shows it whole, the platter has parts of it.
            disk.kill();
            let seen = open(&disk).await.unwrap().entries(0, 9);
            disk.power_loss();
            assert_eq!(open(&disk).await.unwrap().entries(0, 9), seen, "seed {seed}");
            assert_eq!(seen, [entry(1, 0, value)]);
        });
    }
}

#[test]
fn a_disk_that_refuses_writes_is_named_at_the_start() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        disk.lock().broken = true;
        let error = open(&disk).await.map(drop).unwrap_err();
        assert!(matches!(&error, Error::Operator(text) if text.contains("/data/wal")), "{error}");
    });
}

#[test]
fn an_entry_that_fits_no_segment_changes_nothing() {
    block_on(async {
        let wal = open(&FaultyDisk::new(1)).await.unwrap();
        let entries = vec![entry(1, 0, "small"), entry(1, 1, vec![0; SEGMENT])];
        assert!(matches!(append(&wal, entries).await, Err(Error::TooLarge(_))));
        assert_eq!((wal.last(), wal.bytes(), wal.failure()), (None, 0, None));
        let largest = wal.handle.max_entry - ENTRY_OVERHEAD;
        for index in 0..3 {
            append(&wal, vec![entry(1, index, vec![1; largest])]).await.unwrap();
        }
    });
}

#[test]
fn an_entry_out_of_order_is_a_bug_and_ends_the_log() {
    block_on(async {
        let wal = open(&FaultyDisk::new(1)).await.unwrap();
        append(&wal, vec![entry(1, 0, [])]).await.unwrap();
        assert!(matches!(append(&wal, vec![entry(1, 1, []), entry(1, 3, [])]).await, Err(Error::Bug(_))));
        assert!(wal.failure().is_some());
    });
}

#[test]
fn what_is_committed_never_runs_ahead_of_the_entries_on_disk() {
    block_on(async {
        let disk = FaultyDisk::new(1);
        let wal = open(&disk).await.unwrap();
        // More than one batch; what is committed is known before the first is written.
        let (done, all) = waiter();
        wal.append((0..40).map(|index| entry(1, index, [4; 1000])).collect(), done);
        wal.save_committed(Some(position(1, 39)));
        assert_eq!(wal.committed(), Some(position(1, 39)));
        disk.lock().stop_in = Some(4);
        all.await.unwrap_err();
        disk.kill();
        let said = damage::records(&disk);
        assert!(said.iter().any(|record| matches!(record, Record::Entry(_))));
        assert!(!said.iter().any(|record| matches!(record, Record::Committed(_))), "{said:?}");
        let wal = open(&disk).await.unwrap();
        assert!(wal.last() < Some(position(1, 39)), "the test needs a crash in between");
        assert!(wal.committed() <= wal.last(), "{:?} {:?}", wal.committed(), wal.last());
        append(&wal, (wal.last().map_or(0, |last| last.index + 1)..40).map(|i| entry(1, i, [4; 1000])).collect())
            .await
            .unwrap();
        wal.save_committed(Some(position(1, 39)));
        append(&wal, vec![entry(1, 40, [])]).await.unwrap();
        disk.power_loss();
        assert_eq!(open(&disk).await.unwrap().committed(), Some(position(1, 39)));
    });
}
