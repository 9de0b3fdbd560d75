//! What a first start meets: nothing there yet, or not as it should be.

use std::process::Command;
use std::time::Duration;

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// Exit code and standard error of a run that ends by itself.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let run = command.output().unwrap();
    (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_schema_a_worker_ends_with_1_and_names_migrate() {
    let world = World::new(1).await;
    world.sql("DROP TABLE weir_ledger").await;
    let (code, stderr) = ends(world.weir(&["run"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("weir_ledger") && stderr.contains("weir migrate"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_wrong_password_a_worker_ends_with_1_and_says_where_it_is_set_without_showing_it() {
    let world = World::new(1).await;
    let config = world.config("").replace("weir:weir@", "weir:not-the-password@");
    let (code, stderr) = ends(world.weir_with(&config, &["run"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("store.url") && stderr.contains("28P01"), "{stderr}");
    assert!(!stderr.contains("not-the-password"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_answers_later_is_waited_for_unready_and_then_used() {
    let world = World::alone(2).await;
    let published = publish(&world, Plan::new(50, 2_000)).await;
    world.service("stop", "postgres");
    let worker = Worker::start(&world).await;
    until("the worker to say what it waits for", PATIENCE, async || {
        let ready = worker.get("/readyz");
        (ready.starts_with("HTTP/1.1 503") && !ready.contains("\"waiting_for\":null"), ready)
    })
    .await;
    assert!(worker.get("/healthz").starts_with("HTTP/1.1 200"), "waiting is not being stuck");
    world.service("start", "postgres");
    world.drained(PATIENCE).await;
    assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"));
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_later_is_waited_for() {
    let world = World::alone(2).await;
    let published = publish(&world, Plan::new(51, 2_000)).await;
    world.service("stop", "kafka");
    let worker = Worker::start(&world).await;
    until("the worker to wait for Kafka", PATIENCE, async || {
        let ready = worker.get("/readyz");
        (ready.starts_with("HTTP/1.1 503") && ready.contains("Kafka"), ready)
    })
    .await;
    world.service("start", "kafka");
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_under_load_costs_nothing() {
    let world = World::alone(4).await;
    let published = publish(&world, Plan::new(52, 60_000)).await;
    let worker = Worker::start(&world).await;
    until("some events to be settled", PATIENCE, async || {
        let rows = world.count("SELECT count(*) FROM messages").await;
        (rows > 1_000, rows)
    })
    .await;
    world.service("stop", "kafka");
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.service("start", "kafka");
    world.drained(PATIENCE * 2).await;
    drop(worker);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_later_is_waited_for() {
    let world = World::new(2).await;
    world.delete_topic().await;
    let worker = Worker::start(&world).await;
    until("the missing topic to be told", PATIENCE, async || {
        let log = worker.log();
        (log.contains("the topic does not exist"), log)
    })
    .await;
    world.make_topic().await;
    let published = publish(&world, Plan::new(53, 2_000)).await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}
