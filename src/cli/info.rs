//! `quorate info`: an agent's figures.

use std::process::ExitCode;

use clap::Args;

use super::context::Context;
use super::http_flags::HttpFlags;

/// Prints an agent's figures
#[derive(Args)]
pub struct Info {
    #[command(flatten)]
    http: HttpFlags,
}

/// Runs it.
pub async fn run(cx: &mut Context, command: Info) -> anyhow::Result<ExitCode> {
    let stats = command.http.client(cx).await?.stats().await?;
    for (section, figures) in stats {
        writeln!(cx.out, "{section}:")?;
        for (name, value) in figures {
            writeln!(cx.out, "\t{name} = {value}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
