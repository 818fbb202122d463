//! `quorate operator raft …`: the servers of the cluster, with Consul's output and exit codes.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::context::Context;
use super::http_flags::HttpFlags;
use super::table::columns;
use crate::api::operator::{RaftConfiguration, RaftServer};
use crate::client::operator::Peer;

/// Looks after the cluster
#[derive(Subcommand)]
pub enum Operator {
    /// Shows and changes which servers agree with each other
    #[command(subcommand)]
    Raft(Raft),
}

/// Shows and changes which servers agree with each other
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    quorate operator raft list-peers\n  \
    quorate operator raft remove-peer -id=9d1b2f0c-...    a server that is gone for good\n  \
    quorate operator raft transfer-leader                 before the leader's machine is stopped")]
pub enum Raft {
    /// Lists the servers
    ListPeers(ListPeers),
    /// Removes a server
    RemovePeer(RemovePeer),
    /// Has another server lead
    TransferLeader(TransferLeader),
}

/// Lists the servers
#[derive(Args)]
pub struct ListPeers {
    #[command(flatten)]
    http: HttpFlags,
}

/// Removes a server
#[derive(Args)]
#[group(id = "peer", required = true, multiple = false, args = ["id", "address"])]
pub struct RemovePeer {
    /// The server's id
    #[arg(long)]
    id: Option<String>,
    /// The server's address, IP:PORT
    #[arg(long)]
    address: Option<String>,
    #[command(flatten)]
    http: HttpFlags,
}

/// Has another server lead
#[derive(Args)]
pub struct TransferLeader {
    /// The server that shall lead; by default the one that is closest behind
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    http: HttpFlags,
}

/// Runs one of them.
pub async fn run(cx: &mut Context, operator: Operator) -> anyhow::Result<ExitCode> {
    let Operator::Raft(raft) = operator;
    match raft {
        Raft::ListPeers(list) => {
            let client = list.http.client(cx).await?;
            let configuration = client.raft_configuration(list.http.stale).await?;
            write!(cx.out, "{}", table(&configuration))?;
        }
        Raft::RemovePeer(remove) => {
            let client = remove.http.client(cx).await?;
            let (peer, said) = match (remove.id, remove.address) {
                (Some(id), _) => (Peer::Id(id.clone()), format!("id {id:?}")),
                (None, address) => {
                    let address = address.unwrap_or_default();
                    (Peer::Address(address.clone()), format!("address {address:?}"))
                }
            };
            client.raft_remove_peer(&peer).await?;
            writeln!(cx.out, "Removed peer with {said}")?;
        }
        Raft::TransferLeader(transfer) => {
            let client = transfer.http.client(cx).await?;
            client.raft_transfer_leader(transfer.id.as_deref()).await?;
            writeln!(cx.out, "Success")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const HEAD: [&str; 8] = ["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"];

/// The servers, one to a line, in columns.
fn table(configuration: &RaftConfiguration) -> String {
    let leader = configuration.servers.iter().find(|server| server.leader).map(|server| server.last_index);
    let rows = configuration.servers.iter().map(|server| row(server, leader));
    let head = HEAD.map(String::from).to_vec();
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn row(server: &RaftServer, leader: Option<u64>) -> Vec<String> {
    let trails = match leader.map(|leader| leader.saturating_sub(server.last_index)) {
        _ if server.leader => "-".to_string(),
        Some(1) => "1 commit".to_string(),
        Some(count) => format!("{count} commits"),
        None => "unknown".to_string(),
    };
    vec![
        server.node.clone(),
        server.id.to_string(),
        server.address.clone(),
        if server.leader { "leader" } else { "follower" }.to_string(),
        server.voter.to_string(),
        server.protocol_version.clone(),
        server.last_index.to_string(),
        trails,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_leads_and_how_far_the_others_are_behind() {
        let server = |number: u128, leader, last_index| RaftServer {
            id: uuid::Uuid::from_u128(number),
            node: format!("n{number}"),
            address: format!("10.0.0.{number}:8300"),
            leader,
            protocol_version: "3".into(),
            voter: number < 3,
            last_index,
        };
        let servers = vec![server(1, true, 70), server(2, false, 69), server(3, false, 7)];
        let text = table(&RaftConfiguration { servers, index: 70 });
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(lines[0], HEAD);
        assert_eq!(lines[1][3..], ["leader", "true", "3", "70", "-"]);
        assert_eq!(lines[2][3..], ["follower", "true", "3", "69", "1 commit"]);
        assert_eq!(lines[3][3..], ["follower", "false", "3", "7", "63 commits"]);
    }
}
