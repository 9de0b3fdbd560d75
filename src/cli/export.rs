//! `weir export`: events of a time range to compressed lines of JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Usage, pool_names, print, shown, stop_signal};
use crate::config::Config;
use crate::export::{self, Plan, Progress, Summary};
use crate::kafka::resolved;

const BAR: &str = "{wide_bar} {human_pos}/{human_len} records, {per_sec}, {eta} left";

/// Writes events of a time range to files, for batch use
///
/// A folder of NDJSON compressed by zstd, a line a record with its topic, partition, offset, time, key, headers and value.
/// What belongs to the range is settled when the export begins; interrupted, the same command goes on after the last whole
/// file. It is a member of no group: no pool's place is touched. The exit code is 1 if Kafka has deleted records before they
/// could be read, or if it was stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir export --pool storage --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z --out january",
    "weir export --topic message-events --from 24h --out today",
    "zstd -dc january/*.zst | jq -c .value",
))]
pub(super) struct Args {
    /// A topic; may be given more than once
    #[arg(long = "topic", value_name = "T", required_unless_present = "pools")]
    topics: Vec<String>,
    /// All topics of a pool; may be given more than once
    #[arg(long = "pool", value_name = "NAME")]
    pools: Vec<String>,
    /// Records from then on: 2026-01-31T08:00:00Z, or 24h for the last day. Without it, all that Kafka has
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Records before then. Without it, all there are when the export begins
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The folder, made if it is not there
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The most records of a file
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    part_records: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let plan = plan(&args, &config).await?;
    let stop = stop_signal(|| {})?;
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template(BAR).expect("the template is a constant, tried by a test"));
    let shown = bar.clone();
    let done = tokio::task::spawn_blocking(move || {
        export::run(&config.kafka, &plan, config.startup_timeout, &stop, |step| match step {
            Progress::Ahead(ahead) => shown.inc_length(ahead),
            Progress::Done(done) => shown.inc(done),
        })
    });
    let done = done.await;
    bar.finish_and_clear();
    let summary = done??;
    print(&if args.json { serde_json::to_string(&summary)? } else { told(&summary, &args) })?;
    Ok(if summary.is_complete && summary.missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn plan(args: &Args, config: &Config) -> anyhow::Result<Plan> {
    let mut topics = args.topics.clone();
    if !args.pools.is_empty() {
        for pool in pool_names(&args.pools, config)? {
            let pool = resolved(&config.kafka, &config.pools[&pool], config.startup_timeout).await?;
            topics.extend(pool.topics);
        }
    }
    topics.sort();
    topics.dedup();
    let time = |text: &Option<String>| text.as_deref().map(shown::parse_time).transpose().map_err(Usage);
    let (from_ms, to_ms) = (time(&args.from)?, time(&args.to)?);
    if let (Some(from), Some(to)) = (from_ms, to_ms)
        && from >= to
    {
        return Err(Usage("--from is not before --to: there is nothing between them".to_owned()).into());
    }
    let asked = format!(
        "from {} to {}",
        args.from.as_deref().unwrap_or("the beginning"),
        args.to.as_deref().unwrap_or("the end")
    );
    Ok(Plan { topics, from_ms, to_ms, asked, folder: args.out.clone(), part_records: args.part_records })
}

fn told(summary: &Summary, args: &Args) -> String {
    let Summary { records, parts, bytes, before, missing, is_complete } = summary;
    let folder = shown::safe(&args.out.display().to_string());
    let mut text = format!("{folder}: {records} records in {parts} files, {bytes} bytes");
    if *before > 0 {
        text += &format!("; {before} offsets were there before");
    }
    if *missing > 0 {
        text += &format!("\n{missing} records were deleted by Kafka before they could be read");
    }
    if !is_complete {
        text += "\nstopped: the same command goes on from here";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_shown() {
        ProgressStyle::with_template(BAR).unwrap();
    }
}
