//! Runs the scripts in `testscripts/`: each shows one behaviour and is named after it. Their commands:
//!
//! ```text
//! put KEY VALUE [flags=N] [cas=N]      delete KEY [cas=N]      delete-tree PREFIX
//! fenced LOCK FENCE "VERB ARGS"        a write under a fence; see `operation`
//!                                      writes; all take id=NAME seq=N [ack=N] [born=N], a request id
//! get KEY      list PREFIX [after=KEY] reads
//! index [PREFIX]                       the index of a list; without a prefix, of the table
//! acquire KEY SESSION [VALUE] [flags=N]         release KEY SESSION [VALUE] [flags=N] [fence=N]
//! lock KEY SESSION [wait=SECONDS]      call-off KEY SESSION asked=N      let-go KEY SESSION [fence=N]      pass
//! keep-history revisions=N [bytes=N]    history [SINCE]    at REVISION [PREFIX]        what the keys were
//! queue KEY    due                     reads: who waits; when `pass` has something to do
//! session NAME node=N [ttl=SECONDS] [delay=SECONDS] [behavior=delete] [checks=ID/…] [service-checks=ID/…]
//! destroy NAME       expire NAME term=N         entries are of term 1 until `term N` says otherwise
//! sessions           standing NAME              reads
//! node NAME [address=A] [uuid=NAME] [K=V]...    service NODE NAME [as=ID] [tags=T/…] [port=N] [K=V]...
//! check NODE ID [service=ID] [status=S] [output=T]
//! deregister NODE [service=ID] [check=ID]
//! catalog            instances SERVICE          reads
//! indexes                              of all subjects
//! txn "VERB ARGS"...   read-txn ...      see `operation`; the latter is one without an entry
//! wait SECONDS                         lets log time pass; the next entry has the new time
//! rewind SECONDS                       the next entries come from a leader whose clock lags behind
//! log-time     entries                 of the latest entry; how many entries were applied
//! backup       stage NAME begin [foreign]|part N|seal [parts=N]|switch|abandon       a restore of what was backed up last
//! restore [foreign]                    all its steps           epoch      sealed      reads
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
use crate::state::restore::Stage;

type Output = std::result::Result<String, Box<dyn Error>>;

#[derive(Default)]
struct Runner {
    state: State,
    kept: State,
    /// Parts of the last backup.
    backup: Vec<bytes::Bytes>,
    time: LogTime,
    term: u64,
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, line: &Line) -> Output {
        let mut args = line.consume_args();
        let output = match line.name.as_str() {
            "keep-history" | "put" | "delete" | "delete-tree" | "fenced" | "lock" | "call-off" | "let-go" | "pass"
            | "acquire" | "release" | "session" | "destroy" | "expire" | "node" | "service" | "check"
            | "deregister" | "txn" => {
                let request = request(&mut args)?;
                let command = command(&line.name, &mut args)?;
                args.reject_rest()?;
                return self.write(request, command);
            }
            "backup" => {
                self.backup.clear();
                self.state.backup().pack(&mut |part| self.backup.push(part));
                String::new()
            }
            "stage" => {
                let (id, stage) = (id_of(&next(&mut args)?), self.stage(&mut args)?);
                args.reject_rest()?;
                return self.write(None, Command::Restore { id, stage });
            }
            "restore" => {
                let foreign = args.next_pos().is_some_and(|word| word.value == "foreign");
                args.reject_rest()?;
                return self.restore(foreign);
            }
            "epoch" => self.state.epoch().to_string(),
            "sealed" => self.state.is_sealed().to_string(),
            "read-txn" => {
                let operations = operations(&mut args)?;
                match self.state.read_transaction(&operations) {
                    Ok(given) => show_given(&given),
                    Err(failures) => show_failures(&failures),
                }
            }
            "term" => {
                self.term = args.next_pos().ok_or("which term?")?.value.parse()?;
                String::new()
            }
            "queue" => {
                let lock = Key::from(&*args.next_pos().ok_or("of what?")?.value);
                let show = |(place, waiter): (u64, &std::sync::Arc<queue::Waiter>)| {
                    format!("{} at {place} until {} ms\n", name_of(waiter.session), waiter.until.0)
                };
                self.state.queues().of(&lock).map(show).collect()
            }
            "history" => show_history(&self.state, &mut args)?,
            "at" => {
                let revision: u64 = args.next_pos().ok_or("when?")?.parse()?;
                let prefix = args.next_pos().map_or("", |prefix| &prefix.value).as_bytes();
                let then = self.state.kv().as_of(revision, prefix);
                then.prefix(prefix).map(|(key, row)| format!("{key} = {}\n", show(row))).collect()
            }
            "due" => self.state.next_due().map_or("never".into(), |due| format!("{} ms", due.0)),
            "sessions" => {
                let show = |(id, row): (Uuid, &std::sync::Arc<SessionRow>)| {
                    format!("{} on {} created {}\n", name_of(id), row.session.node, row.create_index)
                };
                self.state.sessions().iter().map(show).collect()
            }
            "standing" => format!("{:?}", self.state.standing(id_of(&args.next_pos().ok_or("of whom?")?.value))),
            "catalog" => show_catalog(self.state.catalog()),
            "instances" => {
                let name = &args.next_pos().ok_or("of what?")?.value;
                let show =
                    |row: &std::sync::Arc<catalog::ServiceRow>| format!("{} {}\n", row.node_name, row.service.id);
                self.state.catalog().instances(name).map(show).collect()
            }
            "indexes" => {
                use Subject::{Check, Kv, Node, NodeServices, Service, Session};
                let show = |subject| format!("{subject:?} {}", self.state.index_of(subject));
                [Kv, Session, Node, NodeServices, Service, Check].map(show).join(", ")
            }
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
    fn stage(&self, args: Args<'_, '_>) -> Parsed<Stage> {
        Ok(match &*next(args)? {
            "begin" => Stage::Begin { foreign: args.next_pos().is_some_and(|word| word.value == "foreign") },
            "part" => {
                let number = next(args)?.parse()?;
                Stage::Part { number, rows: self.backup.get(number as usize).cloned().unwrap_or_default() }
            }
            "seal" => Stage::Seal { parts: args.lookup_parse("parts")?.unwrap_or(self.backup.len() as u32) },
            "switch" => Stage::Switch,
            "abandon" => Stage::Abandon,
            other => return Err(format!("unknown stage {other}").into()),
        })
    }

    /// What the last step answers.
    fn restore(&mut self, foreign: bool) -> Output {
        let id = id_of("restore");
        let parts = (0..).zip(self.backup.clone()).map(|(number, rows)| Stage::Part { number, rows });
        let seal = Stage::Seal { parts: self.backup.len() as u32 };
        let before = [Stage::Begin { foreign }].into_iter().chain(parts).chain([seal]);
        for stage in before.collect::<Vec<_>>() {
            let output = self.write(None, Command::Restore { id, stage })?;
            assert!(output.starts_with("true"), "{output}");
        }
        self.write(None, Command::Restore { id, stage: Stage::Switch })
    }

    fn write(&mut self, request: Option<RequestId>, command: Command) -> Output {
        let mut touched = Vec::new();
        let response = self.state.apply(self.term.max(1), &Entry { time: self.time, request, command }, &mut touched);
        let mut output = match response.reply {
            Reply::Session(_) => "true".into(),
            Reply::Granted { fence } => format!("granted under fence {fence}"),
            Reply::Committed(given) => format!("{}committed", show_given(&given)),
            Reply::RolledBack(failures) => format!("{}rolled back", show_failures(&failures)),
            Reply::Done(done) => done.to_string(),
            Reply::FencedOff { current: Some(fence) } => format!("fenced off (held under {fence})"),
            Reply::FencedOff { current: None } => "fenced off (not held)".into(),
            Reply::Queued { place } => format!("waits at {place}"),
            Reply::Forgotten => "forgotten".into(),
            Reply::Refused(why) => format!("refused ({why})"),
        };
        write!(output, ", revision {}", response.revision)?;
        for (n, touched) in touched.iter().enumerate() {
            assert_eq!(touched.revision, response.revision);
            let what = match touched.subject {
                Subject::Kv => touched.key.to_string(),
                Subject::Lock => format!("queue:{}", touched.key),
                Subject::Session => format!("session:{}", name_of(Uuid::from_slice(touched.key.as_bytes())?)),
                other => format!("{other:?}:{}", touched.key).replace('\0', "|"),
            };
            write!(output, "{}{what}", if n == 0 { ", wakes " } else { " " })?;
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

/// A session, or a node's id, is named by the beginning of its id.
fn id_of(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

fn name_of(id: Uuid) -> String {
    String::from_utf8_lossy(id.as_bytes()).trim_end_matches('\0').to_string()
}

type Args<'a, 'b> = &'a mut goldenscript::ArgumentConsumer<'b>;
type Parsed<T> = std::result::Result<T, Box<dyn Error>>;

fn next(args: Args<'_, '_>) -> Parsed<String> {
    Ok(args.next_pos().ok_or("an argument is missing")?.value.clone())
}

fn value(args: Args<'_, '_>) -> bytes::Bytes {
    args.next_pos().map_or("", |value| &value.value).to_owned().into()
}

/// The parts of `name=A/B/…`.
fn list(args: Args<'_, '_>, name: &str) -> Vec<String> {
    args.lookup(name).map_or_else(Vec::new, |list| list.value.split('/').map(str::to_owned).collect())
}

fn seconds(args: Args<'_, '_>, name: &str) -> Parsed<Duration> {
    Ok(Duration::from_secs_f64(args.lookup_parse(name)?.unwrap_or(0.0)))
}

fn command(name: &str, args: Args<'_, '_>) -> Parsed<Command> {
    let cas = args.lookup_parse("cas")?;
    let flags = args.lookup_parse("flags")?.unwrap_or(0);
    Ok(match name {
        "put" => {
            let key = Key::from(args.next_pos().map_or("", |key| key.value.as_str()));
            Command::KvSet { key, value: value(args), flags, cas }
        }
        "delete" => Command::KvDelete { key: Key::from(&*next(args)?), cas },
        "delete-tree" => {
            Command::KvDeleteTree { prefix: Key::from(args.next_pos().map_or("", |key| key.value.as_str())) }
        }
        "fenced" => {
            let (lock, fence) = (Key::from(&*next(args)?), next(args)?.parse()?);
            let txn::Operation::Kv { key, verb } = operation(&next(args)?)? else { return Err("of no key".into()) };
            Command::KvFenced { lock, fence, key, verb }
        }
        "lock" => {
            let (lock, session) = (Key::from(&*next(args)?), id_of(&next(args)?));
            Command::LockQueue { lock, session, wait: seconds(args, "wait")? }
        }
        "call-off" => {
            let (lock, session) = (Key::from(&*next(args)?), id_of(&next(args)?));
            Command::LockCallOff { lock, session, asked: args.lookup_parse("asked")?.ok_or("which request?")? }
        }
        "let-go" => {
            let (lock, session) = (Key::from(&*next(args)?), id_of(&next(args)?));
            Command::LockRelease { lock, session, fence: args.lookup_parse("fence")? }
        }
        "pass" => Command::LockPass,
        "keep-history" => {
            let revisions = args.lookup_parse("revisions")?.ok_or("how many?")?;
            Command::KeepHistory(history::Bounds { revisions, bytes: args.lookup_parse("bytes")?.unwrap_or(1 << 20) })
        }
        "acquire" => {
            let (key, session) = (Key::from(&*next(args)?), id_of(&next(args)?));
            Command::KvAcquire { key, session, value: value(args), flags }
        }
        "release" => {
            let (key, session, fence) = (Key::from(&*next(args)?), id_of(&next(args)?), args.lookup_parse("fence")?);
            Command::KvRelease { key, session, value: value(args), flags, fence }
        }
        "session" => {
            let (ttl, lock_delay) = (seconds(args, "ttl")?, seconds(args, "delay")?);
            let deletes = args.lookup("behavior").is_some_and(|behavior| behavior.value == "delete");
            let behavior = if deletes { session::Behavior::Delete } else { session::Behavior::Release };
            let node = args.lookup("node").map_or("n", |node| &node.value).to_string();
            let node_checks = list(args, "checks");
            let service_checks = list(args, "service-checks");
            let name = String::new();
            let session = Session { name, node, lock_delay, behavior, ttl, node_checks, service_checks };
            Command::SessionCreate { id: id_of(&next(args)?), session }
        }
        "destroy" => Command::SessionDestroy { id: id_of(&next(args)?) },
        "expire" => {
            let term = args.lookup_parse("term")?.ok_or("which term?")?;
            Command::SessionExpire { id: id_of(&next(args)?), term }
        }
        "node" => Command::Register(Registration { node: node(args)?, ..Default::default() }),
        "service" => {
            let (named, service) = (next(args)?, service(args)?);
            let node = catalog::Node { name: named, ..Default::default() };
            Command::Register(Registration { node, skip_node: true, service: Some(service), checks: Vec::new() })
        }
        "check" => {
            let (named, check) = (next(args)?, check(args)?);
            let node = catalog::Node { name: named, ..Default::default() };
            Command::Register(Registration { node, skip_node: true, service: None, checks: vec![check] })
        }
        "deregister" => {
            let text = |args: Args<'_, '_>, name| args.lookup(name).map(|found| found.value.clone());
            let (service, check) = (text(args, "service"), text(args, "check"));
            Command::Deregister { node: next(args)?, service, check }
        }
        _ => Command::Txn(operations(args)?),
    })
}

fn node(args: Args<'_, '_>) -> Parsed<catalog::Node> {
    let id = args.lookup("uuid").map(|id| id_of(&id.value));
    let address = args.lookup("address").map_or("10.0.0.1", |address| &address.value).to_string();
    let name = next(args)?;
    let meta =
        args.rest_key().into_iter().map(|pair| (pair.key.clone().unwrap_or_default(), pair.value.clone())).collect();
    Ok(catalog::Node { id, name, address, meta, ..Default::default() })
}

fn service(args: Args<'_, '_>) -> Parsed<catalog::Service> {
    let name = next(args)?;
    let id = args.lookup("as").map_or(&name, |id| &id.value).clone();
    let tags = list(args, "tags");
    let port = args.lookup_parse("port")?.unwrap_or(80);
    Ok(catalog::Service { id, name, tags, port, ..Default::default() })
}

fn check(args: Args<'_, '_>) -> Parsed<catalog::Check> {
    let status = match args.lookup("status").map(|status| status.value.as_str()) {
        Some("passing") => catalog::Status::Passing,
        Some("warning") => catalog::Status::Warning,
        _ => catalog::Status::Critical,
    };
    let service_id = args.lookup("service").map_or("", |id| &id.value).to_string();
    let output = args.lookup("output").map_or("", |text| &text.value).to_string();
    Ok(catalog::Check { id: next(args)?, status, service_id, output, ..Default::default() })
}

/// One argument each, `VERB KEY [VALUE] [NUMBER]` with spaces; the number is an index, a fence or flags.
fn operations(args: Args<'_, '_>) -> Parsed<Vec<txn::Operation>> {
    args.rest_pos().into_iter().map(|operation| self::operation(&operation.value)).collect()
}

fn operation(text: &str) -> Parsed<txn::Operation> {
    use txn::{CatalogVerb, KvVerb, Operation};
    let words: Vec<&str> = text.split(' ').collect();
    let word = |n: usize| words.get(n).copied().unwrap_or_default();
    let value = bytes::Bytes::from(word(2).to_owned());
    let number = |n: usize| word(n).parse::<u64>();
    let kv = |verb| Operation::Kv { key: word(1).into(), verb };
    let node = || catalog::Node { name: word(1).into(), address: word(2).into(), ..Default::default() };
    let service = || catalog::Service { id: word(2).into(), name: word(2).into(), ..Default::default() };
    let check = || catalog::Check { id: word(2).into(), ..Default::default() };
    Ok(match word(0) {
        "set" => kv(KvVerb::Set { value, flags: 0 }),
        "cas" => kv(KvVerb::Cas { value, flags: 0, index: number(3)? }),
        "lock" => kv(KvVerb::Lock { value: word(3).to_owned().into(), flags: 0, session: id_of(word(2)) }),
        "unlock" => {
            let (value, fence) = (word(3).to_owned().into(), number(4).ok());
            kv(KvVerb::Unlock { value, flags: 0, session: id_of(word(2)), fence })
        }
        "get" => kv(KvVerb::Get),
        "get-or-empty" => kv(KvVerb::GetOrEmpty),
        "get-tree" => kv(KvVerb::GetTree),
        "delete" => kv(KvVerb::Delete),
        "delete-cas" => kv(KvVerb::DeleteCas(number(2)?)),
        "delete-tree" => kv(KvVerb::DeleteTree),
        "check-session" => kv(KvVerb::CheckSession(words.get(2).map(|name| id_of(name)))),
        "check-index" => kv(KvVerb::CheckIndex(number(2)?)),
        "check-not-exists" => kv(KvVerb::CheckNotExists),
        "check-fence" => kv(KvVerb::CheckFence(number(2)?)),
        "session-delete" => Operation::SessionDelete(id_of(word(1))),
        "node-set" => Operation::Node { node: node(), verb: CatalogVerb::Set },
        "node-cas" => Operation::Node { node: node(), verb: CatalogVerb::Cas(number(3)?) },
        "node-get" => Operation::Node { node: node(), verb: CatalogVerb::Get },
        "node-delete" => Operation::Node { node: node(), verb: CatalogVerb::Delete },
        "node-delete-cas" => Operation::Node { node: node(), verb: CatalogVerb::DeleteCas(number(2)?) },
        "service-set" => Operation::Service { node: word(1).into(), service: service(), verb: CatalogVerb::Set },
        "service-get" => Operation::Service { node: word(1).into(), service: service(), verb: CatalogVerb::Get },
        "service-delete" => Operation::Service { node: word(1).into(), service: service(), verb: CatalogVerb::Delete },
        "check-set" => Operation::Check { node: word(1).into(), check: check(), verb: CatalogVerb::Set },
        "check-get" => Operation::Check { node: word(1).into(), check: check(), verb: CatalogVerb::Get },
        "check-delete" => Operation::Check { node: word(1).into(), check: check(), verb: CatalogVerb::Delete },
        verb => return Err(format!("unknown verb {verb}").into()),
    })
}

fn show_given(given: &[txn::Given]) -> String {
    let show = |given: &txn::Given| match given {
        txn::Given::Kv(key, row) => format!("  {key} = {}\n", show(row)),
        txn::Given::Node(row) => format!("  node {} modified {}\n", row.node.name, row.modify_index),
        txn::Given::Service(row) => format!("  service {} modified {}\n", row.service.id, row.modify_index),
        txn::Given::Check(row) => format!("  check {} modified {}\n", row.check.id, row.modify_index),
    };
    given.iter().map(show).collect()
}

fn show_failures(failures: &[txn::Failure]) -> String {
    failures.iter().map(|failure| format!("  operation {}: {}\n", failure.operation, failure.why)).collect()
}

fn show_catalog(catalog: &Catalog) -> String {
    let mut shown = String::new();
    for row in catalog.nodes() {
        let id = row.node.id.map_or(String::new(), |id| format!(" id {}", name_of(id)));
        let (meta, indexes) = (&row.node.meta, (row.create_index, row.modify_index));
        let _ = writeln!(shown, "node {}{id} at {} {meta:?} {indexes:?}", row.node.name, row.node.address);
        for row in catalog.services_on(&row.node.name) {
            let (service, indexes) = (&row.service, (row.create_index, row.modify_index));
            let _ = writeln!(
                shown,
                "  service {} id {} {:?} port {} {indexes:?}",
                service.name, service.id, service.tags, service.port
            );
        }
        for row in catalog.checks_on(&row.node.name) {
            let (check, indexes) = (&row.check, (row.create_index, row.modify_index));
            let of = if check.service_id.is_empty() { String::new() } else { format!(" of {}", check.service_id) };
            let _ = writeln!(shown, "  check {}{of} {:?} {:?} {indexes:?}", check.id, check.status, check.output);
        }
    }
    shown
}

fn show(row: &KvRow) -> String {
    let KvRow { value, flags, create_index, modify_index, lock_index, holder } = row;
    let flags = if *flags == 0 { String::new() } else { format!(" flags {flags}") };
    let locks = if *lock_index == 0 { String::new() } else { format!(" locks {lock_index}") };
    let holder = holder
        .map_or(String::new(), |Holder { session, fence }| format!(" held by {} fence {fence}", name_of(session)));
    format!("\"{}\"{flags} created {create_index} modified {modify_index}{locks}{holder}", value.escape_ascii())
}

fn show_history(state: &State, args: Args<'_, '_>) -> Output {
    let history = state.kv().history();
    let since = args.next_pos().map_or(Ok(history.floor()), |since| since.parse())?;
    let mut shown = String::new();
    for change in history.after(since) {
        let row = |row: &Option<std::sync::Arc<KvRow>>| row.as_ref().map_or("nothing".into(), |row| show(row));
        writeln!(shown, "{}: {} was {}, is {}", change.revision, change.key, row(&change.before), row(&change.after))?;
    }
    write!(shown, "floor {}", history.floor())?;
    Ok(shown)
}

fn show_stored(row: &StoredRow) -> String {
    let tables = [
        "header",
        "kv",
        "tombstone",
        "incarnation",
        "answer",
        "session",
        "delay",
        "node",
        "service",
        "check",
        "root",
        "waiter",
        "change",
        "part",
    ];
    let table = tables[usize::from(row.table)];
    let key = row.key.escape_ascii().to_string().replace("\\x00", "");
    let removed = if row.row.is_none() { " removed" } else { "" };
    format!("{}{removed}\n", format!("{table} {key}").trim_end())
}

fn run(folder: &str) {
    let folder = Path::new("src/state/testscripts").join(folder);
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
fn session_scripts() {
    run("session");
}

#[test]
fn lock_scripts() {
    run("lock");
}

#[test]
fn queue_scripts() {
    run("queue");
}

#[test]
fn transaction_scripts() {
    run("txn");
}

#[test]
fn catalog_scripts() {
    run("catalog");
}

#[test]
fn history_scripts() {
    run("history");
}

#[test]
fn restore_scripts() {
    run("restore");
}

#[test]
fn stored_scripts() {
    run("stored");
}
