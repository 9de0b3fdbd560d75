//! What lag says.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use super::dead::{json, run};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, kafka};
use super::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_in_transaction_markers_is_caught_up_with() {
    let world = World::new(1).await;
    let (topic, id) = (world.topic.clone(), world.pool.clone());
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = kafka().set("transactional.id", &id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for n in 0..10 {
            let value = format!(
                r#"{{"type":"t","message":{{"message_id":"m{n}","from":1,"to":2,"content":"x","message_type":1,"timestamp":1}}}}"#
            );
            producer.send(BaseRecord::<(), _>::to(&topic).payload(&value)).unwrap();
        }
        producer.commit_transaction(PATIENCE).unwrap();
    })
    .await
    .unwrap();
    let worker = Worker::start(&world).await;
    until("the rows to be there", PATIENCE, async || {
        let rows = world.count("SELECT count(*) FROM messages").await;
        (rows == 10, rows)
    })
    .await;
    assert!(world.ends()[0] > world.ledger().await[0], "the log does not end in a marker");
    until("the lag to be 0", PATIENCE, async || {
        let lag = worker.get("/metrics").lines().find(|line| line.starts_with("weir_lag_events{")).map(str::to_owned);
        (lag.as_deref().is_some_and(|line| line.ends_with(" 0")), lag)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_while_the_database_is_away_and_goes_back_to_0() {
    let world = World::alone(2).await;
    let worker = Worker::start(&world).await;
    worker.owns(2).await;
    world.service("stop", "postgres");
    let published = publish(&world, Plan::new(40, 3_000)).await;
    until("the lag to be seen", PATIENCE, async || {
        let lag = (worker.metric("weir_lag_events", ""), worker.metric("weir_lag_seconds", ""));
        (lag.0 == published.records as f64 && lag.1 > 1.0, lag)
    })
    .await;
    world.service("start", "postgres");
    until("the lag to be gone", PATIENCE, async || {
        let lag = (worker.metric("weir_lag_events", ""), worker.metric("weir_lag_seconds", ""));
        (lag == (0.0, 0.0), lag)
    })
    .await;
    drop(worker);
    super::audit::audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_of_each_partition_without_a_worker() {
    let world = World::new(2).await;
    let config = world.config("on_reject = \"park\"");
    let before = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(41, 1_000) }).await;
    let (code, told) = json(&world, &config, &["lag"]);
    let pool = &told["pools"][0];
    assert_eq!(
        (code, pool["group"].as_str(), pool["dead"].as_i64()),
        (0, Some(world.pool.as_str()), Some(0)),
        "{told:#}"
    );
    let sum = |pool: &Value, name: &str| -> i64 {
        pool["partitions"].as_array().unwrap().iter().map(|one| one[name].as_i64().unwrap()).sum()
    };
    assert_eq!((sum(pool, "end"), sum(pool, "records")), (before.records as i64, before.records as i64));
    assert!(pool["partitions"][1]["ledger"].is_null() && pool["partitions"][1]["committed"].is_null(), "{told:#}");

    let mut worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    worker.terminate();
    let later = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(42, 500) }).await;
    let (_, told) = json(&world, &config, &["lag", &world.pool]);
    let pool = &told["pools"][0];
    assert_eq!((sum(pool, "records"), sum(pool, "ledger")), (later.records as i64, before.records as i64), "{told:#}");
    assert_eq!(sum(pool, "committed"), before.records as i64);
    for partition in pool["partitions"].as_array().unwrap() {
        let seconds = partition["seconds"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&seconds) && partition["owner"].is_string(), "{told:#}");
    }
    let (code, text, err) = run(&world, &config, &["lag"]);
    assert!(code == 0 && text.contains(&format!("{} events behind", later.records)), "{text}{err}");
    let (code, _, err) = run(&world, &config, &["lag", "other"]);
    assert!(code == 2 && err.contains("there is no pool \"other\""), "{err}");
}
