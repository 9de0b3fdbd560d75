//! Events are taken to be new until repeats come, and written again the other way where they were not.

use super::PATIENCE;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;

fn rewritten(worker: &Worker) -> f64 {
    worker.metric("weir_retries_total", "reason=\"assumed\"")
}

#[tokio::test]
async fn a_topic_that_comes_a_second_time_changes_nothing_and_few_batches_are_written_twice() {
    let world = World::new(4).await;
    let plan = Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(61, 40_000) };
    let first = publish(&world, plan).await;
    let mut worker = Worker::start_with(&world, "processed_set = \"off\"").await;
    world.drained(PATIENCE).await;
    assert_eq!(rewritten(&worker), 0.0, "nothing was a repeat");
    let rows = "SELECT count(*) FROM messages";
    assert_eq!(world.count(rows).await, i64::try_from(first.live.len()).unwrap());

    // A backlog again, so that batches are whole ones.
    worker.terminate();
    let second = publish(&world, plan).await;
    assert_eq!(second.live, first.live);
    worker = Worker::start_with(&world, "processed_set = \"off\"").await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count(rows).await, i64::try_from(first.live.len()).unwrap());
    let batches = worker.metric("weir_batch_events_count", "");
    let rewritten = rewritten(&worker);
    // Of each partition's batches the 1st, 5th, 13th, 29th, 61st, and then each 64th.
    assert!(rewritten >= 4.0 && rewritten <= 4.0 * 5.0 + batches / 64.0, "{rewritten} of {batches} batches");
    let duplicates = worker.metric("weir_events_settled_total", "outcome=\"duplicate\",pipeline=\"persist\"");
    assert_eq!(duplicates, plan.events as f64);
    worker.terminate();
}
