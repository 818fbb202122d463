//! Transactions: several things or none of them (consul.md 2.5).

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::http::{Http, Request};
use crate::api::txn::TxnAnswer;
use crate::error::{Error, Result};

impl Http {
    /// Sends a transaction as it stands in the API: a JSON list of operations. The answer says what each gave, or, if it was
    /// rolled back, why.
    ///
    /// # Errors
    /// As [`Http::send`], and the server's own refusals; `Unknown` if it may have been done.
    pub async fn txn(&self, operations: Bytes) -> Result<TxnAnswer> {
        let request = Request { body: operations, ..Request::new(Method::PUT, "/v1/txn".into()) };
        let reply = self.send(request).await?;
        match (reply.status, serde_json::from_slice(&reply.body)) {
            (StatusCode::OK | StatusCode::CONFLICT, Ok(answer)) => Ok(answer),
            (StatusCode::OK, Err(e)) => {
                Err(Error::Unknown(format!("{} answered with something else: {e}", self.address())))
            }
            _ => Err(reply.error(self.address())),
        }
    }
}
