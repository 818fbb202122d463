//! The disk by itself: what it keeps, what it loses, and what it never does.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::engine::StandingStill;

/// Others are let go first, but nothing takes time.
fn done<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// A disk with a synced file of `sectors` sectors of ones, synced one after the other.
fn disk(seed: u64, sectors: u64) -> SimDisk {
    let disk = SimDisk::new(Rng::new(seed));
    let mounted = disk.mount(Arc::new(StandingStill));
    let file = done(mounted.open(path(), OpenMode::Create)).unwrap();
    for sector in 0..sectors {
        done(file.write_and_sync(sector * SECTOR, vec![1; SECTOR as usize])).unwrap();
    }
    done(mounted.sync_dir(Path::new("/"))).unwrap();
    disk
}

fn path() -> &'static Path {
    Path::new("/a")
}

fn open(disk: &SimDisk) -> Arc<dyn File> {
    done(disk.mount(Arc::new(StandingStill)).open(path(), OpenMode::Write)).unwrap()
}

/// What each sector is full of; `None` if it is mixed.
fn sectors(disk: &SimDisk) -> Vec<Option<u8>> {
    let file = open(disk);
    let bytes = done(file.read_at(0, done(file.size()).unwrap() as usize)).unwrap();
    let of = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]).then_some(sector[0]);
    bytes.chunks(SECTOR as usize).map(of).collect()
}

#[test]
fn a_power_loss_keeps_what_was_synced_and_each_other_sector_or_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed, 4);
        let file = open(&disk);
        done(file.write_at(2 * SECTOR, vec![2; 4 * SECTOR as usize])).unwrap();
        disk.lose_power();
        let after = sectors(&disk);
        assert_eq!(after[..2], [Some(1), Some(1)], "seed {seed}");
        assert!(
            after[2..].iter().all(|sector| sector.is_some()),
            "seed {seed}: a sector is written whole or not at all"
        );
        seen.insert(after);
    }
    assert!(seen.len() > 10, "only {} outcomes of fifty", seen.len());
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    let disk = disk(1, 2);
    done(open(&disk).write_at(SECTOR, vec![2; SECTOR as usize])).unwrap();
    disk.end_process();
    assert_eq!(sectors(&disk), [Some(1), Some(2)]);
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_what_was_lost_stays_lost() {
    let lost = (0..50).any(|seed| {
        let disk = disk(seed, 2);
        let file = open(&disk);
        done(file.write_at(0, vec![2; 2 * SECTOR as usize])).unwrap();
        disk.set_faults(|faults| faults.fail_next_sync = true);
        assert!(done(file.sync()).is_err());
        assert!(disk.faults().sync_failed);
        done(file.sync()).unwrap();
        assert_eq!(sectors(&disk), [Some(2), Some(2)], "the cache still shows it");
        disk.lose_power();
        sectors(&disk) != [Some(2), Some(2)]
    });
    assert!(lost);
}

#[test]
fn a_name_that_was_not_synced_may_be_gone_and_a_renamed_file_has_one_name() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed, 1);
        let mounted = disk.mount(Arc::new(StandingStill));
        done(mounted.rename(path(), Path::new("/b"))).unwrap();
        disk.lose_power();
        seen.insert(done(disk.mount(Arc::new(StandingStill)).list(Path::new("/"))).unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec!["a".to_owned()], vec!["b".to_owned()]]);
}

#[test]
fn damage_strikes_one_old_sector_and_never_what_the_last_sync_kept() {
    for seed in 0..100 {
        let disk = disk(seed, 4);
        let place = disk.damage(Damage::Rot).expect("there is something to damage");
        let after = sectors(&disk);
        let turned: Vec<usize> = (0..4).filter(|sector| after[*sector].is_none()).collect();
        assert_eq!(turned.len(), 1, "seed {seed}: {place}");
        assert_eq!(place, format!("/a sector {}", turned[0]));
        assert_ne!(turned, [3], "seed {seed}");
    }
    assert_eq!(disk(1, 1).damage(Damage::Rot), None);
}

#[test]
fn a_misdirected_write_is_missing_here_and_stands_there() {
    for seed in 0..100 {
        let disk = disk(seed, 3);
        let place = disk.damage(Damage::Misdirected).expect("there is something to damage");
        let after = sectors(&disk);
        assert_eq!(after[2], Some(1), "seed {seed}: {place}");
        // Over itself, it is as it was.
        let zeros = after.iter().filter(|sector| **sector == Some(0)).count();
        assert_eq!(
            zeros,
            usize::from(!place.ends_with(&format!("over {}", place.split(" over").next().unwrap()))),
            "{place}"
        );
    }
}

#[test]
fn a_process_that_has_ended_reaches_nothing_and_holds_no_lock() {
    let disk = disk(1, 1);
    let (before, file) = (disk.mount(Arc::new(StandingStill)), open(&disk));
    let _lock = done(before.lock(Path::new("/lock"))).unwrap();
    assert!(done(disk.mount(Arc::new(StandingStill)).lock(Path::new("/lock"))).is_err());
    disk.end_process();
    assert!(done(file.write_at(0, vec![3])).is_err() && done(before.list(Path::new("/"))).is_err());
    assert!(done(disk.mount(Arc::new(StandingStill)).lock(Path::new("/lock"))).is_ok());
    assert_eq!(sectors(&disk), [Some(1)]);
}
