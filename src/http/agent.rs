//! `/v1/agent` and `/`: what this node is.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};

use super::{Call, HttpConfig, Outcome, reply};
use crate::agent::Identity;
use crate::api::agent::{AgentConfig, AgentSelf, BUILD_DATE, DebugConfig, Member, Protocol, REVISION, Version};
use crate::api::json;

/// `GET /v1/agent/self`
pub async fn own(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    let agent = &call.edge.agent;
    let identity = agent.identity();
    let body = AgentSelf {
        config: AgentConfig {
            datacenter: &identity.datacenter,
            primary_datacenter: &identity.datacenter,
            node_name: &identity.name,
            node_id: identity.id,
            revision: REVISION,
            server: identity.server,
            version: identity.version,
            build_date: BUILD_DATE,
        },
        debug_config: debug_config(&call.edge.config),
        coord: None,
        member: member(identity),
        stats: agent.stats(),
        meta: BTreeMap::from([("consul-network-segment", ""), ("consul-version", identity.version)]),
    };
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&body, style)))
}

fn debug_config(config: &HttpConfig) -> DebugConfig {
    DebugConfig {
        dev_mode: config.pretty,
        kv_max_value_size: config.max_value,
        txn_max_req_len: config.max_body,
        http_max_conns_per_client: config.connections_per_client,
        acl_default_policy: config.default_acl_policy,
    }
}

fn member(identity: &Identity) -> Member<'_> {
    let tags = BTreeMap::from([
        // Consul's servers call themselves by the product's name; its clients look for it.
        ("role", if identity.server { "consul" } else { "node" }.to_string()),
        ("dc", identity.datacenter.clone()),
        ("id", identity.id.to_string()),
        ("build", identity.version.to_string()),
        ("port", identity.server_port.to_string()),
    ]);
    Member {
        name: &identity.name,
        addr: identity.advertise,
        port: identity.server_port,
        tags,
        // Whoever answers is alive.
        status: 1,
        protocol: Protocol::default(),
    }
}

/// `GET /v1/agent/version`
pub async fn version(call: Call) -> Outcome {
    let style = call.style(&call.query()?);
    let human_version = call.edge.agent.identity().version;
    let body = Version { sha: REVISION, build_date: BUILD_DATE, human_version, fips: "" };
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&body, style)))
}

/// `GET /`
pub async fn root(_: Call) -> Outcome {
    Ok(reply::text(StatusCode::OK, "quorate agent: the HTTP API is under /v1/\n"))
}
