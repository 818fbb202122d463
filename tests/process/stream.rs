//! The event stream over a real connection: a reader that is slower than the history, and one that comes too late.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::support::Agent;

const VALUE: usize = 100_000;
const WRITES: usize = 400;

/// The records of an answer in chunks, to its end.
fn records(stream: TcpStream) -> Vec<serde_json::Value> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).unwrap();
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            break;
        }
    }
    let lines = String::from_utf8(body).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_reader_that_is_slower_than_the_history_is_told_what_it_missed() {
    let agent = Agent::start(&["-dev", "-hcl", "history { bytes = 1000000 }"]);
    let mut stream = TcpStream::connect(agent.http).unwrap();
    stream.write_all(b"GET /v1/watch?prefix=k&prev HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // It has begun once its first bytes are there.
    stream.peek(&mut [0; 1]).unwrap();
    for n in 0..WRITES {
        let value = n.to_string() + &"x".repeat(VALUE);
        assert_eq!(agent.put("/v1/kv/k", value).status, 200);
    }
    let records = records(stream);
    let (gone, delivered) = records.split_last().unwrap();
    let index = |record: &serde_json::Value| record["Index"].as_u64().unwrap();
    assert_eq!(gone["Type"], "gone", "{WRITES} values of {VALUE} bytes fit into no socket");
    assert!(gone["Oldest"].as_u64() > gone["Index"].as_u64(), "{gone}");
    assert_eq!(index(gone), index(delivered.last().unwrap()), "up to there it got everything");
    let changes: Vec<_> = delivered.iter().filter(|record| record["Type"] == "changes").collect();
    assert!(!changes.is_empty() && changes.len() < WRITES);
    // Each has what the one before it left.
    assert!(changes.windows(2).all(|pair| pair[1]["Changes"][0]["Prev"] == pair[0]["Changes"][0]["Entry"]));

    let late = agent.get(&format!("/v1/watch?since={}", index(gone)));
    assert_eq!(late.status, 410);
    let oldest: u64 = late.header("X-Quorate-Oldest").unwrap().parse().unwrap();
    let past = |at: u64| agent.get(&format!("/v1/kv/k?at={at}")).status;
    assert_eq!((past(oldest), past(oldest - 1)), (200, 410));
}
