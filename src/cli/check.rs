//! `weir check`: is the configuration right, and what is it once all layers are merged? What does it need at a rate?

mod capacity;
mod costs;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use super::{Usage, print};
use crate::config::{Bitmap, Budget, Config, GroupProtocol, Pool, ProcessedSet};

/// Validates the configuration and prints it as it is used
///
/// All layers merged, secrets hidden, and each pool's time budget; or, by --at, what its pools need at a rate. No service is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = super::examples!(
    "weir check --config weir.toml",
    "weir check --json | jq .time_budgets",
    "weir check --set pools.storage.handle_ms=2.5",
    "weir check --at 50000/s --event-bytes 600",
))]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    asked: capacity::Asked,
}

/// Prints the configuration; what is wrong with it was said when it was loaded.
pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    for (name, pool) in &config.pools {
        if pool.pipelines.is_empty() {
            let problem =
                format!("`pools.{name}.pipelines` is empty: without a pipeline, `weir run` has nothing to do");
            return Err(Usage(problem).into());
        }
    }
    let text = match capacity::answer(&args.asked, config, args.json)? {
        Some(needs) => needs,
        None if args.json => json(config)?,
        None => text(config)?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(config: &Config) -> anyhow::Result<String> {
    let mut text = toml::to_string(config).context("write the configuration as TOML")?;
    for (name, pool) in &config.pools {
        write!(text, "\n# time budget of pool {name}: {}", Budget::of(&config.kafka, pool))?;
        write!(text, "\n# delivery of pool {name}: {}", delivery(config, pool))?;
        if let Some(bitmap) = bitmap(config, pool) {
            let (events, batches) = (pool.max_poll_records, rewritten(&bitmap, pool));
            write!(
                text,
                "\n# processed set of pool {name}: {bitmap}; of batches of {events} new events {batches} are written twice"
            )?;
        }
        if pool.has_patterns() {
            let every = humantime::format_duration(std::time::Duration::from_millis(config.kafka.metadata_refresh_ms));
            write!(text, "\n# topics of pool {name}: those that match are looked for every {every}")?;
        }
        if let Some(rate) = pool.rate {
            let shared_by = if config.redis.is_some() { "by need, in redis" } else { "by their partitions" };
            write!(text, "\n# rate of pool {name}: {rate} for the whole group, shared by its workers {shared_by}")?;
        }
    }
    if let Some(retention) = config.store.as_ref().and_then(|store| store.messages_retention) {
        let retention = humantime::format_duration(retention);
        write!(
            text,
            "\n# messages, where it is partitioned: a day is dropped {retention} and a day after its end; an event whose id is \
             older than {retention} is set aside as a dead row, so let Kafka keep topics for less"
        )?;
    }
    if config.kafka.group_protocol == GroupProtocol::Consumer {
        let assumed_ms = config.kafka.session_timeout().0.as_millis();
        write!(
            text,
            "\n# the brokers' consumer.session.timeout.ms is taken for {assumed_ms} ms, their default; `weir run` asks them"
        )?;
    }
    Ok(text)
}

/// The bitmap of a pool that uses one. What is wrong with it was said when it was loaded.
fn bitmap(config: &Config, pool: &Pool) -> Option<Bitmap> {
    Bitmap::of(pool, Some(config.redis.as_ref()?)).ok().flatten()
}

/// How many batches have a false positive.
fn rewritten(bitmap: &Bitmap, pool: &Pool) -> String {
    format!("at most {:.1} %", bitmap.batches_with_false_positives(pool.max_poll_records) * 100.0)
}

/// What becomes of each event, once or more than once.
fn delivery(config: &Config, pool: &Pool) -> &'static str {
    match (pool.needs_store(), config.redis.is_some() && pool.processed_set != ProcessedSet::Off) {
        (true, _) => "one effect of each event, in the database's own transaction",
        (false, true) => "at least once; the processed set in redis leaves out what was done, as far as it remembers",
        (false, false) => "at least once; without a processed set in redis, repeats come after every kill",
    }
}

fn json(config: &Config) -> anyhow::Result<String> {
    let budgets: serde_json::Map<_, _> = config
        .pools
        .iter()
        .map(|(name, pool)| {
            let budget = Budget::of(&config.kafka, pool);
            let value = serde_json::json!({
                "max_poll_records": budget.max_poll_records,
                "handle_ms": budget.handle_ms,
                "batch_ms": budget.batch_ms(),
                "batch_ms_max": budget.batch_ms_max(),
                "limited_by": budget.limited_by,
                "max_poll_records_max": budget.max_poll_records_max(),
            });
            (name.clone(), value)
        })
        .collect();
    let deliveries: serde_json::Map<_, _> =
        config.pools.iter().map(|(name, pool)| (name.clone(), delivery(config, pool).into())).collect();
    let bitmaps = config.pools.iter().filter_map(|(name, pool)| {
        let bitmap = bitmap(config, pool)?;
        let mut value = serde_json::to_value(&bitmap).ok()?;
        value["memory_bytes_max"] = bitmap.memory_bytes().into();
        Some((name.clone(), value))
    });
    let bitmaps: serde_json::Map<_, _> = bitmaps.collect();
    let whole = serde_json::json!({
        "config": config,
        "time_budgets": budgets,
        "deliveries": deliveries,
        "bitmaps": bitmaps,
    });
    serde_json::to_string_pretty(&whole).context("write the configuration as JSON")
}
