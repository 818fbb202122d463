//! Locks with queues, `/v1/lock`: an addition of quorate's (G6).

use std::time::Duration;

use hyper::{Method, StatusCode};
use uuid::Uuid;

use super::http::{Http, Request};
use super::kv::key_after;
use crate::api::lock::Granted;
use crate::error::{Error, Result};

const ROUTE: &str = "/v1/lock/";

/// What came of asking for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The session holds it, under this fence.
    Granted(u64),
    /// Somebody else still held it, or waited before, when the wait ended.
    Held,
    /// The agent has no queues: it is another one that speaks Consul's API.
    NoQueues,
}

impl Http {
    /// Waits in a lock's queue until it is the session's turn. A session has one place, so this may be repeated. Dropped, it
    /// gives up the place.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals; `Unknown` if the session may hold the lock or wait for it.
    pub async fn lock_queue(&self, key: &str, session: Uuid, wait: Duration) -> Result<Turn> {
        let path = format!("{}?session={session}&wait={}ms", key_after(ROUTE, key), wait.as_millis());
        let mut request = Request::new(Method::PUT, path);
        request.patience += wait;
        let reply = self.send(request).await?;
        match reply.status {
            StatusCode::OK => serde_json::from_slice(&reply.body)
                .map(|granted: Granted| Turn::Granted(granted.fence))
                .map_err(|e| Error::Unknown(format!("{} answered with something else: {e}", self.address()))),
            StatusCode::LOCKED => Ok(Turn::Held),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(Turn::NoQueues),
            _ => Err(reply.error(self.address())),
        }
    }

    /// Gives up a lock that is held under this fence. `false` if it is not, or not any more: to repeat this is harmless (G5).
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals; `Unknown` if it may have been given up.
    pub async fn lock_release(&self, key: &str, session: Uuid, fence: u64) -> Result<bool> {
        let path = format!("{}?session={session}&fence={fence}", key_after(ROUTE, key));
        let reply = self.send(Request::new(Method::DELETE, path)).await?;
        match reply.status {
            StatusCode::OK => Ok(reply.body.trim_ascii() == b"true"),
            _ => Err(reply.error(self.address())),
        }
    }
}
