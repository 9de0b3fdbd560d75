//! `weir load`: the load harness.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::load::{self, Called, Options, Plan};

/// Loads a pool by a plan, and reports what it found
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir load run config/load/smoke.toml",
    "weir load report load-results/before load-results/after",
    "weir load run --help",
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(RunArgs),
    Report(report::Args),
}

impl Args {
    /// A report is made of results alone: what it needs, where that is asked for.
    pub(super) fn report(&self) -> Option<&report::Args> {
        match &self.command {
            Command::Run(_) => None,
            Command::Report(args) => Some(args),
        }
    }
}

/// Makes a page of results.
pub(super) fn report(args: &report::Args) -> anyhow::Result<ExitCode> {
    report::run(args)
}

/// Sends by a plan, measures from the intended send time to the effect, and audits what came of every event
///
/// Events are sent at their time whatever the brokers, the workers or the machine do; what is late counts as late. The
/// results go into a folder: result.json, report.html and latency.hgrm. The exit code is 0 when every verdict passed, 1 when one did
/// not or the run failed, 2 when the plan or the configuration cannot be used. Ctrl-C ends the phases early; what was
/// sent is settled, audited and written all the same.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir load run config/load/smoke.toml",
    "weir load run plan.toml --out results/before --config weir.toml",
    "weir load run plan.toml --json | jq .verdicts",
))]
struct RunArgs {
    /// The plan, a TOML file; config/load/ has samples
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// The folder for the results [default: load-results/<name>-<time>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config, called: Called) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(args) => play(args, config, called).await,
        Command::Report(args) => report::run(&args),
    }
}

async fn play(args: RunArgs, config: Config, called: Called) -> anyhow::Result<ExitCode> {
    let RunArgs { plan: path, out, json } = args;
    let plan = Plan::load(&path)?;
    let stop = super::stop_signal(load::abandon_workers)?;
    let done = load::run(config, Options { path, plan, called, out }, stop).await?;
    let text = match json {
        true => serde_json::to_string(&done.result)?,
        false => format!("{}results    {}", load::summary(&done.result), done.folder.display()),
    };
    super::print(&text)?;
    Ok(if done.result.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
