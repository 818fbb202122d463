//! Runs a program that must not outlive a deadline, which its owner moves while it runs.
//!
//! Three processes stand behind the owner, each started by the one before and all of them this very program:
//! - the **supervisor** ([`supervisor`]), in a process group of its own, which waits on nothing but its owner's word, its child's
//!   end and the clock. It stops the child before the deadline, and at once when its owner is gone, however that came.
//! - the **child** ([`child`]), in another group, whom the kernel kills if the supervisor is killed, and which then becomes
//!   the program that was asked for.
//!
//! The owner's end is here. Owner and supervisor talk over a socket pair, a line for each message. What this never does: know
//! why there is a deadline.

mod child;
mod supervisor;
mod watchdog;

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::world::Instant;

/// This program, also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The first argument of a process that is to be a supervisor.
const SUPERVISOR: &str = "lock-supervisor";
/// The first argument of a process that is to be its child.
const CHILD: &str = "lock-child";
/// The exit code of a job that cannot be run: a shell's.
pub const CANNOT_RUN: i32 = 127;
/// Longest message: a reason in words.
const MAX_MESSAGE: usize = 4096;

/// What to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program and its arguments; with a shell, the words of its command line.
    pub words: Vec<OsString>,
    /// Whether `$SHELL`, or /bin/sh, runs it.
    pub shell: bool,
    /// Whether it gets this process's standard input instead of none.
    pub pass_stdin: bool,
    /// What its environment has beyond this process's; `None` takes it away.
    pub vars: Vec<(&'static str, Option<String>)>,
    /// How long before the deadline it is asked to stop, and then killed.
    pub margins: Margins,
}

/// How long before the deadline a job is asked to stop, and how long before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Margins {
    /// SIGTERM comes so long before.
    pub term: Duration,
    /// SIGKILL comes so long before.
    pub kill: Duration,
}

/// A job that runs. Dropped, it is stopped.
pub struct Supervised {
    control: tokio::net::UnixStream,
    supervisor: Child,
    /// Bytes of messages that have come.
    heard: Vec<u8>,
    job: Option<Pid>,
}

/// What a supervisor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job runs, as this process and in the group of this number.
    Started(i32),
    /// It is being stopped, and how.
    Stopping(String),
    /// It has ended.
    Ended(Exit),
    /// It could not be started, and why.
    Failed(String),
    /// The supervisor is gone without a word.
    Gone,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Starts a job that is to end before `until`.
///
/// # Errors
/// If the operating system gives no process or no socket.
pub fn start(job: &Job, until: Instant) -> io::Result<Supervised> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(OWN_PROGRAM);
    let margins = [job.margins.term, job.margins.kill].map(|margin| margin.as_nanos().to_string());
    command.arg0("quorate").arg(SUPERVISOR).args(margins).args(Program::of(job).args());
    for (name, value) in &job.vars {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let supervisor = command.process_group(0).stdin(OwnedFd::from(theirs)).spawn()?;
    let first = format!("until {}\n", until.0);
    let stdin = rustix::stdio::stdin();
    let passed = [stdin];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if job.pass_stdin {
        rights.push(SendAncillaryMessage::ScmRights(&passed));
    }
    sendmsg(ours.as_fd(), &[IoSlice::new(first.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
    ours.set_nonblocking(true)?;
    let control = tokio::net::UnixStream::from_std(ours)?;
    Ok(Supervised { control, supervisor, heard: Vec::new(), job: None })
}

/// Becomes a supervisor or its child, if this process was started to be one. To be asked before anything else is started.
pub fn hidden(args: &[OsString]) -> Option<std::process::ExitCode> {
    let rest = args.get(2..).unwrap_or_default();
    match args.get(1).and_then(|name| name.to_str()) {
        Some(SUPERVISOR) => Some(supervisor::main(rest)),
        Some(CHILD) => Some(child::main(rest)),
        _ => None,
    }
}

/// What the job's process becomes.
struct Program {
    shell: bool,
    words: Vec<OsString>,
}

const BY_SHELL: &str = "shell";
const DIRECTLY: &str = "exec";

impl Program {
    fn of(job: &Job) -> Program {
        Program { shell: job.shell, words: job.words.clone() }
    }

    fn args(&self) -> impl Iterator<Item = &OsStr> {
        let how = OsStr::new(if self.shell { BY_SHELL } else { DIRECTLY });
        std::iter::once(how).chain(self.words.iter().map(OsString::as_os_str))
    }

    fn parse(args: &[OsString]) -> Option<Program> {
        let (how, words) = args.split_first()?;
        let shell = how == BY_SHELL;
        (!words.is_empty() && (shell || how == DIRECTLY)).then(|| Program { shell, words: words.to_vec() })
    }
}

impl Supervised {
    /// Moves the deadline.
    pub fn extend(&self, until: Instant) {
        self.tell(&format!("until {}\n", until.0));
    }

    /// Has the job stopped: asked first, and killed if it does not listen.
    pub fn stop(&self) {
        self.tell("stop\n");
    }

    fn tell(&self, message: &str) {
        // A supervisor that does not listen works by the deadline it has; one that is gone is noticed by who reads.
        let _ = self.control.try_write(message.as_bytes());
    }

    /// The next thing that the supervisor tells. May be dropped at any time.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                match event(String::from_utf8_lossy(&line).trim_end()) {
                    Some(Event::Started(pid)) => {
                        self.job = Pid::from_raw(pid);
                        return Event::Started(pid);
                    }
                    Some(event) => return event,
                    None => continue,
                }
            }
            let mut buffer = [0; MAX_MESSAGE];
            let read = match self.control.readable().await {
                Ok(()) => self.control.try_read(&mut buffer),
                Err(error) => Err(error),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(read) if read > 0 => self.heard.extend_from_slice(&buffer[..read]),
                Ok(_) | Err(_) => {
                    let _ = self.supervisor.try_wait();
                    return Event::Gone;
                }
            }
        }
    }

    /// Kills what the job has started and left behind in its group. For when the supervisor is gone.
    pub fn kill_group(&self) {
        if let Some(group) = self.job {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Kills the job's group, and the supervisor. For when it does not do what it must.
    pub fn kill_all(&mut self) {
        self.kill_group();
        let _ = self.supervisor.kill();
    }

    /// Whether a process of the job's group exists; one that has ended counts until somebody has asked how.
    pub fn group_lives(&self) -> bool {
        self.job.is_some_and(|group| test_kill_process_group(group).is_ok())
    }
}

fn event(line: &str) -> Option<Event> {
    let (what, rest) = line.split_once(' ')?;
    let number = || rest.parse().ok();
    Some(match what {
        "started" => Event::Started(number()?),
        "stopping" => Event::Stopping(rest.into()),
        "exited" => Event::Ended(Exit::Code(number()?)),
        "killed" => Event::Ended(Exit::Signal(number()?)),
        "failed" => Event::Failed(rest.into()),
        _ => return None,
    })
}
