//! Backups as an operator meets them: saved while others write, looked into, restored here and elsewhere, and refused when they
//! are not whole.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::support::{Agent, Connection, quorate, stderr, stdout, wait_until};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn saved(agent: &Agent, file: &Path) {
    let save = agent.run(&["snapshot", "save", text(file)]);
    let said = stdout(&save);
    assert!(said.starts_with("Saved and verified snapshot to index "), "{said}{}", stderr(&save));
}

fn restored(agent: &Agent, file: &Path) {
    let restore = agent.run(&["snapshot", "restore", text(file)]);
    assert_eq!(stdout(&restore), "Restored snapshot\n", "{}", stderr(&restore));
}

/// What a backup says of itself.
fn meta(file: &Path) -> serde_json::Value {
    let inspect = quorate(&["snapshot", "inspect", "-format=json", text(file)]);
    let shown: serde_json::Value = serde_json::from_slice(&inspect.stdout).unwrap_or_else(|_| panic!("{inspect:?}"));
    shown["Meta"].clone()
}

fn session(agent: &Agent, ttl: &str) -> String {
    let body = format!(r#"{{"TTL": "{ttl}", "LockDelay": "0s"}}"#);
    agent.put("/v1/session/create", body).json()["ID"].as_str().unwrap().to_string()
}

fn acquired(agent: &Agent, lock: &str, session: &str) -> bool {
    agent.put(&format!("/v1/kv/{lock}?acquire={session}"), "").text().trim() == "true"
}

fn stat(agent: &Agent, name: &str) -> u64 {
    agent.get("/v1/agent/self").json()["Stats"]["state"][name].as_str().unwrap().parse().unwrap()
}

/// Writers that each write a number to two keys at once, again and again, and say how far they are.
fn while_others_write(agent: &Agent, work: impl FnOnce(&[AtomicU64])) {
    let (stop, written) = (AtomicBool::new(false), (0..4).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    thread::scope(|scope| {
        for (number, written) in written.iter().enumerate() {
            let stop = &stop;
            scope.spawn(move || {
                let mut connection = Connection::open(agent.http).unwrap();
                for round in 1_u64.. {
                    let set = |key: &str| {
                        let value = "x".repeat(10_000) + &round.to_string();
                        let value = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, value);
                        format!(r#"{{"KV": {{"Verb": "set", "Key": "{key}/{number}", "Value": "{value}"}}}}"#)
                    };
                    let both = format!("[{}, {}]", set("a"), set("b"));
                    assert_eq!(connection.request("PUT", "/v1/txn", both.as_bytes()).unwrap().status, 200);
                    written.store(round, SeqCst);
                    if stop.load(SeqCst) {
                        return;
                    }
                }
            });
        }
        work(&written);
        stop.store(true, SeqCst);
    });
}

/// The number that a writer had written to one of its keys.
fn number(agent: &Agent, key: &str) -> u64 {
    agent.get(&format!("/v1/kv/{key}?raw")).text().trim_start_matches('x').parse().unwrap()
}

#[test]
fn a_backup_that_was_saved_under_writes_comes_back_as_one_state_and_nothing_goes_back_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.snap");
    let agent = Agent::start(&["-dev"]);
    let (long, short) = (session(&agent, "60s"), session(&agent, "1s"));
    assert!(acquired(&agent, "locks/long", &long) && acquired(&agent, "locks/short", &short));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    while_others_write(&agent, |written| {
        let now = || written.iter().map(|round| round.load(SeqCst)).collect::<Vec<_>>();
        wait_until("every writer to write", || now().iter().all(|round| *round > 3));
        before = now();
        saved(&agent, &file);
        after = now();
        wait_until("more", || now().iter().zip(&after).all(|(now, then)| now > then));
    });
    assert!(fs::metadata(&file).unwrap().permissions().mode() & 0o077 == 0, "it is nobody else's to read");
    assert!(!dir.path().join("backup.snap.unverified").exists());
    agent.put("/v1/kv/later", "1");
    let highest = agent.get("/v1/kv/?keys").index();
    assert!(meta(&file)["Revision"].as_u64().unwrap() < highest);

    thread::scope(|scope| {
        let waiting = scope.spawn(|| agent.get(&format!("/v1/kv/locks/?recurse&index={highest}&wait=300s")));
        wait_until("a blocking query", || stat(&agent, "blocked_queries") > 0);
        restored(&agent, &file);
        assert!(waiting.join().unwrap().index() > highest, "it is woken by the restore");
    });
    for (writer, (before, after)) in before.iter().zip(&after).enumerate() {
        let (a, b) = (number(&agent, &format!("a/{writer}")), number(&agent, &format!("b/{writer}")));
        assert_eq!(a, b, "a transaction is in a backup as a whole or not at all");
        // One write more may have been on its way.
        assert!((*before..=after + 1).contains(&a), "{before} {a} {after}");
    }
    assert_eq!(agent.get("/v1/kv/later").status, 404, "it was written after the backup");
    let keys = agent.get("/v1/kv/?keys");
    assert!(keys.index() > highest);
    let epoch: u64 = keys.header("X-Quorate-Epoch").unwrap().parse().unwrap();
    assert!((highest + 1..=keys.index()).contains(&epoch), "clients see that time has been turned back");

    assert_eq!(agent.get("/v1/session/list").json(), serde_json::json!([]), "sessions end");
    assert_eq!(agent.put(&format!("/v1/session/renew/{long}"), "").status, 404);
    let next = session(&agent, "60s");
    assert!(!acquired(&agent, "locks/long", &next), "its holder may still believe in it");
    wait_until("the end of the shorter delay", || acquired(&agent, "locks/short", &next));
    let fence: u64 = agent.get("/v1/kv/locks/short").header("X-Quorate-Fence").unwrap().parse().unwrap();
    assert!(fence > highest, "no fence goes back");
}

#[test]
fn a_backup_of_another_cluster_is_restored_far_above_its_own_indexes_and_outlives_a_restart() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("backup.snap");
    let from = Agent::start(&["-dev"]);
    from.put("/v1/kv/a", "1");
    saved(&from, &file);
    let revision = meta(&file)["Revision"].as_u64().unwrap();

    let args = ["-server", "-bootstrap", "-data-dir", text(data.path())];
    let mut to = Agent::start(&args);
    to.put("/v1/kv/b", "2");
    restored(&to, &file);
    assert_eq!(to.get("/v1/kv/a?raw").text(), "1");
    assert_eq!(to.get("/v1/kv/b").status, 404);
    let index = to.get("/v1/kv/a").index();
    assert!(index > revision + (1 << 40), "{index} {revision}");
    to.kill();
    let to = Agent::start(&args);
    assert_eq!(to.get("/v1/kv/a?raw").text(), "1");
    assert_eq!(to.get("/v1/kv/a").index(), index);

    // Its own backup again is no jump.
    saved(&to, &file);
    restored(&to, &file);
    assert!(to.get("/v1/kv/a").index() < index + 1_000);
}

#[test]
fn a_backup_that_is_not_whole_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.snap");
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/a", "1");
    saved(&agent, &file);
    let whole = fs::read(&file).unwrap();
    agent.put("/v1/kv/a", "2");
    let index = agent.get("/v1/kv/?keys").index();

    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for (content, says) in [
        (&damaged[..], "the backup is damaged"),
        (&whole[..whole.len() / 2], "the backup is damaged: it ends early"),
        (b"[]", "it does not begin as gzip does"),
        (b"", "it is empty"),
    ] {
        fs::write(&file, content).unwrap();
        let refused = agent.run(&["snapshot", "restore", text(&file)]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(says) && stderr(&refused).contains(text(&file)), "{}", stderr(&refused));
        let inspect = quorate(&["snapshot", "inspect", text(&file)]);
        assert_eq!((inspect.status.code(), stderr(&inspect).contains(says)), (Some(1), true));
        // The server does not believe its clients.
        let answer = agent.put("/v1/snapshot", content);
        assert_eq!((answer.status, answer.text().contains(says)), (400, true), "{}", answer.text());
    }

    let mut upload = TcpStream::connect(agent.http).unwrap();
    let head = format!("PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", whole.len());
    upload.write_all(&[head.as_bytes(), &whole[..whole.len() - 1]].concat()).unwrap();
    upload.shutdown(std::net::Shutdown::Write).unwrap();
    // A server that saw the end of it may answer or hang up.
    let mut answer = String::new();
    let _ = upload.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");

    assert_eq!(agent.get("/v1/kv/a?raw").text(), "2");
    assert_eq!(agent.get("/v1/kv/?keys").index(), index);
    assert_eq!(stat(&agent, "epoch"), 0);
    // The one that is whole is taken, also right after those that were not.
    assert_eq!(agent.put("/v1/snapshot", &whole).status, 200);
    assert_eq!(agent.get("/v1/kv/a?raw").text(), "1");
}

#[test]
fn a_good_file_is_never_replaced_by_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.snap");
    let agent = Agent::start(&["-dev"]);
    saved(&agent, &file);
    let good = fs::read(&file).unwrap();

    // An agent whose answer is cut off without anybody noticing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("-http-addr={}", listener.local_addr().unwrap());
    let cut = good[..good.len() / 2].to_vec();
    let liar = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "a request");
        let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nContent-Length: {}\r\n\r\n", cut.len());
        stream.write_all(&[head.as_bytes(), &cut].concat()).unwrap();
    });
    let refused = quorate(&["snapshot", "save", &http, text(&file)]);
    liar.join().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the backup is damaged: it ends early"), "{}", stderr(&refused));
    assert_eq!(fs::read(&file).unwrap(), good);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");

    // What a save left that was killed is in nobody's way.
    fs::write(dir.path().join("backup.snap.unverified"), "half").unwrap();
    saved(&agent, &file);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = agent.run(&["snapshot", "save", text(&dir.path().join("none/backup.snap"))]);
    assert!(stderr(&nowhere).contains("cannot write"), "{}", stderr(&nowhere));
}

#[test]
fn inspect_shows_what_is_in_it_and_save_names_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&["-dev"]);
    for key in ["web/a/1", "web/a/2", "web/b", "db/x"] {
        agent.put(&format!("/v1/kv/{key}"), "some value");
    }
    let save = ["snapshot", "save", "-stale", "-append-filename=version,dc", text(&dir.path().join("b.snap"))]
        .map(String::from);
    let done = agent.run(&save.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(done.status.success(), "{}", stderr(&done));
    let file = dir.path().join(format!("b-{}-dc1.snap", env!("CARGO_PKG_VERSION")));

    let inspect = |args: &[&str]| stdout(&quorate(&[&["snapshot", "inspect"], args, &[text(&file)]].concat()));
    let shown = inspect(&["-kvdetails", "-kvfilter=web/"]);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    for name in ["ID", "Size", "Index", "Term", "Version", "Cluster", "Revision", "Epoch", "Total"] {
        assert!(lines.iter().any(|line| line.first() == Some(&name)), "{name}: {shown}");
    }
    let row = |name: &str| lines.iter().find(|line| line.first() == Some(&name)).map(|line| line[1]);
    assert_eq!(
        (row("KVS"), row("web/a"), row("web/b"), row("db/x")),
        (Some("4"), Some("2"), Some("1"), None),
        "{shown}"
    );
    assert!(!inspect(&[]).contains("Key Name"));
    let json: serde_json::Value =
        serde_json::from_str(&inspect(&["-format=json", "-kvdetails", "-kvdepth=1"])).unwrap();
    assert_eq!(json["StatsKV"][0], serde_json::json!({"Name": "web", "Sum": json["StatsKV"][0]["Sum"], "Count": 3}));
    let index: u64 = stdout(&done).trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(json["Meta"]["Index"], index);

    let wrong = agent.run(&["snapshot", "save", "-append-filename=colour", text(&file)]);
    assert!(stderr(&wrong).contains("version, dc"), "{}", stderr(&wrong));
}

#[test]
fn the_file_comes_with_the_headers_that_clients_read() {
    let agent = Agent::start(&["-dev"]);
    agent.put("/v1/kv/a", "1");
    let answer = agent.get("/v1/snapshot");
    assert_eq!(answer.header("Content-Type"), Some("application/x-gzip"));
    assert_eq!(answer.header("X-Consul-KnownLeader"), Some("true"));
    assert_eq!(answer.header("Content-Length").unwrap().parse::<usize>().unwrap(), answer.body.len());
    assert!(answer.header("Content-Encoding").is_none(), "it is a file that is compressed, not an answer");
    assert_eq!(answer.index(), agent.get("/v1/kv/a").index());
    let restored = agent.put("/v1/snapshot", &answer.body);
    assert_eq!((restored.status, restored.body.len()), (200, 0));
    assert_eq!(restored.index(), agent.get("/v1/kv/a").index());
}
