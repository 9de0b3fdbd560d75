//! What lag says.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, kafka, service};
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
    let world = World::new(2).await;
    let worker = Worker::start(&world).await;
    worker.owns(2).await;
    service("stop", "postgres");
    let published = publish(&world, Plan::new(40, 3_000)).await;
    until("the lag to be seen", PATIENCE, async || {
        let lag = (worker.metric("weir_lag_events", ""), worker.metric("weir_lag_seconds", ""));
        (lag.0 == published.records as f64 && lag.1 > 1.0, lag)
    })
    .await;
    service("start", "postgres");
    until("the lag to be gone", PATIENCE, async || {
        let lag = (worker.metric("weir_lag_events", ""), worker.metric("weir_lag_seconds", ""));
        (lag == (0.0, 0.0), lag)
    })
    .await;
    drop(worker);
    super::audit::audit(&world, &published).await;
}
