//! `/v1/operator/raft`: the servers of the cluster, and what an operator does to them (consul.md 1).

use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::reply::Failure;
use super::{Call, Outcome, reply};
use crate::agent::Server;
use crate::api::json;
use crate::api::operator::{PROTOCOL, RaftConfiguration, RaftServer, TransferLeader};

/// `GET /v1/operator/raft/configuration`
pub async fn configuration(call: Call) -> Outcome {
    let query = call.query()?;
    let (style, stale) = (call.style(&query), query.has("stale"));
    let servers = call.edge.agent.servers(stale).await?;
    let index = servers.iter().map(|server| server.last_index).max().unwrap_or(0);
    let body = RaftConfiguration { servers: servers.into_iter().map(shown).collect(), index };
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&body, style)))
}

fn shown(server: Server) -> RaftServer {
    RaftServer {
        id: server.id,
        node: server.member.name,
        address: server.member.address,
        leader: server.leader,
        protocol_version: PROTOCOL.into(),
        voter: server.voter,
        last_index: server.last_index,
    }
}

/// `DELETE /v1/operator/raft/peer`
pub async fn remove_peer(call: Call) -> Outcome {
    let query = call.query()?;
    let filled = |name| query.text(name).filter(|text| !text.is_empty());
    let id = match (filled("id"), filled("address")) {
        (Some(id), None) => server_id(&id)?,
        (None, Some(address)) => {
            let servers = call.edge.agent.servers(false).await?;
            let mut at = servers.iter().filter(|server| server.member.address == address);
            match (at.next(), at.next()) {
                (Some(server), None) => server.id,
                (None, _) => return Err(Failure::bad_request(format!("No server has the address {address:?}"))),
                _ => return Err(Failure::bad_request("Several servers have that address: remove one by its ?id=")),
            }
        }
        (Some(_), Some(_)) => return Err(Failure::bad_request("Must specify only one of ?id= and ?address=")),
        (None, None) => {
            return Err(Failure::bad_request(
                "Must specify either ?id= with the server's ID or ?address= with IP:port of peer to remove",
            ));
        }
    };
    call.edge.agent.remove_server(id).await?;
    Ok(reply::empty(StatusCode::OK, HeaderMap::new()))
}

/// `POST /v1/operator/raft/transfer-leader`
pub async fn transfer_leader(call: Call) -> Outcome {
    let query = call.query()?;
    let style = call.style(&query);
    let to = match query.text("id").filter(|id| !id.is_empty()) {
        None => None,
        Some(id) => {
            let id = server_id(&id)?;
            if !call.edge.agent.servers(false).await?.iter().any(|server| server.id == id && server.voter) {
                return Err(Failure::new(StatusCode::NOT_FOUND, format!("No voting server has the id {id}")));
            }
            Some(id)
        }
    };
    call.edge.agent.hand_over(to).await?;
    let body = TransferLeader { success: true };
    Ok(reply::json(&call.head.headers, HeaderMap::new(), json::to_vec(&body, style)))
}

fn server_id(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_| Failure::bad_request(format!("Invalid server id {text:?}: expected a UUID")))
}
