//! `weir load`: the load harness.

pub(super) mod report;

/// Puts a load on a pool by a plan, and reports what came of it
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir load report runs/burst", "weir load report runs/before runs/after"))]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Report(report::Args),
}
