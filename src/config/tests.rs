//! What sources mean together, and what is wrong with them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::raw::Format;
use super::{Config, FlagValue, Flags, LogLevel};
use crate::error::{Error, Result};
use crate::world::{BoxListener, BoxStream, Interface, MemoryDisk, Network, OpenMode, World, real};

/// A machine of which only its name and its network cards matter.
struct Machine(Vec<(&'static str, &'static str)>);

#[async_trait]
impl Network for Machine {
    async fn listen(&self, _: SocketAddr) -> io::Result<BoxListener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _: SocketAddr) -> io::Result<BoxStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(cards(&self.0))
    }
    fn host_name(&self) -> String {
        "machine-1".into()
    }
}

fn cards(list: &[(&str, &str)]) -> Vec<Interface> {
    list.iter().map(|(name, addr)| Interface { name: (*name).into(), addr: addr.parse().unwrap() }).collect()
}

/// Loads from these files and flags.
fn load(files: &[(&str, &str)], flags: &Flags) -> Result<Config> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let disk = MemoryDisk::default();
        let machine = Machine(vec![("lo", "127.0.0.1"), ("eth0", "10.0.0.5"), ("eth1", "203.0.113.9")]);
        let world = World { net: Arc::new(machine), disk: Arc::new(disk), ..real::world() };
        for (path, text) in files {
            let file = world.disk.open(Path::new(path), OpenMode::Create).await.unwrap();
            file.write_at(0, text.as_bytes().to_vec()).await.unwrap();
        }
        Config::load(&world, flags).await
    })
}

/// Loads these files in this order, with data in `/d` unless one says otherwise.
fn load_files(files: &[(&str, &str)]) -> Result<Config> {
    let paths = files.iter().map(|(path, _)| path.into()).collect();
    load(files, &Flags { paths, lists: vec![scalar("-data-dir", "data_dir", json!("/d"))], ..Flags::default() })
}

fn scalar(flag: &'static str, key: &'static str, value: Value) -> FlagValue {
    FlagValue { flag, key, value }
}

fn message(outcome: Result<Config>) -> String {
    match outcome {
        Err(Error::Operator(message)) => message,
        other => panic!("expected an error for the operator, got {other:?}"),
    }
}

#[test]
fn later_sources_win_maps_overlay_and_lists_append() {
    let files = [
        (
            "/c/base.json",
            r#"{"data_dir": "/d", "node_name": "base", "ports": {"http": 1, "dns": 2}, "retry_join": ["b"],
            "node_meta": {"rack": "1", "disk": "ssd"}}"#,
        ),
        ("/dir/a.json", r#"{"node_name": "a", "ports": {"dns": 3}, "retry_join": ["c"], "node_meta": {"rack": "2"}}"#),
        ("/dir/b.hcl", "node_name = \"b\"\nretry_join = [\"d\"]\nports { server = 4 }\nserver = true"),
    ];
    let flags = Flags {
        paths: vec!["/c/base.json".into(), "/dir".into()],
        lists: vec![scalar("-retry-join", "retry_join", json!(["a"]))],
        scalars: vec![scalar("-http-port", "ports.http", json!(9)), scalar("-node", "node_name", json!("flag"))],
        hcl: vec!["node_name = \"fragment\"\nretry_join = [\"e\"]".into()],
        ..Flags::default()
    };
    let config = load(&files, &flags).unwrap();
    assert_eq!(config.node_name, "fragment");
    assert_eq!(config.join.retry_join, ["a", "b", "c", "d", "e"]);
    assert_eq!((config.ports.http, config.ports.dns, config.ports.server), (Some(9), Some(3), Some(4)));
    let meta: Vec<_> = config.node_meta.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(meta, ["disk=ssd", "rack=2"]);
    assert!(config.server);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn files_come_in_the_order_given_and_a_directory_in_that_of_its_names() {
    let one = ("/z.json", r#"{"node_name": "z"}"#);
    let two = ("/a.json", r#"{"node_name": "a"}"#);
    assert_eq!(load_files(&[one, two]).unwrap().node_name, "a");
    assert_eq!(load_files(&[two, one]).unwrap().node_name, "z");
    let files = [("/dir/2.json", r#"{"node_name": "two"}"#), ("/dir/10.json", r#"{"node_name": "ten"}"#)];
    let flags = Flags { dev: true, paths: vec!["/dir".into()], ..Flags::default() };
    assert_eq!(load(&files, &flags).unwrap().node_name, "two", "names are compared as texts");
}

#[test]
fn what_is_no_configuration_in_a_directory_is_skipped_with_a_warning() {
    let files = [("/dir/README", "hello"), ("/dir/a.json", "{}")];
    let flags = Flags { dev: true, paths: vec!["/dir".into()], ..Flags::default() };
    let config = load(&files, &flags).unwrap();
    assert_eq!(config.warnings, ["/dir/README: skipped, its name ends neither in .json nor in .hcl"]);
    let every = Flags { format: Some(Format::Json), ..flags };
    assert!(message(load(&files, &every)).starts_with("/dir/README: not JSON"));
}

#[test]
fn of_a_key_written_twice_in_json_the_last_counts_and_null_says_nothing() {
    let config = load_files(&[("/a.json", r#"{"node_name": "x", "node_name": "y", "server": null}"#)]).unwrap();
    assert_eq!((config.node_name.as_str(), config.server), ("y", false));
}

#[test]
fn defaults_are_consuls_except_for_the_faster_failover() {
    let config = load_files(&[]).unwrap();
    assert_eq!(config.node_name, "machine-1");
    assert_eq!(config.datacenter, "dc1");
    assert_eq!(config.http_addrs(), ["127.0.0.1:8500".parse().unwrap()]);
    assert_eq!(config.dns_addrs(), ["127.0.0.1:8600".parse().unwrap()]);
    assert_eq!((config.ports.https, config.ports.grpc, config.ports.serf_wan), (None, None, Some(8302)));
    assert_eq!(config.limits.kv_max_value_size, 512 * 1024);
    assert_eq!((config.performance.raft_multiplier, config.log_segment_bytes), (1, 32 << 20));
    assert_eq!((config.default_query_time.as_secs(), config.max_query_time.as_secs()), (300, 600));
    assert!(!config.server && !config.bootstrap && !config.pretty_json && config.leave_on_terminate);
    assert_eq!(config.log_level, LogLevel::Info);
}

#[test]
fn dev_is_one_server_in_memory_whatever_files_say_of_data() {
    let files = [("/a.json", r#"{"data_dir": "/d", "log_level": "WARN"}"#)];
    let config = load(&files, &Flags { dev: true, paths: vec!["/a.json".into()], ..Flags::default() }).unwrap();
    assert!(config.dev && config.server && config.bootstrap && config.pretty_json);
    assert_eq!((config.data_dir.as_ref(), config.log_level), (None, LogLevel::Warn));
    assert_eq!(config.advertise_addr(&[]).unwrap().to_string(), "127.0.0.1");
    assert!(config.skip_leave_on_interrupt && !config.leave_on_terminate);
}

#[test]
fn templates_and_lists_of_addresses_are_read() {
    let text = r#"{"bind_addr": "{{ GetInterfaceIP \"eth1\" }}", "client_addr": "{{ GetPrivateIP }} 127.0.0.1  ::1",
        "addresses": {"dns": "192.0.2.1"}, "ports": {"http": -1}}"#;
    let config = load_files(&[("/a.json", text)]).unwrap();
    assert_eq!(config.bind_addr.unwrap().to_string(), "203.0.113.9");
    let clients: Vec<_> = config.client_addr.iter().map(IpAddr::to_string).collect();
    assert_eq!(clients, ["10.0.0.5", "127.0.0.1", "::1"]);
    assert_eq!(config.dns_addrs(), ["192.0.2.1:8600".parse().unwrap()]);
    assert_eq!(config.http_addrs(), [], "-1 switches a port off");
}

#[test]
fn the_advertised_address_is_the_only_one_or_an_error_that_names_the_candidates() {
    let config = load_files(&[]).unwrap();
    let advertise = |list: &[(&str, &str)]| config.advertise_addr(&cards(list)).map(|addr| addr.to_string());
    assert_eq!(advertise(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.5"), ("eth1", "203.0.113.9")]).unwrap(), "10.0.0.5");
    assert_eq!(advertise(&[("lo", "127.0.0.1"), ("eth1", "203.0.113.9"), ("eth1", "fe80::1")]).unwrap(), "203.0.113.9");
    assert_eq!(advertise(&[("lo", "127.0.0.1")]).unwrap(), "127.0.0.1");
    let two = advertise(&[("eth0", "10.0.0.5"), ("eth1", "192.168.1.2")]).unwrap_err().to_string();
    let expected = "this machine has several addresses: 10.0.0.5 (eth0), 192.168.1.2 (eth1); set bind_addr or advertise_addr to one";
    assert_eq!(two, expected);
    let six = load_files(&[("/a.json", r#"{"bind_addr": "::"}"#)]).unwrap();
    let both = cards(&[("lo", "::1"), ("eth0", "10.0.0.5"), ("eth0", "fe80::1"), ("eth0", "2001:db8::5")]);
    assert_eq!(six.advertise_addr(&both).unwrap().to_string(), "2001:db8::5");
    assert_eq!(config.advertise_addr(&both).unwrap().to_string(), "10.0.0.5");
    let bound = load_files(&[("/a.json", r#"{"bind_addr": "0.0.0.0", "advertise_addr": "192.168.1.2"}"#)]).unwrap();
    assert_eq!(
        bound.advertise_addr(&cards(&[("a", "10.0.0.1"), ("b", "10.0.0.2")])).unwrap().to_string(),
        "192.168.1.2"
    );
}

#[test]
fn keys_without_effect_are_told_once_with_a_sentence() {
    let text = r#"{"ui_dir": "/opt", "raft_protocol": 3, "enable_syslog": true, "ports": {"rpc": 8400, "https": -1, "grpc": 8502},
        "connect": {"enabled": true}, "peering": {"enabled": false}, "segments": null, "version": "1.2", "ui": true,
        "acl": {"enabled": true}, "encrypt": "pUqJrVyVRj5jsiYEkM/tFQ==", "verify_incoming": true,
        "tls": {"defaults": {"verify_incoming": true}}, "disable_update_check": true}"#;
    let again = ("/b.json", r#"{"raft_protocol": 3}"#);
    let warnings = load_files(&[("/a.json", text), again]).unwrap().warnings.join("\n");
    for (key, part) in [
        ("acl", "/a.json: SECURITY: \"acl\" is NOT IN FORCE: access control does not exist yet"),
        ("encrypt", "SECURITY: \"encrypt\" is NOT IN FORCE"),
        ("tls", "SECURITY: \"tls\" is NOT IN FORCE: TLS does not exist yet"),
        (
            "verify_incoming",
            "SECURITY: \"verify_incoming\" is NOT IN FORCE: old key, replaced by tls.defaults.verify_incoming",
        ),
        ("ui_dir", "\"ui_dir\" has no effect: old key, replaced by ui_config.enabled"),
        ("ports.rpc", "\"ports.rpc\" has no effect: old key, replaced by ports.http"),
        ("raft_protocol", "/b.json: \"raft_protocol\" has no effect: there is one raft protocol"),
        ("enable_syslog", "\"enable_syslog\" has no effect: replaced by log_json"),
        ("connect", "\"connect\" has no effect: there is no service mesh"),
        ("version", "\"version\" has no effect"),
        ("ports.grpc", "/a.json: ports.grpc has no effect: gRPC is not served yet"),
    ] {
        assert_eq!(warnings.matches(part).count(), 1, "{key}: {warnings}");
    }
    for silent in ["peering", "segments", "disable_update_check", "ports.https"] {
        assert!(!warnings.contains(silent), "asks for what is so anyway: {warnings}");
    }
}

#[test]
fn doubtful_numbers_of_servers_are_told() {
    let warned = |expect: u32, part: &str| {
        let text = format!(r#"{{"server": true, "bootstrap_expect": {expect}}}"#);
        let config = load_files(&[("/a.json", &text)]).unwrap();
        assert_eq!(config.bootstrap, expect == 1);
        assert!(config.warnings.join("\n").contains(part), "{:?}", config.warnings);
    };
    warned(1, "the same as bootstrap");
    warned(2, "loss of either stops writes");
    warned(4, "an even number tolerates no more failures than 3 servers");
    warned(3, "");
}

#[test]
fn each_bad_input_is_told_with_its_source_key_and_cure() {
    for (text, expected) in [
        (r#"{"datacentre": "x"}"#, "/a.json: unknown key \"datacentre\" (did you mean \"datacenter\"?)"),
        (
            r#"{"zzzzzz": 1, "ports": {"htpp": 1}}"#,
            "/a.json: unknown key \"zzzzzz\"; unknown key \"ports.htpp\" (did you mean \"ports.http\"?)",
        ),
        (r#"{"server": "yes"}"#, "/a.json: server: must be true or false, not \"yes\""),
        (r#"{"ports": 8500}"#, "/a.json: ports: must be an object, not 8500"),
        (r#"{"ports": {"http": "8500"}}"#, "/a.json: ports.http: must be a whole number, not \"8500\""),
        (r#"{"ports": {"http": 1.5}}"#, "/a.json: ports.http: must be a whole number, not 1.5"),
        (
            r#"{"ports": {"http": 99999}}"#,
            "/a.json: ports.http: 99999 is no port: use 1 to 65535, or -1 to switch it off",
        ),
        (r#"{"retry_join": [1]}"#, "/a.json: retry_join: must be a list of texts, not [1]"),
        (r#"{"node_meta": {"a": 1}}"#, "/a.json: node_meta: must be a map from names to texts, not {\"a\":1}"),
        (r#"{"max_query_time": 10}"#, "/a.json: max_query_time: must be a duration such as \"10s\", not 10"),
        (
            r#"{"max_query_time": "10"}"#,
            "/a.json: max_query_time: \"10\" has no unit: write 10s for seconds or 10ms for milliseconds",
        ),
        (
            r#"{"retry_interval": "1d"}"#,
            "/a.json: retry_interval: \"1d\" has the unknown unit \"d\": use h, m, s, ms, us or ns",
        ),
        (r#"{"retry_interval": "-1s"}"#, "/a.json: retry_interval: -1s is not longer than nothing"),
        (r#"{"default_query_time": "20m"}"#, "/a.json: default_query_time: is longer than max_query_time"),
        (r#"{"bind_addr": "nowhere"}"#, "/a.json: bind_addr: \"nowhere\" is not an IP address"),
        (r#"{"bind_addr": "10.0.0.1 10.0.0.2"}"#, "/a.json: bind_addr: \"10.0.0.1 10.0.0.2\" is more than one address"),
        (
            r#"{"client_addr": "unix:///s"}"#,
            "/a.json: client_addr: unix:///s: Unix sockets are not served yet, write an IP address",
        ),
        (
            r#"{"bind_addr": "{{ GetPublicIP }}"}"#,
            "/a.json: bind_addr: {{ GetPublicIP }} is not a template that is known here: use {{ GetPrivateIP }}, \
             {{ GetInterfaceIP \"eth0\" }} or an IP address",
        ),
        (
            r#"{"bind_addr": "{{ GetInterfaceIP \"eth9\" }}"}"#,
            "/a.json: bind_addr: GetInterfaceIP: no network card \"eth9\" with an address; there are lo, eth0, eth1",
        ),
        (r#"{"bind_addr": "{{ GetPrivateIP"}"#, "/a.json: bind_addr: \"{{ GetPrivateIP\" lacks the closing }}"),
        (
            r#"{"node_name": "a b"}"#,
            "/a.json: node_name: \"a b\": a node name has 1 to 128 letters, digits, '-', '_' and '.'",
        ),
        (r#"{"node_id": "7"}"#, "/a.json: node_id: \"7\" is not a UUID"),
        (r#"{"datacenter": "a.b"}"#, "/a.json: datacenter: \"a.b\": a datacenter has letters, digits, '-' and '_'"),
        (
            r#"{"log_level": "loud"}"#,
            "/a.json: log_level: \"loud\" is no log level: use trace, debug, info, warn or error",
        ),
        (
            r#"{"performance": {"raft_multiplier": 11}}"#,
            "/a.json: performance.raft_multiplier: 11 is not between 1 and 10",
        ),
        (
            r#"{"limits": {"kv_max_value_size": 5000000}}"#,
            "/a.json: limits.kv_max_value_size: 5000000 is not between 1 and 4194304",
        ),
        (
            r#"{"raft_logstore": {"wal": {"segment_size_mb": 4}}}"#,
            "/a.json: raft_logstore.wal.segment_size_mb: 4 is not between 8 and 256",
        ),
        (
            r#"{"bootstrap_expect": 3}"#,
            "/a.json: bootstrap_expect: only servers make a cluster: set server too (-server)",
        ),
        (r#"{"bootstrap": true}"#, "/a.json: bootstrap: only servers make a cluster: set server too (-server)"),
        (
            r#"{"server": true, "bootstrap": true, "bootstrap_expect": 3}"#,
            "/a.json: bootstrap_expect: cannot be set together with bootstrap: the first waits for others, the second does not",
        ),
        ("[]", "/a.json: a configuration is an object: { \"key\": value }"),
        ("{\"a\"", "/a.json: not JSON: EOF while parsing an object at line 1 column 4"),
    ] {
        assert_eq!(message(load_files(&[("/a.json", text)])), expected, "{text}");
    }
}

#[test]
fn sources_that_cannot_be_read_are_named() {
    assert!(message(load_files(&[("/a.hcl", "a = ")])).starts_with("/a.hcl: not HCL"));
    let format = message(load_files(&[("/consul.conf", "{}")]));
    assert_eq!(format, "/consul.conf: cannot tell its format: name it .json or .hcl, or give -config-format");
    let missing = Flags { dev: true, paths: vec!["/none.json".into()], ..Flags::default() };
    assert!(message(load(&[], &missing)).starts_with("cannot read the configuration /none.json"));
    let nowhere = message(load(&[], &Flags::default()));
    assert!(nowhere.starts_with("data_dir is not set: say where to keep data with -data-dir DIR"), "{nowhere}");
    let flag = Flags { dev: true, scalars: vec![scalar("-http-port", "ports.http", json!(-2))], ..Flags::default() };
    assert!(message(load(&[], &flag)).starts_with("-http-port: ports.http: -2 is no port"));
    let fragment = Flags { dev: true, hcl: vec!["nod_name = 1".into()], ..Flags::default() };
    assert_eq!(message(load(&[], &fragment)), "-hcl: unknown key \"nod_name\" (did you mean \"node_name\"?)");
}

#[test]
fn a_file_beyond_its_bound_is_refused() {
    let text = format!("{{\"node_name\": \"{}\"}}", "x".repeat(crate::limits::MAX_CONFIG_FILE as usize));
    let refused = message(load_files(&[("/a.json", &text)]));
    assert_eq!(refused, "cannot read the configuration /a.json: larger than 16 MiB");
}

#[test]
fn a_second_reading_tells_what_changed() {
    let read = |text| load_files(&[("/a.json", text)]).unwrap();
    let mut old = read(r#"{"log_level": "info", "ports": {"http": 1}, "node_name": "a"}"#);
    let new = read(r#"{"log_level": "debug", "ports": {"http": 2}, "node_name": "a", "enable_debug": true}"#);
    let changed: Vec<String> = old.changed_keys(&new).into_iter().collect();
    assert_eq!(changed, ["enable_debug", "log_level", "ports.http"]);
    old.set_log_level(&new);
    assert_eq!(old.log_level, LogLevel::Debug);
    assert!(!old.changed_keys(&new).contains("log_level"));
}

#[test]
fn hcl_blocks_and_durations_mean_what_json_means() {
    let hcl = "server = true\nports {\n  http = 1\n}\nports {\n  dns = -1\n}\nmax_query_time = \"1m30s\"\ndefault_query_time = \"1m\"";
    let config = load_files(&[("/a.hcl", hcl)]).unwrap();
    assert_eq!((config.server, config.ports.http, config.ports.dns), (true, Some(1), None));
    assert_eq!(config.max_query_time, Duration::from_secs(90));
}

proptest::proptest! {
    /// Whatever a file holds is an answer or an error, never a panic.
    #[test]
    fn no_file_panics(text in "\\{(\"(ports|server|acl|node_meta|bind_addr|retry_join)\": ?(null|true|-?[0-9]{1,20}|\"[{ }a-zGIP0-9.:\\[\\]]{0,20}\"|\\[\\]|\\{\\}),?){0,4}\\}") {
        let _ = load_files(&[("/a.json", &text)]);
        let _ = load_files(&[("/a.hcl", &text)]);
    }
}
