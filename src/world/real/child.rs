//! Programs that are run on a user's behalf: given their input, waited for, never ended by us.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program to its end, with variables beside our own environment, and `input` on its standard input. What it prints
/// goes where ours does.
///
/// # Errors
/// If it cannot be started or waited for. That it fails is no error but its status.
pub async fn run(
    program: &OsStr,
    args: &[impl AsRef<OsStr>],
    variables: &[(&str, String)],
    input: &[u8],
) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program need not read what it is given: a closed pipe is its own affair.
            let _ = stdin.write_all(input).await;
        }
        // The pipe is closed, which ends the input.
        std::future::pending::<Infallible>().await
    };
    // Its end counts, also if something that it has started holds the pipe and never reads it.
    tokio::select! {
        status = child.wait() => status,
        never = feed => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::real::block_on;

    fn shell(script: &str, input: &[u8]) -> ExitStatus {
        let (args, variables) = (["-c", script], [("CONSUL_INDEX", "7".to_string())]);
        block_on(async |_| run(OsStr::new("/bin/sh"), &args, &variables, input).await).unwrap().unwrap()
    }

    #[test]
    fn a_program_gets_its_input_to_the_end_and_its_variables() {
        let input = vec![b'x'; 1 << 20];
        let script = r#"test "$CONSUL_INDEX" = 7 && test "$(wc -c | tr -d ' ')" = 1048576"#;
        assert!(shell(script, &input).success());
        assert_eq!(shell("exit 3", b"").code(), Some(3));
        assert_eq!(shell("kill -9 $$", b"").code(), None);
    }

    #[test]
    fn input_that_nobody_reads_holds_nothing_up() {
        let input = vec![b'x'; 1 << 20];
        assert!(shell("exit 0", &input).success());
        // What is left behind holds the pipe open, and reads nothing until it is gone.
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        assert!(shell(&format!("exec 3<&0; sleep 600 <&3 & echo $! > {}", pid.display()), &input).success());
        let pid = std::fs::read_to_string(pid).unwrap();
        assert!(std::process::Command::new("kill").arg(pid.trim()).status().unwrap().success(), "it still ran");
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let none: [&str; 0] = [];
        let error = block_on(|_| run(OsStr::new("/no/such/program"), &none, &[], b"")).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
