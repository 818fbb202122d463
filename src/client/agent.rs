//! What an agent knows of itself and of the members.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::http::Http;
use crate::api::agent::Member;
use crate::error::Result;

/// Figures by section and name.
pub type Stats = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Own {
    stats: Stats,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    config: Facts,
}

/// What an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Facts {
    /// Its program's version.
    pub version: String,
    /// Its datacenter.
    pub datacenter: String,
}

impl Http {
    /// The nodes of the cluster.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn members(&self, wan: bool) -> Result<Vec<Member>> {
        self.get_json(if wan { "/v1/agent/members?wan=1" } else { "/v1/agent/members" }).await
    }

    /// The agent's figures.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn stats(&self) -> Result<Stats> {
        let own: Own = self.get_json("/v1/agent/self").await?;
        Ok(own.stats)
    }

    /// What the agent is.
    ///
    /// # Errors
    /// As [`Http::leader`].
    pub async fn facts(&self) -> Result<Facts> {
        let known: Known = self.get_json("/v1/agent/self").await?;
        Ok(known.config)
    }
}
