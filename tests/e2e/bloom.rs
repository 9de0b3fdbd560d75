//! A processed set that is a bitmap far too small: most of what is new is taken for known, and the database decides.

use super::audit::{audit, counters};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// One block, in which a few hundred ids set every bit.
fn tiny(world: &World) -> String {
    format!("processed_set = \"bloom\"\n[pools.{}.bloom]\nids = 1\nfalse_positives = 0.5\n", world.pool)
}

fn lookups(worker: &Worker, result: &str) -> f64 {
    worker.metric("weir_processed_set_lookups_total", &format!("result=\"{result}\""))
}

async fn is_half_done(world: &World, events: i64) {
    until("half of the events to be there", PATIENCE, async || {
        let done: i64 = world.ledger().await.iter().sum();
        (done >= events / 2, done)
    })
    .await;
}

/// Nearly all ids that the workers met were taken for known and were not.
fn most_were_false_positives(workers: &[&Worker], ids: usize) {
    let found: f64 = workers.iter().map(|worker| lookups(worker, "unverified")).sum();
    assert!(found > ids as f64 / 2.0, "{found} false positives of {ids} ids");
    let hits: f64 = workers.iter().map(|worker| lookups(worker, "hit")).sum();
    assert!(hits >= found, "{hits} hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn false_positives_lose_nothing_and_repeat_nothing_where_a_table_claims_ids() {
    for service in ["postgres", "mariadb"] {
        let world = World::on(service, 4).await;
        let published = publish(&world, Plan { poison_per_mille: 5, ..Plan::new(71, 20_000) }).await;
        let mut killed = Worker::start_with(&world, &tiny(&world)).await;
        is_half_done(&world, 20_000).await;
        killed.kill();
        let worker = Worker::start_with(&world, &tiny(&world)).await;
        world.drained(PATIENCE).await;
        audit(&world, &published).await;
        // What the killed one has met is not known any more.
        most_were_false_positives(&[&worker], published.live.len() / 4);
        let seen = worker.metric("weir_events_settled_total", "outcome=\"applied\",pipeline=\"persist\"");
        assert!(seen > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn false_positives_lose_nothing_and_repeat_nothing_where_weirs_own_table_claims_ids() {
    let world = World::new(4).await;
    // Rows that a pool of its own writes, for the counters to be held against.
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(72, 20_000) }).await;
    let pool = &world.pool;
    let counting = world.config(&tiny(&world));
    let persist = format!("[[pools.{pool}.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n");
    let rows = format!(
        "[pools.{pool}-rows]\ntopics = [\"{}\"]\nstart = \"beginning\"\n[[pools.{pool}-rows.pipelines]]\nname = \"persist\"\n\
         handler = \"persist\"\n",
        world.topic
    );
    let config = format!("{}{rows}", counting.replace(&persist, ""));
    let worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;
    world.committed_by(&format!("{pool}-rows"), PATIENCE).await;
    let seen = world.count(&format!("SELECT count(*) FROM weir_seen WHERE pool = '{pool}'")).await;
    assert_eq!(usize::try_from(seen).unwrap(), published.live.len(), "each id is claimed once");
    assert_eq!(usize::try_from(world.count("SELECT count(*) FROM messages").await).unwrap(), published.live.len());
    counters(&world).await;
    most_were_false_positives(&[&worker], published.live.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_held_back_stays_so_when_its_events_are_false_positives() {
    let world = World::new(2).await;
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 5 of [123]$')").await;
    let plan = Plan { keys: 100, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(73, 10_000) };
    let published = publish(&world, plan).await;
    let worker = Worker::start_with(&world, &format!("on_reject = \"park\"\n{}", tiny(&world))).await;
    world.drained(PATIENCE).await;
    let [rows, dead] = ["messages", "weir_dead"].map(|table| format!("SELECT count(*) FROM {table}"));
    let (rows, dead) = (world.count(&rows).await, world.count(&dead).await);
    assert_eq!(usize::try_from(rows + dead).unwrap(), published.live.len(), "{rows} rows and {dead} dead rows");
    let overtook = world
        .count(
            "SELECT count(*) FROM messages m WHERE EXISTS (SELECT 1 FROM weir_dead d
               WHERE convert_from(d.key, 'UTF8') = m.conversation AND d.partition >= 0
                 AND (convert_from(d.value, 'UTF8')::json -> 'message' ->> 'timestamp')::bigint < m.timestamp)",
        )
        .await;
    assert_eq!(overtook, 0, "an event took effect although an earlier one of its key waits");
    assert!(dead > 3, "{dead}: nothing waits");
    most_were_false_positives(&[&worker], published.live.len());
}

/// A repeat can change a row there, so nothing is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_updates_rows_asks_no_bitmap() {
    let world = World::new(2).await;
    let update = "handler = \"persist\"\non_duplicate = \"update\"\nnewer_by = \"timestamp\"\n";
    let config = world.config(&tiny(&world)).replacen("handler = \"persist\"\n", update, 1);
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(74, 5_000) }).await;
    let worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;
    assert_eq!(usize::try_from(world.count("SELECT count(*) FROM messages").await).unwrap(), published.live.len());
    for result in ["hit", "miss", "unverified"] {
        assert_eq!(lookups(&worker, result), 0.0, "{result}");
    }
}
