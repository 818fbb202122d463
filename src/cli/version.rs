//! `quorate version`: for people, and as JSON for the test harnesses that ask before they start an agent.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::Context;

/// Prints the version
#[derive(Args)]
#[command(after_help = "Examples:\n  quorate version\n  quorate version -format=json")]
pub struct Version {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Pretty,
    Json,
}

/// The crate's version, a semantic version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The oldest and the newest protocol between nodes that this program speaks.
const PROTOCOL: (u32, u32) = (1, 1);

/// Prints it.
pub fn run(cx: &mut Context, version: &Version) -> anyhow::Result<ExitCode> {
    // Both are set by whoever builds a release; a build from a working copy has neither.
    let revision = option_env!("QUORATE_REVISION").unwrap_or("");
    let date = option_env!("QUORATE_BUILD_DATE");
    let (least, most) = PROTOCOL;
    if version.format == Format::Json {
        let document = json!({
            "Version": VERSION,
            "Revision": revision,
            "Prerelease": env!("CARGO_PKG_VERSION_PRE"),
            // Readers parse a time here, so that an unknown one has to be some time.
            "BuildDate": date.unwrap_or("1970-01-01T00:00:00Z"),
            "RPC": { "Default": most, "Min": least, "Max": most },
        });
        writeln!(cx.out, "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(cx.out, "quorate v{VERSION}")?;
    if !revision.is_empty() {
        writeln!(cx.out, "Revision {revision}")?;
    }
    if let Some(date) = date {
        writeln!(cx.out, "Build Date {date}")?;
    }
    writeln!(cx.out, "Protocol {most} spoken by default, understands {least} to {most}")?;
    Ok(ExitCode::SUCCESS)
}
