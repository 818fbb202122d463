//! Whole command lines against the made-up agent of the client's tests: what is printed, where, and the exit code.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::context::Context;
use super::run;
use crate::client::tests::{Fake, Fault, block_on};
use crate::world::{OpenMode, World};

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A terminal in which command lines are typed.
pub(super) struct Terminal {
    fake: Fake,
    world: World,
    input: Vec<u8>,
    vars: Vec<(String, String)>,
}

impl Terminal {
    fn new() -> Terminal {
        let fake = Fake::default();
        Terminal { world: fake.world(), fake, input: Vec::new(), vars: Vec::new() }
    }

    /// In another world than the made-up agent's.
    pub(super) fn at(world: World) -> Terminal {
        Terminal { world, ..Terminal::new() }
    }

    /// Standard output, standard error, exit code.
    pub(super) fn run(&mut self, args: &[&str]) -> (String, String, ExitCode) {
        let (out, err) = (Page::default(), Page::default());
        let vars = self.vars.clone();
        let mut cx = Context {
            world: self.world.clone(),
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            input: Box::new(io::Cursor::new(std::mem::take(&mut self.input))),
            watched: false,
            colours: false,
            var: Box::new(move |name| vars.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())),
        };
        let args: Vec<OsString> = ["quorate"].iter().chain(args).map(OsString::from).collect();
        let code = block_on(run(&mut cx, args));
        (out.text(), err.text(), code)
    }
}

impl goldenscript::Runner for Terminal {
    /// `kv …` and the like are commands; `input`, `file`, `env`, `fail` and `requests` set up what they meet.
    fn run(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn Error>> {
        let typed = |arg: &goldenscript::Argument| match &arg.key {
            Some(key) => format!("{key}={}", arg.value),
            None => arg.value.clone(),
        };
        let args: Vec<String> = command.args.iter().map(typed).collect();
        match command.name.as_str() {
            "input" => self.input = args.join(" ").into_bytes(),
            "file" => block_on(async {
                let file = self.world.disk.open(Path::new(&args[0]), OpenMode::Create).await?;
                file.write_at(0, args[1].clone().into_bytes()).await
            })?,
            "env" => {
                let split = |arg: &String| arg.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                self.vars = args.iter().filter_map(split).collect();
            }
            "fail" => self.fake.fail_next(Fault::Status(args[0].parse()?, "made to fail")),
            "requests" => return Ok(self.fake.requests().join("\n")),
            name => {
                let args: Vec<&str> = std::iter::once(name).chain(args.iter().map(String::as_str)).collect();
                let (out, err, code) = Terminal::run(self, &args);
                let err: String =
                    err.lines().map(|line| format!("stderr: {line}").trim_end().to_owned() + "\n").collect();
                let code = if code == ExitCode::SUCCESS { "" } else { "exit 1\n" };
                return Ok(format!("$ quorate {}\n{out}{err}{code}", args.join(" ")));
            }
        }
        Ok(String::new())
    }
}

#[test]
fn kv_commands_answer_as_consuls_do() {
    goldenscript::run(&mut Terminal::new(), "src/cli/testscripts/kv").unwrap();
}

#[test]
fn flags_and_environment_say_whom_to_ask() {
    goldenscript::run(&mut Terminal::new(), "src/cli/testscripts/environment").unwrap();
}

#[test]
fn a_watch_without_a_command_prints_what_is_there() {
    goldenscript::run(&mut Terminal::new(), "src/cli/testscripts/watch").unwrap();
}

#[test]
fn usage_errors_exit_with_1_and_help_with_0() {
    goldenscript::run(&mut Terminal::new(), "src/cli/testscripts/usage").unwrap();
}

#[test]
fn help_of_every_command_has_examples() {
    for command in [
        "agent",
        "bench",
        "completion",
        "kv",
        "kv get",
        "kv put",
        "kv delete",
        "kv export",
        "kv import",
        "lock",
        "snapshot",
        "snapshot save",
        "snapshot inspect",
        "snapshot restore",
        "version",
        "watch",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["-help"]).collect();
        let (out, err, code) = Terminal::new().run(&words);
        assert!(out.contains("Examples:\n  quorate "), "{command}: {out}");
        assert_eq!((err.as_str(), code), ("", ExitCode::SUCCESS), "{command}");
    }
}

#[test]
fn a_backup_is_asked_for_as_the_flags_say_and_kept_only_if_it_is_one() {
    let mut terminal = Terminal::new();
    let (out, err, code) = terminal.run(&["snapshot", "save", "-stale", "-datacenter=dc2", "backup.snap"]);
    assert_eq!((out.as_str(), code), ("", ExitCode::FAILURE), "the made-up agent gives none");
    assert!(err.starts_with("Error! "), "{err}");
    let requests = terminal.fake.requests();
    assert!(requests[0].starts_with("GET /v1/snapshot?dc=dc2&stale"), "{requests:?}");
    let kept = block_on(terminal.world.disk.list(Path::new(""))).unwrap();
    assert!(kept.is_empty(), "{kept:?}");

    block_on(async {
        let file = terminal.world.disk.open(Path::new("backup.snap"), OpenMode::Create).await.unwrap();
        file.write_at(0, b"no backup".to_vec()).await.unwrap();
    });
    let (_, err, code) = terminal.run(&["snapshot", "restore", "backup.snap"]);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(err.contains("backup.snap: this is not a whole backup of quorate"), "{err}");
    assert!(terminal.fake.requests().is_empty(), "nothing is sent that is not right here");
}

#[test]
fn a_closed_pipe_is_no_news() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let err = Page::default();
    let mut cx =
        Context { out: Box::new(Closed), err: Box::new(err.clone()), ..Context::real(Fake::default().world()) };
    block_on(run(&mut cx, vec!["quorate".into(), "version".into()]));
    assert_eq!(err.text(), "");
}

#[test]
fn bench_measures_and_cleans_up() {
    let mut terminal = Terminal::new();
    let args = ["bench", "-clients=3", "-count=50", "-keys=10", "-reads=50", "-seed=7", "-format=json"];
    let (out, err, code) = terminal.run(&args);
    assert_eq!((err.as_str(), code), ("", ExitCode::SUCCESS));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let count = |kind: &str| report[kind]["count"].as_u64().unwrap();
    assert_eq!(count("read") + count("write"), 50);
    assert_eq!(report["errors"], serde_json::json!({}));
    let requests = terminal.fake.requests();
    assert_eq!(requests.len(), 1 + 10 + 50 + 1, "a removal, ten keys to read, fifty operations, a removal");
    assert_eq!(requests.last().unwrap(), "DELETE /v1/kv/bench/0000000000000007/?recurse");
}

#[test]
fn bench_counts_errors_by_kind_and_goes_on() {
    let mut terminal = Terminal::new();
    terminal.fake.fail_next(Fault::Status(500, "No cluster leader\nmore"));
    terminal.fake.fail_next(Fault::Hangup);
    terminal.fake.fail_next(Fault::Silence);
    let (out, _, code) = terminal.run(&["bench", "-clients=1", "-count=10", "-format=json"]);
    assert_eq!(code, ExitCode::SUCCESS);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["write"]["count"], 7);
    let errors =
        serde_json::json!({ "answered 500 No cluster leader": 1, "lost the connection": 1, "no answer within 15s": 1 });
    assert_eq!(report["errors"], errors);
}

#[test]
fn bench_check_goes_on_through_failures_and_finds_nothing_lost() {
    let mut terminal = Terminal::new();
    for fault in [Fault::Status(500, "Unknown"), Fault::Hangup] {
        terminal.fake.fail_next(fault);
    }
    let (out, err, code) = terminal.run(&["bench", "-check", "-clients=2", "-count=40", "-keys=4"]);
    assert_eq!((err.as_str(), code), ("", ExitCode::SUCCESS));
    assert!(
        out.starts_with("127.0.0.1:8500: acknowledged 38, lost 0\n6 keys read back, 2 writes of unknown outcome"),
        "{out}"
    );
}

#[test]
fn bench_check_notices_a_lost_write() {
    let terminal = Terminal::new();
    let plan = ["bench", "-check", "-clients=1", "-count=4", "-keys=4", "-seed=1"];
    let fake = terminal.fake.clone();
    // The agent forgets what it acknowledged: after the fourth write, before anything is read back.
    let mut thief = Terminal { world: World { net: Arc::new(Forgetful(fake)), ..terminal.world.clone() }, ..terminal };
    let (out, _, code) = thief.run(&plan);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(out.starts_with("127.0.0.1:8500: acknowledged 4, lost 1\n"), "{out}");
    assert!(out.contains("/v1/kv/bench/0000000000000001/0/2.2: acknowledged 2 but found nothing"), "{out}");
    let requests = thief.fake.requests();
    let removals: Vec<usize> = (0..requests.len()).filter(|&i| requests[i].starts_with("DELETE")).collect();
    assert_eq!(removals, [0], "what an earlier run left is removed; what was lost stays, as evidence");
}

/// Loses a key whenever someone connects: the bench connects once more to read back.
struct Forgetful(Fake);

#[async_trait::async_trait]
impl crate::world::Network for Forgetful {
    async fn listen(&self, addr: std::net::SocketAddr) -> io::Result<crate::world::BoxListener> {
        self.0.listen(addr).await
    }
    async fn connect(&self, addr: std::net::SocketAddr) -> io::Result<crate::world::BoxStream> {
        self.0.lose("/2.2");
        self.0.connect(addr).await
    }
    async fn resolve(&self, host: &str) -> io::Result<Vec<std::net::IpAddr>> {
        self.0.resolve(host).await
    }
    fn interfaces(&self) -> io::Result<Vec<crate::world::Interface>> {
        self.0.interfaces()
    }
    fn host_name(&self) -> String {
        self.0.host_name()
    }
}
