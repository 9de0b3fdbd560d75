//! A clean stop.

use std::time::Duration;

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
    let consumed_first = stop_and_count(&world, &mut first).await;
    let left = published.records as i64 - world.ledger().await.iter().sum::<i64>();
    assert!(left > 0, "the load was over before the stop: nothing was tried");

    let second = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    let consumed_second = second.metric("weir_events_consumed_total", "");
    assert_eq!(consumed_first + consumed_second as i64, published.records as i64, "some came twice");
    assert_eq!(second.metric("weir_fences_total", ""), 0.0);
    drop(second);
    audit(&world, &published).await;
}

/// Stops a worker. What it consumed is what it settled: the ledger tells, since it is alone.
async fn stop_and_count(world: &World, worker: &mut Worker) -> i64 {
    let (status, took) = worker.terminate();
    assert!(status.success(), "{status:?}\n{}", worker.log());
    assert!(took < Duration::from_secs(20), "took {took:?}");
    world.ledger().await.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_database_is_away_does_not_wait_for_it() {
    let world = World::new(2).await;
    let mut worker = Worker::start(&world).await;
    worker.owns(2).await;
    super::world::service("stop", "postgres");
    let published = publish(&world, Plan::new(2, 2_000)).await;
    until("the worker to notice the outage", PATIENCE, async || {
        let detail = worker.get("/readyz");
        (!detail.contains("\"waiting_for\":null"), detail)
    })
    .await;
    let (status, took) = worker.terminate();
    super::world::service("start", "postgres");
    assert!(status.success(), "{status:?}\n{}", worker.log());
    assert!(took < Duration::from_secs(10), "took {took:?}");
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}
