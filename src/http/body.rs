//! Reading a request's body, never further than its limit and never for longer than its time.

use std::pin::{Pin, pin};
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use futures_util::future::poll_immediate;
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;

use super::reply::Failure;
use crate::limits;
use crate::world::World;

/// A body that may be refused.
pub struct Limit {
    /// What the body is called in a refusal.
    pub name: &'static str,
    /// The most bytes that are taken: one more is refused.
    pub bytes: usize,
    /// The configuration key that changes it.
    pub key: &'static str,
    /// How long the whole body may take.
    pub time: Duration,
}

impl Limit {
    /// For a body that is no larger than what a client sends at once.
    pub fn new(name: &'static str, bytes: usize, key: &'static str) -> Limit {
        Limit { name, bytes, key, time: limits::BODY_TIMEOUT }
    }
}

/// The whole body, in memory of exactly its size.
///
/// # Errors
/// 413 over the limit: at once if the length is declared, else at the first byte too many. 408 if it takes longer than it may, or
/// nothing of it comes for [`limits::BODY_TIMEOUT`]. 400 if it ends early.
pub async fn read(world: &World, headers: &HeaderMap, body: Body, limit: &Limit) -> Result<Bytes, Failure> {
    let mut body = pin!(body);
    let declared = body.size_hint().lower();
    let result = if declared > limit.bytes as u64 {
        Err(too_large(limit, &format!("{declared} bytes")))
    } else {
        let mut reading = pin!(collect(world, body.as_mut(), limit));
        // A small body has come with its head: that case needs no timer.
        match poll_immediate(&mut reading).await {
            Some(result) => result,
            None => world.timeout(limit.time, reading).await.unwrap_or_else(|| Err(too_late(limit, limit.time))),
        }
    };
    if result.as_ref().is_err_and(|failure| failure.is_too_large()) && !headers.contains_key(EXPECT) {
        drain(world, body).await;
    }
    result
}

/// The refusal of a JSON body, in Consul's words.
pub fn undecoded(error: crate::api::decode::DecodeError) -> Failure {
    Failure::bad_request(format!("Request decode failed: {error}"))
}

fn too_large(limit: &Limit, size: &str) -> Failure {
    let Limit { name, bytes, key, .. } = limit;
    let text = format!("{name} too large: {size}, the limit is {bytes} bytes ({key})");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn too_late(limit: &Limit, time: Duration) -> Failure {
    let text = format!("{} not received in {} s", limit.name, time.as_secs());
    Failure::new(StatusCode::REQUEST_TIMEOUT, text)
}

async fn collect(world: &World, mut body: Pin<&mut Body>, limit: &Limit) -> Result<Bytes, Failure> {
    let mut collected = Vec::new();
    loop {
        let frame = if limit.time > limits::BODY_TIMEOUT {
            let frame = world.timeout(limits::BODY_TIMEOUT, body.frame()).await;
            frame.ok_or_else(|| too_late(limit, limits::BODY_TIMEOUT))?
        } else {
            body.frame().await
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Failure::bad_request(format!("{} ended early or is malformed", limit.name)))?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > limit.bytes {
            return Err(too_large(limit, &format!("more than {} bytes", limit.bytes)));
        }
        // Frames are slices of the connection's read buffer: keeping one in the store would pin all of that.
        if collected.is_empty() && body.is_end_stream() {
            return Ok(Bytes::copy_from_slice(&data));
        }
        // The vector grows with what has come, not with what was announced: announcing is free for the client.
        collected.extend_from_slice(&data);
    }
    Ok(collected.into_boxed_slice().into())
}

/// Throws away a bounded part of a refused body, so that the refusal can be read; see [`limits::DRAIN_BYTES`]. A
/// client that sent `Expect: 100-continue` waits for our word first and needs none of this.
async fn drain(world: &World, mut body: Pin<&mut Body>) {
    let draining = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > limits::DRAIN_BYTES {
                break;
            }
        }
    };
    world.timeout(limits::DRAIN_TIME, draining).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::http::testing::test_world;

    const LIMIT: Limit = Limit { name: "Value", bytes: 4, key: "limits.x", time: limits::BODY_TIMEOUT };

    fn chunks(chunks: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks.iter().copied().map(Ok::<_, Infallible>)))
    }

    fn read_now(body: Body) -> Result<String, String> {
        let (world, _clock) = test_world();
        let result = read(&world, &HeaderMap::new(), body, &LIMIT).now_or_never().expect("the body is all there");
        result.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_limit_is_exact_whether_the_length_is_declared_or_not() {
        let declared = "413 Value too large: 5 bytes, the limit is 4 bytes (limits.x)";
        let streamed = "413 Value too large: more than 4 bytes, the limit is 4 bytes (limits.x)";
        assert_eq!(read_now(Body::from("1234")), Ok("1234".into()));
        assert_eq!(read_now(Body::from("12345")), Err(declared.into()));
        assert_eq!(read_now(chunks(&["12", "34"])), Ok("1234".into()));
        assert_eq!(read_now(chunks(&["12", "34", "5"])), Err(streamed.into()));
        assert_eq!(read_now(chunks(&["12345"])), Err(streamed.into()));
        assert_eq!(read_now(Body::empty()), Ok(String::new()));
    }

    #[test]
    fn a_value_keeps_no_more_memory_than_its_own() {
        let (world, _clock) = test_world();
        let shared = Bytes::from(vec![b'x'; 4096]);
        let body = Body::from(shared.slice(..3));
        let value = read(&world, &HeaderMap::new(), body, &LIMIT).now_or_never().unwrap().unwrap();
        assert_eq!(value, "xxx");
        assert!(shared.is_unique(), "the value still refers to the read buffer");
    }

    #[test]
    fn a_body_that_breaks_off_is_refused() {
        let body = Body::from_stream(stream::iter([Ok("1"), Err(std::io::Error::other("cut"))]));
        assert_eq!(read_now(body), Err("400 Value ended early or is malformed".into()));
    }

    #[test]
    fn a_body_that_does_not_come_is_refused_when_its_time_is_up() {
        let (world, clock) = test_world();
        let body = Body::from_stream(stream::iter([Ok::<_, Infallible>("1")]).chain(stream::pending()));
        let (headers, mut reading) = (HeaderMap::new(), None);
        let reading = reading.insert(Box::pin(read(&world, &headers, body, &LIMIT)));
        assert!(reading.now_or_never().is_none());
        clock.advance(limits::BODY_TIMEOUT - std::time::Duration::from_nanos(1));
        assert!(reading.now_or_never().is_none());
        clock.advance(std::time::Duration::from_nanos(1));
        let failure = reading.now_or_never().unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "408 Value not received in 30 s");
    }

    #[test]
    fn a_large_body_may_take_longer_as_long_as_something_comes() {
        let (world, clock) = test_world();
        let limit = Limit { time: 3 * limits::BODY_TIMEOUT, ..LIMIT };
        let pieces = tokio::sync::mpsc::channel(4);
        let (send, pieces) = pieces;
        let body = Body::from_stream(stream::unfold(pieces, |mut pieces| async {
            let piece: &str = pieces.recv().await?;
            Some((Ok::<_, Infallible>(piece), pieces))
        }));
        let headers = HeaderMap::new();
        let mut reading = Box::pin(read(&world, &headers, body, &limit));
        let almost = limits::BODY_TIMEOUT - std::time::Duration::from_nanos(1);
        for _ in 0..2 {
            assert!(reading.as_mut().now_or_never().is_none());
            clock.advance(almost);
            send.try_send("1").unwrap();
        }
        assert!(reading.as_mut().now_or_never().is_none(), "it takes longer than a small one may");
        clock.advance(limits::BODY_TIMEOUT);
        let failure = reading.now_or_never().unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "408 Value not received in 30 s");
    }

    #[test]
    fn a_refused_body_is_drained_within_bounds_unless_the_client_waits_for_our_word() {
        for (expect, least, most) in [(false, limits::DRAIN_BYTES, limits::DRAIN_BYTES + 4096), (true, 0, 4096)] {
            let (world, _clock) = test_world();
            let pulled = Arc::new(AtomicUsize::new(0));
            let counter = pulled.clone();
            let endless = stream::repeat_with(move || {
                counter.fetch_add(1024, Ordering::Relaxed);
                Ok::<_, Infallible>(vec![0; 1024])
            });
            let headers = expect.then(|| (EXPECT, "100-continue".parse().unwrap())).into_iter().collect();
            let result = read(&world, &headers, Body::from_stream(endless), &LIMIT).now_or_never().unwrap();
            assert!(result.is_err());
            let pulled = pulled.load(Ordering::Relaxed);
            assert!((least..=most).contains(&pulled), "{pulled}");
        }
    }
}
