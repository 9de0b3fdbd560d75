//! `weir demo`: everything in one process.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::Secret;
use crate::demo::{self, Options, View};
use crate::telemetry::HeldLog;

/// Shows weir at work: a broker in memory, SQLite, a load with repeats and poison, and the audit of what came of it
///
/// Nothing need be installed or configured. The broker is librdkafka's mock cluster in memory, no Kafka: its speed says
/// nothing of Kafka's. With --brokers and --store the same runs against real services, on a topic and in a schema of
/// its own that are removed at the end. The exit code is 1 if an event was lost or an effect repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  weir demo\n  weir demo --for 20s --json\n  \
    weir demo --brokers 127.0.0.1:9092 --store postgres://weir@127.0.0.1/weir --redis redis://127.0.0.1")]
pub(super) struct Args {
    /// For how long events are published
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// At most so many events a second; without it as many as are settled
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// A real broker's addresses, in place of the one in memory
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    brokers: Option<Vec<String>>,
    /// A real database, in place of SQLite in a temporary file, by its address as `store.url` has it; a file must not exist
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::from(url)))]
    store: Option<Secret>,
    /// Redis for the set of processed ids; without it there is none
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::from(url)))]
    redis: Option<Secret>,
    /// Print the audit's counts as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The view, made before the log is, which must not write over a live one.
    pub(super) fn view(&self) -> View {
        View::new(self.json)
    }
}

/// The log that was held back comes before the report, which is what is looked for.
pub(super) async fn run(args: Args, view: View, held: Option<HeldLog>) -> anyhow::Result<ExitCode> {
    let Args { duration, rate, brokers, store, redis, json } = args;
    let stop = super::stop_signal(crate::terminal::give_back)?;
    let done = demo::run(Options { duration, rate, brokers, store, redis }, view, stop).await;
    if let Some(held) = held {
        held.release();
    }
    let (report, removed) = done?;
    let text = if json { serde_json::to_string(&report)? } else { report.to_string() };
    super::print(&text)?;
    removed?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
