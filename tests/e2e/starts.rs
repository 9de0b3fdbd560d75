//! Where a group begins, and partitions that come later.

use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::audit::{audit, complete};
use super::load::{Plan, Published, publish};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

fn clean(seed: u64, events: u64) -> Plan {
    Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) }
}

async fn rows(world: &World) -> i64 {
    world.count("SELECT count(*) FROM messages").await
}

#[tokio::test(flavor = "multi_thread")]
async fn start_end_takes_only_what_comes_after_the_groups_first_start() {
    let world = World::new(4).await;
    publish(&world, clean(10, 1_000)).await;
    let mut worker = Worker::start_with(&world, "start = \"end\"").await;
    worker.owns(4).await;
    let after = publish(&world, clean(11, 500)).await;
    world.drained(PATIENCE).await;
    audit(&world, &after).await;
    // Applied once: what comes while nobody runs is not passed over by the next start.
    worker.terminate();
    let mut all = publish(&world, clean(12, 300)).await;
    let worker = Worker::start_with(&world, "start = \"end\"").await;
    world.drained(PATIENCE).await;
    all.live.extend(after.live);
    drop(worker);
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_at_a_time_takes_what_is_as_young() {
    let world = World::new(4).await;
    publish(&world, clean(13, 1_000)).await;
    // Record time stamps are milliseconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let since = weir_time(SystemTime::now());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let young = publish(&world, clean(14, 700)).await;
    let worker = Worker::start_with(&world, &format!("start = \"{since}\"")).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &young).await;
}

fn weir_time(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let date =
        std::process::Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).output();
    String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn start_committed_adopts_another_consumers_group_and_holds_without_one() {
    let world = World::new(2).await;
    publish(&world, clean(15, 1_000)).await;
    let worker = Worker::start_with(&world, "start = \"committed\"").await;
    until("the pool to be held", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 2.0, worker.get("/readyz"))
    })
    .await;
    assert_eq!(rows(&world).await, 0);
    drop(worker);
    until("the group to be empty", PATIENCE, async || {
        let committed = adopt(&world);
        (committed.is_ok(), format!("{committed:?}"))
    })
    .await;
    let worker = Worker::start_with(&world, "start = \"committed\"").await;
    world.drained(PATIENCE).await;
    let expected: i64 = world.ends().iter().map(|end| end - 100.min(*end)).sum();
    assert_eq!(rows(&world).await, expected);
    drop(worker);
}

/// What another consumer of the group leaves behind.
fn adopt(world: &World) -> Result<(), rdkafka::error::KafkaError> {
    let consumer: BaseConsumer = kafka().set("group.id", &world.pool).create()?;
    let mut offsets = TopicPartitionList::new();
    for partition in 0..world.partitions {
        offsets.add_partition_offset(&world.topic, partition, Offset::Offset(100))?;
    }
    consumer.commit(&offsets, CommitMode::Sync)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_partitions_added_under_a_running_pool_are_all_there() {
    let mut world = World::new(2).await;
    let before = publish(&world, clean(16, 2_000)).await;
    let worker = Worker::start_with(&world, "start = \"end\"").await;
    worker.owns(2).await;
    world.add_partitions(6).await;
    let all = publish(&world, clean(17, 5_000)).await;
    worker.owns(6).await;
    world.drained(PATIENCE).await;
    drop(worker);
    assert!(world.ends()[2..].iter().all(|end| *end > 0), "no event went to the new partitions");
    audit(&world, &all).await;
    drop(before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_topic_made_again_under_a_running_pool_are_all_there() {
    let world = World::new(4).await;
    let old = publish(&world, clean(18, 3_000)).await;
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    world.delete_topic().await;
    world.make_topic().await;
    // More than the old topic had, so that its offsets lie inside the new log.
    let new = publish(&world, clean(19, 6_000)).await;
    world.drained(PATIENCE).await;
    drop(worker);
    let mut all = Published::default();
    all.live.extend(old.live);
    all.live.extend(new.live);
    // Until the new topic's id is seen, its events behind the old position may come before those in front of it.
    complete(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_of_a_topic_before_it_was_made_again_is_not_taken_for_the_new_ones() {
    let world = World::new(1).await;
    publish(&world, clean(20, 500)).await;
    let old_id = world.topic_id();
    // Claims wait for their pipelines, while the partition is fetched.
    let mut lock = world.db.postgres().begin().await.unwrap();
    sqlx::query("LOCK TABLE weir_pipelines IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let worker = Worker::start(&world).await;
    until("the old topic to have a place in the ledger", PATIENCE, async || {
        let rows = world.db.ledger(&world.pool, old_id).await.unwrap_or_default();
        (rows.len() == 1, rows)
    })
    .await;
    world.delete_topic().await;
    world.make_topic().await;
    let new = publish(&world, clean(21, 1_000)).await;
    until("the new topic to have one", PATIENCE, async || {
        let rows = world.owners().await;
        (rows.len() == 1, rows)
    })
    .await;
    lock.rollback().await.unwrap();
    world.drained(PATIENCE).await;
    drop(worker);
    complete(&world, &new).await;
}
