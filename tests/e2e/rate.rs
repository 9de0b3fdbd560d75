//! The rate of a group, seen from the database: by the time at which each transaction began.
//!
//! A machine that runs all services, workers and tests on few cores stalls a disk or a process for a second now and then, which
//! no rate makes up for. So a single second may be 15 % above the rate, the mean 5 % above and 10 % below it, and the second in
//! the middle 5 % off. The arithmetic alone is held to 5 % in every second, by `pool/pace.rs`.

use std::time::Duration;

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

pub(crate) const RATE: i64 = 2_000;
/// Parts of the rate: how far a second may be above it, how far the mean below, and how far what is exact may be off.
const NOISE: f64 = 0.15;
const STALLS: f64 = 0.1;
const EXACT: f64 = 0.05;
/// Of an allowance and of a batch (docs/flow.md).
const TWENTIETH: f64 = RATE as f64 / 20.0;

pub(crate) fn plan(seed: u64, seconds: u64) -> Plan {
    let events = RATE.unsigned_abs() * seconds;
    Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) }
}

fn rate() -> String {
    format!("rate = \"{RATE}/s\"")
}

/// Events by full second, without the first two and the last two, when not everybody has a backlog.
pub(crate) async fn seconds(world: &World) -> Vec<i64> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT floor(extract(epoch FROM received_at))::int8, count(*) FROM messages GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(world.db.postgres())
    .await
    .unwrap();
    println!("by second: {:?}", rows.iter().map(|(_, count)| *count).collect::<Vec<_>>());
    let (first, last) = (rows.first().unwrap().0, rows.last().unwrap().0);
    let of = |second| rows.iter().find(|(at, _)| *at == second).map_or(0, |(_, count)| *count);
    (first + 2..last - 1).map(of).collect()
}

pub(crate) fn assert_kept(seconds: &[i64]) {
    assert!(seconds.len() >= 6, "too short a run: {seconds:?}");
    let part = |seen: f64| seen / RATE as f64 - 1.0;
    let mean = seconds.iter().sum::<i64>() as f64 / seconds.len() as f64;
    assert!((-STALLS..=EXACT).contains(&part(mean)), "{mean} a second: {seconds:?}");
    let mut sorted = seconds.to_vec();
    sorted.sort_unstable();
    let (middle, most) = (sorted[sorted.len() / 2] as f64, sorted[sorted.len() - 1] as f64);
    assert!(part(middle).abs() <= EXACT, "{middle} in the second in the middle: {seconds:?}");
    assert!(part(most) <= NOISE, "{most} in one: {seconds:?}");
}

async fn three_workers(world: &World, config: &str) -> [Worker; 3] {
    let workers = [
        Worker::start_configured(world, config).await,
        Worker::start_configured(world, config).await,
        Worker::start_configured(world, config).await,
    ];
    until("each to own its part", PATIENCE, async || {
        let owned: Vec<f64> = workers.iter().map(|worker| worker.metric("weir_partitions_assigned", "")).collect();
        (owned.iter().all(|owned| *owned >= 2.0) && owned.iter().sum::<f64>() == 8.0, owned)
    })
    .await;
    workers
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_keep_to_the_groups_rate_second_by_second() {
    let world = World::alone(8).await;
    let workers = three_workers(&world, &world.config(&rate())).await;
    let published = publish(&world, plan(50, 14)).await;
    world.drained(PATIENCE).await;
    assert_kept(&seconds(&world).await);
    for worker in &workers {
        assert_eq!(worker.metric("weir_rate_events_per_second", ""), RATE as f64);
        assert!(worker.metric("weir_loop_seconds_total", "phase=\"rate\"") > 1.0, "the rate was waited for");
        assert!(!worker.log().contains("its partitions' share"), "Redis answered all the time");
    }
    drop(workers);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_with_all_the_backlog_gets_the_rate() {
    let world = World::alone(8).await;
    let _workers = three_workers(&world, &world.config(&rate())).await;
    publish(&world, Plan { keys: 1, ..plan(51, 12) }).await;
    world.drained(PATIENCE).await;
    let busy = world.ledger().await.iter().filter(|offset| **offset > 0).count();
    assert_eq!(busy, 1, "one key, one partition");
    let seconds = seconds(&world).await;
    let mean = seconds.iter().sum::<i64>() as f64 / seconds.len() as f64;
    assert!(mean >= 0.9 * RATE as f64, "{mean} a second: {seconds:?}");
    assert!(mean <= (1.0 + EXACT) * RATE as f64, "{mean} a second: {seconds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_shares_add_up_to_the_rate() {
    let world = World::alone(8).await;
    let config = world.config(&rate());
    let (before, after) = config.split_once("[redis]").unwrap();
    let config = format!("{before}{}", &after[after.find("[health]").unwrap()..]);
    let workers = three_workers(&world, &config).await;
    let published = publish(&world, plan(52, 14)).await;
    world.drained(PATIENCE).await;
    assert_kept(&seconds(&world).await);
    for worker in &workers {
        assert!(worker.log().contains("each worker keeps to its partitions' share"), "{}", worker.log());
    }
    drop(workers);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_and_comes_back_lets_no_more_through_and_loses_nothing() {
    let world = World::alone(8).await;
    let workers = three_workers(&world, &world.config(&rate())).await;
    let published = publish(&world, plan(53, 20)).await;
    let handled = async |so_many: i64| {
        until("events to be handled", PATIENCE, async || {
            let count = world.count("SELECT count(*) FROM messages").await;
            (count >= so_many, count)
        })
        .await;
    };
    handled(4 * RATE).await;
    world.service("stop", "redis");
    until("every worker to keep to its share", PATIENCE, async || {
        let alone = workers.iter().filter(|worker| worker.log().contains("this worker keeps to its partitions' share"));
        (alone.count() == 3, ())
    })
    .await;
    handled(9 * RATE).await;
    world.service("start", "redis");
    until("every worker to share the bucket again", PATIENCE, async || {
        let back = workers.iter().filter(|worker| worker.log().contains("bucket in redis answers again"));
        (back.count() == 3, ())
    })
    .await;
    world.drained(PATIENCE).await;
    // At both changes each worker may save an allowance, and one batch a partition is under way.
    let beyond = TWENTIETH * (2.0 * 4.0 + 2.0 * 8.0);
    let rows: Vec<(f64, i64)> = sqlx::query_as(
        "SELECT extract(epoch FROM received_at - (SELECT min(received_at) FROM messages))::float8 AS at, count(*)
           FROM messages GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(world.db.postgres())
    .await
    .unwrap();
    let mut sum = 0;
    for (at, count) in rows {
        sum += count;
        let most = RATE as f64 * at + TWENTIETH * 2.0 + beyond;
        assert!(sum as f64 <= most, "{sum} events after {at} s, at most {most} may be");
    }
    drop(workers);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_a_slow_rate_is_not_stalled_and_stops_at_once() {
    let world = World::new(2).await;
    let mut worker = Worker::start_with(&world, "rate = \"2/m\"").await;
    worker.owns(2).await;
    publish(&world, Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(54, 100) }).await;
    until("the first turn", PATIENCE, async || {
        let count = world.count("SELECT count(*) FROM messages").await;
        (count >= 1, count)
    })
    .await;
    let (status, took) = worker.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(15), "half a minute was left to wait, and it stopped after {took:?}");
    let count = world.count("SELECT count(*) FROM messages").await;
    assert!(count <= 3, "{count} events");
}
