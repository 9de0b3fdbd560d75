//! `weir man`: a man page for each command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Cli;

/// Writes a man page for each command into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir man /usr/local/share/man/man1", "weir man . && man ./weir-run.1"))]
pub(super) struct Args {
    /// The folder; made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    // The version's facts are of this binary, the pages of its release.
    let command = Cli::command().disable_help_subcommand(true).long_version(None);
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("write man pages into the folder {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
