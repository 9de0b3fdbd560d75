//! Checks what is configured beyond its shape. Every problem is one line that says what to do.

mod kafka;
mod pipeline;
mod traces;

pub(crate) use self::pipeline::{SQL_NAME, is_sql_name};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Bitmap, Bloom, Budget, Config, Kafka, Kinds, Pipeline, Pool, ProcessedSet, Redis, Scaling, Store};

/// The most events that a batch may have.
const RECORDS_MAX: usize = 100_000;

/// The most connections that a process may have.
const CONNECTIONS_MAX: u32 = 1000;
/// The most bytes of a batch, which is held in memory whole.
const BATCH_BYTES_MAX: usize = 1 << 30;
/// The most that librdkafka takes for one fetch.
const FETCH_BYTES_MAX: usize = 1_000_000_000;
/// The most that librdkafka takes for a queue, in KiB: a pool of one partition gets all of it.
const QUEUE_BYTES_MAX: usize = 2_097_151 * 1024;
/// What the address of a Redis begins with.
const REDIS_SCHEMES: [&str; 7] = ["redis", "rediss", "redis+unix", "unix", "valkey", "valkeys", "valkey+unix"];
/// The database counts time-outs in milliseconds and takes 0 for none at all.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// The shortest time that a number of workers can be asked for by.
const SCALING_TIME_MIN: Duration = Duration::from_secs(1);
/// What is dropped is dropped by days.
const RETENTION_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Fifty years.
const RETENTION_MAX: Duration = Duration::from_secs(50 * 365 * 24 * 60 * 60);
/// The longest that anything is waited for while a batch is in hand.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// Everything that is wrong with the whole.
pub(super) fn problems(config: &Config, kinds: Kinds<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    positive("startup_timeout", config.startup_timeout, &mut problems);
    kafka::check(&config.kafka, &mut problems);
    if let Some(store) = &config.store {
        check_store(store, &mut problems);
    }
    if let Some(redis) = &config.redis {
        check_redis(redis, &mut problems);
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        problems.push(format!("`log.level`: found {:?}, which is no filter: {error}", config.log.level));
    }
    problems.extend(super::console::problems(&config.console));
    traces::check(&config.traces, &mut problems);
    if config.store.is_none() && config.pools.values().any(|pool| kinds.needs_store(pool)) {
        problems.push("pools need a database: give `store.url` or `store.url_file`".to_owned());
    }
    for (name, pool) in &config.pools {
        problems.extend(of_pool(&config.kafka, config.redis.as_ref(), kinds, (name, pool)));
        if let (Some(store), Some(max)) = (&config.store, pool.transactions_max) {
            check_transactions(name, max, store.connections, &mut problems);
        }
    }
    check_together(&config.pools, &mut problems);
    problems
}

/// Everything that is wrong with a pool's own settings.
pub(super) fn of_pool(
    kafka: &Kafka,
    redis: Option<&Redis>,
    kinds: Kinds<'_>,
    (name, pool): (&str, &Pool),
) -> Vec<String> {
    let mut problems = Vec::new();
    check_pool(name, pool, kinds, &mut problems);
    check_bloom(name, pool, redis, &mut problems);
    let budget = Budget::of(kafka, pool);
    if pool.handle_ms.is_none_or(is_handle_ms) && !budget.fits() {
        problems.push(format!("`pools.{name}`: a full batch takes too long: {budget}"));
    }
    problems
}

fn check_store(store: &Store, problems: &mut Vec<String>) {
    if store.connections == 0 {
        problems.push("`store.connections` must be greater than 0".to_owned());
    }
    at_most("store.connections", store.connections, CONNECTIONS_MAX, problems);
    // What else an address must be, and which settings are only of some databases, is the store's to say (`store::problems`).
    let url = store.url.expose();
    if !url.is_empty() && !url.contains(':') {
        problems.push(
            "`store.url` must be an address such as postgres://user:password@host:5432/database, \
             mysql://user:password@host:3306/database or sqlite:///path/weir.db"
                .to_owned(),
        );
    }
    for (name, duration) in [
        ("store.statement_timeout", store.statement_timeout),
        ("store.idle_in_transaction_timeout", store.idle_in_transaction_timeout),
        ("store.lock_timeout", store.lock_timeout),
    ] {
        timeout(name, duration, problems);
    }
    if let Some(retention) = store.messages_retention {
        check_retention(retention, problems);
    }
}

fn check_retention(retention: Duration, problems: &mut Vec<String>) {
    let at = "store.messages_retention";
    if !(RETENTION_MIN..=RETENTION_MAX).contains(&retention) {
        let [found, least, most] = [retention, RETENTION_MIN, RETENTION_MAX].map(humantime::format_duration);
        problems.push(format!("`{at}` is {found}, expected {least} to {most}: days are dropped whole"));
    }
}

fn check_redis(redis: &Redis, problems: &mut Vec<String>) {
    let url = redis.url.expose();
    let is_known = |(scheme, _): (&str, &str)| REDIS_SCHEMES.contains(&scheme);
    if !url.is_empty() && !url.split_once("://").is_some_and(is_known) {
        problems.push("`redis.url` must be an address such as redis://host:6379 or rediss://host:6379".to_owned());
    } else {
        problems.extend(address_problem("redis.url", url).filter(|_| !url.is_empty()));
    }
    positive("redis.expiry", redis.expiry, problems);
    timeout("redis.deadline", redis.deadline, problems);
}

/// What is wrong with an address, which is at this key. The parser's words do not quote it: it may hold a password.
pub(crate) fn address_problem(path: &str, url: &str) -> Option<String> {
    let error = url::Url::parse(url).err()?;
    Some(format!(
        "`{path}` is no address: {error}; in a user or a password write what is not a letter or a digit as %XX"
    ))
}

/// Whether it is the address of a web service.
pub(crate) fn is_http(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

pub(super) fn at_most<T: PartialOrd + std::fmt::Display>(path: &str, value: T, most: T, problems: &mut Vec<String>) {
    if value > most {
        problems.push(format!("`{path}` is {value}, at most {most} can be"));
    }
}

pub(super) fn timeout(path: &str, duration: Duration, problems: &mut Vec<String>) {
    positive(path, duration, problems);
    if !duration.is_zero() && !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&duration) {
        let [found, least, most] = [duration, TIMEOUT_MIN, TIMEOUT_MAX].map(humantime::format_duration);
        problems.push(format!("`{path}` is {found}, expected {least} to {most}"));
    }
}

fn positive(path: &str, duration: Duration, problems: &mut Vec<String>) {
    if duration.is_zero() {
        problems.push(format!("`{path}` must be greater than 0"));
    }
}

fn check_pool(name: &str, pool: &Pool, kinds: Kinds<'_>, problems: &mut Vec<String>) {
    let at = format!("pools.{name}");
    if !is_name(name) {
        problems.push(format!("`{at}`: a pool's name consists of 1 to 64 of a-z, 0-9, '_' and '-'"));
    }
    check_topics(&at, &pool.topics, problems);
    if pool.group.as_deref().is_some_and(str::is_empty) {
        problems.push(format!("`{at}.group` is empty: leave it out to use the pool's name"));
    }
    for (key, value) in [
        ("max_poll_records", pool.max_poll_records),
        ("batch_bytes", pool.batch_bytes),
        ("max_partition_fetch_bytes", pool.max_partition_fetch_bytes),
        ("queue_bytes", pool.queue_bytes),
        ("park_limit", pool.park_limit),
    ] {
        if value == 0 {
            problems.push(format!("`{at}.{key}` must be greater than 0"));
        }
    }
    for (key, value, most) in [
        ("max_poll_records", pool.max_poll_records, RECORDS_MAX),
        ("batch_bytes", pool.batch_bytes, BATCH_BYTES_MAX),
        ("max_partition_fetch_bytes", pool.max_partition_fetch_bytes, FETCH_BYTES_MAX),
        ("queue_bytes", pool.queue_bytes, QUEUE_BYTES_MAX),
    ] {
        at_most(&format!("{at}.{key}"), value, most, problems);
    }
    if pool.transactions_max == Some(0) {
        problems.push(format!("`{at}.transactions_max` must be greater than 0; leave it out for no limit"));
    }
    if pool.handle_ms.is_some_and(|handle_ms| !is_handle_ms(handle_ms)) {
        problems.push(format!("`{at}.handle_ms` must be greater than 0; leave it out if it is not known"));
    }
    if !(pool.reject_hold_ratio > 0.0 && pool.reject_hold_ratio <= 1.0) {
        problems.push(format!("`{at}.reject_hold_ratio` must be greater than 0 and at most 1"));
    }
    if pool.types.iter().any(String::is_empty) {
        problems.push(format!("`{at}.types` has an empty name: name the types that the pool knows, or leave it out"));
    }
    check_park(&at, pool, problems);
    if !kinds.needs_store(pool) {
        problems.extend(pool.problems_without_store(name));
    }
    check_scaling(&at, &pool.scaling, problems);
    timeout(&format!("{at}.drain_deadline"), pool.drain_deadline, problems);
    if pool.batch_linger > TIMEOUT_MAX {
        problems.push(format!("`{at}.batch_linger` must not be longer than an hour"));
    }
    positive(&format!("{at}.seen_horizon"), pool.seen_horizon, problems);
    check_pointers(&at, pool, problems);
    pipeline::check_lookups(&at, pool, problems);
    pipeline::check_all(&at, pool, kinds, problems);
}

fn check_bloom(name: &str, pool: &Pool, redis: Option<&Redis>, problems: &mut Vec<String>) {
    let Bloom { ids, rate, expiry, .. } = &pool.bloom;
    if pool.processed_set == ProcessedSet::Set && (ids.is_some() || rate.is_some() || expiry.is_some()) {
        problems.push(format!(
            "`pools.{name}.bloom` has no use while `pools.{name}.processed_set` is \"set\": set that to \"bloom\", or leave \
             this out"
        ));
    }
    if let Err(problem) = Bitmap::of(pool, redis) {
        problems.push(format!("`pools.{name}.bloom`: {problem}"));
    }
}

fn check_scaling(at: &str, scaling: &Scaling, problems: &mut Vec<String>) {
    for (key, time) in [("clear_within", scaling.clear_within), ("down_after", scaling.down_after)] {
        if time < SCALING_TIME_MIN {
            problems.push(format!("`{at}.scaling.{key}` must be a second or longer"));
        }
    }
    if scaling.min == 0 {
        problems
            .push(format!("`{at}.scaling.min` must be greater than 0: without a worker nobody tells what is wanted"));
    }
    if let Some(max) = scaling.max.filter(|max| *max < scaling.min) {
        problems.push(format!("`{at}.scaling.max` is {max}, and `{at}.scaling.min` is {}: raise it", scaling.min));
    }
}

/// A row that a newer event replaces does not depend on order, and one dead row an id could not keep several versions.
fn check_park(at: &str, pool: &Pool, problems: &mut Vec<String>) {
    let updates = |pipeline: &&Pipeline| pipeline.on_duplicate == Some(super::OnDuplicate::Update);
    if pool.on_reject == super::OnReject::Park
        && let Some(pipeline) = pool.pipelines.iter().find(updates)
    {
        let name = &pipeline.name;
        problems.push(format!(
            "`{at}.on_reject` is \"park\", and pipeline {name:?} has on_duplicate = \"update\", by which the newest wins in \
             whatever order: leave out one of them"
        ));
    }
}

fn check_transactions(name: &str, max: u32, connections: u32, problems: &mut Vec<String>) {
    if max > connections {
        problems.push(format!(
            "`pools.{name}.transactions_max` is {max}, and `store.connections` are {connections}: lower it, or raise them"
        ));
    }
}

fn check_topics(at: &str, topics: &[String], problems: &mut Vec<String>) {
    if topics.is_empty() {
        problems.push(format!("`{at}.topics` is empty: name the topics to consume"));
    }
    let mut seen = BTreeSet::new();
    for topic in topics {
        if topic.is_empty() {
            problems.push(format!("`{at}.topics` has an empty name"));
        } else if !seen.insert(topic) {
            problems.push(format!("`{at}.topics` names {topic:?} twice"));
        } else if let Some(problem) = super::topics::problem(topic) {
            problems.push(format!("`{at}.topics`: {problem}"));
        }
    }
}

fn check_pointers(at: &str, pool: &Pool, problems: &mut Vec<String>) {
    let event = &pool.event;
    let all = [
        ("id", Some(&event.id)),
        ("type", Some(&event.r#type)),
        ("timestamp", Some(&event.timestamp)),
        ("user", Some(&event.user)),
        ("conversation", event.conversation.as_ref()),
    ];
    for (key, pointer) in all {
        if let Some(pointer) = pointer.filter(|pointer| !pointer.starts_with('/')) {
            problems.push(format!("`{at}.event.{key}`: found {pointer:?}, expected a JSON pointer such as \"/{key}\""));
        }
    }
}

/// What two pools must not have in common.
fn check_together(pools: &BTreeMap<String, Pool>, problems: &mut Vec<String>) {
    let mut groups = BTreeMap::new();
    let mut tables = BTreeMap::new();
    let mut analyzing = None;
    for (name, pool) in pools {
        let group = pool.group_of(name);
        if let Some(other) = groups.insert(group, name) {
            problems
                .push(format!("pools {other:?} and {name:?} are both of group {group:?}: give each its own `group`"));
        }
        let persisting = pool.pipelines.iter().filter(|pipeline| pipeline.handler == "persist");
        let own: BTreeSet<&str> = persisting.map(Pipeline::persist_table).collect();
        for table in own {
            if let Some(other) = tables.insert(table, name) {
                problems.push(format!(
                    "pools {other:?} and {name:?} both persist into table {table:?}, whose key says what is new: \
                     give each its own table"
                ));
            }
        }
        if pool.pipelines.iter().any(|pipeline| pipeline.handler == "analyze")
            && let Some(other) = analyzing.replace(name)
        {
            problems.push(format!(
                "pools {other:?} and {name:?} both analyze, and would add to the same counters: leave it to one"
            ));
        }
    }
}

fn is_handle_ms(handle_ms: f64) -> bool {
    handle_ms > 0.0 && handle_ms.is_finite()
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
