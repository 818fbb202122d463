//! Backups of everything: saved and restored (consul.md 1).

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::http::{Http, Request};
use super::path::Path;
use crate::error::Result;
use crate::limits;

/// A backup, as the agent gave it. Nobody has looked into it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file.
    pub archive: Bytes,
    /// The index that it reaches up to.
    pub index: u64,
}

impl Http {
    /// Has the agent make a backup; with `stale` of its own view, however old.
    ///
    /// # Errors
    /// As [`Http::send`], and what the agent answers.
    pub async fn snapshot_save(&self, stale: bool, datacenter: Option<&str>) -> Result<Saved> {
        let path = if stale { path(datacenter).with("stale", None) } else { path(datacenter) };
        let request = Request { patience: limits::SNAPSHOT_TIME, ..Request::new(Method::GET, path.into()) };
        let reply = self.send(request).await?;
        if reply.status != StatusCode::OK {
            return Err(reply.error(self.address()));
        }
        let index = reply.number("x-consul-index").unwrap_or_default();
        Ok(Saved { archive: reply.body, index })
    }

    /// Replaces everything by what a backup holds. The index at which that happened; 0 if the agent does not say it.
    ///
    /// # Errors
    /// As [`Http::send`], and what the agent answers. `Unknown` if it may have been done.
    pub async fn snapshot_restore(&self, archive: Bytes, datacenter: Option<&str>) -> Result<u64> {
        let request = Request::new(Method::PUT, path(datacenter).into());
        let request = Request { body: archive, patience: limits::SNAPSHOT_TIME, ..request };
        let reply = self.send(request).await?;
        match reply.status {
            StatusCode::OK => Ok(reply.number("x-consul-index").unwrap_or_default()),
            _ => Err(reply.error(self.address())),
        }
    }
}

fn path(datacenter: Option<&str>) -> Path {
    let path = Path::new("/v1/snapshot".into());
    if datacenter.is_some() { path.with("dc", datacenter) } else { path }
}
