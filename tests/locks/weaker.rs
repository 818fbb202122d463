//! `quorate lock` at an agent that is only Consul's API: no queues, no leases, no fences. A proxy takes them out of a real one's
//! answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::holder::{Holder, Log, signal, wait_for_end_of, writes};
use super::support::{Agent, wait_until};

/// A proxy to an agent, which hides what Consul does not have.
fn consul(agent: &Agent) -> SocketAddr {
    let (listener, to) = (TcpListener::bind("127.0.0.1:0").unwrap(), agent.http);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || copy(from, into, b"/v1/lock/", b"/v1/none/"));
            thread::spawn(move || copy(server, client, b"x-quorate-", b"x-unknown-"));
        }
    });
    address
}

/// Copies bytes, with one word for another of the same length. Requests and answers here are written in one piece.
fn copy(mut from: TcpStream, mut into: TcpStream, word: &[u8], other: &[u8]) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        for at in 0..read.saturating_sub(word.len()) {
            if buffer[at..at + word.len()].eq_ignore_ascii_case(word) {
                buffer[at..at + word.len()].copy_from_slice(other);
            }
        }
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}

#[test]
fn at_a_consul_it_works_with_weaker_promises_and_says_so_once() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let http = consul(&agent);
    let script = writes("a") + " & env; wait";
    let first = Holder::start(&log, http, &["-ttl=10s"], &script);
    log.wait_for("a");
    log.wait_for("CONSUL_LOCK_HELD=true");
    assert_eq!(first.said().matches("promises no leases and gives no fences").count(), 1, "{}", first.said());
    assert!(!log.lines().iter().any(|line| line.starts_with("QUORATE_LOCK_FENCE")), "there is none");
    // As Consul's own commands: bound to the health of its node, and with a delay.
    let session = agent.get("/v1/session/list").json()[0].clone();
    assert_eq!((&session["NodeChecks"][0], &session["LockDelay"]), (&"serfHealth".into(), &15_000_000_000_u64.into()));
    let mut second = Holder::start(&log, http, &["-ttl=10s"], "echo b");
    second.wait_for("Waiting for the lock");
    signal("TERM", first.pid());
    assert_eq!(second.wait(), Some(0), "{}", second.said());
    assert!(log.lines().contains(&"b".to_string()));
    wait_until("the key to be removed", || agent.get("/v1/kv/job?recurse").status == 404);
}

#[test]
fn at_a_consul_the_child_dies_with_its_command_too() {
    let (agent, log) = (Agent::start(&["-dev"]), Log::new());
    let first = Holder::start(&log, consul(&agent), &["-ttl=10s"], &writes("a"));
    log.wait_for("a");
    let child = first.child();
    signal("KILL", first.pid());
    wait_for_end_of(child);
}
