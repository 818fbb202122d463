//! Runs the scripts in `testscripts/`: each shows one behaviour and is named after it. Their commands:
//!
//! ```text
//! put KEY VALUE [flags=N] [cas=N]      delete KEY [cas=N]      delete-tree PREFIX
//!                                      writes; all take id=NAME seq=N [ack=N] [born=N], a request id
//! get KEY      list PREFIX [after=KEY] reads
//! index [PREFIX]                       the index of a list; without a prefix, of the table
//! wait SECONDS                         lets log time pass; the next entry has the new time
//! rewind SECONDS                       the next entries come from a leader whose clock lags behind
//! log-time     entries                 of the latest entry; how many entries were applied
//! rows                                 what is stored
//! keep         changes                 keeps a copy of the state; shows what changed since
//! reload                               goes on with a state loaded from rows
//! ```
//! A write prints its answer, the revision after it, and the keys whose watchers it wakes. After every command the digest
//! is recomputed from the rows.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use goldenscript::Command as Line;
use uuid::Uuid;

use super::*;

type Output = std::result::Result<String, Box<dyn Error>>;

#[derive(Default)]
struct Runner {
    state: State,
    kept: State,
    time: LogTime,
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, line: &Line) -> Output {
        let mut args = line.consume_args();
        let output = match line.name.as_str() {
            "put" | "delete" | "delete-tree" => return self.write(line),
            "get" => {
                let key = &args.next_pos().ok_or("which key?")?.value;
                let row = self.state.kv().get(key.as_bytes());
                let index = self.state.kv().key_index(key.as_bytes());
                format!("{}, index {index}", row.map_or("absent".into(), |row| show(row)))
            }
            "list" => {
                let after = args.lookup("after").map(|after| after.value.as_str());
                let prefix = args.next_pos().map_or("", |prefix| &prefix.value).as_bytes();
                let kv = self.state.kv();
                let list = |rows: &mut dyn Iterator<Item = (&Key, &std::sync::Arc<KvRow>)>| {
                    rows.map(|(key, row)| format!("{key} = {}\n", show(row))).collect::<String>()
                };
                let rows = match after {
                    Some(after) => list(&mut kv.prefix_after(prefix, after.as_bytes())),
                    None => list(&mut kv.prefix(prefix)),
                };
                format!("{rows}index {}", kv.prefix_index(prefix))
            }
            "index" => match args.next_pos() {
                Some(prefix) => self.state.kv().prefix_index(prefix.value.as_bytes()).to_string(),
                None => self.state.kv().index().to_string(),
            },
            "wait" => {
                let seconds: f64 = args.next_pos().ok_or("how long?")?.parse()?;
                self.time = self.time + Duration::from_secs_f64(seconds);
                String::new()
            }
            "rewind" => {
                let seconds: u64 = args.next_pos().ok_or("how long?")?.parse()?;
                self.time.0 -= 1000 * seconds;
                String::new()
            }
            "log-time" => format!("{} ms", self.state.log_time().0),
            "entries" => self.state.entries().to_string(),
            "rows" => rows(&self.state).iter().map(show_stored).collect(),
            "keep" => {
                self.kept = self.state.clone();
                String::new()
            }
            "changes" => {
                let mut changes = String::new();
                self.state.changes_since(&self.kept, &mut |row| changes.push_str(&show_stored(&row)));
                changes
            }
            "reload" => {
                self.state = load(rows(&self.state))?;
                String::new()
            }
            name => return Err(format!("unknown command {name}").into()),
        };
        args.reject_rest()?;
        Ok(output)
    }

    fn end_command(&mut self, _: &Line) -> Output {
        load(rows(&self.state))?;
        Ok(String::new())
    }
}

impl Runner {
    fn write(&mut self, line: &Line) -> Output {
        let mut args = line.consume_args();
        let request = request(&mut args)?;
        let cas = args.lookup_parse("cas")?;
        let flags = args.lookup_parse("flags")?.unwrap_or(0);
        let key = Key::from(args.next_pos().map_or("", |key| key.value.as_str()));
        let command = match line.name.as_str() {
            "put" => {
                let value = args.next_pos().map_or("", |value| &value.value);
                Command::KvSet { key, value: value.to_owned().into(), flags, cas }
            }
            "delete" => Command::KvDelete { key, cas },
            _ => Command::KvDeleteTree { prefix: key },
        };
        args.reject_rest()?;

        let mut touched = Vec::new();
        let response = self.state.apply(&Entry { time: self.time, request, command }, &mut touched);
        let mut output = match response.reply {
            Reply::Done(done) => done.to_string(),
            Reply::Forgotten => "forgotten".into(),
            Reply::Refused(why) => format!("refused ({why})"),
        };
        write!(output, ", revision {}", response.revision)?;
        for (n, touched) in touched.iter().enumerate() {
            assert_eq!(touched.revision, response.revision);
            write!(output, "{}{}", if n == 0 { ", wakes " } else { " " }, touched.key)?;
        }
        Ok(output)
    }
}

fn request(args: &mut goldenscript::ArgumentConsumer<'_>) -> std::result::Result<Option<RequestId>, Box<dyn Error>> {
    let Some(name) = args.lookup("id") else { return Ok(None) };
    let mut bytes = [0; 16];
    bytes[..name.value.len()].copy_from_slice(name.value.as_bytes());
    Ok(Some(RequestId {
        incarnation: Uuid::from_bytes(bytes),
        born: args.lookup_parse("born")?.unwrap_or(0),
        sequence: args.lookup_parse("seq")?.ok_or("which seq?")?,
        acknowledged_below: args.lookup_parse("ack")?.unwrap_or(1),
    }))
}

fn show(row: &KvRow) -> String {
    let KvRow { value, flags, create_index, modify_index, lock_index, session } = row;
    assert_eq!((*lock_index, *session), (0, None), "no command takes a lock yet");
    let flags = if *flags == 0 { String::new() } else { format!(" flags {flags}") };
    format!("\"{}\"{flags} created {create_index} modified {modify_index}", value.escape_ascii())
}

fn show_stored(row: &StoredRow) -> String {
    let table = ["header", "kv", "tombstone", "incarnation", "answer"][usize::from(row.table)];
    let key = row.key.escape_ascii().to_string().replace("\\x00", "");
    let removed = if row.row.is_none() { " removed" } else { "" };
    format!("{}{removed}\n", format!("{table} {key}").trim_end())
}

fn run(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/testscripts").join(folder);
    let mut scripts: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Runner::default(), &script).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    }
}

#[test]
fn kv_scripts() {
    run("kv");
}

#[test]
fn index_scripts() {
    run("index");
}

#[test]
fn request_scripts() {
    run("requests");
}

#[test]
fn stored_scripts() {
    run("stored");
}
