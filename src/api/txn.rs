//! The body of `PUT /v1/txn`, and its answer (consul.md 2.5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog;
use super::decode::{self, DecodeError, Object};
use super::kv::KvEntry;

/// One operation of a transaction, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `{"KV": {…}}`
    Kv(KvOperation),
    /// `{"Session": {"Verb": "delete", "Session": {"ID": …}}}`
    SessionDelete {
        /// The session.
        id: String,
    },
    /// `{"Node": {"Verb": …, "Node": {…}}}`
    Node {
        /// `set`, `cas`, `get`, `delete` or `delete-cas`.
        verb: String,
        /// The node, with the index to compare.
        node: catalog::Node,
    },
    /// `{"Service": {"Verb": …, "Node": …, "Service": {…}}}`
    Service {
        /// As a node's.
        verb: String,
        /// The node that it is on.
        node: String,
        /// The instance, with the index to compare.
        service: catalog::Service,
    },
    /// `{"Check": {"Verb": …, "Check": {…}}}`
    Check {
        /// As a node's.
        verb: String,
        /// The check, with its node and the index to compare.
        check: catalog::Check,
    },
}

/// An operation on a key. Fields that its verb does not read are there and mean nothing, as in Consul.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KvOperation {
    /// One of Consul's words: `set`, `cas`, `get`, …
    pub verb: String,
    /// The key, or the prefix.
    pub key: String,
    /// What to write.
    pub value: Vec<u8>,
    /// The client's opaque number.
    pub flags: u64,
    /// What an index is compared with; the fence for `check-fence` and a fenced `unlock`.
    pub index: Option<u64>,
    /// The session for locks; empty if there is none.
    pub session: String,
}

/// Reads a body: an array of objects with one field each.
///
/// # Errors
/// Anything else, and fields that Consul does not know.
pub fn parse(body: &[u8]) -> Result<Vec<Operation>, DecodeError> {
    match decode::parse(body)? {
        Value::Array(operations) => operations.into_iter().map(operation).collect(),
        Value::Null => Ok(Vec::new()),
        _ => Err(DecodeError("expected a list of operations".into())),
    }
}

fn operation(value: Value) -> Result<Operation, DecodeError> {
    let mut object = Object::of(value)?;
    let kinds = ["KV", "Session", "Node", "Service", "Check"];
    let mut named = kinds.into_iter().filter_map(|kind| Some((kind, object.take(kind)?)));
    let (first, second) = (named.next(), named.next());
    drop(named);
    object.finish()?;
    match (first, second) {
        (Some(("KV", value)), None) => kv(value).map(Operation::Kv),
        (Some(("Session", value)), None) => session(value),
        (Some((kind, value)), None) => of_catalog(kind, value),
        _ => Err(DecodeError(format!("an operation is an object with one of {}", kinds.join(", ")))),
    }
}

fn kv(value: Value) -> Result<KvOperation, DecodeError> {
    let mut fields = Object::of(value)?;
    let operation = KvOperation {
        verb: fields.text("Verb")?.unwrap_or_default(),
        key: fields.text("Key")?.unwrap_or_default(),
        value: fields.bytes("Value")?.unwrap_or_default(),
        flags: fields.number("Flags")?.unwrap_or_default(),
        index: fields.number("Index")?,
        session: fields.text("Session")?.unwrap_or_default(),
    };
    for unread in ["Namespace", "Partition"] {
        if fields.text(unread)?.is_some_and(|text| !text.is_empty()) {
            return Err(DecodeError(format!("{unread} belongs to Consul Enterprise")));
        }
    }
    fields.finish()?;
    Ok(operation)
}

fn session(value: Value) -> Result<Operation, DecodeError> {
    let mut fields = Object::of(value)?;
    let verb = fields.text("Verb")?.unwrap_or_default();
    let mut session = Object::of(fields.take("Session").unwrap_or_default())?;
    fields.finish()?;
    if verb != "delete" {
        return Err(DecodeError(format!("unknown Session verb {verb:?}: there is delete")));
    }
    // A client may send the whole session that it read.
    Ok(Operation::SessionDelete { id: session.text("ID")?.unwrap_or_default() })
}

fn of_catalog(kind: &str, value: Value) -> Result<Operation, DecodeError> {
    let mut fields = Object::of(value)?;
    let verb = fields.text("Verb")?.unwrap_or_default();
    let operation = match kind {
        "Node" => Operation::Node { verb, node: catalog::node(fields.take("Node").unwrap_or_default())? },
        "Service" => {
            let node = fields.text("Node")?.unwrap_or_default();
            Operation::Service { verb, node, service: catalog::service(fields.take("Service").unwrap_or_default())? }
        }
        _ => Operation::Check { verb, check: catalog::check(fields.take("Check").unwrap_or_default())? },
    };
    fields.finish()?;
    Ok(operation)
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TxnAnswer {
    /// What each operation gave, in order; null if the transaction was rolled back.
    pub results: Option<Vec<TxnResult>>,
    /// What failed; null if nothing did.
    pub errors: Option<Vec<TxnError>>,
}

/// What one operation gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnResult {
    /// A key.
    #[serde(rename = "KV")]
    Kv(KvEntry),
    /// A node.
    Node(catalog::Node),
    /// An instance.
    Service(catalog::Service),
    /// A check.
    Check(catalog::Check),
}

/// Why one operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TxnError {
    /// Which, from 0.
    pub op_index: usize,
    /// Why.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().0
    }

    #[test]
    fn an_operation_is_an_object_with_one_field_whose_names_match_in_any_case() {
        let body = r#"[{"kv": {"verb": "cas", "KEY": "k", "Value": "aGk=", "Index": 7, "Flags": 1}},
                       {"KV": {"Verb": "get", "Key": "k"}}, {"Session": {"Verb": "delete", "Session": {"ID": "s"}}},
                       {"Node": {"Verb": "get", "Node": {"Node": "n"}}}]"#;
        let operations = parse(body.as_bytes()).unwrap();
        let cas = KvOperation {
            verb: "cas".into(),
            key: "k".into(),
            value: b"hi".to_vec(),
            flags: 1,
            index: Some(7),
            session: String::new(),
        };
        assert_eq!(operations[0], Operation::Kv(cas));
        assert_eq!(operations[2], Operation::SessionDelete { id: "s".into() });
        let node = catalog::Node { node: "n".into(), ..Default::default() };
        assert_eq!(operations[3], Operation::Node { verb: "get".into(), node });
        assert_eq!(parse(b"null"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        assert_eq!(said("{}"), "expected a list of operations");
        assert_eq!(said(r#"[{"KV": {"Verb": "get", "Kee": "k"}}]"#), "json: unknown field \"Kee\"");
        assert_eq!(said(r#"[{"KX": {}}]"#), "json: unknown field \"KX\"");
        let one = "an operation is an object with one of KV, Session, Node, Service, Check";
        assert_eq!(said("[{}]"), one);
        assert_eq!(said(r#"[{"KV": {}, "Node": {}}]"#), one);
        assert_eq!(said(r#"[{"Session": {"Verb": "get"}}]"#), "unknown Session verb \"get\": there is delete");
    }
}
