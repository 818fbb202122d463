//! The load generator's own HTTP/1.1: one request out of a reused buffer, one reply into another.
//!
//! The load generator shares its machine with the server it measures, so its own cost is part of every figure. Measured
//! against a trivial server with 64 connections on two cores, this costs 4 µs of CPU per write, most of it system calls;
//! hyper's client costs 7 µs. That is why it is written by hand. It speaks only what a benchmark needs. What it never
//! does: pipeline, follow redirects, or believe a reply it cannot parse.

use std::io::{self, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::address::Address;
use crate::client::http;
use crate::error::Result;
use crate::limits;
use crate::world::{BoxStream, World};

/// Bytes asked for with one read: a reply with a usual value fits.
const READ: usize = 8 * limits::KIB;
/// Largest reply that is taken: the largest value in base64, and its head.
const MAX_REPLY: usize = 2 * limits::MAX_VALUE_CEILING + limits::MAX_HEAD;

/// A keep-alive connection with its buffers.
pub struct Connection {
    stream: BoxStream,
    output: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
    /// The agent has said that it closes this connection.
    pub closing: bool,
}

/// What is the same in all requests of one run: `Host` and the token.
#[derive(Clone)]
pub struct Common(String);

impl Common {
    /// The headers for this agent and token.
    pub fn new(address: &Address, token: Option<&str>) -> Common {
        let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        Common(format!("Host: {address}\r\n{token}"))
    }
}

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// 200, 404, …
    pub status: u16,
    /// Without its framing.
    pub body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub async fn open(world: &World, address: &Address) -> Result<Connection> {
        let stream = http::connect(world, address).await?;
        Ok(Connection { stream, output: Vec::new(), input: Vec::new(), body: Vec::new(), closing: false })
    }

    /// The body of the last reply.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Sends a request and waits for its reply. After an error, or if this is dropped halfway, the connection is of no
    /// more use.
    pub async fn exchange(&mut self, method: &str, path: &str, common: &Common, body: &[u8]) -> io::Result<Reply<'_>> {
        self.output.clear();
        let Common(common) = common;
        write!(self.output, "{method} {path} HTTP/1.1\r\n{common}Content-Length: {}\r\n\r\n", body.len())?;
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await?;
        self.input.clear();
        loop {
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.input.len() > MAX_REPLY {
                return Err(malformed("larger than any value"));
            }
            if let Some(head) = Head::parse(&self.input)?
                && head.body(&self.input, &mut self.body)?
            {
                self.closing = head.close;
                return Ok(Reply { status: head.status, body: &self.body });
            }
        }
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the reply is {why}"))
}

/// What a reply's head says of its body.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Length,
    close: bool,
    /// Where the body begins.
    end: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
}

impl Head {
    /// The head, once it is whole.
    fn parse(input: &[u8]) -> io::Result<Option<Head>> {
        let Some(end) = find(input, b"\r\n\r\n") else {
            return if input.len() > limits::MAX_HEAD { Err(malformed("no HTTP")) } else { Ok(None) };
        };
        let text = std::str::from_utf8(&input[..end]).map_err(|_| malformed("no HTTP"))?;
        let mut lines = text.split("\r\n");
        let mut status = lines.next().unwrap_or_default().split(' ');
        let version = status.next().unwrap_or_default();
        let status = status.next().and_then(|code| code.parse().ok()).filter(|_| version.starts_with("HTTP/1."));
        let status = status.ok_or_else(|| malformed("no HTTP"))?;
        let (mut length, mut close) = (None, version == "HTTP/1.0");
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(Length::Known(value.parse().map_err(|_| malformed("of no known length"))?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                length = Some(Length::Chunked);
            } else if name.eq_ignore_ascii_case("connection") {
                close = value.eq_ignore_ascii_case("close");
            }
        }
        let length = match (length, status) {
            (_, 204 | 304) => Length::Known(0),
            (Some(length), _) => length,
            (None, _) => return Err(malformed("of no known length")),
        };
        Ok(Some(Head { status, length, close, end: end + 4 }))
    }

    /// Puts the body into `out`; `false` if more must be read first.
    fn body(&self, input: &[u8], out: &mut Vec<u8>) -> io::Result<bool> {
        out.clear();
        let rest = &input[self.end..];
        match self.length {
            Length::Known(length) => {
                out.extend_from_slice(&rest[..length.min(rest.len())]);
                Ok(rest.len() >= length)
            }
            Length::Chunked => dechunk(rest, out),
        }
    }
}

fn dechunk(mut rest: &[u8], out: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let Some(line) = find(rest, b"\r\n") else { return Ok(false) };
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok()).filter(|size| *size <= MAX_REPLY);
        let size = size.ok_or_else(|| malformed("in malformed chunks"))?;
        rest = &rest[line + 2..];
        if size == 0 {
            // Trailers are unusual; what ends them, or the lack of them, is an empty line.
            return Ok(rest.starts_with(b"\r\n") || find(rest, b"\r\n\r\n").is_some());
        }
        if rest.len() < size + 2 {
            return Ok(false);
        }
        out.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> io::Result<Option<(u16, Vec<u8>, bool)>> {
        let Some(head) = Head::parse(input)? else { return Ok(None) };
        let mut body = Vec::new();
        Ok(head.body(input, &mut body)?.then_some((head.status, body, head.close)))
    }

    #[test]
    fn a_reply_is_whole_only_at_its_last_byte() {
        for (reply, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Type: x\r\ncontent-length: 4\r\n\r\ntrue", "true"),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde"),
        ] {
            for cut in 0..reply.len() {
                assert_eq!(read(&reply.as_bytes()[..cut]).unwrap(), None, "{cut} bytes of {reply:?}");
            }
            assert_eq!(read(reply.as_bytes()).unwrap().unwrap().1, body.as_bytes());
        }
    }

    #[test]
    fn closing_is_noticed() {
        assert!(read(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap().unwrap().2);
        assert!(read(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().unwrap().2);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for reply in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(read(reply.as_bytes()).is_err(), "{reply:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_reply_panics(bytes: Vec<u8>, framed in "(HTTP/1.1 [0-9]{1,4} \r\n|Content-Length: [0-9]{1,22}\r\n|Transfer-Encoding: chunked\r\n|\r\n|[0-9a-f]{1,17}\r\n|x){0,9}") {
            let _ = read(&bytes);
            let _ = read(framed.as_bytes());
        }
    }
}
