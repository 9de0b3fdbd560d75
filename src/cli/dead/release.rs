//! `weir dead release`: lets keys go on that wait behind a rejected event.

use std::process::ExitCode;
use std::time::Duration;

use uuid::Uuid;

use super::replay::{Outcome, outcome, parse_rate};
use crate::cli::{Usage, one_pool, open_store, print};
use crate::config::Config;
use crate::store::Release;

/// Lets keys go on that wait behind a rejected event (on_reject = "park")
///
/// The worker that owns the partition replays all of a key's dead rows in order, those that arrive meanwhile too, and stops
/// at the first that is rejected again. The exit code is 1 if one was.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::cli::examples!(
    "weir dead list --reason parked",
    "weir dead release 17:42",
    "weir dead release --all --rate 200/s",
))]
pub(super) struct Args {
    /// Keys, or ids of events that wait or that others wait behind
    #[arg(value_name = "KEY|ID")]
    keys_or_ids: Vec<String>,
    /// All keys that wait
    #[arg(long, conflicts_with = "keys_or_ids")]
    all: bool,
    /// The pool; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// At most so many events a second, such as 100/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to wait for the outcome; 0s asks and returns
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    if args.keys_or_ids.is_empty() && !args.all {
        return Err(Usage("say which keys or events to release, or --all".to_owned()).into());
    }
    let pool = one_pool(args.pool.as_deref(), config)?;
    let store = open_store(config).await?;
    let release = Release { pool: pool.clone(), keys_or_ids: (!args.all).then_some(args.keys_or_ids) };
    let request = Uuid::new_v4();
    let asked = store.request_release(&release, request, args.rate).await?;
    if asked.asked + asked.before == 0 && !args.all {
        anyhow::bail!("pool {pool} holds no such key back: `weir dead list --reason parked` shows those that wait");
    }
    let standing = outcome(&*store, request, args.wait).await?;
    let outcome = Outcome { pool: &pool, request, asked, standing };
    print(&if args.json { outcome.json() } else { outcome.text(args.wait) })?;
    Ok(if outcome.standing.rejected > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
