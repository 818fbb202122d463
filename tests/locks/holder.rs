//! A running `quorate lock`, its supervisor and its child; and a log that children write, from which it is seen who ran when.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{HANG, program, wait_until};

/// A `quorate lock` that runs, killed when dropped; then its supervisor stops its child.
pub struct Holder {
    command: Child,
    said: PathBuf,
}

impl Holder {
    /// Starts `quorate lock` with these flags; `script` is the child.
    pub fn start(log: &Log, http: SocketAddr, flags: &[&str], script: &str) -> Holder {
        Holder::start_by(Command::new(program()), log, http, flags, script)
    }

    /// The same, by a command that becomes the program with the arguments that follow its own.
    pub fn start_by(mut command: Command, log: &Log, http: SocketAddr, flags: &[&str], script: &str) -> Holder {
        let number = log.number();
        let said = log.dir.path().join(format!("said-{number}"));
        let command = command
            .args([&["lock", "-verbose"], flags, &["job", script]].concat())
            .env("CONSUL_HTTP_ADDR", http.to_string())
            .env("SHELL", "/bin/sh")
            .env("LOG", log.path())
            .env("QUORATE", program())
            .env("DIR", log.dir.path())
            .stdin(Stdio::null())
            .stdout(File::options().append(true).create(true).open(log.path()).unwrap())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        Holder { command, said }
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Waits until it has said something.
    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.said().contains(text));
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.command.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < HANG, "it does not end:\n{}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The command's own process.
    pub fn pid(&self) -> u32 {
        self.command.id()
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> u32 {
        only_child_of(self.pid())
    }

    /// The process of the child, which is its group's too.
    pub fn child(&self) -> u32 {
        only_child_of(self.supervisor())
    }

    /// What the child was given.
    pub fn variable(&self, name: &str) -> String {
        let environment = std::fs::read(format!("/proc/{}/environ", self.child())).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        let value = environment.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name}")).to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- quorate lock said:\n{}", self.said());
        }
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

fn only_child_of(pid: u32) -> u32 {
    let mut found = Vec::new();
    wait_until("its child process", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{pid} has one child");
    found[0]
}

/// Sends a signal to a process, or to a group with `-` before its number.
pub fn signal(name: &str, whom: impl std::fmt::Display) {
    let status = Command::new("kill").args([&format!("-{name}"), "--", &whom.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {whom}");
}

/// Waits until a process has ended.
pub fn wait_for_end_of(pid: u32) {
    wait_until("a process to end", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody has waited for has ended too.
        stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    });
}

/// A file that children write lines into.
pub struct Log {
    pub dir: tempfile::TempDir,
    holders: std::cell::Cell<usize>,
}

impl Log {
    pub fn new() -> Log {
        Log { dir: tempfile::tempdir().unwrap(), holders: std::cell::Cell::new(0) }
    }

    fn number(&self) -> usize {
        self.holders.replace(self.holders.get() + 1)
    }

    /// The file; children find it as `$LOG`.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.path()).unwrap_or_default().lines().map(String::from).collect()
    }

    /// Waits for a line.
    pub fn wait_for(&self, line: &str) {
        wait_until(line, || self.lines().iter().any(|found| found == line));
    }

    /// Who wrote, each once per stretch: who appears twice ran before and after another, or beside it.
    pub fn turns(&self) -> Vec<String> {
        let mut turns = self.lines();
        turns.dedup();
        turns
    }

    /// Makes a file in the children's `$DIR`.
    pub fn touch(&self, name: &str) {
        File::create(self.dir.path().join(name)).unwrap().flush().unwrap();
    }
}

/// A child that writes its name over and over.
pub fn writes(name: &str) -> String {
    format!("while :; do echo {name} >> $LOG; sleep 0.02; done")
}
