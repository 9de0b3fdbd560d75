//! `weir why`: one event's story.

use std::process::ExitCode;

use serde_json::json;

use super::shown::{self, parse_time};
use super::{dead, open_store, print, stored_pool_names};
use crate::config::Config;
use crate::why::{self, Bounds, Place, Story};

/// Tells one event's whole story
///
/// Where it is in Kafka, whether the pool has come to it, what each pipeline left, whether it was set aside, and what the
/// processed set says. Kafka has no index of ids, so the pool's topics are read, the newest records first to count: --topic,
/// --since and --records bound it, and what was searched is said. The exit code is 1 if nobody knows the id.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir why 0198f1c2-7d3e-7000-8000-000000000001",
    "weir why order-17 --pool orders --since 2h",
    "weir why order-17 --json | jq -r '.pools[].verdict'",
))]
pub(super) struct Args {
    /// The event's id
    id: String,
    /// Only this pool; may be given more than once
    #[arg(long = "pool", value_name = "NAME")]
    pools: Vec<String>,
    /// Search only this topic
    #[arg(long)]
    topic: Option<String>,
    /// Search only records since then: 2026-01-31T08:00:00Z, or 2h for the last two hours
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Search at most so many records of a topic, the newest
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    records: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let pools = stored_pool_names(&args.pools, &config)?;
    if let Some(topic) = &args.topic
        && !pools.iter().any(|pool| config.pools[pool].reads(topic))
    {
        return Err(super::Usage(format!("no pool reads topic {topic:?}")).into());
    }
    let store = open_store(&config).await?;
    let bounds = Bounds { topic: args.topic, since_ms: args.since, records_max: args.records };
    let mut stories = Vec::with_capacity(pools.len());
    for pool in &pools {
        stories.push(why::tell(&config, pool, &*store, &args.id, &bounds).await?);
    }
    if args.json {
        let stories: Vec<_> = stories.iter().map(as_json).collect::<Result<_, _>>()?;
        print(&json!({ "id": args.id, "pools": stories }).to_string())?;
    } else {
        print(stories.iter().map(text).collect::<Vec<_>>().join("\n\n").trim_end())?;
    }
    let is_known = stories.iter().any(|story| story.is_known);
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(story: &Story) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(story)?;
    value["dead"] = story.dead.iter().map(dead::as_json).collect();
    Ok(value)
}

fn text(story: &Story) -> String {
    let mut lines = vec![format!("pool {}: {}", story.pool, story.verdict)];
    lines.extend(story.places.iter().map(place));
    for effect in &story.effects {
        let owner = if effect.pipeline.is_empty() { String::new() } else { format!("{}: ", effect.pipeline) };
        let row = effect.row.as_ref().map_or_else(|| "no row".to_owned(), |row| shown::safe(&row.to_string()));
        lines.push(format!("  {owner}table {}: {row}", effect.table));
    }
    for row in &story.dead {
        lines.push(format!(
            "  dead row: {} by {}, {} attempts, set aside at {}: {}",
            row.reason,
            shown::safe(&row.pipeline),
            row.attempts,
            shown::time(row.created_ms),
            shown::safe(&row.message)
        ));
    }
    if story.dead.is_empty() {
        lines.push("  no dead row".to_owned());
    }
    lines.push(match story.processed_set {
        Some(true) if story.processed_set_is_bitmap => {
            "  processed set: handled lately, or a false positive".to_owned()
        }
        Some(true) => "  processed set: handled lately".to_owned(),
        Some(false) => "  processed set: not known".to_owned(),
        None => "  processed set: none, or no answer".to_owned(),
    });
    for searched in &story.searched {
        let left_out = match searched.left_out {
            0 => "all there are".to_owned(),
            left_out => format!("{left_out} older or other ones were left out"),
        };
        lines.push(format!("  searched {}: {} records, {left_out}", searched.topic, searched.records));
    }
    lines.join("\n")
}

fn place(place: &Place) -> String {
    let at = place.record_ms.map_or_else(String::new, |ms| format!(" of {}", shown::time(ms)));
    let kafka = if place.in_kafka { "" } else { ", not found in Kafka" };
    let ledger = match place.next_offset {
        Some(next) if place.is_passed() => format!("passed: the ledger stands at {next}"),
        Some(next) => format!("not passed: the ledger stands at {next}"),
        None => "the pool has no place there".to_owned(),
    };
    let malformed =
        place.malformed.as_ref().map_or_else(String::new, |why| format!("; cannot be decoded: {}", shown::safe(why)));
    format!("  {}/{} offset {}{at}{kafka}: {ledger}{malformed}", place.topic, place.partition, place.offset)
}
