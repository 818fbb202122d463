//! `/v1/status`: who leads and who votes, as this server sees it.

use http::HeaderMap;

use super::{Call, Outcome, reply};
use crate::api::json;

/// `GET /v1/status/leader`
pub async fn leader(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    let leader = call.edge.agent.leader().unwrap_or_default();
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&leader, style)))
}

/// `GET /v1/status/peers`
pub async fn peers(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&call.edge.agent.peers(), style)))
}
