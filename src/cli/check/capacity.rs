//! What the configured pools need at a rate: disk, memory, connections, workers. Everything is a unit cost of `costs.rs`,
//! which was measured, times what is asked for; what was not measured is said to be so.

use std::fmt::Write as _;

use serde::Serialize;

use super::costs::{self, Database, Work};
use crate::config::{Bitmap, Config, Pool, ProcessedSet, Rate};

const SECONDS_A_DAY: f64 = 86_400.0;
/// How busy workers and the database are planned to be: a choice, which leaves as much again for what comes after an
/// outage, for deploys and for busy partitions.
const PLANNED_LOAD: f64 = 0.5;

/// What is to be handled.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// What the pools need for so many events a second, such as 50000/s, in place of the configuration (docs/capacity.md)
    #[arg(long, value_name = "RATE")]
    at: Option<Rate>,
    /// The bytes of an event's value
    #[arg(long, value_name = "BYTES", default_value_t = 330, requires = "at")]
    event_bytes: u32,
    /// The part of the events that is rejected, and kept as dead rows
    #[arg(long, value_name = "PART", default_value_t = 0.001, requires = "at", value_parser = part)]
    rejected: f64,
    /// How many members of a dimension that `analyze` counts by have events in a minute, such as users
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, requires = "at")]
    members: u32,
    /// The partitions of a pool's topics
    #[arg(long, value_name = "COUNT", default_value_t = 64, requires = "at", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How often Kafka keeps each event
    #[arg(long, value_name = "COUNT", default_value_t = 3, requires = "at", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "not a part of 1, such as 0.001".to_owned())
}

/// What all pools need.
#[derive(Debug, Serialize)]
struct Needs {
    events_per_s: f64,
    event_bytes: u32,
    rejected: f64,
    members: u32,
    partitions: u32,
    replicas: u32,
    /// With its replicas, for each group of topics that some pool reads.
    kafka_bytes_a_day: f64,
    pools: Vec<PoolNeeds>,
}

/// What one pool needs. Nothing: that was not measured, and the notes say so.
#[derive(Debug, Default, Serialize)]
struct PoolNeeds {
    pool: String,
    database: Option<Database>,
    events_a_day: f64,
    /// Rows of `persist` and counters of `analyze`, with their indexes.
    database_bytes_a_day: Option<f64>,
    /// Ids of a pool without a table of its own, at the end of `seen_horizon`.
    seen_bytes: Option<f64>,
    dead_bytes_a_day: Option<f64>,
    /// The fewest.
    events_a_batch: Option<f64>,
    /// The most: where connections or commits are waited for, batches are larger.
    transactions_a_day: Option<f64>,
    redis_bytes: Option<f64>,
    worker_cores: Option<f64>,
    workers: Option<f64>,
    connections: Option<f64>,
    database_cores: Option<f64>,
    partitions_min: Option<f64>,
    notes: Vec<String>,
}

/// Prints what is needed, if that was asked for.
pub(super) fn answer(asked: &Asked, config: &Config, as_json: bool) -> anyhow::Result<Option<String>> {
    let Some(at) = asked.at else { return Ok(None) };
    let needs = needs(asked, at.events_per_s(), config);
    Ok(Some(if as_json { serde_json::to_string_pretty(&needs)? } else { text(&needs)? }))
}

fn needs(asked: &Asked, events_per_s: f64, config: &Config) -> Needs {
    let mut topics: Vec<&[String]> = config.pools.values().map(|pool| pool.topics.as_slice()).collect();
    topics.sort_unstable();
    topics.dedup();
    let of_kafka = costs::KAFKA_RECORD.of(asked.event_bytes) * f64::from(asked.replicas);
    Needs {
        events_per_s,
        event_bytes: asked.event_bytes,
        rejected: asked.rejected,
        members: asked.members,
        partitions: asked.partitions,
        replicas: asked.replicas,
        kafka_bytes_a_day: events_per_s * SECONDS_A_DAY * of_kafka * topics.len() as f64,
        pools: config.pools.iter().map(|(name, pool)| of_pool(asked, events_per_s, config, name, pool)).collect(),
    }
}

fn of_pool(asked: &Asked, events_per_s: f64, config: &Config, name: &str, pool: &Pool) -> PoolNeeds {
    let database = pool.needs_store().then(|| Database::of(config.store.as_ref())).flatten();
    let is_remembered = config.redis.is_some() && pool.processed_set != ProcessedSet::Off;
    let mut needs = PoolNeeds {
        pool: name.to_owned(),
        database,
        events_a_day: events_per_s * SECONDS_A_DAY,
        ..PoolNeeds::default()
    };
    if is_remembered {
        remember(&mut needs, config, events_per_s, pool);
    }
    match database {
        Some(database) => {
            store(&mut needs, asked, events_per_s, pool, database);
            work(&mut needs, config, events_per_s, pool, Work { database, is_remembered });
            batches(&mut needs, asked, events_per_s, pool, database);
        }
        None if pool.needs_store() => needs.notes.push(
            "what events take in this database was not measured: measure it by `weir load run` (docs/load.md)"
                .to_owned(),
        ),
        None => needs.notes.push(
            "without a store it takes as long as what it calls: measure it by `weir load run` (docs/load.md)"
                .to_owned(),
        ),
    }
    needs
}

/// What the processed set takes.
fn remember(needs: &mut PoolNeeds, config: &Config, events_per_s: f64, pool: &Pool) {
    let Ok(Some(bitmap)) = Bitmap::of(pool, config.redis.as_ref()) else {
        // An id is known for one to two expiries.
        let expiry_s = config.redis.as_ref().map_or(0.0, |redis| redis.expiry.as_secs_f64());
        needs.redis_bytes = Some(events_per_s * 2.0 * expiry_s * costs::REDIS_ID_BYTES);
        return;
    };
    needs.redis_bytes = Some(bitmap.memory_bytes() as f64);
    let ids = events_per_s * bitmap.expiry.as_secs_f64();
    if ids > bitmap.ids as f64 {
        needs.notes.push(format!(
            "the bitmap is made for {} ids, and {} come in {}: give `bloom.rate` as much, or `bloom.ids`",
            thousands(bitmap.ids as f64),
            thousands(ids),
            humantime::format_duration(bitmap.expiry)
        ));
    }
    needs.notes.push("what a worker handles was measured with a set of ids, not with a bitmap".to_owned());
}

/// What is kept of the events.
fn store(needs: &mut PoolNeeds, asked: &Asked, events_per_s: f64, pool: &Pool, database: Database) {
    let kept_per_s = events_per_s * (1.0 - asked.rejected);
    let (mut rows, mut members) = (0.0, 0.0);
    for pipeline in &pool.pipelines {
        match pipeline.handler.as_str() {
            "persist" => rows += 1.0,
            "analyze" => members += dimensions(pipeline, asked.members, events_per_s),
            other => needs.notes.push(format!("what the handler {other:?} keeps was not measured, and is not in this")),
        }
        if pipeline.columns.is_some() {
            needs.notes.push(format!("the table of {:?} is taken for one like `messages`", pipeline.name));
        }
    }
    let costs = database.costs();
    let of_rows = rows * kept_per_s * costs.message.of(asked.event_bytes) * SECONDS_A_DAY;
    let of_counters = members * costs.counter * SECONDS_A_DAY / 60.0;
    needs.database_bytes_a_day = Some(of_rows + of_counters);
    needs.dead_bytes_a_day = Some(events_per_s * asked.rejected * costs.dead.of(asked.event_bytes) * SECONDS_A_DAY);
    if rows == 0.0 {
        needs.seen_bytes = Some(kept_per_s * pool.seen_horizon.as_secs_f64() * costs.seen);
    }
}

/// The counters that a pipeline writes in a minute.
fn dimensions(pipeline: &crate::config::Pipeline, members: u32, events_per_s: f64) -> f64 {
    let members = f64::from(members).min(events_per_s * 60.0);
    let by_type = ["type".to_owned()];
    let dimensions = pipeline.dimensions.as_deref().unwrap_or(&by_type);
    // Types are few.
    dimensions.iter().map(|dimension| if dimension == "type" { 1.0 } else { members }).sum()
}

/// Who does it.
fn work(needs: &mut PoolNeeds, config: &Config, events_per_s: f64, pool: &Pool, work: Work) {
    let has = |handler: &str| pool.pipelines.iter().any(|pipeline| pipeline.handler == handler);
    let is_known = pool.pipelines.iter().all(|pipeline| ["persist", "analyze"].contains(&pipeline.handler.as_str()));
    let Some(cost) = work.cost(has("persist"), has("analyze")).filter(|_| is_known) else {
        needs.notes.push(
            "what a worker handles of this was not measured: measure it by `weir load run` (docs/load.md)".to_owned(),
        );
        return;
    };
    let workers = (events_per_s / (cost.events_per_s * PLANNED_LOAD)).ceil().max(1.0);
    needs.worker_cores = Some(events_per_s * cost.worker_us / 1e6 / PLANNED_LOAD);
    needs.workers = Some(workers);
    let connections = config.store.as_ref().map_or(0, |store| store.connections);
    needs.connections = Some(workers * f64::from(connections));
    if work.database == Database::Postgres {
        needs.database_cores = Some(events_per_s * costs::COPY_ROW_US / 1e6 / PLANNED_LOAD);
        if events_per_s > costs::COPY_ROWS_PER_S {
            needs.notes.push(format!(
                "one PostgreSQL took {} rows a second by COPY alone, on two cores that it shared: have a faster one, or \
                 topics and pools on several",
                thousands(costs::COPY_ROWS_PER_S)
            ));
        }
    }
}

/// How large batches become where no backlog fills them: what comes to a partition while one waits and is written.
fn batches(needs: &mut PoolNeeds, asked: &Asked, events_per_s: f64, pool: &Pool, database: Database) {
    if database != Database::Postgres {
        needs.notes.push("how long a batch takes was measured on PostgreSQL only".to_owned());
        return;
    }
    let of_partition = events_per_s / f64::from(asked.partitions);
    let busy = of_partition * costs::BATCH_EVENT_S;
    let free = of_partition * pool.batch_linger.as_secs_f64() / (1.0 - busy).max(f64::EPSILON);
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
    let events = if busy < 1.0 { free } else { f64::INFINITY }.min(pool.max_poll_records as f64).max(1.0);
    needs.events_a_batch = Some(events);
    needs.transactions_a_day = Some(needs.events_a_day / events);
    let least = (events_per_s * costs::BATCH_EVENT_S / PLANNED_LOAD).ceil().max(needs.workers.unwrap_or(1.0));
    needs.partitions_min = Some(least);
    if f64::from(asked.partitions) < least {
        needs.notes.push(format!(
            "{} partitions are too few: each is one batch after the other, and each worker needs one",
            asked.partitions
        ));
    }
}

fn text(needs: &Needs) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "# For {} events/s of {} bytes, {} % of them rejected, {} members a minute, {} partitions, {} replicas.\n\
         # Workers and databases are planned to be busy for half of their time; docs/capacity.md has each figure's source.\n",
        number(needs.events_per_s),
        number(needs.event_bytes.into()),
        needs.rejected * 100.0,
        number(needs.members.into()),
        needs.partitions,
        needs.replicas
    );
    line(&mut text, "kafka log", Some(needs.kafka_bytes_a_day), |value| {
        format!("{} a day, all replicas", bytes(value))
    })?;
    for pool in &needs.pools {
        let on = pool.database.map_or(String::new(), |database| format!(" on {}", database.name()));
        writeln!(text, "\npool {}{on}", pool.pool)?;
        line(&mut text, "events", Some(pool.events_a_day), |value| format!("{} a day", number(value)))?;
        line(&mut text, "database", pool.database_bytes_a_day, |value| format!("{} a day", bytes(value)))?;
        line(&mut text, "ids kept", pool.seen_bytes, |value| format!("{} in all, by seen_horizon", bytes(value)))?;
        line(&mut text, "dead rows", pool.dead_bytes_a_day, |value| format!("{} a day", bytes(value)))?;
        let batch = pool
            .events_a_batch
            .map_or(String::new(), |events| format!(", of {} events or more", number(events.round())));
        line(&mut text, "transactions", pool.transactions_a_day, |value| {
            format!("at most {} a day{batch}", number(value))
        })?;
        line(&mut text, "redis", pool.redis_bytes, |value| format!("{}, ids of two expiries", bytes(value)))?;
        line(&mut text, "workers", pool.workers, number)?;
        line(&mut text, "workers' cores", pool.worker_cores, cores)?;
        line(&mut text, "connections", pool.connections, |value| format!("{}, of all workers", number(value)))?;
        line(&mut text, "database's cores", pool.database_cores, |value| format!("{}, for rows alone", cores(value)))?;
        line(&mut text, "partitions", pool.partitions_min, |value| format!("{} at least", number(value)))?;
        for note in &pool.notes {
            writeln!(text, "  note: {note}")?;
        }
    }
    Ok(text.trim_end().to_owned())
}

fn line(text: &mut String, name: &str, value: Option<f64>, told: impl FnOnce(f64) -> String) -> std::fmt::Result {
    match value {
        Some(value) => writeln!(text, "  {name:<18}{}", told(value)),
        None => Ok(()),
    }
}

/// Three digits count; the costs are not more exact.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let unit = 10_f64.powf(value.abs().log10().floor() - 2.0);
    (value / unit).round() * unit
}

fn bytes(value: f64) -> String {
    let value = rounded(value);
    let units = [(1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(size, _)| value >= *size) {
        Some((size, name)) => {
            let value = value / size;
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            format!("{value:.digits$} {name}")
        }
        None => format!("{value:.0} bytes"),
    }
}

fn cores(value: f64) -> String {
    if value >= 10.0 { number(value.ceil()) } else { format!("{:.1}", (value * 10.0).ceil() / 10.0) }
}

fn number(value: f64) -> String {
    thousands(rounded(value))
}

/// A number with its thousands set apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut told = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_three_digits_and_a_unit() {
        assert_eq!((bytes(1.234_567e12).as_str(), bytes(12_345.0).as_str()), ("1.23 TB", "12.3 kB"));
        assert_eq!((bytes(999.0).as_str(), bytes(123_456_789.0).as_str()), ("999 bytes", "123 MB"));
        assert_eq!((number(4_324_567_890.0).as_str(), number(12.0).as_str()), ("4,320,000,000", "12"));
        assert_eq!((cores(0.01).as_str(), cores(9.95).as_str(), cores(11.2).as_str()), ("0.1", "10.0", "12"));
    }
    #[test]
    fn a_bitmap_takes_what_it_takes_and_is_told_when_it_is_too_small() {
        let mut pool = Pool { processed_set: ProcessedSet::Bloom, ..Pool::default() };
        (pool.bloom.ids, pool.bloom.expiry) = (Some(1_000_000), Some(std::time::Duration::from_secs(100)));
        let config = Config::default();
        let bytes_at = |events_per_s: f64| {
            let mut needs = PoolNeeds::default();
            remember(&mut needs, &config, events_per_s, &pool);
            (
                needs.redis_bytes.unwrap(),
                needs.notes.iter().any(|note| note.contains("1,000,000 ids, and 2,000,000 come")),
            )
        };
        let (bytes, is_told) = bytes_at(10_000.0);
        assert!((4.0e6..10.0e6).contains(&bytes) && !is_told, "{bytes}");
        assert_eq!(bytes_at(20_000.0), (bytes, true));
    }
}
