//! The database goes back in time; Kafka and Redis do not.

use super::PATIENCE;
use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{World, server_sql};

#[tokio::test(flavor = "multi_thread")]
async fn after_the_database_was_replaced_by_an_older_copy_every_id_is_there_again() {
    let world = World::new(8).await;
    let mut all = publish(&world, Plan::new(20, 40_000)).await;
    let mut worker = Worker::start(&world).await;
    world.drained(PATIENCE).await;
    worker.terminate();
    let (database, copy) = (&world.database, format!("{}_copy", world.database));
    let disconnect = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    server_sql(&disconnect).await;
    server_sql(&format!("CREATE DATABASE {copy} TEMPLATE {database}")).await;

    let worker = Worker::start(&world).await;
    let later = publish(&world, Plan::new(21, 60_000)).await;
    all.live.extend(later.live);
    all.dead.extend(later.dead);
    all.elsewhere.extend(later.elsewhere);
    world.drained(PATIENCE).await;
    audit(&world, &all).await;

    // Under the running worker, as a fail-over to an old copy would.
    server_sql(&format!("DROP DATABASE {database} WITH (FORCE)")).await;
    server_sql(&format!("CREATE DATABASE {database} TEMPLATE {copy}")).await;
    server_sql(&format!("DROP DATABASE {copy} WITH (FORCE)")).await;
    let lost = world.count("SELECT count(*) FROM messages").await;
    assert!(lost < all.live.len() as i64, "the copy is not older");
    // Nothing new comes: the idle partitions notice by themselves.
    world.drained(PATIENCE).await;
    assert!(worker.metric("weir_processed_set_lookups_total", "unverified") > 0.0, "Redis was not asked");
    drop(worker);
    audit(&world, &all).await;
}
