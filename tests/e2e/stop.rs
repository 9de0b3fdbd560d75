//! A clean stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir::admin::Health;
use weir::config::Config;
use weir::metrics::Metrics;
use weir::pool::{Pool, Process};

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_under_load_nothing_is_redelivered() {
    let world = World::new(8).await;
    let published = publish(&world, Plan::new(1, 150_000)).await;
    let mut first = Worker::start(&world).await;
    until("some events to be settled", PATIENCE, async || {
        let rows = world.count("SELECT count(*) FROM messages").await;
        (rows > 10_000, rows)
    })
    .await;
    let (status, took) = first.terminate();
    assert!(status.success(), "{status:?}\n{}", first.log());
    assert!(took < Duration::from_secs(20), "took {took:?}");
    let settled: i64 = world.ledger().await.iter().sum();
    assert!(settled < published.records as i64, "the load was over before the stop: nothing was tried");

    let second = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    let consumed_second = second.metric("weir_events_consumed_total", "");
    assert_eq!(settled + consumed_second as i64, published.records as i64, "what was settled came again");
    assert_eq!(second.metric("weir_fences_total", ""), 0.0);
    assert!(second.metric("weir_offset_commits_total", "ok") > 0.0, "offset commits are not counted");
    drop(second);
    audit(&world, &published).await;
}

/// A process takes its count along when it ends, so here the pool runs in the test's own.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_finds_in_hand_is_settled_and_consumed_by_nobody_again() {
    let world = World::new(8).await;
    let published = publish(&world, Plan::new(6, 120_000)).await;
    let file = world.dir.join("stop.toml");
    std::fs::write(&file, world.config("")).unwrap();
    let config = Config::load(&[file], &[]).unwrap();
    let (mut consumed, mut stops) = (0, 0);
    while world.ledger().await != world.ends() {
        let begun_at: i64 = world.ledger().await.iter().sum();
        let metrics = Metrics::new();
        let process = Process { metrics: metrics.clone(), health: Health::new([world.pool.as_str()]) };
        let pool = Pool::from_config(&config, &world.pool, &process).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(pool.run(stop.clone()));
        until("a part of the events to be settled", PATIENCE, async || {
            let at: i64 = world.ledger().await.iter().sum();
            (at > begun_at + 15_000 || at == published.records as i64, at)
        })
        .await;
        stop.cancel();
        running.await.unwrap().unwrap();
        consumed += consumed_by(&metrics);
        stops += 1;
        let settled: i64 = world.ledger().await.iter().sum();
        assert_eq!(consumed, settled, "stop {stops} left events that were taken and not settled");
    }
    assert!(stops > 2, "the load was over before the stops: nothing was tried");
    assert_eq!(consumed, published.records as i64);
    audit(&world, &published).await;
}

fn consumed_by(metrics: &Metrics) -> i64 {
    let rendered = metrics.render();
    let series = rendered.lines().filter(|line| line.starts_with("weir_events_consumed_total{"));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_database_is_away_does_not_wait_for_it() {
    let world = World::alone(2).await;
    let mut worker = Worker::start(&world).await;
    worker.owns(2).await;
    world.service("stop", "postgres");
    let published = publish(&world, Plan::new(2, 2_000)).await;
    until("the worker to notice the outage", PATIENCE, async || {
        let detail = worker.get("/readyz");
        (!detail.contains("\"waiting_for\":null"), detail)
    })
    .await;
    let (status, took) = worker.terminate();
    world.service("start", "postgres");
    assert!(status.success(), "{status:?}\n{}", worker.log());
    assert!(took < Duration::from_secs(10), "took {took:?}");
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}
