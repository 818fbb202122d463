//! `quorate session …`: sessions, which hold locks. Consul has no such command; its flags are named like the API's fields.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::context::Context;
use super::http_flags::HttpFlags;
use super::table::columns;
use crate::api::session::{Behavior, Session};
use crate::client::session::SessionOptions;

/// Makes, renews and ends sessions, which hold locks
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    ID=$(quorate session create -ttl=15s -name=worker)\n  \
    quorate kv put -acquire -session=$ID web/leader me\n  \
    quorate session renew $ID\n  \
    quorate session destroy $ID")]
pub enum Sessions {
    /// Makes a session and prints its id
    Create(Create),
    /// Ends a session; what it held is free
    Destroy(One),
    /// Shows one session
    Info(One),
    /// Lists all sessions, or those of a node
    List(List),
    /// Renews a session with a TTL
    Renew(One),
}

/// Makes a session and prints its id
#[derive(Args)]
pub struct Create {
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// The node that it belongs to; by default the agent's
    #[arg(long)]
    node: Option<String>,
    /// How long it lives without a renewal, 10s to 24h; by default it needs none
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// For how long nobody gets its locks after it was invalidated [default: 15s]
    #[arg(long, value_name = "DURATION")]
    lock_delay: Option<String>,
    /// What happens to the keys that it holds when it ends: release or delete
    #[arg(long, default_value = "release", value_parser = ["release", "delete"])]
    behavior: String,
    /// A check of its node that ends it; may repeat. By default serfHealth
    #[arg(long, value_name = "ID")]
    node_check: Vec<String>,
    /// Bind it to no check
    #[arg(long, conflicts_with = "node_check")]
    no_checks: bool,
    #[command(flatten)]
    http: HttpFlags,
}

/// One session
#[derive(Args)]
pub struct One {
    /// The session's id
    id: String,
    #[command(flatten)]
    http: HttpFlags,
}

/// Lists all sessions, or those of a node
#[derive(Args)]
pub struct List {
    /// Only those of this node
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    http: HttpFlags,
}

/// Runs one of them.
pub async fn run(cx: &mut Context, command: Sessions) -> anyhow::Result<ExitCode> {
    match command {
        Sessions::Create(create) => {
            let client = create.http.client(cx).await?;
            let (id, _) = client.session_create(&create.options()).await?;
            writeln!(cx.out, "{id}")?;
        }
        Sessions::Destroy(one) => {
            one.http.client(cx).await?.session_destroy(&one.id).await?;
            writeln!(cx.out, "Success! Destroyed session: {}", one.id)?;
        }
        Sessions::Info(one) => match one.http.client(cx).await?.session_info(&one.id).await? {
            Some(session) => write!(cx.out, "{}", details(&session))?,
            None => bail!("No session exists with the id {}", one.id),
        },
        Sessions::List(list) => {
            let sessions = list.http.client(cx).await?.sessions(list.node.as_deref()).await?;
            if !sessions.is_empty() {
                write!(cx.out, "{}", table(&sessions))?;
            }
        }
        Sessions::Renew(one) => match one.http.client(cx).await?.session_renew(&one.id).await? {
            Some(_) => writeln!(cx.out, "Success! Renewed session: {}", one.id)?,
            None => bail!("No session exists with the id {}", one.id),
        },
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    fn options(&self) -> SessionOptions {
        let named = (!self.node_check.is_empty()).then(|| self.node_check.clone());
        SessionOptions {
            name: self.name.clone(),
            node: self.node.clone(),
            ttl: self.ttl.clone(),
            lock_delay: self.lock_delay.clone(),
            behavior: Some(if self.behavior == "delete" { Behavior::Delete } else { Behavior::Release }),
            node_checks: if self.no_checks { Some(Vec::new()) } else { named },
        }
    }
}

fn shown(session: &Session) -> [(&'static str, String); 7] {
    let dash = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let behavior = if session.behavior == Behavior::Delete { "delete" } else { "release" };
    let delay = crate::api::duration::GoDuration(i64::try_from(session.lock_delay).unwrap_or(i64::MAX));
    [
        ("ID", session.id.to_string()),
        ("Name", dash(&session.name)),
        ("Node", session.node.clone()),
        ("TTL", dash(&session.ttl)),
        ("LockDelay", delay.to_string()),
        ("Behavior", behavior.into()),
        ("Checks", dash(&session.node_checks.join(","))),
    ]
}

fn details(session: &Session) -> String {
    columns(&shown(session).map(|(name, value)| vec![name.to_string(), value]))
}

fn table(sessions: &[Session]) -> String {
    let head = sessions.first().map(|session| shown(session).map(|(name, _)| name.to_string()).to_vec());
    let rows = sessions.iter().map(|session| shown(session).map(|(_, value)| value).to_vec());
    columns(&head.into_iter().chain(rows).collect::<Vec<_>>())
}
