//! Deliberate moves: of a held partition, of a running pool, and over events that are skipped.

use rdkafka::admin::AdminOptions;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::audit::audit;
use super::dead::{json, run};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, admin, kafka};
use super::{PATIENCE, until};

fn clean(seed: u64, events: u64) -> Plan {
    Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) }
}

/// Deletes a partition's records below an offset.
async fn delete_records(world: &World, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&world.topic, partition, Offset::Offset(before)).unwrap();
    admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_unsettled_events_kafka_has_deleted_is_held_until_it_is_moved() {
    let world = World::new(2).await;
    let config = world.config("");
    publish(&world, clean(70, 400)).await;
    let mut worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    worker.terminate();
    publish(&world, clean(71, 400)).await;
    let (stood, ends) = (world.ledger().await, world.ends());
    let low = ends[1] - 20;
    assert!(low > stood[1]);
    delete_records(&world, 1, low).await;

    let worker = Worker::start(&world).await;
    until("the partition to be held", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 1.0, worker.get("/readyz"))
    })
    .await;
    let command = format!("weir seek {} --topic {} --partition 1 --to beginning", world.pool, world.topic);
    assert!(worker.log().contains(&command) && worker.get("/readyz").contains(&command), "{}", worker.log());
    let args: Vec<&str> = command.split(' ').skip(1).collect();
    let (code, told, err) = run(&world, &config, &args);
    let gone = format!("{} deleted by Kafka unhandled", low - stood[1]);
    assert!(code == 0 && told.contains(&gone) && told.contains("0 events are skipped"), "{told}{err}");
    world.drained(PATIENCE).await;
    until("the hold to end", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 0.0, held)
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 800 - (low - stood[1]));
    let (_, report) = json(&world, &config, &["verify"]);
    assert_eq!((report["lost"].as_i64(), report["repeated"].as_i64()), (Some(0), Some(0)), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pool_goes_back_and_leaves_no_second_effect() {
    let world = World::new(4).await;
    let config = world.config("");
    let all = publish(&world, Plan::new(72, 5_000)).await;
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    let (consumed, claims) = (worker.metric("weir_events_consumed_total", ""), worker.metric("weir_claims_total", ""));
    let (code, dry) = json(&world, &config, &["seek", &world.pool, "--to", "beginning", "--dry-run"]);
    assert_eq!((code, dry["moved"].as_bool()), (0, Some(false)));
    assert_eq!(world.ledger().await, world.ends(), "nothing was to be moved");
    // The partitions are idle: nothing but the look at the ledger tells.
    let (code, done) = json(&world, &config, &["seek", &world.pool, "--to", "beginning"]);
    assert_eq!((code, done["moved"].as_bool()), (0, Some(true)));
    until("everything to be handled again", PATIENCE, async || {
        let again = worker.metric("weir_events_consumed_total", "") - consumed;
        (again >= all.records as f64, again)
    })
    .await;
    world.drained(PATIENCE).await;
    assert!(worker.metric("weir_claims_total", "") >= claims + 4.0);
    assert_eq!(world.count("SELECT count(*) FROM weir_seeks WHERE to_offset = 0").await, 4);
    drop(worker);
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_skipped_only_on_purpose_and_the_auditor_knows() {
    let world = World::new(2).await;
    let config = world.config("");
    let mut all = publish(&world, clean(73, 500)).await;
    let mut worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    worker.terminate();
    publish(&world, clean(74, 300)).await;
    let stood = world.ledger().await;
    let (code, told, err) = run(&world, &config, &["seek", &world.pool, "--to", "end"]);
    assert_eq!(code, 2, "{told}{err}");
    assert!(err.contains("300 events would be skipped, which needs --yes"), "{err}");
    assert_eq!(world.ledger().await, stood);
    let (code, told, _) = run(&world, &config, &["seek", &world.pool, "--to", "end", "--yes"]);
    assert!(code == 0 && told.contains("300 events are skipped"), "{told}");
    all.live.extend(publish(&world, clean(75, 200)).await.live);
    let worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    let (code, report) = json(&world, &config, &["verify"]);
    assert_eq!((code, report["lost"].as_i64()), (0, Some(0)), "{report:#}");
    assert_eq!(report["pools"][&world.pool]["skipped"].as_i64(), Some(300), "{report:#}");

    for (args, expected) in [
        (&["--to", "5"][..], "say which by --partition"),
        (&["--to", "999999", "--partition", "1"], "lies outside the log"),
        (&["--to", "end", "--partition", "9"], "has no partition 9"),
        (&["--to", "end", "--topic", "other"], "does not read topic"),
        (&["--to", "soon"], "expected beginning, end"),
    ] {
        let (code, _, err) = run(&world, &config, &[&["seek", world.pool.as_str()], args].concat());
        assert!(code == 2 && err.contains(expected), "{args:?}: {code}: {err}");
    }
    drop(worker);
    audit(&world, &all).await;
}

/// What cannot be decoded is held before any transaction, so no fence tells of the move.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_held_for_its_events_goes_on_where_it_is_moved_to() {
    let world = World::new(2).await;
    let producer: FutureProducer = kafka().create().unwrap();
    for key in 0..200 {
        let (key, to) = (format!("k{key}"), &world.topic);
        producer.send(FutureRecord::to(to).key(&key).payload("not json"), PATIENCE).await.unwrap();
    }
    let worker = Worker::start(&world).await;
    until("the partitions to be held", PATIENCE, async || {
        (worker.metric("weir_holds", "") == 2.0, worker.get("/readyz"))
    })
    .await;
    let (code, told, err) = run(&world, &world.config(""), &["seek", &world.pool, "--to", "end", "--yes"]);
    assert_eq!(code, 0, "{told}{err}");
    let published = publish(&world, clean(77, 500)).await;
    world.drained(PATIENCE).await;
    until("the holds to end", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 0.0, held)
    })
    .await;
    drop(worker);
    audit(&world, &published).await;
}
