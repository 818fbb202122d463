//! Writing an answer: Consul's headers, JSON, errors as text, gzip.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::agent::{Answer, Consistency, Forgotten};
use crate::error::Error;
use crate::limits;

/// An answer on its way out.
pub type Response = http::Response<Body>;

/// The index of what was read: what `?index=` waits beyond. Never 0.
pub const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
/// Whether this server knows a leader.
pub const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
/// Milliseconds since this server heard from the leader.
pub const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
/// How a read was answered: always `blocking-query` here.
pub const EFFECTIVE_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
/// See [`INDEX`].
pub const QUERY_BACKEND: HeaderName = HeaderName::from_static("x-consul-query-backend");
/// What happens to a request that no policy names. On every answer.
pub const DEFAULT_ACL_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");
/// Where the next page starts: the value for `?start_after=`, percent-encoded. Missing on the last page.
pub const NEXT: HeaderName = HeaderName::from_static("x-quorate-next");
/// The fence that a key is held under (G2).
pub const FENCE: HeaderName = HeaderName::from_static("x-quorate-fence");
/// For how many milliseconds from before its request a client may believe in its session (G1).
pub const LEASE: HeaderName = HeaderName::from_static("x-quorate-lease-ms");

/// The index at which a backup was last restored: what was read under another one may never have been (R4). Missing if none was.
pub const EPOCH: HeaderName = HeaderName::from_static("x-quorate-epoch");
/// The oldest index that can be asked for, where an older one was (R5).
pub const OLDEST: HeaderName = HeaderName::from_static("x-quorate-oldest");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What stands for "never heard" in milliseconds: the longest time that Go's clients can hold, which count in nanoseconds.
const FOREVER_MS: u64 = i64::MAX as u64 / 1_000_000;

/// Room for every header of the fullest answer, so that the map is allocated once.
const HEADERS: usize = 11;

/// A request that was not done, as the client sees it.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    text: Cow<'static, str>,
    /// For [`OLDEST`].
    oldest: Option<u64>,
}

impl Failure {
    /// A failure with a status that Consul's clients expect.
    pub fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Failure { status, text: text.into(), oldest: None }
    }

    /// 400: the request can never succeed.
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, text)
    }

    /// 500, also where 400 would be right but Consul says 500.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// 410: what was asked for is not kept any more.
    pub fn gone(Forgotten { oldest }: Forgotten) -> Self {
        let text = format!(
            "Gone: the changes since that index are not kept any more, the oldest index is {oldest}. Read anew, and go on from there"
        );
        Failure { oldest: Some(oldest), ..Failure::new(StatusCode::GONE, text) }
    }

    /// Whether the client sent too much: part of it is then still on its way.
    pub fn is_too_large(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        let mut response = text(self.status, self.text);
        response.headers_mut().extend(self.oldest.map(|oldest| (OLDEST, oldest.into())));
        response
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.text)
    }
}

/// Who must act decides the status.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Request(_) => StatusCode::BAD_REQUEST,
            Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            // Consul's clients take a 500, and nothing else, as an invitation to try again.
            Error::Retry(_) => StatusCode::INTERNAL_SERVER_ERROR,
            // Not a 500: they would repeat it at once, which feeds the overload.
            Error::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            // So a write that may have been applied must not be a 500: they would repeat it blindly (R3).
            Error::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
            Error::Operator(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Bug(text) => {
                tracing::error!(bug = %text, "a request met a bug");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Failure::new(status, error.to_string())
    }
}

/// The headers of a read (consul.md 1.1).
pub fn indexed<T>(answer: &Answer<T>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(INDEX, HeaderValue::from(answer.index.max(1)));
    headers.insert(KNOWN_LEADER, HeaderValue::from_static(if answer.known_leader { "true" } else { "false" }));
    let last_contact = u64::try_from(answer.last_contact.as_millis()).unwrap_or(u64::MAX).min(FOREVER_MS);
    headers.insert(LAST_CONTACT, HeaderValue::from(last_contact));
    headers.insert(QUERY_BACKEND, HeaderValue::from_static("blocking-query"));
    if answer.epoch > 0 {
        headers.insert(EPOCH, answer.epoch.into());
    }
    headers
}

/// The same for what is discovered, nodes, services and checks: these say how fresh they are, too.
pub fn discovered<T>(answer: &Answer<T>) -> HeaderMap {
    let mut headers = indexed(answer);
    let consistency = match answer.consistency {
        Consistency::Default => "leader",
        Consistency::Consistent => "consistent",
        Consistency::Stale => "stale",
    };
    headers.insert(EFFECTIVE_CONSISTENCY, HeaderValue::from_static(consistency));
    headers
}

/// An answer without a body.
pub fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    finish(status, headers, Body::empty())
}

/// A sentence.
pub fn text(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    let body = match text.into() {
        Cow::Borrowed(text) => Body::from(text),
        Cow::Owned(text) => Body::from(text),
    };
    finish(status, headers, body)
}

/// `true` or `false`: what came of a write.
pub fn done(done: bool) -> Response {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    finish(StatusCode::OK, headers, Body::from(if done { "true" } else { "false" }))
}

/// The same, with the fence of the lock that was taken.
pub fn fenced(mut response: Response, fence: u64) -> Response {
    response.headers_mut().insert(FENCE, fence.into());
    response
}

/// 409: a write was not done, because the lock that it named is not held under that fence (G3).
pub fn fenced_off(current: Option<u64>) -> Response {
    let Some(current) = current else {
        return text(StatusCode::CONFLICT, "Fenced off: the lock is not held. Nothing was written");
    };
    let sentence = format!("Fenced off: the lock is held under fence {current}. Nothing was written");
    fenced(text(StatusCode::CONFLICT, sentence), current)
}

/// The headers of an answer about a session that lives.
pub fn leased(lease: Option<Duration>) -> HeaderMap {
    let millis = |lease: Duration| HeaderValue::from(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.extend(lease.map(|lease| (LEASE, millis(lease))));
    headers
}

/// A JSON document.
pub fn json(request: &HeaderMap, mut headers: HeaderMap, body: Vec<u8>) -> Response {
    headers.insert(CONTENT_TYPE, JSON);
    whole(request, headers, body.into())
}

/// A JSON document in chunks. One chunk is sent whole; more are made as the client takes them.
pub fn json_chunks(
    request: &HeaderMap,
    mut headers: HeaderMap,
    mut chunks: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> Response {
    let first = chunks.next().unwrap_or_default();
    let Some(second) = chunks.next() else { return json(request, headers, first) };
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let chunks = [first, second].into_iter().chain(chunks);
    let body = if accepts_gzip(request) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Body::from_stream(futures_util::stream::iter(Gzip::new(chunks).map(Ok::<_, Infallible>)))
    } else {
        Body::from_stream(futures_util::stream::iter(chunks.map(Ok::<_, Infallible>)))
    };
    finish(StatusCode::OK, headers, body)
}

/// An answer that goes on as long as there is anything to say.
pub fn streamed(headers: HeaderMap, body: Body) -> Response {
    finish(StatusCode::OK, headers, body)
}

/// A value as it is (`?raw`). It may be anything, so a browser is told to run none of it.
pub fn raw(request: &HeaderMap, mut headers: HeaderMap, value: Bytes) -> Response {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(http::header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    whole(request, headers, value)
}

/// Compresses the body if it is worth it and the client takes it.
fn whole(request: &HeaderMap, mut headers: HeaderMap, body: Bytes) -> Response {
    if body.len() < limits::GZIP_MIN {
        return finish(StatusCode::OK, headers, Body::from(body));
    }
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if !accepts_gzip(request) {
        return finish(StatusCode::OK, headers, Body::from(body));
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let compressed: Vec<u8> = Gzip::new(std::iter::once(body)).flatten().collect();
    finish(StatusCode::OK, headers, Body::from(compressed))
}

fn finish(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Whether `Accept-Encoding` names gzip with a weight above zero.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), |weight| weight.trim().parse::<f32>());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// Compresses chunks as they come, at the fastest level: the other half of this thread's time belongs to the log.
struct Gzip<I> {
    chunks: I,
    /// None once the trailer is out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Gzip<I> {
    fn new(chunks: I) -> Self {
        Gzip { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<T: AsRef<[u8]>, I: Iterator<Item = T>> Iterator for Gzip<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(chunk) = self.chunks.next() else {
                return Some(self.encoder.take()?.finish().expect("a Vec takes every byte"));
            };
            let encoder = self.encoder.as_mut()?;
            encoder.write_all(chunk.as_ref()).expect("a Vec takes every byte");
            let compressed = std::mem::take(encoder.get_mut());
            // The encoder may keep a chunk to itself; an empty piece would only cost a system call.
            if !compressed.is_empty() {
                return Some(compressed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use http::header::CONTENT_LENGTH;
    use http_body_util::BodyExt;

    use super::*;

    fn request(accept: &'static str) -> HeaderMap {
        [(ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect()
    }

    fn bytes(response: Response) -> Vec<u8> {
        let collected = futures_util::FutureExt::now_or_never(response.into_body().collect());
        collected.expect("bodies are made of what is there").unwrap().to_bytes().to_vec()
    }

    fn unzip(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn gzip_is_used_only_where_the_client_takes_it_and_the_body_is_long_enough() {
        let long = vec![b'a'; limits::GZIP_MIN];
        for (accept, len, compressed) in [
            ("gzip", limits::GZIP_MIN, true),
            ("br, GZIP ; q=0.5", limits::GZIP_MIN, true),
            ("gzip", limits::GZIP_MIN - 1, false),
            ("gzip;q=0", limits::GZIP_MIN, false),
            ("gzip;q=x", limits::GZIP_MIN, false),
            ("identity", limits::GZIP_MIN, false),
        ] {
            let response = json(&request(accept), HeaderMap::new(), long[..len].to_vec());
            let case = format!("{accept} {len}");
            assert_eq!(response.headers().contains_key(CONTENT_ENCODING), compressed, "{case}");
            assert_eq!(response.headers().contains_key(VARY), len == limits::GZIP_MIN, "{case}");
            let body = bytes(response);
            assert_eq!(if compressed { unzip(&body) } else { body }, long[..len], "{case}");
        }
    }

    #[test]
    fn chunks_make_the_same_document_compressed_or_not() {
        for count in [0, 1, 2, 5] {
            let chunks = move || (0..count).map(|n| vec![b'0' + n; 1000]);
            let whole = chunks().flatten().collect::<Vec<u8>>();
            assert_eq!(bytes(json_chunks(&HeaderMap::new(), HeaderMap::new(), chunks())), whole);
            let response = json_chunks(&request("gzip"), HeaderMap::new(), chunks());
            let zipped = response.headers().contains_key(CONTENT_ENCODING);
            assert_eq!(zipped, count > 1);
            let body = bytes(response);
            assert_eq!(if zipped { unzip(&body) } else { body }, whole);
        }
    }

    #[test]
    fn the_index_header_is_never_zero() {
        let answer = Answer {
            value: Some(()),
            index: 0,
            known_leader: false,
            last_contact: Duration::from_micros(12_345_678),
            consistency: Consistency::Default,
            epoch: 0,
        };
        let headers = indexed(&answer);
        let shown: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("x-consul-index", "1"),
            ("x-consul-knownleader", "false"),
            ("x-consul-lastcontact", "12345"),
            ("x-consul-query-backend", "blocking-query"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_server_that_never_heard_a_leader_says_a_time_that_clients_can_hold() {
        let answer = Answer {
            value: Some(()),
            index: 7,
            known_leader: false,
            last_contact: Duration::MAX,
            consistency: Consistency::Stale,
            epoch: 0,
        };
        let shown = indexed(&answer)[LAST_CONTACT].to_str().unwrap().parse::<i64>().unwrap();
        assert!(shown.checked_mul(1_000_000).is_some() && shown > 1000 * 60 * 60 * 24 * 365 * 100, "{shown}");
    }

    #[test]
    fn who_must_act_decides_the_status() {
        for (error, expected) in [
            (Error::Request("no".into()), "400 no"),
            (Error::TooLarge("big".into()), "413 big"),
            (Error::Retry(crate::api::NO_LEADER.into()), "500 No cluster leader"),
            (Error::Busy("too many blocking queries".into()), "503 too many blocking queries"),
            (Error::Unknown("may have been applied".into()), "504 may have been applied"),
            (Error::Operator("full".into()), "500 full"),
            (Error::Bug("oh".into()), "500 bug: oh"),
        ] {
            assert_eq!(Failure::from(error).to_string(), expected);
        }
    }

    #[test]
    fn a_sentence_is_text_that_no_browser_may_take_for_anything_else() {
        let response = text(StatusCode::NOT_FOUND, "gone");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!response.headers().contains_key(CONTENT_LENGTH), "hyper writes it from the body");
        assert_eq!(bytes(response), b"gone");
    }
}
