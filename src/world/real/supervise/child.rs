//! The process that becomes the job, after it has tied its life to its supervisor's.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{CANNOT_RUN, Program};

/// Becomes the job; returns only if that fails.
pub fn main(args: &[OsString]) -> ExitCode {
    let supervisor = args.first().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some((supervisor, program)) = supervisor.zip(Program::parse(args.get(1..).unwrap_or_default())) else {
        eprintln!("quorate lock starts this by itself; type: quorate lock PREFIX CHILD...");
        return ExitCode::FAILURE;
    };
    let error = exec(supervisor, &program);
    let name = program.words.first().map(OsString::as_os_str).unwrap_or_default();
    eprintln!("Error! cannot run {}: {error}", name.to_string_lossy());
    ExitCode::from(u8::try_from(CANNOT_RUN).unwrap_or(u8::MAX))
}

fn exec(supervisor: Pid, program: &Program) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have been killed before.
    if getppid() != Some(supervisor) {
        return io::Error::other("its supervisor is gone");
    }
    if program.shell {
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into());
        return Command::new(shell).arg("-c").arg(program.words.join(OsStr::new(" "))).exec();
    }
    let [name, args @ ..] = program.words.as_slice() else { return io::ErrorKind::InvalidInput.into() };
    Command::new(name).args(args).exec()
}
