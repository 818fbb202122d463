//! Reading a request's path, parameters and headers, with Consul's texts for what is wrong with them.
//!
//! Two rules differ from Consul on purpose. A `%` that does not begin an escape is refused, where Go drops the
//! parameter: a dropped `cas` would turn a conditional write into an unconditional one. And a key is taken from the
//! raw path, decoded exactly once and never cleaned, so every byte string is a key.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};

use super::reply::Failure;
use crate::agent::{Consistency, ReadOptions};
use crate::api::duration::GoDuration;
use crate::limits;
use crate::state::{Key, RequestId};

/// Names one write, so that repeating it is harmless (R3): `<uuid>/<sequence>[/<acknowledged-below>]`.
pub const REQUEST_ID: &str = "x-quorate-request-id";

/// Everything under this path is a key.
pub const KV: &str = "/v1/kv/";

/// Decodes `%41`, and `+` as a space if asked to. Borrows if there is nothing to decode.
fn decode(text: &str, plus: bool) -> Result<Cow<'_, [u8]>, Failure> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| *byte == b'%' || (plus && *byte == b'+')) {
        return Ok(Cow::Borrowed(bytes));
    }
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                    return Err(Failure::bad_request(
                        "Invalid URL: \"%\" must be followed by two hexadecimal digits; write the sign itself as %25",
                    ));
                };
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            b'+' if plus => {
                decoded.push(b' ');
                at += 1;
            }
            byte => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    Ok(Cow::Owned(decoded))
}

/// The key: whatever follows `/v1/kv/` in the raw path, decoded once. May be empty.
pub fn key(uri: &Uri) -> Result<Key, Failure> {
    key_after(uri, KV)
}

/// The key that follows a route.
pub fn key_after(uri: &Uri, route: &str) -> Result<Key, Failure> {
    bounded(&decode(uri.path().strip_prefix(route).unwrap_or_default(), false)?)
}

/// A key, or a prefix of keys, that is not too long.
pub fn bounded(key: &[u8]) -> Result<Key, Failure> {
    if key.len() > limits::MAX_KEY {
        let text = format!("Key too long: {} bytes, the limit is {}", key.len(), limits::MAX_KEY);
        return Err(Failure::new(StatusCode::URI_TOO_LONG, text));
    }
    Ok(Key::from(key))
}

/// What follows a route in the path, as text, decoded once. May be empty.
pub fn rest(uri: &Uri, route: &str) -> Result<String, Failure> {
    let bytes = decode(uri.path().strip_prefix(route).unwrap_or_default(), false)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| Failure::bad_request("Invalid URL: the name is not UTF-8"))
}

/// The client's own request id, if it sent one. One that does not say when it was born is taken for as young as the state
/// is: `newest`.
pub fn request_id(headers: &HeaderMap, newest: u64) -> Result<Option<RequestId>, Failure> {
    let Some(value) = headers.get(REQUEST_ID) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| parse_request_id(text, newest));
    parsed.map(Some).ok_or_else(|| {
        Failure::bad_request(
            "Invalid X-Quorate-Request-Id: expected <uuid>/<sequence>[/<acknowledged-below>[/<born>]], the sequence \
             from 1 and the number after it not above it",
        )
    })
}

fn parse_request_id(text: &str, newest: u64) -> Option<RequestId> {
    let mut parts = text.split('/');
    let incarnation = uuid::Uuid::try_parse(parts.next()?).ok()?;
    let sequence = number(parts.next()?)?;
    let acknowledged_below = parts.next().map_or(Some(0), number)?;
    let born = parts.next().map_or(Some(newest), number)?;
    let sound = sequence >= 1 && acknowledged_below <= sequence && parts.next().is_none();
    sound.then_some(RequestId { incarnation, born, sequence, acknowledged_below })
}

/// An unsigned decimal. Rust's own parser also takes a `+`, which Go's does not.
fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The query parameters. Where a name repeats, the first value counts.
pub struct Query<'a> {
    parameters: Vec<Parameter<'a>>,
}

struct Parameter<'a> {
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

impl<'a> Query<'a> {
    /// Parses what follows the `?`.
    pub fn parse(raw: &'a str) -> Result<Self, Failure> {
        let mut parameters = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            if parameters.len() == limits::MAX_PARAMETERS {
                let text = format!("Too many query parameters: the limit is {}", limits::MAX_PARAMETERS);
                return Err(Failure::bad_request(text));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            parameters.push(Parameter { name: decode(name, true)?, value: decode(value, true)? });
        }
        Ok(Query { parameters })
    }

    /// Whether the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// The value; empty if the parameter is bare.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let parameter = self.parameters.iter().find(|parameter| *parameter.name == *name.as_bytes());
        parameter.map(|parameter| &parameter.value[..])
    }

    /// The value as text; bytes that are not UTF-8 show as U+FFFD, which no parser of a value takes.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(String::from_utf8_lossy)
    }

    /// The values of a parameter that may repeat, as text.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = String> {
        let named = self.parameters.iter().filter(move |parameter| *parameter.name == *name.as_bytes());
        named.map(|parameter| String::from_utf8_lossy(&parameter.value).into_owned())
    }

    /// Refuses filter expressions: an answer that ignored one would hold what was not asked for.
    pub fn refuse_filter(&self) -> Result<(), Failure> {
        match self.filled("filter") {
            None => Ok(()),
            Some(_) => Err(Failure::bad_request("Filter expressions are not supported yet: filter the answer instead")),
        }
    }

    /// The value as text unless it is empty: for parameters where `?name=` means the same as nothing.
    fn filled(&self, name: &str) -> Option<Cow<'_, str>> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// An unsigned number of a write. Consul answers 500 if it is none, also for a bare parameter.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || Failure::internal(format!("Invalid {name} {text:?}: expected an unsigned 64-bit number"));
        number(&text).map(Some).ok_or_else(wrong)
    }

    /// An index of a read.
    pub fn index(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.filled(name) else { return Ok(None) };
        let wrong = || Failure::bad_request(format!("Invalid {name} {text:?}: expected an index"));
        number(&text).map(Some).ok_or_else(wrong)
    }

    /// Refuses parameters that exclude each other.
    pub fn check_exclusive(&self, names: &[&str]) -> Result<(), Failure> {
        let present: Vec<&str> = names.iter().copied().filter(|name| self.has(name)).collect();
        if present.len() < 2 {
            return Ok(());
        }
        Err(Failure::bad_request(format!("Conflicting flags: {} exclude each other", present.join(" and "))))
    }

    /// Refuses namespaces and partitions: they belong to Consul Enterprise, and ignoring them would mix tenants.
    pub fn check_tenancy(&self, headers: &HeaderMap) -> Result<(), Failure> {
        const FEATURES: [(&str, &str, &str); 2] =
            [("ns", "X-Consul-Namespace", "Namespaces"), ("partition", "X-Consul-Partition", "Partitions")];
        for (parameter, header, feature) in FEATURES {
            if headers.get(header).is_some_and(|value| !value.is_empty()) {
                let text = format!("Invalid header: \"{header}\" - {feature} are a Consul Enterprise feature");
                return Err(Failure::bad_request(text));
            }
            if self.bytes(parameter).is_some_and(|value| !value.is_empty()) {
                let text =
                    format!("Invalid query parameter: \"{parameter}\" - {feature} are a Consul Enterprise feature");
                return Err(Failure::bad_request(text));
            }
        }
        Ok(())
    }

    /// Refuses any datacenter but ours. `datacenter` wins over `dc`.
    pub fn check_datacenter(&self, ours: &str) -> Result<(), Failure> {
        match self.filled("datacenter").or_else(|| self.filled("dc")) {
            Some(asked) if asked != ours => Err(Failure::internal("No path to datacenter")),
            _ => Ok(()),
        }
    }

    /// Consistency and waiting (consul.md 2.2 and 2.3). `leader` and `cached` ask for less than every answer gives.
    pub fn read_options(&self) -> Result<ReadOptions, Failure> {
        let wait = self.filled("wait").map(|text| positive(&text)).transpose();
        let wait = wait.map_err(|()| Failure::bad_request("Invalid wait time"))?.flatten();
        let index = self.filled("index").map_or(Some(0), |text| number(&text));
        let index = index.ok_or_else(|| Failure::bad_request("Invalid index"))?;
        let max_stale = self.filled("max_stale").map(|text| {
            positive(&text).map_err(|()| Failure::bad_request(format!("Invalid max_stale value {text:?}")))
        });
        let max_stale = max_stale.transpose()?.flatten();
        let stale = self.has("stale") || max_stale.is_some();
        let consistency = match (self.has("consistent"), stale) {
            (true, true) => return Err(conflicting("stale")),
            (true, false) if self.has("cached") => return Err(conflicting("cached")),
            (true, false) => Consistency::Consistent,
            (false, true) => Consistency::Stale,
            (false, false) => Consistency::Default,
        };
        Ok(ReadOptions { consistency, max_stale, index, wait })
    }
}

fn conflicting(weaker: &str) -> Failure {
    Failure::bad_request(format!("Cannot specify ?{weaker} with ?consistent, conflicting semantics."))
}

/// A duration, or None if it is zero or less: Consul takes those for "not given".
fn positive(text: &str) -> Result<Option<Duration>, ()> {
    let duration: GoDuration = text.parse().map_err(drop)?;
    Ok(duration.to_std().filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(raw: &str) -> Result<ReadOptions, String> {
        Query::parse(raw).and_then(|query| query.read_options()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn bad_parameters_are_refused_with_consuls_texts() {
        let escape = "400 Invalid URL: \"%\" must be followed by two hexadecimal digits; write the sign itself as %25";
        let cases = [
            ("index=x", "400 Invalid index"),
            ("index=-1", "400 Invalid index"),
            ("index=+1", "400 Invalid index"),
            ("index=%2B1", "400 Invalid index"),
            ("index=1.5", "400 Invalid index"),
            ("index=18446744073709551616", "400 Invalid index"),
            ("index=%FF", "400 Invalid index"),
            ("index=1&wait=soon", "400 Invalid wait time"),
            ("wait=5", "400 Invalid wait time"),
            ("wait=--5s", "400 Invalid wait time"),
            ("wait=s&index=x", "400 Invalid wait time"),
            ("max_stale=old", "400 Invalid max_stale value \"old\""),
            ("stale&consistent", "400 Cannot specify ?stale with ?consistent, conflicting semantics."),
            ("max_stale=5s&consistent", "400 Cannot specify ?stale with ?consistent, conflicting semantics."),
            ("cached&consistent", "400 Cannot specify ?cached with ?consistent, conflicting semantics."),
            ("index=%", escape),
            ("index=%4", escape),
            ("index=%zz", escape),
            ("%g0=1", escape),
        ];
        for (raw, expected) in cases {
            assert_eq!(options(raw).unwrap_err(), expected, "{raw}");
        }
    }

    #[test]
    fn parameters_mean_what_consul_means_by_them() {
        let plain = ReadOptions::default();
        let stale = ReadOptions { consistency: Consistency::Stale, ..plain.clone() };
        let five = Some(Duration::from_secs(5));
        let cases = [
            ("", plain.clone()),
            ("&&", plain.clone()),
            ("leader&cached&unknown=x&token=t", plain.clone()),
            ("index=&wait=&max_stale=", plain.clone()),
            ("index=0", plain.clone()),
            ("index=7&index=8", ReadOptions { index: 7, ..plain.clone() }),
            ("%69ndex=7", ReadOptions { index: 7, ..plain.clone() }),
            ("index=18446744073709551615", ReadOptions { index: u64::MAX, ..plain.clone() }),
            ("index=7&wait=5s", ReadOptions { index: 7, wait: five, ..plain.clone() }),
            ("wait=0s", plain.clone()),
            ("wait=-5s", plain.clone()),
            ("stale", stale.clone()),
            ("stale=false", stale.clone()),
            ("stale&leader", stale.clone()),
            ("max_stale=5s", ReadOptions { max_stale: five, ..stale }),
            ("max_stale=0s", plain.clone()),
            ("consistent", ReadOptions { consistency: Consistency::Consistent, ..plain }),
        ];
        for (raw, expected) in cases {
            assert_eq!(format!("{:?}", options(raw).unwrap()), format!("{expected:?}"), "{raw}");
        }
    }

    #[test]
    fn plus_is_a_space_in_a_parameter_and_itself_in_a_key() {
        let query = Query::parse("separator=a+b%2Bc").unwrap();
        assert_eq!(query.bytes("separator"), Some(&b"a b+c"[..]));
        assert_eq!(key(&Uri::from_static("/v1/kv/a+b")).unwrap().as_bytes(), b"a+b");
    }

    #[test]
    fn a_bare_parameter_is_present_and_empty() {
        let query = Query::parse("recurse&raw=").unwrap();
        assert_eq!((query.bytes("recurse"), query.bytes("raw")), (Some(&b""[..]), Some(&b""[..])));
        assert!(!query.has("keys"));
    }

    #[test]
    fn too_many_parameters_are_refused_before_they_are_stored() {
        let most = "a&".repeat(limits::MAX_PARAMETERS);
        assert!(Query::parse(&most).is_ok());
        let failure = Query::parse(&(most + "a")).err().unwrap();
        assert_eq!(failure.to_string(), "400 Too many query parameters: the limit is 256");
    }

    #[test]
    fn numbers_of_writes_are_refused_with_500() {
        for (raw, shown) in
            [("cas", ""), ("cas=x", "x"), ("cas=-1", "-1"), ("cas=99999999999999999999", "99999999999999999999")]
        {
            let failure = Query::parse(raw).unwrap().number("cas").unwrap_err();
            assert_eq!(failure.to_string(), format!("500 Invalid cas {shown:?}: expected an unsigned 64-bit number"));
        }
        assert_eq!(Query::parse("cas=0").unwrap().number("cas").unwrap(), Some(0));
        assert_eq!(Query::parse("flags=0").unwrap().number("cas").unwrap(), None);
    }

    #[test]
    fn exclusive_parameters_conflict_only_when_two_are_there() {
        let check = |raw| Query::parse(raw).unwrap().check_exclusive(&["cas", "acquire", "release"]);
        assert!(check("cas=1&flags=2").is_ok());
        assert_eq!(
            check("acquire=s&cas=1").unwrap_err().to_string(),
            "400 Conflicting flags: cas and acquire exclude each other"
        );
    }

    #[test]
    fn enterprise_tenancy_is_refused_wherever_it_is_named() {
        let headers = |name: Option<&'static str>| -> HeaderMap {
            name.into_iter().map(|name| (name.parse().unwrap(), "default".parse().unwrap())).collect()
        };
        let cases = [
            ("ns=a", None, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature"),
            (
                "partition=a",
                None,
                "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
            ),
            (
                "",
                Some("X-Consul-Namespace"),
                "Invalid header: \"X-Consul-Namespace\" - Namespaces are a Consul Enterprise feature",
            ),
            (
                "",
                Some("x-consul-partition"),
                "Invalid header: \"X-Consul-Partition\" - Partitions are a Consul Enterprise feature",
            ),
        ];
        for (raw, header, expected) in cases {
            let failure = Query::parse(raw).unwrap().check_tenancy(&headers(header)).unwrap_err();
            assert_eq!(failure.to_string(), format!("400 {expected}"));
        }
        assert!(Query::parse("ns=&partition").unwrap().check_tenancy(&headers(None)).is_ok());
    }

    #[test]
    fn only_our_datacenter_can_be_reached() {
        let check = |raw| Query::parse(raw).unwrap().check_datacenter("dc1").map_err(|failure| failure.to_string());
        for ours in ["", "dc=", "dc=dc1", "dc=dc2&datacenter=dc1"] {
            assert_eq!(check(ours), Ok(()), "{ours}");
        }
        for other in ["dc=dc2", "dc=dc1&datacenter=dc2"] {
            assert_eq!(check(other), Err("500 No path to datacenter".into()), "{other}");
        }
    }

    #[test]
    fn a_key_is_the_raw_path_decoded_exactly_once() {
        let cases: [(&str, &[u8]); 11] = [
            ("/v1/kv/", b""),
            ("/v1/kv/a/b", b"a/b"),
            ("/v1/kv//a", b"/a"),
            ("/v1/kv/a//b/", b"a//b/"),
            ("/v1/kv/a/../b/./c", b"a/../b/./c"),
            ("/v1/kv/a%2Fb", b"a/b"),
            ("/v1/kv/a%252Fb", b"a%2Fb"),
            ("/v1/kv/%20a%20", b" a "),
            ("/v1/kv/%00%ff", b"\0\xff"),
            ("/v1/kv/%3fa%23", b"?a#"),
            ("/v1/kv//v1/kv/a", b"/v1/kv/a"),
        ];
        for (path, expected) in cases {
            assert_eq!(key(&path.parse().unwrap()).unwrap().as_bytes(), expected, "{path}");
        }
    }

    #[test]
    fn a_key_over_the_limit_or_badly_escaped_is_refused() {
        let path = |len: usize| format!("/v1/kv/{}", "%61".repeat(len)).parse::<Uri>().unwrap();
        assert_eq!(key(&path(limits::MAX_KEY)).unwrap().as_bytes().len(), limits::MAX_KEY);
        let failure = key(&path(limits::MAX_KEY + 1)).unwrap_err();
        assert_eq!(failure.to_string(), "414 Key too long: 8193 bytes, the limit is 8192");
        for bad in ["/v1/kv/%", "/v1/kv/%a", "/v1/kv/a%zzb"] {
            assert!(key(&bad.parse().unwrap()).unwrap_err().to_string().starts_with("400 Invalid URL"), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_read_or_refused_as_a_whole() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let parse = |text: &str| parse_request_id(text, 70).map(|id| (id.sequence, id.acknowledged_below, id.born));
        assert_eq!(parse(&format!("{uuid}/1")), Some((1, 0, 70)));
        assert_eq!(parse(&format!("{uuid}/7/7")), Some((7, 7, 70)));
        assert_eq!(parse(&format!("{uuid}/7/7/30")), Some((7, 7, 30)));
        for bad in ["", "/", "x/1", uuid] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for bad in ["", "0", "-1", "+1", "1/", "1/2", "1/x", "1/1/x", "1/1/1/1", "18446744073709551616"] {
            assert_eq!(parse(&format!("{uuid}/{bad}")), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_percent_encoding(bytes: Vec<u8>) {
            let encoded = percent_encoding::percent_encode(&bytes, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(&decode(&encoded, false).unwrap()[..], &bytes[..]);
            prop_assert_eq!(&decode(&encoded, true).unwrap()[..], &bytes[..]);
        }

        #[test]
        fn no_query_panics(raw: String) {
            if let Ok(query) = Query::parse(&raw) {
                let _ = query.read_options();
                let _ = query.number("cas");
            }
        }
    }
}
