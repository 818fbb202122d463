//! Speaks HTTP to a node in `-dev` mode, as the scripts in `tests/api` say.
//!
//! A script's command is a method and a path: `put "/v1/kv/a?flags=1" body=x`. Arguments: `body`, `body_size` (that
//! many bytes), `length` (declares a Content-Length and sends no body), `chunked`, `header="Name: value"`, `show=Name`
//! (a header of the answer to print), `verbatim` (print JSON as it came). `later NAME METHOD PATH` sends a request and
//! does not wait for its answer, `join NAME` does, `records NAME N` reads the next lines of one that is an endless stream, `hang-up NAME` never will. `raw BYTES` sends bytes as they are, `\r\n` and the like written
//! out.
//!
//! Indexes count from the start of the script: `+1` is the first change. `{1}` in a path or a body stands for that index, and
//! `{#1}` for the first id that an answer has shown, which is printed as `#1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use goldenscript::Command;
use quorate::config::{Config, FlagValue, Flags};
use quorate::world::real;

/// A guard against hanging; nothing depends on its length.
const GUARD: Duration = Duration::from_secs(60);

/// Headers that are printed whenever they are there.
const SHOWN: [&str; 4] = ["Allow", "Location", "Content-Encoding", "X-Quorate-Next"];

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            goldenscript::run(&mut Runner::start(), concat!("tests/api/", stringify!($name))).unwrap();
        })*

        #[test]
        fn every_script_is_run() {
            let files = std::fs::read_dir("tests/api").unwrap();
            let mut found: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            found.sort();
            assert_eq!(found, [$(stringify!($name)),*]);
        }
    };
}

scripts! { agent any_key bad_parameters blocking catalog consistency delete encoding fences get keys locks methods paging past put recurse request_id session sizes snapshot txn watch }

/// Fields that hold an index.
const INDEXES: [&str; 5] = ["CreateIndex", "ModifyIndex", "Index", "Oldest", "Fence"];

/// A node on the loopback in `-dev` mode: one server, in memory, JSON indented.
fn start_dev_node() -> SocketAddr {
    let (send, addr) = mpsc::channel();
    #[expect(clippy::disallowed_methods, reason = "the node runs beside the test, for as long as the process does")]
    std::thread::spawn(move || {
        real::block_on(|world| async move {
            let port = FlagValue { flag: "-http-port", key: "ports.http", value: 0.into() };
            let rpc = FlagValue { flag: "-server-port", key: "ports.server", value: (-1).into() };
            let flags = Flags { dev: true, scalars: vec![port, rpc], ..Flags::default() };
            let config = Config::load(&world, &flags).await.unwrap();
            let mut node = quorate::node::start(world, config).await.unwrap();
            send.send(node.http_addrs()[0]).unwrap();
            panic!("the node has failed: {}", node.stopped().await);
        })
    });
    addr.recv_timeout(GUARD).unwrap()
}

struct Runner {
    addr: SocketAddr,
    /// The index before the script's first change.
    base: u64,
    later: BTreeMap<String, TcpStream>,
    streams: BTreeMap<String, Records>,
    /// UUIDs in the order in which answers showed them.
    ids: Vec<String>,
}

impl Runner {
    fn start() -> Self {
        let mut runner = Runner {
            addr: start_dev_node(),
            base: 0,
            later: BTreeMap::new(),
            streams: BTreeMap::new(),
            ids: Vec::new(),
        };
        // The server registers itself, and then makes the root certificate: each takes an index.
        let roots = "GET /v1/agent/connect/ca/roots HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        while !runner.exchange(roots).has("BEGIN CERTIFICATE") {}
        // One change, so that the index is above the 1 that stands for "none yet".
        for method in ["PUT", "DELETE"] {
            runner.exchange(&format!("{method} /v1/kv/before HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        }
        let answer = runner.exchange("GET /v1/kv/before HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        runner.base = answer.header("X-Consul-Index").unwrap().parse().unwrap();
        runner
    }

    fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.write_all(request).unwrap();
        stream
    }

    fn exchange(&self, request: &str) -> Answer {
        Answer::read(self.send(request.as_bytes()))
    }

    /// The request that a command describes.
    fn request(&self, method: &str, path: &str, options: &Options) -> Result<Vec<u8>, Box<dyn Error>> {
        let path = self.meant(path)?;
        let mut head = format!("{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method.to_uppercase());
        for header in &options.headers {
            write!(head, "{}\r\n", self.meant(header)?)?;
        }
        let body = match std::str::from_utf8(&options.body) {
            Ok(text) => self.meant(text)?.into_bytes(),
            Err(_) => options.body.clone(),
        };
        if let Some(length) = &options.length {
            write!(head, "Content-Length: {length}\r\n\r\n")?;
            return Ok(head.into_bytes());
        }
        if options.chunked {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            return Ok([head.into_bytes(), body.chunks(1000).flat_map(chunk).collect(), b"0\r\n\r\n".to_vec()].concat());
        }
        if !body.is_empty() {
            write!(head, "Content-Length: {}\r\n", body.len())?;
        }
        Ok([head.as_bytes(), b"\r\n", &body].concat())
    }

    fn show(&mut self, answer: &Answer, options: &Options) -> Result<String, Box<dyn Error>> {
        let mut shown = answer.status.clone();
        if let Some(index) = answer.header("X-Consul-Index") {
            match index.parse::<u64>()?.checked_sub(self.base) {
                Some(later) => write!(shown, " index=+{later}")?,
                None => write!(shown, " index=before")?,
            }
        }
        shown.push('\n');
        for name in SHOWN.iter().copied().chain(options.show.iter().map(String::as_str)) {
            match answer.header(name) {
                Some(value) => writeln!(shown, "{name}: {value}")?,
                None if SHOWN.contains(&name) => {}
                None => writeln!(shown, "no {name}")?,
            }
        }
        let json = answer.header("Content-Type") == Some("application/json");
        match &answer.body {
            body if body.is_empty() => {}
            body if body.len() > 2000 => writeln!(shown, "({} bytes)", body.len())?,
            body if json && !options.verbatim => self.show_json(&mut shown, serde_json::from_slice(body)?)?,
            body => {
                let escaped = |line: &[u8]| line.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'");
                for line in body.strip_suffix(b"\n").unwrap_or(body).split(|byte| *byte == b'\n') {
                    writeln!(shown, "{}", escaped(line))?;
                }
            }
        }
        Ok(shown)
    }

    /// One line per entry, indexes relative, ids by their numbers.
    fn show_json(&mut self, shown: &mut String, mut json: serde_json::Value) -> Result<(), Box<dyn Error>> {
        self.make_relative(&mut json);
        match json.as_array().filter(|list| list.iter().any(serde_json::Value::is_object)) {
            Some(entries) => entries.iter().try_for_each(|entry| writeln!(shown, "{entry}"))?,
            None => writeln!(shown, "{json}")?,
        }
        Ok(())
    }

    fn make_relative(&mut self, json: &mut serde_json::Value) {
        match json {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    let index = value.as_u64().filter(|_| INDEXES.contains(&name.as_str()));
                    // What is not there has 0.
                    match index.filter(|index| *index > 0) {
                        Some(index) => *value = format!("+{}", index - self.base).into(),
                        None => self.make_relative(value),
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|value| self.make_relative(value)),
            serde_json::Value::String(text) if uuid::Uuid::try_parse(text).is_ok() => *text = self.number(text),
            _ => {}
        }
    }

    /// `#1` for the first id that was seen, and so on.
    fn number(&mut self, id: &str) -> String {
        let place = self.ids.iter().position(|known| known == id).unwrap_or_else(|| {
            self.ids.push(id.into());
            self.ids.len() - 1
        });
        format!("#{}", place + 1)
    }

    /// The next lines of a stream; its status first.
    fn records(&mut self, name: &str, count: usize) -> Result<String, Box<dyn Error>> {
        let mut shown = String::new();
        let mut records = match self.later.remove(name) {
            None => self.streams.remove(name).ok_or("no such stream")?,
            Some(stream) => {
                let mut records = Records { stream: BufReader::new(stream), text: Vec::new() };
                let head = records.head()?;
                writeln!(shown, "{}", head.lines().next().and_then(|line| line.split(' ').nth(1)).ok_or("no status")?)?;
                records
            }
        };
        for _ in 0..count {
            let Some(line) = records.line()? else {
                shown.push_str("(the end)\n");
                break;
            };
            match (line.strip_prefix("id: "), line.strip_prefix("data: ").unwrap_or(&line)) {
                (Some(id), _) => writeln!(shown, "id: +{}", id.parse::<u64>()? - self.base)?,
                (None, json) if json.starts_with('{') => self.show_json(&mut shown, serde_json::from_str(json)?)?,
                (None, text) => writeln!(shown, "{text}")?,
            }
        }
        self.streams.insert(name.into(), records);
        Ok(shown)
    }

    /// `{1}` is the first index, `{#1}` the first id; braces around anything else stay.
    fn meant(&self, text: &str) -> Result<String, Box<dyn Error>> {
        let (mut rest, mut meant) = (text, String::new());
        while let Some((before, after)) = rest.split_once('{') {
            meant += before;
            rest = match after.split_once('}') {
                Some((number, after)) if number.starts_with('#') => {
                    meant += self.ids.get(number[1..].parse::<usize>()? - 1).ok_or("no such id yet")?;
                    after
                }
                Some((number, after)) if number.parse::<u64>().is_ok() => {
                    meant += &(self.base + number.parse::<u64>()?).to_string();
                    after
                }
                _ => {
                    meant.push('{');
                    after
                }
            };
        }
        Ok(meant + rest)
    }
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let options = Options::read(&mut args)?;
        let words: Vec<&str> = args.rest_pos().into_iter().map(|arg| arg.value.as_str()).collect();
        let answer = match (command.name.as_str(), &words[..]) {
            ("join", [name]) => Answer::read(self.later.remove(*name).ok_or("no such request")?),
            ("records", [name, count]) => return self.records(name, count.parse()?),
            ("hang-up", [name]) => {
                if self.later.remove(*name).is_none() && self.streams.remove(*name).is_none() {
                    return Err("no such request".into());
                }
                return Ok(String::new());
            }
            ("raw", [bytes]) => Answer::read(self.send(bytes.as_bytes())),
            ("later", [name, method, path]) => {
                let request = self.request(method, path, &options)?;
                self.later.insert(name.to_string(), self.send(&request));
                return Ok(String::new());
            }
            (method, [path]) => Answer::read(self.send(&self.request(method, path, &options)?)),
            _ => return Err("expected a method and a path".into()),
        };
        self.show(&answer, &options)
    }
}

#[test]
fn the_node_describes_itself_by_consuls_names() {
    let runner = Runner::start();
    let get = |path: &str| -> serde_json::Value {
        let answer = runner.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        serde_json::from_slice(&answer.body).unwrap()
    };
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let own = get("/v1/agent/self");
    assert_eq!(names(&own), "Config DebugConfig Coord Member Stats Meta");
    let config = "Datacenter PrimaryDatacenter NodeName NodeID Revision Server Version BuildDate";
    assert_eq!(names(&own["Config"]), config);
    let protocol = "ProtocolMin ProtocolMax ProtocolCur DelegateMin DelegateMax DelegateCur";
    assert_eq!(names(&own["Member"]), format!("Name Addr Port Tags Status {protocol}"));
    assert_eq!(own["Member"]["Name"], own["Config"]["NodeName"]);
    assert_eq!(own["Member"]["Tags"]["id"], own["Config"]["NodeID"]);
    assert_eq!(own["Config"]["Version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(own["DebugConfig"]["DevMode"], true);
    let version = get("/v1/agent/version");
    assert_eq!(names(&version), "SHA BuildDate HumanVersion FIPS");
    assert_eq!(version["HumanVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_root_certificate_is_there_when_the_server_has_registered_itself() {
    let runner = Runner::start();
    let answer = runner
        .exchange("GET /v1/agent/connect/ca/roots?index=1&wait=60s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let shown: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let root = &shown["Roots"][0];
    assert_eq!((&shown["ActiveRootID"], &root["Active"]), (&root["ID"], &serde_json::Value::from(true)));
    assert!(shown["TrustDomain"].as_str().unwrap().ends_with(".consul"));
    assert!(root["RootCert"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(root["CreateIndex"].as_u64() >= Some(2), "{shown}");
}

/// The named arguments of a command.
#[derive(Default)]
struct Options {
    body: Vec<u8>,
    length: Option<String>,
    chunked: bool,
    headers: Vec<String>,
    show: Vec<String>,
    verbatim: bool,
}

impl Options {
    fn read(args: &mut goldenscript::ArgumentConsumer<'_>) -> Result<Self, Box<dyn Error>> {
        let mut options = Options::default();
        for arg in args.rest_key() {
            let value = arg.value.clone();
            match arg.key.as_deref() {
                Some("body") => options.body = value.into_bytes(),
                Some("body_size") => options.body = vec![b'x'; value.parse()?],
                Some("length") => options.length = Some(value),
                Some("chunked") => options.chunked = true,
                Some("header") => options.headers.push(value),
                Some("show") => options.show.push(value),
                Some("verbatim") => options.verbatim = true,
                other => return Err(format!("unknown argument {other:?}").into()),
            }
        }
        Ok(options)
    }
}

/// What came back.
struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes the connection.
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_string();
        let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.into(), v.into())).collect();
        let mut answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
        if answer.header("Transfer-Encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        }
        if answer.header("Content-Encoding") == Some("gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
            answer.body = plain;
        }
        answer
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An answer without an end, in chunks.
struct Records {
    stream: BufReader<TcpStream>,
    text: Vec<u8>,
}

impl Records {
    fn head(&mut self) -> Result<String, Box<dyn Error>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            self.stream.read_line(&mut head)?;
        }
        Ok(head)
    }

    fn line(&mut self) -> Result<Option<String>, Box<dyn Error>> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(Some(String::from_utf8(line)?.trim_end().to_string()));
            }
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16)?;
            if size == 0 {
                return Ok(None);
            }
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk)?;
            self.text.extend_from_slice(&chunk[..size]);
        }
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}
