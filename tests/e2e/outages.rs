//! What is away or missing for a while.

use std::time::Duration;

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_holds_the_partitions_and_sets_nothing_aside() {
    let world = World::new(4).await;
    let worker = Worker::start(&world).await;
    worker.owns(4).await;
    world.sql("ALTER TABLE messages RENAME TO hidden").await;
    let rebalances = worker.metric("weir_rebalances_total", "");
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(30, 5_000) }).await;
    until("every partition to be held", PATIENCE, async || {
        (worker.metric("weir_holds", "") == 4.0, worker.get("/readyz"))
    })
    .await;
    let ready = worker.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let hold = format!("{{\"topic\":\"{}\",\"held\":4,\"partitions\":[0,1,2,3],\"reason\":", world.topic);
    assert!(ready.contains(&hold) && ready.contains("messages"), "the hold does not say what and why: {ready}");
    assert_eq!(world.count("SELECT count(*) FROM weir_dead").await, 0);
    assert_eq!(worker.metric("weir_rebalances_total", ""), rebalances);
    world.sql("ALTER TABLE hidden RENAME TO messages").await;
    world.drained(PATIENCE).await;
    until("the holds to end", PATIENCE, async || (worker.metric("weir_holds", "") == 0.0, ())).await;
    until("the holds to be gone", PATIENCE, async || {
        let ready = worker.get("/readyz");
        (ready.contains("\"holds\":[]"), ready)
    })
    .await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_topic_that_is_refused_is_held_and_not_set_aside() {
    let world = World::new(2).await;
    world.sql("ALTER TABLE messages ADD CHECK (message_type > 1)").await;
    // Before the worker starts: of events that come one by one the first few would be set aside.
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(31, 5_000) }).await;
    let worker = Worker::start(&world).await;
    until("the partitions to be held", PATIENCE, async || {
        (worker.metric("weir_holds", "") == 2.0, worker.get("/readyz"))
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, 0);
    world.sql("ALTER TABLE messages DROP CONSTRAINT messages_message_type_check").await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_only_the_database_refuses_is_found_by_bisecting() {
    let world = World::new(2).await;
    world.sql("ALTER TABLE messages ADD CHECK (content NOT LIKE '% number 7 of %')").await;
    let worker = Worker::start(&world).await;
    let mut published = publish(&world, Plan { keys: 20, poison_per_mille: 0, ..Plan::new(32, 3_000) }).await;
    world.drained(PATIENCE).await;
    drop(worker);
    let refused: Vec<(String, String, String)> = sqlx::query_as("SELECT event_id, reason, pipeline FROM weir_dead")
        .fetch_all(world.db.postgres())
        .await
        .unwrap();
    assert_eq!(refused.len(), 20, "one of each key");
    for (id, reason, pipeline) in refused {
        assert_eq!((reason.as_str(), pipeline.as_str()), ("refused", "persist"));
        assert!(published.live.remove(&id));
        published.dead.insert(id);
    }
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_goes_on() {
    let world = World::alone(4).await;
    let worker = Worker::start(&world).await;
    worker.owns(4).await;
    world.service("stop", "redis");
    let published = publish(&world, Plan::new(33, 20_000)).await;
    world.drained(PATIENCE).await;
    assert!(worker.metric("weir_processed_set_lookups_total", "unknown") > 0.0);
    breaker(&worker, "redis", true).await;
    world.service("start", "redis");
    // Without an event that would ask it.
    breaker(&worker, "redis", false).await;
    let mut all = publish(&world, Plan::new(34, 20_000)).await;
    until("the processed set to be used again", PATIENCE, async || {
        (worker.metric("weir_processed_set_lookups_total", "miss") > 0.0, ())
    })
    .await;
    world.drained(PATIENCE).await;
    drop(worker);
    all.live.extend(published.live);
    all.dead.extend(published.dead);
    all.elsewhere.extend(published.elsewhere);
    audit(&world, &all).await;
}

/// Waits until the metric and `/readyz`, which stays ready, say that a dependency is away, or back.
async fn breaker(worker: &Worker, dependency: &str, is_open: bool) {
    let named = format!("{{\"dependency\":\"{dependency}\",\"since\":\"20");
    until(&format!("the breaker of {dependency} to be open: {is_open}"), PATIENCE, async || {
        let open = worker.metric("weir_breaker_open", &format!("dependency=\"{dependency}\""));
        let ready = worker.get("/readyz");
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        let says_so = ready.contains(&named) && !ready.contains("\"error\":\"\"");
        ((open == f64::from(is_open)) && says_so == is_open, (open, ready))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_shown_and_no_more_once_it_is_back() {
    let world = World::alone(2).await;
    let worker = Worker::start(&world).await;
    worker.owns(2).await;
    breaker(&worker, "database", false).await;
    world.service("stop", "postgres");
    let published = publish(&world, Plan::new(36, 3_000)).await;
    breaker(&worker, "database", true).await;
    assert_eq!(worker.metric("weir_breaker_open", "redis"), 0.0, "another dependency was not asked for");
    world.service("start", "postgres");
    breaker(&worker, "database", false).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_are_shown_and_no_more_once_one_is_back() {
    let world = World::alone(2).await;
    let worker = Worker::start(&world).await;
    worker.owns(2).await;
    breaker(&worker, "kafka", false).await;
    world.service("stop", "kafka");
    breaker(&worker, "kafka", true).await;
    assert_eq!(worker.metric("weir_breaker_open", "database"), 0.0);
    world.service("start", "kafka");
    breaker(&worker, "kafka", false).await;
    let published = publish(&world, Plan::new(37, 3_000)).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_mirrored_once_each_with_their_reason() {
    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Headers as _;

    let world = World::new(2).await;
    let worker = Worker::start(&world).await;
    let published = publish(&world, Plan { poison_per_mille: 100, ..Plan::new(35, 2_000) }).await;
    world.drained(PATIENCE).await;
    until("every letter to be sent", PATIENCE, async || {
        let waiting = world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NULL").await;
        (waiting == 0, waiting)
    })
    .await;
    drop(worker);
    let mirror = format!("{}.{}.dead", world.topic, world.pool);
    let consumer: BaseConsumer =
        super::world::kafka().set("group.id", "not-joined").set("auto.offset.reset", "earliest").create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&mirror), PATIENCE).unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(&mirror, partition.id(), rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut letters = std::collections::HashSet::new();
    while letters.len() < published.dead.len() {
        let letter = consumer.poll(Duration::from_secs(10)).expect("another letter").unwrap();
        let headers = letter.headers().expect("headers");
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(found.value.unwrap().to_vec()).unwrap()
        };
        assert!(["malformed", "refused"].contains(&header("weir-reason").as_str()));
        assert!(header("weir-source").starts_with(&world.topic));
        assert!(published.dead.contains(&header("weir-event-id")));
        assert!(letters.insert(header("weir-letter-id")), "a letter came twice");
    }
    audit(&world, &published).await;
}
