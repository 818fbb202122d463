//! Sessions, as the holder of a lock uses them.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::http::{Http, Reply, Request};
use crate::api::session::{Behavior, Created, Session};
use crate::error::{Error, Result};
use crate::world::Instant;

/// How to make a session; what is not named is as the agent does it.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// A name for people.
    pub name: Option<String>,
    /// The node it belongs to.
    pub node: Option<String>,
    /// How long it lives without a renewal, as a Go duration.
    pub ttl: Option<String>,
    /// For how long nobody gets its locks after it was invalidated, as a Go duration.
    pub lock_delay: Option<String>,
    /// What happens to its locks when it ends.
    pub behavior: Option<Behavior>,
    /// The checks that it is bound to; an empty list is none.
    pub node_checks: Option<Vec<String>>,
}

/// Until when the holder of a session may rely on it, by the clock of this client's world (G1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// From then on somebody else may hold what the session held. `None` if the session has no TTL, or the agent is one that
    /// promises nothing.
    pub until: Option<Instant>,
}

const LEASE: &str = "x-quorate-lease-ms";

impl SessionOptions {
    fn body(&self) -> Bytes {
        let mut body = Map::new();
        let behavior = self.behavior.map(|behavior| match behavior {
            Behavior::Release => "release".to_string(),
            Behavior::Delete => "delete".to_string(),
        });
        let texts = [
            ("Name", &self.name),
            ("Node", &self.node),
            ("TTL", &self.ttl),
            ("LockDelay", &self.lock_delay),
            ("Behavior", &behavior),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body.insert(name.into(), text.clone().into());
            }
        }
        if let Some(checks) = &self.node_checks {
            body.insert("NodeChecks".into(), checks.clone().into());
        }
        Value::Object(body).to_string().into()
    }
}

impl Http {
    /// Makes a session.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals; `Unknown` if it may have been made.
    pub async fn session_create(&self, options: &SessionOptions) -> Result<(Uuid, Lease)> {
        let sent = self.now();
        let request = Request { body: options.body(), ..Request::new(Method::PUT, "/v1/session/create".into()) };
        let reply = self.expect_ok(request).await?;
        let created: Created = self.document(&reply)?;
        Ok((created.id, lease(sent, &reply)))
    }

    /// Renews a session; `None` if it is gone.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals.
    pub async fn session_renew(&self, id: &str) -> Result<Option<(Session, Lease)>> {
        let sent = self.now();
        let reply = self.send(Request::new(Method::PUT, path("renew", id))).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                let sessions: Vec<Session> = self.document(&reply)?;
                Ok(sessions.into_iter().next().map(|session| (session, lease(sent, &reply))))
            }
            _ => Err(reply.error(self.address())),
        }
    }

    /// Ends a session, whether it exists or not.
    ///
    /// # Errors
    /// As [`Http::session_create`].
    pub async fn session_destroy(&self, id: &str) -> Result<()> {
        self.expect_ok(Request::new(Method::PUT, path("destroy", id))).await.map(drop)
    }

    /// A session, if it exists.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn session_info(&self, id: &str) -> Result<Option<Session>> {
        let sessions: Vec<Session> = self.get_json(&path("info", id)).await?;
        Ok(sessions.into_iter().next())
    }

    /// All sessions, or those of one node.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn sessions(&self, node: Option<&str>) -> Result<Vec<Session>> {
        match node {
            Some(node) => self.get_json(&path("node", node)).await,
            None => self.get_json("/v1/session/list").await,
        }
    }

    async fn expect_ok(&self, request: Request) -> Result<Reply> {
        let reply = self.send(request).await?;
        if reply.status == StatusCode::OK { Ok(reply) } else { Err(reply.error(self.address())) }
    }

    fn document<T: serde::de::DeserializeOwned>(&self, reply: &Reply) -> Result<T> {
        let wrong = |e| Error::Unknown(format!("{} answered with something else: {e}", self.address()));
        serde_json::from_slice(&reply.body).map_err(wrong)
    }
}

fn path(what: &str, name: &str) -> String {
    format!("/v1/session/{what}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

fn lease(sent: Instant, reply: &Reply) -> Lease {
    Lease { until: reply.number(LEASE).map(|millis| sent + Duration::from_millis(millis)) }
}
