//! The flags of `quorate agent`, as a table: each sets one key of the configuration, whose type decides how it is
//! typed.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use serde_json::{Map, Value};

use crate::cli::argv::go_bool;
use crate::config::keys::{self, Kind};
use crate::config::raw::Format;
use crate::config::{FlagValue, Flags};

/// What was typed.
#[derive(Debug, Clone)]
pub struct AgentFlags(pub Flags);

/// One flag.
struct Flag {
    /// As typed, with one dash.
    name: &'static str,
    /// The key that it sets.
    key: &'static str,
    /// One line of help; a flag without is accepted but not shown, because its key has no effect yet.
    help: Option<&'static str>,
}

const fn flag(name: &'static str, key: &'static str, help: &'static str) -> Flag {
    Flag { name, key, help: Some(help) }
}

const fn hidden(name: &'static str, key: &'static str) -> Flag {
    Flag { name, key, help: None }
}

#[rustfmt::skip]
static TABLE: &[Flag] = &[
    flag("-advertise", "advertise_addr", "The address that other nodes are told"),
    flag("-bind", "bind_addr", "The address to listen on for other nodes"),
    flag("-bootstrap", "bootstrap", "Make a cluster of this server alone, if it has no data"),
    flag("-bootstrap-expect", "bootstrap_expect", "Wait for this many servers, then make a cluster, if there is no data"),
    flag("-client", "client_addr", "The addresses to listen on for clients [default: 127.0.0.1]"),
    flag("-data-dir", "data_dir", "Where to keep data"),
    flag("-datacenter", "datacenter", "The datacenter's name [default: dc1]"),
    flag("-default-query-time", "default_query_time", "How long a blocking query waits if it names no time [default: 5m]"),
    flag("-dns-port", "ports.dns", "The port for DNS, -1 for none [default: 8600]"),
    flag("-http-port", "ports.http", "The port for HTTP, -1 for none [default: 8500]"),
    flag("-join", "start_join", "A node to join, as -retry-join; may be repeated"),
    flag("-log-json", "log_json", "Log in JSON"),
    flag("-log-level", "log_level", "trace, debug, info, warn or error [default: info]"),
    flag("-max-query-time", "max_query_time", "The longest that a blocking query waits [default: 10m]"),
    flag("-node", "node_name", "The node's name [default: the host's name]"),
    flag("-node-id", "node_id", "The node's id, a UUID [default: drawn at the first start]"),
    flag("-node-meta", "node_meta", "key:value that others see beside the node; may be repeated"),
    flag("-pid-file", "pid_file", "Where to write the process id"),
    flag("-rejoin", "rejoin_after_leave", "Join again, by itself, a cluster that the node has left"),
    flag("-retry-interval", "retry_interval", "Pause between tries to join [default: 30s]"),
    flag("-retry-join", "retry_join", "A node to join, tried until it answers; may be repeated"),
    flag("-retry-max", "retry_max", "Tries to join before the agent ends with code 1, 0 for no end"),
    flag("-serf-lan-port", "ports.serf_lan", "The port for membership [default: 8301]"),
    flag("-serf-wan-port", "ports.serf_wan", "The port for membership between datacenters [default: 8302]"),
    flag("-server", "server", "Vote and store; otherwise only forward"),
    flag("-server-port", "ports.server", "The port for other nodes [default: 8300]"),
    hidden("-advertise-wan", "advertise_addr_wan"),
    hidden("-allow-write-http-from", "http_config.allow_write_http_from"),
    hidden("-alt-domain", "alt_domain"),
    hidden("-auto-reload-config", "auto_reload_config"),
    hidden("-check_output_max_size", "check_output_max_size"),
    hidden("-disable-host-node-id", "disable_host_node_id"),
    hidden("-disable-keyring-file", "disable_keyring_file"),
    hidden("-domain", "domain"),
    hidden("-enable-local-script-checks", "enable_local_script_checks"),
    hidden("-enable-script-checks", "enable_script_checks"),
    hidden("-encrypt", "encrypt"),
    hidden("-grpc-port", "ports.grpc"),
    hidden("-grpc-tls-port", "ports.grpc_tls"),
    hidden("-https-port", "ports.https"),
    hidden("-join-wan", "start_join_wan"),
    hidden("-log-file", "log_file"),
    hidden("-log-rotate-bytes", "log_rotate_bytes"),
    hidden("-log-rotate-duration", "log_rotate_duration"),
    hidden("-log-rotate-max-files", "log_rotate_max_files"),
    hidden("-non-voting-server", "non_voting_server"),
    hidden("-primary-gateway", "primary_gateways"),
    hidden("-protocol", "protocol"),
    hidden("-raft-protocol", "raft_protocol"),
    hidden("-read-replica", "read_replica"),
    hidden("-recursor", "recursors"),
    hidden("-retry-interval-wan", "retry_interval_wan"),
    hidden("-retry-join-wan", "retry_join_wan"),
    hidden("-retry-max-wan", "retry_max_wan"),
    hidden("-segment", "segment"),
    hidden("-serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs"),
    hidden("-serf-lan-bind", "serf_lan"),
    hidden("-serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs"),
    hidden("-serf-wan-bind", "serf_wan"),
    hidden("-syslog", "enable_syslog"),
    hidden("-ui", "ui"),
    hidden("-ui-content-path", "ui_content_path"),
    hidden("-ui-dir", "ui_dir"),
];

impl Flag {
    fn kind(&self) -> Kind {
        keys::find(self.key).expect("a test looks up every flag's key").kind
    }

    /// Without its dash, which is clap's id and long name.
    fn long(&self) -> &'static str {
        &self.name[1..]
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.long()).long(self.long()).help(self.help).hide(self.help.is_none());
        match self.kind() {
            Kind::Bool => switch(arg),
            Kind::Number => {
                arg.value_name("NUMBER").value_parser(clap::value_parser!(i64)).allow_negative_numbers(true)
            }
            Kind::Duration => arg.value_name("DURATION"),
            Kind::Labels => arg.value_name("KEY:VALUE").action(ArgAction::Append).value_parser(label),
            Kind::Texts => arg.value_name("TEXT").action(ArgAction::Append),
            Kind::Text | Kind::Section | Kind::Any => arg.value_name("TEXT"),
        }
    }

    fn value(&self, typed: &ArgMatches) -> Option<Value> {
        let name = self.long();
        Some(match self.kind() {
            Kind::Bool => (*typed.get_one::<bool>(name)?).into(),
            Kind::Number => (*typed.get_one::<i64>(name)?).into(),
            Kind::Labels => Value::Object(Map::from_iter(typed.get_many::<(String, Value)>(name)?.cloned())),
            Kind::Texts => typed.get_many::<String>(name)?.cloned().collect::<Vec<_>>().into(),
            _ => typed.get_one::<String>(name)?.clone().into(),
        })
    }
}

/// `-server`, `-server=true`, `-server=false`: a flag can also switch off what a file switches on.
fn switch(arg: Arg) -> Arg {
    let truth = |text: &str| go_bool(text).ok_or("use true or false");
    arg.value_name("true|false")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(truth)
        .hide_possible_values(true)
}

fn label(text: &str) -> Result<(String, Value), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("use KEY:VALUE".into()),
    }
}

impl clap::Args for AgentFlags {
    fn augment_args(command: Command) -> Command {
        let own = [
            Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("One server in memory; nothing is kept"),
            Arg::new("config-file")
                .long("config-file")
                // One argument for both, because the order between files and directories decides which value wins.
                .visible_alias("config-dir")
                .value_name("PATH")
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf))
                .help("A file, or a directory of files, to read; may be repeated, later ones win"),
            Arg::new("config-format")
                .long("config-format")
                .value_name("json|hcl")
                .value_parser(["json", "hcl"])
                .hide_possible_values(true)
                .help("How to read configuration files whatever their names"),
            Arg::new("hcl")
                .long("hcl")
                .value_name("TEXT")
                .action(ArgAction::Append)
                .help("A piece of configuration that wins over everything; may be repeated"),
        ];
        let mut all: Vec<Arg> = own.into_iter().chain(TABLE.iter().map(Flag::arg)).collect();
        all.sort_by(|a, b| a.get_id().cmp(b.get_id()));
        command.args(all)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AgentFlags {
    fn from_arg_matches(typed: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags {
            dev: typed.get_flag("dev"),
            paths: typed.get_many("config-file").into_iter().flatten().cloned().collect(),
            format: typed.get_one::<String>("config-format").map(|name| match name.as_str() {
                "hcl" => Format::Hcl,
                _ => Format::Json,
            }),
            hcl: typed.get_many("hcl").into_iter().flatten().cloned().collect(),
            ..Flags::default()
        };
        for flag in TABLE {
            if let Some(value) = flag.value(typed) {
                let layer = if flag.kind() == Kind::Texts { &mut flags.lists } else { &mut flags.scalars };
                layer.push(FlagValue { flag: flag.name, key: flag.key, value });
            }
        }
        Ok(AgentFlags(flags))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Err(clap::Error::raw(ErrorKind::InvalidSubcommand, "flags are read once"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_sets_a_key_that_exists() {
        for flag in TABLE {
            assert!(keys::find(flag.key).is_some(), "{} sets {}", flag.name, flag.key);
            assert!(flag.name.starts_with('-'));
        }
    }

    #[test]
    fn a_flag_is_shown_only_if_its_key_has_an_effect() {
        for flag in TABLE {
            let used = keys::find(flag.key).unwrap().fate == keys::Fate::Used;
            assert!(used || flag.help.is_none(), "{} promises what does not exist", flag.name);
        }
    }
}
