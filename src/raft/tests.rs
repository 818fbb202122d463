//! One voter on a disk in memory: what agreement, log, checkpoint and state promise together.
//!
//! The disk and the checkpoint outlive the server, so starting again is a restart after kill -9.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::message::Join;
use super::*;
use crate::state::{Key, Reply, Touched};
use crate::storage::checkpoint::{CheckpointRow, MemoryCheckpoint, Rows};
use crate::world::{MemoryDisk, real};

/// Runs a test on the real clock with a disk of its own.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F) {
    real::block_on(|mut world| {
        world.disk = Arc::new(MemoryDisk::default());
        let (store, seen) = (Arc::new(MemoryCheckpoint::new()), Arc::default());
        test(Machine { world, store, seen, checkpoints: Checkpoints::default() })
    })
    .unwrap();
}

/// What survives a server.
#[derive(Clone)]
struct Machine {
    world: World,
    store: Arc<dyn CheckpointStore>,
    seen: Arc<Seen>,
    checkpoints: Checkpoints,
}

/// Every change that was published, in order.
#[derive(Default)]
struct Seen(Mutex<Vec<Touched>>);

impl Observer for Seen {
    fn published(&self, _view: &Arc<View>, touched: Option<&[Touched]>) {
        self.0.lock().unwrap().extend_from_slice(touched.unwrap_or_default());
    }
}

impl Machine {
    async fn start(&self) -> Result<Raft> {
        let wal = Wal::open(&self.world, Path::new("wal"), limits::SEGMENT_BYTES).await?;
        let member = Member { name: "one".into(), address: "127.0.0.1:8300".into() };
        let cluster = Cluster::open(&self.world, Path::new(""), Uuid::from_u128(1)).await?;
        let (checkpoints, finding) = (self.checkpoints, Finding::default());
        let options = Options { cluster, member, bootstrap: true, multiplier: 1, checkpoints, finding };
        Raft::start(&self.world, options, wal, self.store.clone(), self.seen.clone()).await
    }
}

fn set(key: &str, value: &str) -> Command {
    Command::KvSet { key: key.into(), value: value.to_string().into(), flags: 0, cas: None }
}

async fn get(raft: &Raft, key: &str) -> Option<String> {
    let view = raft.linearizable().await.unwrap();
    view.state.kv().get(key.as_bytes()).map(|row| String::from_utf8_lossy(&row.value).into_owned())
}

#[test]
fn a_write_is_read_and_outlives_a_restart() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        let written = raft.propose(None, set("a", "1")).await.unwrap();
        assert_eq!((written.revision, written.reply), (2, Reply::Done(true)));
        assert_eq!(get(&raft, "a").await.as_deref(), Some("1"));
        assert_eq!(raft.leader().unwrap().1.name, "one");
        raft.shutdown().await;

        let raft = machine.start().await.unwrap();
        assert_eq!(get(&raft, "a").await.as_deref(), Some("1"));
        assert_eq!(raft.propose(None, set("b", "2")).await.unwrap().revision, 3, "the revision goes on");
    });
}

/// Found by the simulator: a disk failed, raft stopped, and who waited for a lead asked again and again, in no time.
#[test]
fn who_waits_for_a_lead_waits_for_ever_once_raft_has_stopped() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.linearizable().await.unwrap();
        let term = raft.leads_in();
        assert!(term.is_some());
        raft.shutdown().await;
        machine.world.sleep(Duration::from_millis(50)).await;
        let waiting = raft.leads_no_more_in(raft.leads_in());
        assert!(machine.world.timeout(Duration::from_millis(50), waiting).await.is_none());
    });
}

#[test]
fn a_checkpoint_lets_go_of_the_log_and_is_where_a_restart_begins() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        for number in 0..50 {
            raft.propose(None, set(&format!("k{number}"), "v")).await.unwrap();
        }
        raft.inner.raft.trigger().snapshot().await.unwrap();
        let mut metrics = raft.inner.raft.data_metrics();
        while metrics.borrow_and_update().snapshot.is_none() {
            metrics.changed().await.unwrap();
        }
        let upto = metrics.borrow_watched().snapshot.unwrap().index;
        raft.inner.raft.trigger().purge_log(upto).await.unwrap();
        while raft.inner.wal.purged().is_none() {
            machine.world.sleep(Duration::from_millis(1)).await;
        }
        raft.propose(None, set("after", "v")).await.unwrap();
        let digest = raft.view().state.digest();
        raft.shutdown().await;
        machine.seen.0.lock().unwrap().clear();

        let raft = machine.start().await.unwrap();
        assert_eq!(get(&raft, "after").await.as_deref(), Some("v"));
        assert_eq!(raft.view().state.digest(), digest);
        let replayed: Vec<Key> = machine.seen.0.lock().unwrap().iter().map(|touched| touched.key.clone()).collect();
        assert_eq!(replayed, ["after".into()], "only what the checkpoint does not hold is replayed");
    });
}

/// Found by killing a server in a loop: what was replayed at the start was taken for a checkpoint, and the log went.
#[test]
fn what_is_replayed_at_the_start_is_no_checkpoint_to_purge_behind() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        for number in 0..10 {
            raft.propose(None, set(&format!("k{number}"), "v")).await.unwrap();
        }
        raft.shutdown().await;
        let raft = machine.start().await.unwrap();
        assert!(raft.view().applied_index() > Some(5), "committed entries are replayed");
        raft.propose(None, set("after", "v")).await.unwrap();
        assert_eq!(raft.inner.raft.data_metrics().borrow_watched().snapshot, None);
    });
}

/// Found by killing a server in a loop: what had to be saved was counted from each start, so the log grew for ever.
#[test]
fn a_server_that_restarts_often_still_takes_checkpoints() {
    run(|machine| async move {
        let value = "v".repeat(256 * limits::KIB);
        let half = limits::CHECKPOINT_LOG_BYTES as usize / value.len() / 2 + 1;
        for life in 0..2 {
            let raft = machine.start().await.unwrap();
            for number in 0..half {
                raft.propose(None, set(&format!("k{life}/{number}"), &value)).await.unwrap();
            }
            if life == 1 {
                let taken = async {
                    let mut metrics = raft.inner.raft.data_metrics();
                    while metrics.borrow_and_update().snapshot.is_none() {
                        metrics.changed().await.unwrap();
                    }
                };
                // A guard shorter than the interval after which a checkpoint is taken anyway.
                machine.world.timeout(limits::CHECKPOINT_INTERVAL / 2, taken).await.expect("a checkpoint by size");
            }
            raft.shutdown().await;
        }
    });
}

#[test]
fn checkpoints_by_time_keep_no_more_of_the_log_than_they_are_told_to() {
    run(|mut machine| async move {
        machine.checkpoints = Checkpoints { interval: Duration::from_millis(1), trailing: 20 };
        let raft = machine.start().await.unwrap();
        for number in 0..50 {
            raft.propose(None, set(&format!("k{number}"), "v")).await.unwrap();
        }
        let newest = raft.view().applied_index().unwrap();
        while raft.inner.wal.purged().is_none_or(|purged| purged.index < newest - 20) {
            machine.world.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(raft.inner.wal.purged().unwrap().index, newest - 20);
    });
}

#[test]
fn a_log_without_its_checkpoint_is_refused() {
    run(|mut machine| async move {
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "1")).await.unwrap();
        raft.inner.raft.trigger().snapshot().await.unwrap();
        let mut metrics = raft.inner.raft.data_metrics();
        while metrics.borrow_and_update().snapshot.is_none() {
            metrics.changed().await.unwrap();
        }
        let upto = metrics.borrow_watched().snapshot.unwrap();
        let (send, purged) = tokio::sync::oneshot::channel();
        raft.inner.wal.purge(types::to_position(&upto), Box::new(|result| drop(send.send(result))));
        purged.await.unwrap().unwrap();
        raft.shutdown().await;

        machine.store = Arc::new(MemoryCheckpoint::new());
        let Err(Error::Operator(why)) = machine.start().await else { panic!("it started without its state") };
        assert!(why.contains("checkpoint ends at nothing"), "{why}");
    });
}

#[test]
fn log_time_goes_on_over_a_restart() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "1")).await.unwrap();
        machine.world.sleep(Duration::from_millis(20)).await;
        raft.propose(None, set("a", "2")).await.unwrap();
        let before = raft.view().state.log_time();
        assert!(before.0 >= 20);
        raft.shutdown().await;
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "3")).await.unwrap();
        assert!(raft.view().state.log_time() >= before);
    });
}

#[test]
fn a_request_id_makes_a_repeat_harmless_over_a_restart() {
    run(|machine| async move {
        let id = RequestId { incarnation: Uuid::from_u128(7), born: 0, sequence: 1, acknowledged_below: 1 };
        let raft = machine.start().await.unwrap();
        let first = raft.propose(Some(id), set("a", "1")).await.unwrap();
        raft.propose(None, set("a", "2")).await.unwrap();
        raft.shutdown().await;
        let raft = machine.start().await.unwrap();
        assert_eq!(raft.propose(Some(id), set("a", "1")).await.unwrap(), first);
        assert_eq!(get(&raft, "a").await.as_deref(), Some("2"), "the repeat wrote nothing");
    });
}

#[test]
fn many_writers_and_readers_share_rounds_and_each_reads_its_own_write() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|client| {
                let raft = raft.clone();
                machine.world.spawn(async move {
                    for turn in 0..20 {
                        let (key, value) = (format!("c{client}"), turn.to_string());
                        raft.propose(None, set(&key, &value)).await.unwrap();
                        assert_eq!(get(&raft, &key).await, Some(value));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(raft.view().state.revision(), 1001);
    });
}

/// A store that refuses at first.
struct Refuses {
    left: Mutex<u32>,
    store: MemoryCheckpoint,
}

#[async_trait::async_trait]
impl CheckpointStore for Refuses {
    async fn load(&self, sink: Box<dyn FnMut(CheckpointRow) + Send>) -> Result<Option<Vec<u8>>> {
        self.store.load(sink).await
    }
    async fn write(&self, meta: Vec<u8>, changes: Box<dyn Rows>) -> Result<()> {
        {
            let mut left = self.left.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(Error::Operator("no space".into()));
            }
        }
        self.store.write(meta, changes).await
    }
    async fn install(&self, meta: Vec<u8>, rows: Box<dyn Rows>) -> Result<()> {
        self.store.install(meta, rows).await
    }
}

#[test]
fn a_checkpoint_that_fails_is_tried_again_and_writes_go_on() {
    run(|mut machine| async move {
        machine.store = Arc::new(Refuses { left: Mutex::new(1), store: MemoryCheckpoint::new() });
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "1")).await.unwrap();
        raft.inner.raft.trigger().snapshot().await.unwrap();
        raft.propose(None, set("b", "2")).await.unwrap();
        let mut metrics = raft.inner.raft.data_metrics();
        while metrics.borrow_and_update().snapshot.is_none() {
            metrics.changed().await.unwrap();
        }
        assert_eq!(get(&raft, "b").await.as_deref(), Some("2"));
    });
}

#[test]
fn a_change_of_the_voters_that_was_left_halfway_is_finished() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "1")).await.unwrap();
        let own = Uuid::from_u128(1);
        let voters = std::collections::BTreeSet::from([own]);
        let members = BTreeMap::from([(own, raft.leader().unwrap().1)]);
        let half = openraft::Membership::new(vec![voters.clone(), voters], members).unwrap();
        raft.inner.raft.append_membership(half, openraft::EntryPayload::Blank, []).await.unwrap();
        let mut metrics = raft.inner.raft.server_metrics();
        let finished = async {
            while metrics.borrow_and_update().membership_config.membership().get_joint_config().len() > 1 {
                metrics.changed().await.unwrap();
            }
        };
        machine.world.timeout(Duration::from_secs(60), finished).await.expect("the second step");
        assert_eq!(raft.voters().len(), 1);
    });
}

#[test]
fn what_was_decided_in_another_term_is_not_proposed() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.propose(None, set("a", "1")).await.unwrap();
        let term = raft.leads_in().expect("it has written, so it is a ready leader");
        assert_eq!(raft.propose_in(term, set("a", "2")).await.unwrap().reply, Reply::Done(true));
        for other in [term - 1, term + 1] {
            let refused = raft.propose_in(other, set("a", "3")).await.unwrap_err();
            assert_eq!(refused, no_leader(), "term {other}");
        }
        assert_eq!(get(&raft, "a").await.as_deref(), Some("2"));
        raft.shutdown().await;

        let raft = machine.start().await.unwrap();
        raft.leads_no_more_in(None).await;
        assert!(raft.leads_in() > Some(term), "a restart begins another term");
        assert_eq!(raft.propose_in(term, set("a", "4")).await, Err(no_leader()));
    });
}

#[test]
fn a_question_is_answered_by_the_layer_above_for_as_long_as_it_is_there() {
    struct Echo;
    #[async_trait::async_trait]
    impl Duties for Echo {
        async fn answer(&self, question: bytes::Bytes) -> Result<bytes::Bytes> {
            if question.is_empty() { Err(Error::Request("empty".into())) } else { Ok(question) }
        }
    }
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.linearizable().await.unwrap();
        let echo: Arc<dyn Duties> = Arc::new(Echo);
        raft.serve(&echo);
        assert_eq!(raft.ask("hi".into()).await.unwrap(), "hi");
        assert_eq!(raft.ask("".into()).await, Err(Error::Request("empty".into())), "a refusal is not asked again");
        assert!(raft.confirmed().await.is_ok(), "the round was its own");
        drop(echo);
        assert_eq!(raft.answer("hi".into()).await, Err(no_leader()));
    });
}

/// Found by the simulator: a question that came after its server was removed brought it back, for ever silent.
#[test]
fn a_server_that_was_removed_is_not_brought_back_by_a_late_word_of_its_new_address() {
    run(|machine| async move {
        let raft = machine.start().await.unwrap();
        raft.linearizable().await.unwrap();
        let (id, member) = (Uuid::from_u128(2), Member { name: "two".into(), address: "127.0.0.1:8301".into() });
        let join = |moves| Join { id, member: member.clone(), moves };
        let servers = || raft.servers_here().len();
        assert!(raft.join_here(join(true)).await.unwrap_err().to_string().contains("was removed"));
        assert_eq!(servers(), 1);
        raft.join_here(join(false)).await.unwrap();
        assert_eq!(servers(), 2);
        let moved = Join { member: Member { address: "127.0.0.1:8302".into(), ..member.clone() }, ..join(true) };
        raft.join_here(moved.clone()).await.unwrap();
        assert_eq!(servers(), 2, "the same server at another address");
        raft.remove_here(id).await.unwrap();
        assert!(raft.join_here(moved).await.is_err());
        assert_eq!(servers(), 1);
    });
}
