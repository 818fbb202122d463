//! What each type of watch asks for, and which flags are its own. Pure: flags in, a question out.

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::kv;
use crate::client::kv::key_path;
use crate::client::path::Path;
use crate::client::stream::WatchOptions;

/// What can be watched.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "lower")]
pub enum Kind {
    /// One key: an object, or null
    Key,
    /// Every key with a prefix
    KeyPrefix,
    /// The services with their tags
    Services,
    /// The nodes
    Nodes,
    /// The instances of a service
    Service,
    /// Checks, of a service or in a state
    Checks,
    /// Every change of the keys with a prefix
    Events,
    /// Consul's user events
    #[value(hide = true)]
    Event,
}

/// What is watched, closer.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "What to watch")]
pub struct Target {
    /// key: the key
    #[arg(long)]
    key: Option<String>,
    /// keyprefix, events: what keys begin with
    #[arg(long)]
    prefix: Option<String>,
    /// service, checks: the service's name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// service: only instances with this tag; may repeat
    #[arg(long)]
    tag: Vec<String>,
    /// service: only instances whose checks all pass
    #[arg(long)]
    passingonly: bool,
    /// checks: passing, warning, critical or any [default: any]
    #[arg(long)]
    state: Option<String>,
    /// services, nodes, service, checks: an expression that the server picks by
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// events: the index after which changes are wanted [default: from now on]
    #[arg(long, value_name = "INDEX")]
    since: Option<u64>,
    /// events: what was there before, too
    #[arg(long)]
    prev: bool,
    #[arg(long, hide = true)]
    name: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// A blocking query, again and again.
    Query(Question),
    /// The event stream.
    Events(WatchOptions),
}

/// A blocking query.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// What to read.
    pub path: Path,
    /// Whether its answer is a list of which the first is meant.
    first: bool,
}

impl Question {
    /// The result of a watch, out of the answer of the query; `null` where there was nothing.
    pub fn result(&self, mut answer: Value) -> Value {
        if !self.first {
            return answer;
        }
        answer.get_mut(0).map(Value::take).unwrap_or_default()
    }
}

impl Kind {
    /// As typed.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The flags that mean something for it.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Kind::Key => &["-key"],
            Kind::KeyPrefix => &["-prefix"],
            Kind::Services | Kind::Nodes => &["-filter"],
            Kind::Service => &["-service", "-tag", "-passingonly", "-filter"],
            Kind::Checks => &["-service", "-state", "-filter"],
            Kind::Events => &["-prefix", "-since", "-prev"],
            Kind::Event => &["-name"],
        }
    }
}

impl Target {
    /// What to do for a type by these flags.
    ///
    /// # Errors
    /// Where a flag is missing, or means nothing for the type.
    pub fn plan(&self, kind: Kind, datacenter: Option<&str>) -> anyhow::Result<Plan> {
        self.check(kind)?;
        let path = match kind {
            Kind::Key => {
                let key = kv::key(needed(kind, "-key", "the key to watch", self.key.as_deref())?);
                if key.is_empty() {
                    bail!("-key is empty: name the key to watch, or every key with -type=keyprefix -prefix=");
                }
                return Ok(Plan::Query(Question { path: Path::new(key_path(key)), first: true }));
            }
            Kind::KeyPrefix => {
                let prefix = needed(kind, "-prefix", "what the keys begin with", self.prefix.as_deref())?;
                Path::new(key_path(kv::key(prefix))).with("recurse", None)
            }
            Kind::Services => Path::new("/v1/catalog/services".into()),
            Kind::Nodes => Path::new("/v1/catalog/nodes".into()),
            Kind::Service => {
                let name = needed(kind, "-service", "the service to watch", self.service.as_deref())?;
                let path = Path::named("/v1/health/service/", name);
                let path = self.tag.iter().fold(path, |path, tag| path.with("tag", Some(tag)));
                if self.passingonly { path.with("passing", None) } else { path }
            }
            Kind::Checks => match (&self.service, &self.state) {
                (Some(_), Some(_)) => bail!("-service and -state exclude each other: watch checks by one of them"),
                (Some(name), None) => Path::named("/v1/health/checks/", name),
                (None, state) => Path::named("/v1/health/state/", state.as_deref().unwrap_or("any")),
            },
            Kind::Events => {
                let prefix = self.prefix.as_deref().map_or("", kv::key).into();
                let datacenter = datacenter.map(str::to_owned);
                return Ok(Plan::Events(WatchOptions { prefix, since: self.since, prev: self.prev, datacenter }));
            }
            Kind::Event => bail!(
                "-type=event watches user events, which are not served yet; -type=events follows every change of keys"
            ),
        };
        let path = match &self.filter {
            Some(filter) => path.with("filter", Some(filter)),
            None => path,
        };
        Ok(Plan::Query(Question { path, first: false }))
    }

    /// Refuses what would have no effect.
    fn check(&self, kind: Kind) -> anyhow::Result<()> {
        let given = [
            ("-key", self.key.is_some()),
            ("-prefix", self.prefix.is_some()),
            ("-service", self.service.is_some()),
            ("-tag", !self.tag.is_empty()),
            ("-passingonly", self.passingonly),
            ("-state", self.state.is_some()),
            ("-filter", self.filter.is_some()),
            ("-since", self.since.is_some()),
            ("-prev", self.prev),
            ("-name", self.name.is_some()),
        ];
        let flags = kind.flags();
        match given.into_iter().find(|(flag, given)| *given && !flags.contains(flag)) {
            None => Ok(()),
            Some((flag, _)) => {
                bail!("{flag} means nothing for -type={}, which takes {}", kind.name(), flags.join(", "))
            }
        }
    }
}

fn needed<'a>(kind: Kind, flag: &str, what: &str, given: Option<&'a str>) -> anyhow::Result<&'a str> {
    match given {
        Some(given) if !given.is_empty() || flag == "-prefix" => Ok(given),
        _ => bail!("-type={} needs {flag}: {what}", kind.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(kind: Kind, target: Target) -> String {
        match target.plan(kind, None) {
            Ok(Plan::Query(question)) => question.path.into(),
            Ok(Plan::Events(options)) => format!("{options:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn each_type_asks_its_own_question() {
        let none = Target::default;
        let web = || Target { service: text("web 1"), ..none() };
        for (kind, target, path) in [
            (Kind::Key, Target { key: text("/a b/c"), ..none() }, "/v1/kv/a%20b/c"),
            (Kind::KeyPrefix, Target { prefix: text("a/"), ..none() }, "/v1/kv/a/?recurse"),
            (Kind::KeyPrefix, Target { prefix: text(""), ..none() }, "/v1/kv/?recurse"),
            (Kind::Services, none(), "/v1/catalog/services"),
            (Kind::Nodes, Target { filter: text("a == b"), ..none() }, "/v1/catalog/nodes?filter=a%20%3D%3D%20b"),
            (Kind::Service, web(), "/v1/health/service/web%201"),
            (
                Kind::Service,
                Target { tag: vec!["a".into(), "b".into()], passingonly: true, filter: text("x"), ..web() },
                "/v1/health/service/web%201?tag=a&tag=b&passing&filter=x",
            ),
            (Kind::Checks, web(), "/v1/health/checks/web%201"),
            (Kind::Checks, none(), "/v1/health/state/any"),
            (Kind::Checks, Target { state: text("critical"), ..none() }, "/v1/health/state/critical"),
        ] {
            assert_eq!(asked(kind, target), path);
        }
        let target = Target { prefix: text("a/"), since: Some(7), prev: true, ..none() };
        let options = WatchOptions { prefix: b"a/".to_vec(), since: Some(7), prev: true, datacenter: text("dc2") };
        assert_eq!(target.plan(Kind::Events, Some("dc2")).unwrap(), Plan::Events(options));
        assert_eq!(none().plan(Kind::Events, None).unwrap(), Plan::Events(WatchOptions::default()));
    }

    #[test]
    fn a_key_is_one_object_or_null_and_everything_else_as_it_came() {
        let result = |kind, target: Target, answer| match target.plan(kind, None).unwrap() {
            Plan::Query(question) => question.result(answer),
            plan => panic!("{plan:?}"),
        };
        let key = || Target { key: text("a"), ..Target::default() };
        assert_eq!(result(Kind::Key, key(), json!([{ "Key": "a" }])), json!({ "Key": "a" }));
        assert_eq!(result(Kind::Key, key(), Value::Null), Value::Null);
        let prefix = Target { prefix: text("a"), ..Target::default() };
        assert_eq!(result(Kind::KeyPrefix, prefix, json!([{ "Key": "a" }])), json!([{ "Key": "a" }]));
    }
}
