//! `quorate completion SHELL`.

use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};

use super::context::Context;

/// Prints a completion script for a shell
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate completion bash > /etc/bash_completion.d/quorate\n  \
    quorate completion zsh > ~/.zfunc/_quorate")]
pub struct Completion {
    /// Which shell
    shell: Shell,
}

/// Shells with completion scripts.
#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// Prints the script.
pub fn run(cx: &mut Context, completion: &Completion) -> anyhow::Result<ExitCode> {
    let shell = match completion.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Elvish => clap_complete::Shell::Elvish,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Powershell => clap_complete::Shell::PowerShell,
        Shell::Zsh => clap_complete::Shell::Zsh,
    };
    // Through a buffer, because the generator panics when a pipe closes.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "quorate", &mut script);
    cx.out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
