//! Sessions as the API shows them, and the body that creates one (consul.md 2.4).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decode::{self, DecodeError, Object};
use super::duration::GoDuration;

/// The check that a session is bound to unless its body says otherwise: whether its node is alive.
pub const SERF_HEALTH: &str = "serfHealth";

/// What happens to the locks of a session that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// They are free.
    #[default]
    Release,
    /// Their keys are deleted.
    Delete,
}

/// An element of the answers to `/v1/session/info`, `list`, `node` and `renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: Uuid,
    /// A name for people; need not be unique.
    pub name: String,
    /// The node that it belongs to.
    pub node: String,
    /// For how long nobody gets its locks after it was invalidated, in nanoseconds.
    pub lock_delay: u64,
    /// What happens to its locks when it ends.
    pub behavior: Behavior,
    /// How long it lives without a renewal; empty if it needs none.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// The checks of its node that it is bound to.
    pub node_checks: Vec<String>,
    /// The checks of services of its node that it is bound to; null if there are none, as in Consul.
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// The revision that created it.
    pub create_index: u64,
    /// The same: a session does not change.
    pub modify_index: u64,
}

/// A check of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCheck {
    /// The check's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Always empty: there are no namespaces.
    #[serde(default)]
    pub namespace: String,
}

/// The answer to `PUT /v1/session/create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The new session's id.
    #[serde(rename = "ID")]
    pub id: Uuid,
}

/// What a session shall be: the body of `PUT /v1/session/create`, with Consul's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Empty by default.
    pub name: String,
    /// `None` is the node of the agent that is asked.
    pub node: Option<String>,
    /// 15 seconds by default.
    pub lock_delay: Duration,
    /// See [`Behavior`]; an error if the body names another.
    pub behavior: Result<Behavior, String>,
    /// As written; empty if it needs no renewal.
    pub ttl: String,
    /// [`SERF_HEALTH`] by default.
    pub node_checks: Vec<String>,
    /// None by default.
    pub service_checks: Vec<String>,
}

impl Default for NewSession {
    fn default() -> Self {
        NewSession {
            name: String::new(),
            node: None,
            lock_delay: LOCK_DELAY,
            behavior: Ok(Behavior::Release),
            ttl: String::new(),
            node_checks: vec![SERF_HEALTH.into()],
            service_checks: Vec::new(),
        }
    }
}

/// Consul's figure.
const LOCK_DELAY: Duration = Duration::from_secs(15);
/// A longer lock-delay is taken for this. Consul's figure.
const LOCK_DELAY_MOST: Duration = Duration::from_secs(60);
/// A lock-delay that is a number counts seconds below this, and nanoseconds from here on. Consul's rule.
const LOCK_DELAY_SECONDS: f64 = 1000.0;

impl NewSession {
    /// Reads a body; an empty one is all defaults.
    ///
    /// # Errors
    /// No JSON, a field of the wrong type, an unknown field.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut new = NewSession::default();
        if body.is_empty() {
            return Ok(new);
        }
        let mut body = Object::of(decode::parse(body)?)?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        new.name = body.text("Name")?.unwrap_or_default();
        new.node = filled(body.text("Node")?);
        new.ttl = body.text("TTL")?.unwrap_or_default();
        new.behavior = match filled(body.text("Behavior")?).as_deref() {
            None | Some("release") => Ok(Behavior::Release),
            Some("delete") => Ok(Behavior::Delete),
            Some(other) => Err(other.into()),
        };
        let seconds = |number: f64| if number < LOCK_DELAY_SECONDS { number * 1e9 } else { number };
        if let Some(delay) = body.duration("LockDelay", seconds)? {
            new.lock_delay = delay.to_std().unwrap_or_default().min(LOCK_DELAY_MOST);
        }
        new.read_checks(&mut body)?;
        // Sent back by clients that read a session and write it again; they mean nothing here.
        for shown in ["ID", "CreateIndex", "ModifyIndex"] {
            body.take(shown);
        }
        body.finish()?;
        Ok(new)
    }

    /// `Checks` is the old name of `NodeChecks`: both count together, and an empty list of either takes the default away.
    fn read_checks(&mut self, body: &mut Object) -> Result<(), DecodeError> {
        let (new, old) = (body.texts("NodeChecks")?, body.texts("Checks")?);
        if new.is_some() || old.is_some() {
            let named = new.into_iter().flatten().chain(old.into_iter().flatten());
            self.node_checks.clear();
            for check in named.filter(|check| !check.is_empty()) {
                if !self.node_checks.contains(&check) {
                    self.node_checks.push(check);
                }
            }
        }
        for check in body.list("ServiceChecks")?.unwrap_or_default() {
            let mut check = Object::of(check)?;
            let id = check.text("ID")?.unwrap_or_default();
            check.text("Namespace")?;
            check.finish()?;
            self.service_checks.push(id);
        }
        Ok(())
    }

    /// The TTL; `None` if the session needs no renewal.
    ///
    /// # Errors
    /// It is no duration; in Consul's words.
    pub fn parsed_ttl(&self) -> Result<Option<Duration>, String> {
        if self.ttl.is_empty() {
            return Ok(None);
        }
        let ttl: GoDuration =
            self.ttl.parse().map_err(|error| format!("Session TTL '{}' invalid: {error}", self.ttl))?;
        // Below zero is shorter than any bound.
        Ok(Some(ttl.to_std().unwrap_or(Duration::from_nanos(1))).filter(|ttl| !ttl.is_zero()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> NewSession {
        NewSession::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn no_body_and_an_empty_one_are_consuls_defaults() {
        for body in ["", "{}", "null", r#"{"TTL": "", "Node": "", "Behavior": ""}"#] {
            assert_eq!(parse(body), NewSession::default(), "{body}");
        }
    }

    #[test]
    fn a_lock_delay_is_a_text_or_seconds_or_nanoseconds_and_at_most_a_minute() {
        let cases = [
            (r#""20s""#, 20_000),
            (r#""0s""#, 0),
            ("0", 0),
            ("5", 5_000),
            ("0.5", 500),
            ("999", 60_000),
            ("1000000000", 1_000),
            (r#""5m""#, 60_000),
            ("-1", 0),
        ];
        for (text, millis) in cases {
            let new = parse(&format!("{{\"lockdelay\": {text}}}"));
            assert_eq!(new.lock_delay, Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn an_empty_list_of_checks_takes_the_default_away_and_both_names_count() {
        let checks = |body| parse(body).node_checks;
        assert_eq!(checks(r#"{"NodeChecks": []}"#), Vec::<String>::new());
        assert_eq!(checks(r#"{"Checks": []}"#), Vec::<String>::new());
        assert_eq!(checks(r#"{"Checks": ["a"], "NodeChecks": ["b", "a"]}"#), ["b", "a"]);
        let services = parse(r#"{"ServiceChecks": [{"ID": "s1", "Namespace": ""}]}"#);
        assert_eq!((services.service_checks, services.node_checks), (vec!["s1".into()], vec![SERF_HEALTH.into()]));
    }

    #[test]
    fn a_ttl_of_nothing_is_none_and_one_below_nothing_is_too_short() {
        let ttl = |text: &str| NewSession { ttl: text.into(), ..NewSession::default() }.parsed_ttl();
        assert_eq!((ttl(""), ttl("0"), ttl("0s")), (Ok(None), Ok(None), Ok(None)));
        assert_eq!(ttl("1m"), Ok(Some(Duration::from_secs(60))));
        assert!(ttl("-5s").unwrap().unwrap() < Duration::from_millis(1));
        assert!(ttl("soon").unwrap_err().starts_with("Session TTL 'soon' invalid: "));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = NewSession::parse(br#"{"TLL": "10s"}"#).unwrap_err();
        assert_eq!(error.to_string(), "json: unknown field \"TLL\"");
    }
}
