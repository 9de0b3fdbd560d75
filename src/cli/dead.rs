//! `weir dead`: what was set aside, why, and trying it again.

mod list;
mod release;
mod replay;
mod show;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::shown::{self, parse_time};
use crate::config::Config;
use crate::store::{DeadFilter, KeptDead};

/// Shows what was set aside and why, and has it tried again
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir dead list --reason refused --since 2h",
    "weir dead show 0198f1c2-7d3e-7000-8000-000000000001",
    "weir dead replay --pipeline persist --rate 100/s",
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Replay(replay::Args),
    Release(release::Args),
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list::run(args, &config).await,
        Command::Show(args) => show::run(args, &config).await,
        Command::Replay(args) => replay::run(args, &config).await,
        Command::Release(args) => release::run(args, &config).await,
    }
}

/// Which dead rows.
#[derive(Debug, clap::Args)]
struct Select {
    /// Only what this pipeline rejected; `decode` for what could not be decoded
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only this reason
    #[arg(long, value_parser = ["malformed", "refused", "when_error", "too_large", "handler", "parked"])]
    reason: Option<String>,
    /// Only records of this key
    #[arg(long)]
    key: Option<String>,
    /// Only what was set aside since then: 2026-01-31T08:00:00Z, or 2h for the last two hours
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Only what was set aside before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
}

impl Select {
    fn filter(self, pool: &str, limit: i64) -> DeadFilter {
        DeadFilter {
            pool: pool.to_owned(),
            ids: None,
            pipeline: self.pipeline,
            reason: self.reason,
            key: self.key.map(String::into_bytes),
            since_ms: self.since,
            until_ms: self.until,
            limit,
            ..DeadFilter::default()
        }
    }
}

/// A row for programs, without its value and headers.
pub(super) fn as_json(row: &KeptDead) -> Value {
    let mut object = json!({
        "id": row.event_id,
        "type": row.kind,
        "pipeline": row.pipeline,
        "reason": row.reason,
        "message": row.message,
        "topic": row.topic,
        "topic_id": row.topic_id,
        "partition": row.partition,
        "offset": row.offset,
        "attempts": row.attempts,
        "record_at": row.record_ms.map(shown::time),
        "set_aside_at": shown::time(row.created_ms),
        "mirrored_at": row.published_ms.map(shown::time),
        "replay_at": row.replay_ms.map(shown::time),
        "holds_key": row.holds_key,
    });
    shown::put(&mut object, "key", row.key.as_deref());
    object
}

/// `1 dead row`, `2 dead rows`.
fn dead_rows(number: u64) -> String {
    format!("{number} dead row{}", if number == 1 { "" } else { "s" })
}
