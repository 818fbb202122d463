//! Reading a JSON body as Consul does: names of fields in any case, and a field that it does not know is an error.
//!
//! serde matches names exactly and has errors of its own words, so a body is taken apart by hand: [`Object`] gives each
//! field that is asked for, and [`Object::finish`] refuses what nobody asked for.

use std::collections::BTreeMap;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::duration::GoDuration;

/// What is wrong with a body; shown after `Request decode failed: `, as Consul does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Parses a document. Its depth is bounded by the parser.
///
/// # Errors
/// It is no JSON.
pub fn parse(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|error| DecodeError(error.to_string()))
}

/// An object that is being taken apart.
pub struct Object {
    fields: Map<String, Value>,
}

impl Object {
    /// The fields of a value.
    ///
    /// # Errors
    /// It is no object. A null is an empty one.
    pub fn of(value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Object { fields }),
            Value::Null => Ok(Object { fields: Map::new() }),
            other => Err(DecodeError(format!("expected an object, found {}", kind(&other)))),
        }
    }

    /// A field, whatever the case of its name. A null says nothing; of several spellings the last counts.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let spelled: Vec<String> = self.fields.keys().filter(|own| own.eq_ignore_ascii_case(name)).cloned().collect();
        let taken = spelled.iter().filter_map(|own| self.fields.remove(own)).last();
        taken.filter(|value| !value.is_null())
    }

    /// A text.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a text", &other)),
        }
    }

    /// An unsigned number.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| wrong(name, "a whole number that is not negative", &value))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(name, "true or false", &value))
    }

    /// Bytes in base64.
    ///
    /// # Errors
    /// It is something else.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        STANDARD.decode(text).map(Some).map_err(|error| DecodeError(format!("{name} is no base64: {error}")))
    }

    /// The fields of an object, by name; none if it is not there.
    ///
    /// # Errors
    /// It is something else.
    pub fn entries(&mut self, name: &str) -> Result<Map<String, Value>> {
        match self.take(name) {
            None => Ok(Map::new()),
            Some(Value::Object(fields)) => Ok(fields),
            Some(other) => Err(wrong(name, "an object", &other)),
        }
    }

    /// Texts by name; none if it is not there.
    ///
    /// # Errors
    /// It is something else.
    pub fn pairs(&mut self, name: &str) -> Result<BTreeMap<String, String>> {
        let text = |(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(wrong(name, "texts by name", &other)),
        };
        self.entries(name)?.into_iter().map(text).collect()
    }

    /// A port; 0 if it is not there.
    ///
    /// # Errors
    /// It is something else.
    pub fn port(&mut self, name: &str) -> Result<u16> {
        let number = self.number(name)?.unwrap_or_default();
        u16::try_from(number).map_err(|_| DecodeError(format!("{name} must be a port, 0 to 65535")))
    }

    /// A list.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(name, "a list", &other)),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// It is something else.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(name, "a list of texts", &other)),
        };
        list.into_iter().map(text).collect::<Result<_>>().map(Some)
    }

    /// A duration as a text, or a number that `of_number` makes one of.
    ///
    /// # Errors
    /// It is something else.
    pub fn duration(&mut self, name: &str, of_number: impl Fn(f64) -> f64) -> Result<Option<GoDuration>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                text.parse().map(Some).map_err(|error| DecodeError(format!("{name}: {error}")))
            }
            Some(Value::Number(number)) => {
                // A float that is out of range saturates, which is what the bounds of every duration then refuse or cut.
                Ok(Some(GoDuration(of_number(number.as_f64().unwrap_or_default()) as i64)))
            }
            Some(other) => Err(wrong(name, "a duration", &other)),
        }
    }

    /// Refuses what is left.
    ///
    /// # Errors
    /// A field that nobody asked for, in Go's words.
    pub fn finish(self) -> Result<()> {
        match self.fields.keys().next() {
            Some(name) => Err(DecodeError(format!("json: unknown field {name:?}"))),
            None => Ok(()),
        }
    }
}

fn wrong(name: &str, wanted: &str, found: &Value) -> DecodeError {
    DecodeError(format!("{name} must be {wanted}, found {}", kind(found)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::of(parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_the_last_spelling_counts() {
        let mut fields = object(r#"{"ttl": "1s", "TTL": "2s", "Ttl": null}"#);
        assert_eq!(fields.text("TTL"), Ok(None), "the last one says nothing");
        assert_eq!(fields.finish(), Ok(()));
        assert_eq!(object(r#"{"nODE": "n"}"#).text("Node"), Ok(Some("n".into())));
    }

    #[test]
    fn a_field_that_nobody_knows_is_named() {
        let mut fields = object(r#"{"Node": "n", "Nodes": []}"#);
        fields.text("Node").unwrap();
        assert_eq!(fields.finish(), Err(DecodeError("json: unknown field \"Nodes\"".into())));
    }

    #[test]
    fn what_is_of_the_wrong_type_is_said() {
        let said = |result: Result<()>| result.unwrap_err().0;
        assert_eq!(said(object(r#"{"A": 1}"#).text("A").map(drop)), "A must be a text, found a number");
        assert_eq!(said(object(r#"{"A": [1]}"#).texts("A").map(drop)), "A must be a list of texts, found a number");
        assert_eq!(
            said(object(r#"{"A": -1}"#).number("A").map(drop)),
            "A must be a whole number that is not negative, found a number"
        );
        assert!(said(object(r#"{"A": "%"}"#).bytes("A").map(drop)).starts_with("A is no base64"));
        assert_eq!(
            said(object(r#"{"A": "10"}"#).duration("A", |n| n).map(drop)),
            "A: \"10\" has no unit: write 10s for seconds or 10ms for milliseconds"
        );
        assert_eq!(Object::of(Value::Bool(true)).err().unwrap().0, "expected an object, found true or false");
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn a_number_may_be_a_duration_however_large() {
        let mut fields = object(r#"{"A": 15, "B": 1e300}"#);
        assert_eq!(fields.duration("A", |n| n * 1e9), Ok(Some(GoDuration(15_000_000_000))));
        assert_eq!(fields.duration("B", |n| n), Ok(Some(GoDuration(i64::MAX))));
    }
}
