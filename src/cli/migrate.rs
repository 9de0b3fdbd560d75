//! `weir migrate`: the database schema.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::Usage;
use crate::config::Config;
use crate::store::{self, Converted, Partitioned, Upkeep};

#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir migrate",
    "weir migrate --set store.url_file=/run/secrets/postgres",
    "weir migrate --partitioned --set store.messages_retention=90d",
))]
pub(super) struct Args {
    /// Also make `messages` partitioned by the day of its ids, UUIDv7, so that days can be dropped; where it is already, make
    /// the days that are due, and drop those older than store.messages_retention. Writers wait meanwhile (docs/partitions.md)
    #[arg(long)]
    partitioned: bool,
}

/// Brings the schema up to this release; safe to run again, and while workers of the previous release run.
pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let Some(settings) = config.store.as_ref() else {
        return Err(Usage("`store.url` is not set: say which database to migrate".to_owned()).into());
    };
    if args.partitioned {
        store::check_days(settings).map_err(|error| Usage(error.message))?;
    }
    let store = store::open(settings)?;
    store::await_answer(&*store, config.startup_timeout).await?;
    store.migrate().await?;
    super::print("the schema is up to date")?;
    if args.partitioned {
        let Partitioned { converted, upkeep } = store.partition_messages().await?;
        super::print(&told(converted, &upkeep))?;
        if !upkeep.unmade.is_empty() || !upkeep.kept.is_empty() {
            let undone: Vec<&str> = upkeep.unmade.iter().chain(&upkeep.kept).map(String::as_str).collect();
            anyhow::bail!("days of messages that could not be made or dropped: {}", undone.join("; "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(converted: Option<Converted>, upkeep: &Upkeep) -> String {
    let mut text = match converted {
        Some(Converted { moved, locked }) => format!(
            "messages is partitioned by day now; writers waited for {:.1} s, {moved} rows were moved",
            locked.as_secs_f64()
        ),
        None => "messages is partitioned by day".to_owned(),
    };
    for (names, what) in [(&upkeep.made, "made"), (&upkeep.dropped, "dropped")] {
        if !names.is_empty() {
            write!(text, "\n{what}: {}", names.join(" ")).expect("writing to a String cannot fail");
        }
    }
    write!(text, "\n{} days are made ahead", upkeep.ahead).expect("writing to a String cannot fail");
    text
}
