//! `/v1/agent` and `/`: what this node is.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};

use super::{Call, HttpConfig, Outcome, reply};
use crate::agent::{self, Identity, Life};
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
        member: shown(identity, &agent.member()),
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

/// `GET /v1/agent/members`
pub async fn members(call: Call) -> Outcome {
    let query = call.query()?;
    // There is one datacenter, so nobody is reached over a wide area.
    let wide = query.has("wan") && query.text("wan").is_none_or(|wan| !matches!(&wan[..], "0" | "false"));
    let (style, agent) = (call.style(&query), &call.edge.agent);
    let members = if wide { vec![agent.member()] } else { agent.members().await };
    let members: Vec<Member> = members.iter().map(|member| shown(agent.identity(), member)).collect();
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&members, style)))
}

/// A member by Consul's names. Of others, only what they agree about is known.
fn shown(identity: &Identity, member: &agent::Member) -> Member {
    let own = member.id == identity.id;
    let role = if own && !identity.server { "node" } else { "consul" };
    let mut tags = BTreeMap::from([
        // Consul's servers call themselves by the product's name; its clients look for it.
        ("role", role.to_string()),
        ("dc", identity.datacenter.clone()),
        ("id", member.id.to_string()),
        ("port", member.port.to_string()),
        ("raft_vsn", crate::api::operator::PROTOCOL.to_string()),
        ("segment", String::new()),
        ("vsn", "2".to_string()),
    ]);
    if own {
        tags.insert("build", identity.version.to_string());
    }
    Member {
        name: member.name.clone(),
        addr: member.addr,
        port: member.port,
        tags: tags.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        status: match member.life {
            Life::Unknown => 0,
            Life::Alive => 1,
            Life::Failed => 4,
        },
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
