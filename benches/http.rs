//! One request at a time through a whole node: HTTP, agent, raft, log with sync on a real disk, state.
//!
//! Latency of one client. Rates under many clients are what `quorate bench` measures.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a benchmark drives the node from outside")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

struct Server {
    child: Child,
    stream: TcpStream,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["agent", &format!("-http-port={port}")])
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                break stream;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nodelay(true).unwrap();
        let mut server = Server { child, stream };
        while !server.request("GET", "/v1/status/leader", b"").contains(':') {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn request(&mut self, method: &str, path: &str, body: &[u8]) -> String {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let n = self.stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the server hung up");
            answer.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            if body.len() >= length {
                return body.to_string();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn requests(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut server = Server::start(&["-server", "-bootstrap", "-data-dir", dir.path().to_str().unwrap()]);
    let values = [[1; 256], [2; 256]];
    let mut turn = 0;
    c.bench_function("http/put", |b| {
        b.iter(|| {
            turn += 1;
            server.request("PUT", "/v1/kv/bench/key", &values[turn % 2])
        });
    });
    c.bench_function("http/get", |b| b.iter(|| server.request("GET", "/v1/kv/bench/key", b"")));
    c.bench_function("http/get_stale", |b| b.iter(|| server.request("GET", "/v1/kv/bench/key?stale", b"")));
}

criterion_group!(benches, requests);
criterion_main!(benches);
