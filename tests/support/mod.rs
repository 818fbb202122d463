//! Real `quorate` processes for tests: started on free ports, spoken to over real sockets, killed when dropped.
//!
//! Nothing here asserts a time. Waiting has a bound only so that a hang is reported instead of suffered.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests drive real processes from outside")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test is called hung.
pub const HANG: Duration = Duration::from_secs(60);

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_quorate"))
}

/// Runs the program to its end.
pub fn quorate(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a run, as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a run, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port that nobody listens on, and that no outgoing connection is given: a server that is restarted finds it free.
pub fn free_port() -> u16 {
    // Below Linux's range for outgoing connections, which begins at 32768. Test programs begin at different places.
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id().wrapping_mul(977).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + offset % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `ready` says so.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < HANG, "waited {HANG:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running agent.
pub struct Agent {
    child: Child,
    /// Where its HTTP API listens.
    pub http: SocketAddr,
    log: PathBuf,
}

impl Agent {
    /// Starts `quorate agent` with these arguments and a free HTTP port, and waits until it leads.
    pub fn start(args: &[&str]) -> Agent {
        let agent = Agent::spawn(args);
        agent.wait_for_leader();
        agent
    }

    /// Starts it without waiting.
    pub fn spawn(args: &[&str]) -> Agent {
        let port = free_port();
        let mut all = vec!["agent".to_string(), format!("-http-port={port}")];
        all.extend(args.iter().map(|arg| arg.to_string()));
        Agent::spawn_on(&all, port)
    }

    /// Starts the program with exactly these arguments; its HTTP API is expected on `port`.
    pub fn spawn_on(args: &[String], port: u16) -> Agent {
        let log = std::env::temp_dir().join(format!("quorate-test-{}-{port}.log", std::process::id()));
        let file = File::create(&log).unwrap();
        // Tests run side by side, and one port is the default.
        let other = (!args.iter().any(|arg| arg.starts_with("-server-port"))).then_some("-server-port=0");
        let child = Command::new(program())
            .args(args)
            .args(other)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Agent { child, http: SocketAddr::from(([127, 0, 0, 1], port)), log }
    }

    /// Waits until there is a leader.
    pub fn wait_for_leader(&self) {
        wait_until("a leader", || {
            request(self.http, "GET", "/v1/status/leader", &[], b"")
                .is_ok_and(|response| response.status == 200 && response.text().contains(':'))
        });
    }

    /// One request; the test fails if it gets no answer.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Response {
        request(self.http, method, path, &[], body).unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()))
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, b"")
    }

    /// `PUT`.
    pub fn put(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("PUT", path, body.as_ref())
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < HANG, "the agent does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command of the program against this agent.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, b"")
    }

    /// The same, with standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(program())
            .args(args)
            .env("CONSUL_HTTP_ADDR", self.http.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A test that fails is understood by what its servers said.
        if thread::panicking() {
            eprintln!("--- {} said:\n{}", self.http, self.log());
        }
        self.kill();
        if !thread::panicking() {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Response {
    /// A header by its name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// X-Consul-Index.
    pub fn index(&self) -> u64 {
        self.header("X-Consul-Index").expect("an index").parse().unwrap()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// One request on a connection of its own.
pub fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    raw_request(to, &[head.as_bytes(), body].concat())
}

/// Sends bytes as they are and reads one answer.
pub fn raw_request(to: SocketAddr, bytes: &[u8]) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&to, HANG)?;
    stream.set_read_timeout(Some(HANG))?;
    // A server that has refused the request may close before it has read all of it; its answer still counts.
    let sent = stream.write_all(bytes);
    let response = read_response(&mut BufReader::new(stream));
    if response.is_err() {
        sent?;
    }
    response
}

fn read_response(reader: &mut impl BufRead) -> std::io::Result<Response> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string());
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_string(), value.trim().to_string()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    match response.header("Content-Length").map(|length| length.parse::<usize>().unwrap()) {
        Some(length) => {
            response.body = vec![0; length];
            reader.read_exact(&mut response.body)?;
        }
        None if response.header("Transfer-Encoding").is_some() => loop {
            line.clear();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| bad(&line))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            response.body.extend_from_slice(&chunk[..size]);
        },
        None => {
            reader.read_to_end(&mut response.body)?;
        }
    }
    Ok(response)
}

/// A keep-alive connection, for tests that send many requests.
pub struct Connection {
    to: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(to: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&to, HANG)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_nodelay(true)?;
        Ok(Connection { to, stream: BufReader::new(stream) })
    }

    /// One request and its answer.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Response> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.to, body.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        read_response(&mut self.stream)
    }
}

/// Bytes that a directory holds on disk.
pub fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() { disk_use(&entry.path()) } else { meta.blocks() * 512 })
        })
        .sum()
}

/// A value of JSON in base64, decoded.
pub fn value_of(entry: &serde_json::Value) -> Vec<u8> {
    use base64::Engine;
    match entry["Value"].as_str() {
        Some(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        None => Vec::new(),
    }
}
