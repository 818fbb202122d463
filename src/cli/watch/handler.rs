//! Whoever is told of each new result: a program that is run, or a URL that it is sent to.
//!
//! It gets the result as compact JSON, and its index. What this never does: judge a failure. It is its caller's to end or
//! to go on.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};

use crate::client::address::Address;
use crate::client::http::{Http, Request};
use crate::limits;
use crate::world::World;
use crate::world::real::child;

/// Whoever is told.
pub enum Handler {
    /// A program, with the JSON on its standard input and the index in `CONSUL_INDEX`.
    Script(Script),
    /// A URL, with the JSON as the body and the index in `X-Consul-Index`.
    Post(Box<Post>),
}

/// A program and its arguments.
pub struct Script {
    program: String,
    args: Vec<String>,
}

/// A request that is sent with each result.
pub struct Post {
    client: Http,
    path: String,
    /// POST if nothing else is said.
    pub method: Method,
    /// Beside the index and the type of the body.
    pub headers: HeaderMap,
    /// How long an answer may take.
    pub patience: Duration,
}

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

impl Script {
    /// A program by its words.
    pub fn words(mut words: Vec<String>) -> Option<Script> {
        if words.is_empty() {
            return None;
        }
        Some(Script { program: words.remove(0), args: words })
    }

    /// A line for a shell.
    pub fn line(shell: String, line: String) -> Script {
        Script { program: shell, args: vec!["-c".into(), line] }
    }
}

impl Post {
    /// Posts to a URL, without encryption.
    ///
    /// # Errors
    /// If it is none.
    pub fn to(world: World, url: &str) -> anyhow::Result<Post> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) if !host.is_empty() => host,
            (Some("https"), _) => {
                bail!("{url:?} asks for HTTPS, which is not supported yet: use http://HOST:PORT/PATH")
            }
            _ => bail!("{url:?} is not of the form http://HOST:PORT/PATH"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = Address { host, port: uri.port_u16().unwrap_or(80) };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let client = Http::new(world, address, None)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Ok(Post { client, path, method: Method::POST, headers, patience: limits::HANDLER_PATIENCE })
    }
}

impl Handler {
    /// Tells of one result, and waits until that is done.
    ///
    /// # Errors
    /// If it could not be told, or fails.
    pub async fn tell(&self, index: u64, json: Bytes) -> anyhow::Result<()> {
        match self {
            Handler::Script(Script { program, args }) => {
                let variables = [("CONSUL_INDEX", index.to_string())];
                let run = child::run(OsStr::new(program), args, &variables, &json).await;
                let status = run.with_context(|| format!("cannot run {program}"))?;
                if !status.success() {
                    bail!("the handler failed with {status}");
                }
            }
            Handler::Post(post) => {
                let mut headers = post.headers.clone();
                headers.insert(INDEX, HeaderValue::from(index));
                let (method, path, patience) = (post.method.clone(), post.path.clone(), post.patience);
                let reply = post.client.send(Request { method, path, headers, body: json, patience }).await;
                let reply = reply.context("the handler failed")?;
                if !reply.status.is_success() {
                    bail!("the handler failed: {}", reply.error(post.client.address()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::stream::tests::Scripted;
    use crate::client::tests::block_on;

    #[test]
    fn a_result_is_posted_with_its_index() {
        block_on(async {
            let agent = Scripted::default();
            let handler = |url: &str| Handler::Post(Box::new(Post::to(agent.world(), url).unwrap()));
            agent.then_answer(204, "", "");
            handler("http://127.0.0.1:9000/hook?x=1").tell(7, "[1]".into()).await.unwrap();
            agent.then_answer(500, "", "broken");
            let error = handler("http://[::1]").tell(8, "null".into()).await.unwrap_err();
            assert_eq!(error.to_string(), "the handler failed: [::1]:80 answered 500: broken");
            assert_eq!(agent.requests(), ["POST /hook?x=1 index=7 [1]", "POST / index=8 null"]);
            let error = handler("http://127.0.0.1:9000").tell(9, "null".into()).await.unwrap_err();
            assert!(format!("{error:#}").contains("no answer within 10s"), "{error:#}");
        });
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        for (url, why) in [
            ("https://a/b", "HTTPS, which is not supported yet"),
            ("127.0.0.1:80", "not of the form"),
            ("/hook", "not of the form"),
            ("http://", "no URL"),
            ("ftp://a/", "not of the form"),
        ] {
            let error = Post::to(Scripted::default().world(), url).err().expect(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
