//! How long it is until Kafka's retention overtakes a pool.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::dead::json;
use super::worker::Worker;
use super::world::{World, admin, kafka};
use super::{PATIENCE, until};

const LEFT: &str = "weir_retention_left_seconds";
const HOUR_S: f64 = 3_600.0;
/// How old the oldest event is when it is sent.
const AGE_S: f64 = 1_800.0;

async fn keep_for(world: &World, ms: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(&world.topic)).set("retention.ms", ms);
    for changed in admin().alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        changed.unwrap();
    }
}

/// Sends an event as one of some time ago.
async fn send(world: &World, n: i32, age_s: f64) {
    let producer: FutureProducer = kafka().create().unwrap();
    let value = format!(
        r#"{{"type":"t","message":{{"message_id":"m{n}","from":1,"to":2,"content":"x","message_type":1,"timestamp":1}}}}"#
    );
    let at_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let record = FutureRecord::<str, str>::to(&world.topic).payload(&value).partition(0);
    producer.send(record.timestamp(at_ms - (age_s * 1_000.0) as i64), PATIENCE).await.unwrap();
}

fn has_series(worker: &Worker) -> bool {
    worker.get("/metrics").lines().any(|line| line.starts_with(LEFT))
}

async fn shows(worker: &Worker, what: &str, is_so: impl Fn(f64) -> bool) -> f64 {
    let mut left = f64::NAN;
    until(what, PATIENCE, async || {
        left = if has_series(worker) { worker.metric(LEFT, "") } else { f64::NAN };
        (is_so(left), left)
    })
    .await;
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_falls_while_an_event_waits_and_is_the_whole_retention_without_lag() {
    let world = World::new(1).await;
    keep_for(&world, "3600000").await;
    let config = world.config("");
    let worker = Worker::start_configured(&world, &config).await;
    worker.owns(1).await;
    shows(&worker, "the whole hour to be left", |left| left == HOUR_S).await;

    assert_eq!(json(&world, &config, &["pause", &world.pool]).0, 0);
    until("the pool to be paused", PATIENCE, async || (worker.metric("weir_paused", "") == 1.0, ())).await;
    let sent = Instant::now();
    send(&world, 1, AGE_S).await;
    send(&world, 2, 0.0).await;
    // Whatever the worker has in hand: what it cannot know is looked at in Kafka.
    let expected = |sent: Instant| HOUR_S - AGE_S - sent.elapsed().as_secs_f64();
    let first = shows(&worker, "the older event's time to be left", |left| (left - expected(sent)).abs() < 5.0).await;
    let lag = worker.metric("weir_lag_seconds", "");
    assert!((lag - (AGE_S + sent.elapsed().as_secs_f64())).abs() < 5.0, "the lag is as old as the event: {lag}");
    let seen = Instant::now();
    let later = shows(&worker, "it to fall", |left| left <= first - 3.0).await;
    let fell = first - later;
    assert!((fell - seen.elapsed().as_secs_f64()).abs() < 4.0, "by {fell} s in {:?}", seen.elapsed());

    assert_eq!(json(&world, &config, &["resume", &world.pool]).0, 0);
    world.drained(PATIENCE).await;
    shows(&worker, "the whole hour to be left again", |left| left == HOUR_S).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_a_worker_finds_and_does_not_begin_with_is_looked_at() {
    let world = World::new(2).await;
    keep_for(&world, "3600000").await;
    let config = world.config("");
    assert_eq!(json(&world, &config, &["pause", &world.pool]).0, 0);
    send(&world, 1, AGE_S).await;
    let worker = Worker::start_configured(&world, &config).await;
    worker.owns(2).await;
    shows(&worker, "half an hour to be left", |left| (left - (HOUR_S - AGE_S)).abs() < 90.0).await;
    let lag = worker.metric("weir_lag_seconds", "");
    assert!(lag >= AGE_S, "{lag}");

    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(&world.topic, 0, Offset::Offset(1)).unwrap();
    admin().delete_records(&gone, &AdminOptions::new()).await.unwrap();
    shows(&worker, "nothing to be left once Kafka has deleted it", |left| left == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_kept_for_ever_has_no_series() {
    let world = World::new(1).await;
    keep_for(&world, "-1").await;
    let worker = Worker::start(&world).await;
    worker.owns(1).await;
    until("its settings to be told", Duration::from_secs(60), async || {
        let log = worker.log();
        (log.contains("the topics' retention was asked for"), log)
    })
    .await;
    assert!(worker.log().contains("ms: None"), "{}", worker.log());
    until("the lag to be known", PATIENCE, async || {
        (worker.get("/metrics").contains("weir_lag_events{"), worker.get("/metrics"))
    })
    .await;
    assert!(!has_series(&worker) && !worker.log().contains("does not tell the retention"), "{}", worker.log());
}
