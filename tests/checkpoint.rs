//! The contract of `CheckpointStore`, checked on every store against a naive model; and what only fjall can get wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]
// These tests stand in for the operating system and the operator: they damage, copy and fill directories.
#![allow(clippy::disallowed_methods, missing_docs)]

#[path = "support/faulty_checkpoint.rs"]
mod faulty_checkpoint;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use faulty_checkpoint::{Checkpoint, Fault, FaultyCheckpoint, FaultyDisk};
use proptest::prelude::*;
use quorate::error::{Error, Result};
use quorate::storage::CheckpointStore;
use quorate::storage::checkpoint::{CheckpointRow, FjallCheckpoint, MemoryCheckpoint};
use quorate::world::{World, real};
use tempfile::TempDir;

// --- The contract -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Update {
    install: bool,
    checkpoint: Checkpoint,
    removed: Vec<(u8, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Op {
    Update(Update),
    /// An update that goes wrong; the number chooses how.
    Fail(Update, u8),
    /// A clean close, then open.
    Reopen,
    Crash,
}

impl Update {
    fn rows(&self) -> Vec<CheckpointRow> {
        let kept = self.checkpoint.rows.iter();
        let kept =
            kept.map(|((table, key), row)| CheckpointRow { table: *table, key: key.clone(), row: Some(row.clone()) });
        let removed = self.removed.iter().filter(|key| !self.checkpoint.rows.contains_key(*key));
        let removed = removed.map(|(table, key)| CheckpointRow { table: *table, key: key.clone(), row: None });
        let mut rows: Vec<_> = kept.chain(removed).collect();
        rows.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        rows.dedup_by(|a, b| (a.table, &a.key) == (b.table, &b.key));
        rows
    }

    async fn run(&self, store: &dyn CheckpointStore) -> Result<()> {
        let (meta, rows) = (self.checkpoint.meta.clone(), Box::new(self.rows()));
        if self.install { store.install(meta, rows).await } else { store.write(meta, rows).await }
    }

    /// What the model holds after it.
    fn after(&self, before: &Option<Checkpoint>) -> Option<Checkpoint> {
        let mut next = if self.install { None } else { before.clone() }.unwrap_or_default();
        self.rows().into_iter().for_each(|row| next.apply(row));
        next.meta = self.checkpoint.meta.clone();
        Some(next)
    }
}

fn updates() -> impl Strategy<Value = Update> {
    let key = || (0..3u8, prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3));
    let row = prop::collection::vec(any::<u8>(), 0..40);
    let checkpoint = (prop::collection::vec(any::<u8>(), 0..8), prop::collection::btree_map(key(), row, 0..12))
        .prop_map(|(meta, rows)| Checkpoint { meta, rows });
    (prop::bool::weighted(0.3), checkpoint, prop::collection::vec(key(), 0..6))
        .prop_map(|(install, checkpoint, removed)| Update { install, checkpoint, removed })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => updates().prop_map(Op::Update),
        2 => (updates(), 0..8u8).prop_map(|(update, how)| Op::Fail(update, how)),
        1 => Just(Op::Reopen),
        2 => Just(Op::Crash),
    ];
    prop::collection::vec(op, 1..14)
}

/// One kind of store, and what can happen to it.
#[async_trait]
trait Subject: Send + Sync {
    fn store(&self) -> &dyn CheckpointStore;
    async fn reopen(&mut self);
    async fn crash(&mut self);
    /// Runs an update that must fail, in one of several ways.
    async fn fail(&mut self, update: &Update, how: u8) -> Result<()>;
}

async fn load(store: &dyn CheckpointStore) -> Result<Option<Checkpoint>> {
    let loaded = Arc::new(Mutex::new(Vec::new()));
    let rows = loaded.clone();
    let meta = store.load(Box::new(move |row| rows.lock().unwrap().push(row))).await?;
    let rows = std::mem::take(&mut *loaded.lock().unwrap());
    assert!(rows.is_sorted_by(|a, b| (a.table, &a.key) < (b.table, &b.key)), "rows are ascending");
    assert!(rows.iter().all(|row| row.row.is_some()), "no row is a removal");
    assert!(meta.is_some() || rows.is_empty(), "rows without a checkpoint");
    Ok(meta.map(|meta| {
        let mut checkpoint = Checkpoint { meta, ..Checkpoint::default() };
        rows.into_iter().for_each(|row| checkpoint.apply(row));
        checkpoint
    }))
}

async fn keeps_the_contract(mut subject: impl Subject, ops: Vec<Op>) {
    let mut model = None;
    for op in ops {
        match op {
            Op::Update(update) => {
                update.run(subject.store()).await.unwrap();
                model = update.after(&model);
            }
            Op::Fail(update, how) => {
                let failure = subject.fail(&update, how).await;
                assert!(matches!(failure, Err(Error::Operator(_))), "{failure:?}");
                let now = load(subject.store()).await.unwrap();
                let after = update.after(&model);
                assert!(now == model || now == after, "{now:?} is neither {model:?} nor {after:?}");
                model = now;
            }
            Op::Reopen => subject.reopen().await,
            Op::Crash => subject.crash().await,
        }
        assert_eq!(load(subject.store()).await.unwrap(), model);
    }
}

fn run<F: Future>(test: impl FnOnce(World) -> F) -> F::Output {
    real::block_on(test).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn fjall_keeps_the_contract(ops in ops()) {
        run(async |world| keeps_the_contract(FjallSubject::new(world).await, ops).await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_faulty_store_keeps_the_contract(ops in ops()) {
        let disk = FaultyDisk::default();
        run(async |_| keeps_the_contract(FaultySubject { store: disk.open(), disk }, ops).await);
    }

    #[test]
    fn the_store_in_memory_keeps_the_contract(ops in ops()) {
        run(async |_| keeps_the_contract(MemoryCheckpoint::new(), ops).await);
    }
}

struct FaultySubject {
    disk: FaultyDisk,
    store: FaultyCheckpoint,
}

#[async_trait]
impl Subject for FaultySubject {
    fn store(&self) -> &dyn CheckpointStore {
        &self.store
    }

    async fn reopen(&mut self) {
        self.store = self.disk.open();
    }

    async fn crash(&mut self) {
        self.disk.lose_power();
        self.store = self.disk.open();
    }

    async fn fail(&mut self, update: &Update, how: u8) -> Result<()> {
        match how {
            0 => self.disk.fail_next(Fault::Refused),
            1 => self.disk.fail_next(Fault::KeptAnyway),
            steps => return self.lose_power_at(update, steps).await,
        }
        update.run(&self.store).await
    }
}

impl FaultySubject {
    async fn lose_power_at(&mut self, update: &Update, steps: u8) -> Result<()> {
        let store = std::mem::replace(&mut self.store, self.disk.open());
        let mut running = Box::pin(update.run(&store));
        let mut ended = false;
        for _ in 1..steps {
            ended = ended || futures_util::poll!(running.as_mut()).is_ready();
        }
        self.disk.lose_power();
        self.store = self.disk.open();
        if ended { Err(Error::Operator("the caller died".into())) } else { running.await }
    }
}

/// Nothing happens to it that ends before its process does.
#[async_trait]
impl Subject for MemoryCheckpoint {
    fn store(&self) -> &dyn CheckpointStore {
        self
    }
    async fn reopen(&mut self) {}
    async fn crash(&mut self) {}
    async fn fail(&mut self, _: &Update, _: u8) -> Result<()> {
        Err(Error::Operator("memory does not fail".into()))
    }
}

// --- fjall ------------------------------------------------------------------------------------------------------------

struct FjallSubject {
    world: World,
    dir: TempDir,
    store: Option<FjallCheckpoint>,
}

impl FjallSubject {
    async fn new(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallCheckpoint::open(&world, dir.path()).await.unwrap();
        FjallSubject { world, dir, store: Some(store) }
    }

    async fn reopen_in(&mut self, dir: TempDir) {
        drop(self.store.take());
        self.store = Some(FjallCheckpoint::open(&self.world, dir.path()).await.unwrap());
        self.dir = dir;
    }

    /// The number of the current generation; 0 if there is none.
    fn generation(&self) -> u64 {
        let names = entries(self.dir.path()).into_iter();
        names.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).max().unwrap_or(0)
    }

    fn path(&self, name: impl ToString) -> PathBuf {
        self.dir.path().join(name.to_string())
    }
}

#[async_trait]
impl Subject for FjallSubject {
    fn store(&self) -> &dyn CheckpointStore {
        self.store.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(FjallCheckpoint::open(&self.world, self.dir.path()).await.unwrap());
    }

    /// Goes on from a copy that was made while the database was open.
    async fn crash(&mut self) {
        let image = crash_image(self.dir.path());
        self.reopen_in(image).await;
    }

    /// A write cannot create its table file; an install cannot begin, or cannot become current.
    async fn fail(&mut self, update: &Update, how: u8) -> Result<()> {
        let current = self.generation();
        let tables = self.path(current).join("keyspaces/1/tables");
        let taken = tables.with_extension("taken");
        let obstacle = self.path(format!("{}{}", current + 1, if how.is_multiple_of(2) { "" } else { ".new" }));
        if current > 0 {
            fs::rename(&tables, &taken).unwrap();
        }
        fs::write(&obstacle, []).unwrap();
        let result = update.run(self.store()).await;
        fs::remove_file(&obstacle).unwrap();
        if current > 0 {
            fs::rename(&taken, &tables).unwrap();
        }
        if how < 4 {
            self.crash().await;
        }
        result
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every file below a directory, with its size and when it was written.
fn files(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(meta) = fs::metadata(&path) {
            found.push((path, meta.len(), meta.modified().unwrap()));
        }
    }
    found.sort();
    found
}

/// Copies a directory as it is at one instant: again, if the merging thread changed it meanwhile.
fn crash_image(dir: &Path) -> TempDir {
    loop {
        let image = tempfile::tempdir().unwrap();
        let before = files(dir);
        let copied = before.iter().all(|(path, len, _)| {
            let to = image.path().join(path.strip_prefix(dir).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            // The journal is 64 MiB of nothing.
            if path.extension().is_some_and(|extension| extension == "jnl") {
                return fs::File::create(&to).and_then(|file| file.set_len(*len)).is_ok();
            }
            fs::copy(path, &to).is_ok()
        });
        if copied && files(dir) == before {
            return image;
        }
    }
}

#[expect(clippy::box_collection, reason = "the store takes boxed rows, and some tests change them first")]
fn rows(keys: std::ops::Range<u32>, fill: u8) -> Box<Vec<CheckpointRow>> {
    let row = |key: u32| CheckpointRow { table: 1, key: key.to_be_bytes().to_vec(), row: Some(vec![fill; 300]) };
    Box::new(keys.map(row).collect())
}

fn operator_says(result: Result<impl Sized>, part: &str) {
    match result {
        Err(Error::Operator(sentence)) => assert!(sentence.contains(part), "{sentence}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it succeeded"),
    }
}

/// A file system of 8 MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None without the right to mount.
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path());
        mount.output().ok()?.status.success().then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

#[test]
fn a_full_disk_fails_writes_and_is_recovered_from_once_space_is_freed() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not tested: this needs the right to mount");
        return;
    };
    run(async |world| {
        let ballast = disk.0.path().join("ballast");
        let store = FjallCheckpoint::open(&world, &disk.0.path().join("checkpoint")).await.unwrap();
        store.write(b"old".to_vec(), rows(0..1000, 1)).await.unwrap();
        let old = load(&store).await.unwrap();
        fs::write(&ballast, vec![0; 6 << 20]).unwrap();
        for _ in 0..3 {
            operator_says(store.write(b"new".to_vec(), rows(0..10_000, 2)).await, "free some space");
            operator_says(store.install(b"new".to_vec(), rows(0..10_000, 2)).await, "free some space");
            assert_eq!(load(&store).await.unwrap(), old);
        }
        fs::remove_file(&ballast).unwrap();
        store.write(b"new".to_vec(), rows(0..10_000, 2)).await.unwrap();
        let new = load(&store).await.unwrap().unwrap();
        assert_eq!((new.meta.as_slice(), new.rows.len()), (b"new".as_slice(), 10_000));
        assert!(new.rows.values().all(|row| row == &[2; 300]));
    });
}

#[test]
fn a_changed_byte_is_refused_or_harmless_and_never_wrong_data() {
    run(async |world| {
        let mut subject = FjallSubject::new(world.clone()).await;
        subject.store().install(b"meta".to_vec(), rows(0..200, 1)).await.unwrap();
        subject.store().write(b"meta".to_vec(), rows(100..300, 2)).await.unwrap();
        let whole = load(subject.store()).await.unwrap();
        drop(subject.store.take());
        let mut refused = 0;
        for (path, len, _) in files(subject.dir.path()) {
            for at in (0..len).step_by((len as usize / 8).max(1)).take(if len < 1 << 20 { 9 } else { 1 }) {
                let image = crash_image(subject.dir.path());
                let path = image.path().join(path.strip_prefix(subject.dir.path()).unwrap());
                let mut bytes = fs::read(&path).unwrap();
                bytes[at as usize] ^= 0x20;
                fs::write(&path, bytes).unwrap();
                let found = match FjallCheckpoint::open(&world, image.path()).await {
                    Ok(store) => load(&store).await,
                    Err(refusal) => Err(refusal),
                };
                match found {
                    Ok(found) => assert_eq!(found, whole, "{} at {at}", path.display()),
                    Err(Error::Operator(_)) => refused += 1,
                    Err(other) => panic!("{other:?} for {} at {at}", path.display()),
                }
            }
        }
        assert!(refused > 20, "only {refused} were refused");
    });
}

#[test]
fn a_generation_without_its_rows_is_refused() {
    run(async |world| {
        let mut subject = FjallSubject::new(world.clone()).await;
        subject.store().install(b"meta".to_vec(), rows(0..10, 1)).await.unwrap();
        drop(subject.store.take());
        fs::remove_dir_all(subject.path("1/keyspaces/1")).unwrap();
        operator_says(FjallCheckpoint::open(&world, subject.dir.path()).await, "generation 1 has no rows");
    });
}

#[test]
fn what_an_interrupted_install_leaves_is_removed() {
    run(async |world| {
        let mut subject = FjallSubject::new(world).await;
        subject.store().install(b"old".to_vec(), rows(0..10, 1)).await.unwrap();
        let mut checkpoint = Checkpoint { meta: b"new".to_vec(), ..Checkpoint::default() };
        rows(0..1000, 2).iter().cloned().for_each(|row| checkpoint.apply(row));
        let update = Update { install: true, checkpoint, removed: Vec::new() };
        assert!(subject.fail(&update, 6).await.is_err());
        assert_eq!(entries(subject.dir.path()), [subject.path("1"), subject.path("2.new")]);
        subject.reopen().await;
        assert_eq!(entries(subject.dir.path()), [subject.path("1")]);
        update.run(subject.store()).await.unwrap();
        assert_eq!(entries(subject.dir.path()), [subject.path("2")], "the old generation is removed");
    });
}

#[test]
fn an_old_generation_that_was_half_removed_is_not_read() {
    run(async |world| {
        let mut subject = FjallSubject::new(world).await;
        subject.store().install(b"old".to_vec(), rows(0..10, 1)).await.unwrap();
        let image = crash_image(&subject.path("1"));
        subject.store().install(b"new".to_vec(), rows(0..10, 2)).await.unwrap();
        let new = load(subject.store()).await.unwrap();
        fs::remove_file(image.path().join("version")).unwrap();
        fs::rename(image.path(), subject.path("1")).unwrap();
        subject.reopen().await;
        assert_eq!(load(subject.store()).await.unwrap(), new);
        assert_eq!(entries(subject.dir.path()), [subject.path("2")]);
    });
}

#[test]
fn rows_out_of_order_are_a_bug_and_change_nothing() {
    run(async |world| {
        let subject = FjallSubject::new(world).await;
        subject.store().write(b"old".to_vec(), rows(0..10, 1)).await.unwrap();
        let old = load(subject.store()).await.unwrap();
        let mut reversed = rows(0..10, 2);
        reversed.reverse();
        let refused = subject.store().write(b"new".to_vec(), reversed).await;
        assert!(matches!(refused, Err(Error::Bug(_))), "{refused:?}");
        assert_eq!(load(subject.store()).await.unwrap(), old);
        let long = CheckpointRow { table: 0, key: vec![0; 60_000], row: None };
        let refused = subject.store().write(b"new".to_vec(), Box::new(vec![long])).await;
        assert!(matches!(refused, Err(Error::Bug(_))), "{refused:?}");
        subject.store().write(b"new".to_vec(), rows(0..10, 2)).await.unwrap();
    });
}

#[test]
fn a_directory_in_use_is_refused_and_free_once_the_store_is_dropped() {
    run(async |world| {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let store = FjallCheckpoint::open(&world, dir.path()).await.unwrap();
            store.write(b"meta".to_vec(), rows(0..10, 1)).await.unwrap();
            drop(store);
        }
        let _store = FjallCheckpoint::open(&world, dir.path()).await.unwrap();
        operator_says(FjallCheckpoint::open(&world, dir.path()).await, "another process has it open");
    });
}
