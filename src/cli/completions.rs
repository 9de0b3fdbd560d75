//! `weir completions`: what a shell completes of the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, print};

/// Prints a shell's completions of this command line
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir completions bash > /etc/bash_completion.d/weir",
    "weir completions zsh > ~/.zfunc/_weir",
    "weir completions fish > ~/.config/fish/completions/weir.fish",
))]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
