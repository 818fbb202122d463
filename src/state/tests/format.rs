//! The bytes of everything that is stored, pinned. If one of these fails, the change would make existing data
//! unreadable: give the type a new version and an upgrade, or for commands and replies, add at the end.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::codec::{self, Stored};
use crate::state::history::Bounds;
use crate::state::requests::Incarnation;
use crate::state::restore::Stage;
use crate::state::stored::Header;
use crate::state::subject::Indexes;
use crate::state::tombstones::Tombstone;

fn check<T: Stored + PartialEq + std::fmt::Debug>(value: T, hex: &str) {
    let bytes = codec::seal(&value).unwrap();
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, hex, "{}", T::NAME);
    assert_eq!(codec::open::<T>(&bytes).unwrap(), value);
}

fn id() -> Uuid {
    Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)
}

#[test]
fn entries_keep_their_format() {
    let request = RequestId { incarnation: id(), born: 300, sequence: 7, acknowledged_below: 5 };
    let set = Command::KvSet { key: "web/a".into(), value: Bytes::from_static(b"v"), flags: 42, cas: Some(0) };
    check(
        Entry { time: LogTime(1000), request: Some(request), command: set },
        "01f500e39efbe80301100102030405060708090a0b0c0d0e0f10fb2c01070500057765622f6101762a0100",
    );
    let delete = Command::KvDelete { key: "web/a".into(), cas: Some(9) };
    check(Entry { time: LogTime(1), request: None, command: delete }, "014005d28d010001057765622f610109");
    let verb = crate::state::txn::KvVerb::DeleteCas(9);
    check(
        entry(Command::KvFenced { lock: "l".into(), fence: 300, key: "k".into(), verb }),
        "013c647c1200000c016cfb2c01016b0809",
    );
    check(
        entry(Command::LockQueue { lock: "l".into(), session: id(), wait: Duration::from_millis(300) }),
        "011118df2d00000d016c100102030405060708090a0b0c0d0e0f1000fc00a3e111",
    );
    check(
        entry(Command::LockCallOff { lock: "l".into(), session: id(), asked: 300 }),
        "018dc68f1900000e016c100102030405060708090a0b0c0d0e0f10fb2c01",
    );
    check(
        entry(Command::LockRelease { lock: "l".into(), session: id(), fence: Some(300) }),
        "01d0ae5d5e00000f016c100102030405060708090a0b0c0d0e0f1001fb2c01",
    );
    check(entry(Command::LockPass), "0110267c85000010");
    check(entry(Command::KeepHistory(Bounds { revisions: 9, bytes: 300 })), "015b45830800001109fb2c01");
    let restore = |stage| entry(Command::Restore { id: id(), stage });
    check(restore(Stage::Begin { foreign: true }), "01705ad39a000012100102030405060708090a0b0c0d0e0f100001");
    check(
        restore(Stage::Part { number: 300, rows: Bytes::from_static(b"r") }),
        "010c2dca00000012100102030405060708090a0b0c0d0e0f1001fb2c010172",
    );
    check(restore(Stage::Seal { parts: 300 }), "0145377c3f000012100102030405060708090a0b0c0d0e0f1002fb2c01");
    check(restore(Stage::Switch), "01ae3a2811000012100102030405060708090a0b0c0d0e0f1003");
    check(restore(Stage::Abandon), "01455ee2c5000012100102030405060708090a0b0c0d0e0f1004");
    check(entry(Command::KvDeleteTree { prefix: "web/".into() }), "01b8083c3c000002047765622f");
}

#[test]
fn rows_keep_their_format() {
    let row = KvRow {
        value: Bytes::from_static(b"v"),
        flags: 42,
        lock_index: 1,
        holder: Some(Holder { session: id(), fence: 4 }),
        create_index: 2,
        modify_index: 300,
    };
    check(row, "0188ce35e401762a0101100102030405060708090a0b0c0d0e0f100402fb2c01");
    check(
        crate::state::queue::Waiter { session: id(), until: LogTime(300), asked: 7 },
        "01646af434100102030405060708090a0b0c0d0e0f10fb2c0107",
    );
    let before = Some(KvRow { flags: 300, ..KvRow::default() }.into());
    check(crate::state::history::Replaced { key: "k".into(), before }, "017890fdf3016b0100fb2c0100000000");
    check(Response { revision: 1, reply: Reply::Queued { place: 300 } }, "010e56ea270108fb2c01");
    check(Tombstone { revision: 300, time: LogTime(5) }, "01882dda4ffb2c0105");
    check(Incarnation { watermark: 5, used: 6, time: LogTime(7) }, "01c2e2b813050607");
    check(Response { revision: 1, reply: Reply::Done(true) }, "0102f008c2010001");
    check(Response { revision: 1, reply: Reply::Forgotten }, "01702aec240101");
    check(Response { revision: 1, reply: Reply::Refused("no".into()) }, "017911913b0102026e6f");
    check(Response { revision: 1, reply: Reply::FencedOff { current: Some(300) } }, "0197c49b18010701fb2c01");
    let (revision, entries, log_time) = (2, 3, LogTime(4));
    check(
        Header {
            revision,
            entries,
            log_time,
            kv_floor: 5,
            forgotten_before: 6,
            indexes: Indexes::default(),
            history: crate::state::history::Frame { floor: 8, bounds: Bounds { revisions: 9, bytes: 300 } },
            epoch: 10,
            restore: None,
            digest: 7 << 64,
        },
        "069576b5e4020304050600000000000000000809fb2c010a00fe00000000000000000700000000000000",
    );
}

pub(super) fn root() -> Root {
    Root {
        id: "0a:0b".into(),
        name: "n".into(),
        serial: 7,
        signing_key_id: "0c".into(),
        trust_domain: id(),
        not_before: 8,
        not_after: 9,
        certificate: "pem".into(),
    }
}

#[test]
fn the_root_keeps_its_format() {
    check(
        RootRow { root: root(), create_index: 300 },
        "01828ca64d0530613a3062016e07023063100102030405060708090a0b0c0d0e0f1008090370656dfb2c01",
    );
    check(
        entry(Command::KeepRoot(root().into())),
        "013cffe72a00000b0530613a3062016e07023063100102030405060708090a0b0c0d0e0f1008090370656d",
    );
}

#[test]
fn digests_keep_their_meaning() {
    let mut state = State::default();
    let request = RequestId { incarnation: id(), born: 0, sequence: 1, acknowledged_below: 1 };
    state.apply(1, &Entry { time: LogTime(9), request: Some(request), command: set("a", "1") }, &mut Vec::new());
    state.apply(1, &entry(set("b", "1")), &mut Vec::new());
    state.apply(1, &entry(Command::KvDelete { key: "b".into(), cas: None }), &mut Vec::new());
    assert_eq!(format!("{:032x}", state.digest().0), "6cd9a2569a7781b0bbefb564d5f777ac");
}
