//! `quorate members`: who is in the cluster.

use std::process::ExitCode;

use clap::Args;

use super::context::Context;
use super::http_flags::HttpFlags;
use super::table::columns;
use crate::api::agent::{Member, STATUS};

/// Lists the nodes of the cluster
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate members\n  \
    quorate members -status=failed      exits with 2 if there is none\n  \
    quorate members -detailed")]
pub struct Members {
    /// Show every tag instead
    #[arg(long)]
    detailed: bool,
    /// Only members whose status is one of these: alive, failed, left, leaving, none, with | between them
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only members of this segment; there is one, so all
    #[arg(long, value_name = "NAME", hide = true)]
    segment: Option<String>,
    /// The servers of all datacenters
    #[arg(long)]
    wan: bool,
    #[command(flatten)]
    http: HttpFlags,
}

/// What the exit code says of a list without members, as in Consul.
const NONE_FOUND: u8 = 2;

/// Runs it.
pub async fn run(cx: &mut Context, command: Members) -> anyhow::Result<ExitCode> {
    let client = command.http.client(cx).await?;
    let mut members = client.members(command.wan).await?;
    members.retain(|member| command.status.as_deref().is_none_or(|wanted| matches(wanted, status(member))));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    if members.is_empty() {
        return Ok(ExitCode::from(NONE_FOUND));
    }
    let rows = if command.detailed { detailed(&members) } else { standard(&members) };
    write!(cx.out, "{}", columns(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn status(member: &Member) -> &'static str {
    STATUS.get(usize::from(member.status)).copied().unwrap_or(STATUS[0])
}

/// Consul takes a pattern; what is written in practice is words, with `|` between them and perhaps `^` and `$` around.
fn matches(wanted: &str, status: &str) -> bool {
    let bare = |word: &str| word.trim_matches(['^', '$', '(', ')', ' ']).to_string();
    wanted.split('|').map(bare).any(|word| word == ".*" || word == status)
}

fn address(member: &Member) -> String {
    std::net::SocketAddr::new(member.addr, member.port).to_string()
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

fn standard(members: &[Member]) -> Vec<Vec<String>> {
    let head = cells(["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"]);
    let row = |member: &Member| {
        let tag = |name: &str| member.tags.get(name).map_or("", String::as_str);
        let (kind, segment) = if tag("role") == "consul" { ("server", "<all>") } else { ("client", "<default>") };
        let build = if tag("build").is_empty() { "unknown" } else { tag("build") };
        let address = address(member);
        cells([&member.name, &address, status(member), kind, build, tag("vsn"), tag("dc"), "default", segment])
    };
    std::iter::once(head).chain(members.iter().map(row)).collect()
}

fn detailed(members: &[Member]) -> Vec<Vec<String>> {
    let row = |member: &Member| {
        let tags: Vec<String> = member.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        cells([&member.name, &address(member), status(member), &tags.join(",")])
    };
    std::iter::once(cells(["Node", "Address", "Status", "Tags"])).chain(members.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_the_patterns_that_people_write_choose_a_status() {
        for wanted in ["failed", "^failed$", "left|failed", "^(left|failed)$", ".*"] {
            assert!(matches(wanted, "failed"), "{wanted}");
        }
        assert!(!matches("alive|left", "failed"));
    }
}
