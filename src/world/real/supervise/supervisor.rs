//! The process that stops the job in time. One thread, one `poll`: its owner's words, its child's end, and a timer that runs
//! through a suspend of the machine.
//!
//! What it never does: wait for anything else, or end before its child has.

use std::ffi::OsString;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::watchdog::{Step, Watchdog};
use super::{CHILD, MAX_MESSAGE, Margins, OWN_PROGRAM, Program};
use crate::world::real::RealClock;
use crate::world::{Clock, Instant};

/// Supervises until the job has ended. Its end is told to the owner; the exit code says only whether that went well.
pub fn main(args: &[OsString]) -> ExitCode {
    let nanos = |arg: &OsString| arg.to_str()?.parse().ok().map(Duration::from_nanos);
    let parsed = match args {
        [term, kill, program @ ..] => nanos(term).zip(nanos(kill)).zip(Program::parse(program)),
        _ => None,
    };
    let Some(((term, kill), program)) = parsed else {
        eprintln!("quorate lock starts this by itself; type: quorate lock PREFIX CHILD...");
        return ExitCode::FAILURE;
    };
    match supervise(Margins { term, kill }, &program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error! cannot supervise what the lock protects: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(margins: Margins, program: &Program) -> io::Result<()> {
    let _handlers = outlive_signals()?;
    // Standard input is the socket; our own handle to it is not passed on.
    let mut owner = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let (first, stdin) = receive(&owner)?;
    let mut words = Words::default();
    let Some(until) = words.hear(&first).find_map(until) else { return Ok(()) };
    let child = match start(program, stdin) {
        Ok(child) => child,
        Err(error) => return writeln!(owner, "failed {error}"),
    };
    let _ = writeln!(owner, "started {}", child.id());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let watchdog = Watchdog::new(margins, until);
    Supervisor { owner, words, listens: true, child, pid, ended, timer, watchdog }.run()
}

/// Whoever stops everything at once, as systemd does, must not have the job killed at once with us: it is our owner who stops
/// us. A signal that is caught is back to normal in the child, unlike one that is ignored.
fn outlive_signals() -> io::Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    // It runs nothing: only the handlers are wanted, which stay.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    {
        let _entered = runtime.enter();
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
            drop(signal(kind)?);
        }
    }
    Ok(runtime)
}

/// The owner's first message, and the standard input that it may have passed with it.
fn receive(owner: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let read = loop {
        match recvmsg(owner, &mut [IoSliceMut::new(&mut bytes)], &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            read => break read?.bytes,
        }
    };
    bytes.truncate(read);
    let passed = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
        _ => None,
    });
    Ok((bytes, passed))
}

/// Starts the job in a group of its own. The kernel ties its life to this thread, which is the only one.
fn start(program: &Program, stdin: Option<OwnedFd>) -> io::Result<Child> {
    let stdin = stdin.map_or_else(Stdio::null, Stdio::from);
    let own = std::process::id().to_string();
    Command::new(OWN_PROGRAM)
        .arg0("quorate")
        .args([CHILD, &own])
        .args(program.args())
        .stdin(stdin)
        .process_group(0)
        .spawn()
}

struct Supervisor {
    owner: UnixStream,
    words: Words,
    listens: bool,
    child: Child,
    pid: Pid,
    ended: OwnedFd,
    timer: OwnedFd,
    watchdog: Watchdog,
}

impl Supervisor {
    fn run(mut self) -> io::Result<()> {
        loop {
            match self.watchdog.step(RealClock.now()) {
                Step::Term => {
                    // It may have ended by itself just now.
                    let _ = kill_process_group(self.pid, Signal::TERM);
                    let _ = writeln!(self.owner, "stopping with SIGTERM");
                    continue;
                }
                Step::Kill => {
                    let _ = kill_process_group(self.pid, Signal::KILL);
                    let _ = writeln!(self.owner, "stopping with SIGKILL");
                    continue;
                }
                Step::Wait(next) => self.arm(next)?,
            }
            let (ended, spoken) = self.wait()?;
            if ended {
                return self.finish();
            }
            if spoken {
                self.listen();
            }
        }
    }

    /// Has the timer wake us at this moment, and not before.
    fn arm(&self, next: Option<Instant>) -> io::Result<()> {
        // Zero would switch the timer off, which is what there being no such moment means.
        let at = next.map_or(Duration::ZERO, |at| RealClock::boot_time(at).max(Duration::from_nanos(1)));
        let it_value =
            Timespec { tv_sec: at.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: at.subsec_nanos().into() };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Waits until something happens: whether the child has ended, and whether the owner has spoken.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let words = if self.listens { PollFlags::IN } else { PollFlags::empty() };
        let mut watched = vec![PollFd::new(&self.ended, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        if self.listens {
            watched.push(PollFd::new(&self.owner, words));
        }
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok((happened(0), happened(2)))
    }

    fn listen(&mut self) {
        let mut bytes = [0; MAX_MESSAGE];
        let read = match io::Read::read(&mut self.owner, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            read => read.unwrap_or(0),
        };
        let now = RealClock.now();
        if read == 0 {
            // Its owner is gone, and nobody moves the deadline any more.
            self.listens = false;
            self.watchdog.ask(now);
        }
        for line in self.words.hear(&bytes[..read]) {
            match until(line.clone()) {
                Some(until) => self.watchdog.extend(until),
                None if line == "stop" => self.watchdog.ask(now),
                None => {}
            }
        }
    }

    fn finish(mut self) -> io::Result<()> {
        if self.watchdog.stops() {
            // What a job that was stopped has left behind. Its number is its own until it is waited for.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        let status = self.child.wait()?;
        let said = match status.signal() {
            Some(signal) => writeln!(self.owner, "killed {signal}"),
            None => writeln!(self.owner, "exited {}", status.code().unwrap_or(-1)),
        };
        if self.listens { said } else { Ok(()) }
    }
}

/// Lines out of what is read piece by piece.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn hear(&mut self, bytes: &[u8]) -> impl Iterator<Item = String> + use<> {
        self.0.extend_from_slice(bytes);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.0.drain(..end).collect();
        let lines: Vec<String> = String::from_utf8_lossy(&whole).lines().map(String::from).collect();
        lines.into_iter()
    }
}

fn until(line: String) -> Option<Instant> {
    line.strip_prefix("until ")?.parse().ok().map(Instant)
}
