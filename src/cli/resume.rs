//! `weir resume`: the end of a pause.

use std::process::ExitCode;

use super::control;
use crate::config::Config;
use crate::store::Change;

/// Lets paused pools go on
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!("weir resume storage", "weir resume   all pools"))]
pub(super) struct Args {
    /// The pools; without one, all that are configured
    #[arg(value_name = "POOL")]
    pools: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    control::run(&args.pools, &config, &Change::Resume, args.json).await
}
