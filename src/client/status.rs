//! Who leads, and who votes.

use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::http::{Http, Request};
use crate::error::{Error, Result};

impl Http {
    /// The address of the cluster's leader, as servers know it, if there is one.
    ///
    /// # Errors
    /// As [`Http::send`], and `Retry` for an answer that makes no sense.
    pub async fn leader(&self) -> Result<Option<String>> {
        let leader: String = self.get_json("/v1/status/leader").await?;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// The addresses of the servers that vote.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn peers(&self) -> Result<Vec<String>> {
        self.get_json("/v1/status/peers").await
    }

    pub(super) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let reply = self.send(Request::new(Method::GET, path.into())).await?;
        if reply.status != StatusCode::OK {
            return Err(reply.error(self.address()));
        }
        serde_json::from_slice(&reply.body)
            .map_err(|e| Error::Retry(format!("{} answered {path} with something else: {e}", self.address())))
    }
}
