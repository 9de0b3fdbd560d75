//! A processed set that is a bitmap far too small: most of what is new is taken for known, and the database decides.

use uuid::Uuid;
use weir::config::Config;
use weir::metrics::Metrics;
use weir::once::ProcessedSet;

use super::audit::{audit, counters};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// A bitmap of one block, and a Redis that is waited for on a busy machine.
fn config(world: &World, pool_lines: &str) -> String {
    let bloom = format!("processed_set = \"bloom\"\n[pools.{}.bloom]\nids = 1\nfalse_positives = 0.5\n", world.pool);
    world.config(&format!("{pool_lines}{bloom}")).replace("[redis]\n", "[redis]\ndeadline = \"10s\"\n")
}

/// Sets every bit by ids of nobody, so that all others are false positives.
async fn fill(world: &World) {
    let file = world.dir.join("fill.toml");
    std::fs::write(&file, config(world, "")).unwrap();
    let config = Config::load(&[file], &[]).unwrap();
    let (pool, redis) = (&config.pools[&world.pool], config.redis.as_ref().unwrap());
    let set = ProcessedSet::configured(redis, pool, &world.pool, Metrics::new().pool(&world.pool)).unwrap().unwrap();
    let ids: Vec<String> = (0..5_000).map(|_| Uuid::new_v4().to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    set.mark(&ids).await;
    assert_eq!(set.lookup(&["never sent"]).await, Some(vec![true]), "the bitmap is not full");
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

/// All ids that the worker met were taken for known; so many of them were not.
fn all_were_hits(worker: &Worker, unverified_min: usize) {
    let [hits, misses, unverified] = ["hit", "miss", "unverified"].map(|result| lookups(worker, result));
    assert!(misses == 0.0 && hits >= unverified, "{hits} hits, {misses} misses, {unverified} false positives");
    assert!(unverified >= unverified_min as f64, "{unverified} false positives of {unverified_min} new ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn false_positives_lose_nothing_and_repeat_nothing_where_a_table_claims_ids() {
    for service in ["postgres", "mariadb"] {
        let world = World::on(service, 4).await;
        let published = publish(&world, Plan { poison_per_mille: 5, ..Plan::new(71, 20_000) }).await;
        fill(&world).await;
        // So slow that there is something left to kill it at.
        let mut killed = Worker::start_configured(&world, &config(&world, "rate = \"8000/s\"\n")).await;
        is_half_done(&world, 20_000).await;
        killed.kill();
        let worker = Worker::start_configured(&world, &config(&world, "")).await;
        world.drained(PATIENCE).await;
        audit(&world, &published).await;
        let applied = worker.metric("weir_events_settled_total", "outcome=\"applied\",pipeline=\"persist\"");
        assert!(applied > 0.0, "the killed worker had done all");
        all_were_hits(&worker, applied as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn false_positives_lose_nothing_and_repeat_nothing_where_weirs_own_table_claims_ids() {
    let world = World::new(4).await;
    // Rows that a pool of its own writes, for the counters to be held against.
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(72, 20_000) }).await;
    let pool = &world.pool;
    fill(&world).await;
    let counting = config(&world, "");
    let persist = format!("[[pools.{pool}.pipelines]]\nname = \"persist\"\nhandler = \"persist\"\n");
    let rows = format!(
        "[pools.{pool}-rows]\ntopics = [\"{}\"]\nstart = \"beginning\"\n[[pools.{pool}-rows.pipelines]]\nname = \"persist\"\n\
         handler = \"persist\"\n",
        world.topic
    );
    let both = format!("{}{rows}", counting.replace(&persist, ""));
    let worker = Worker::start_configured(&world, &both).await;
    world.drained(PATIENCE).await;
    world.committed_by(&format!("{pool}-rows"), PATIENCE).await;
    let seen = world.count(&format!("SELECT count(*) FROM weir_seen WHERE pool = '{pool}'")).await;
    assert_eq!(usize::try_from(seen).unwrap(), published.live.len(), "each id is claimed once");
    assert_eq!(usize::try_from(world.count("SELECT count(*) FROM messages").await).unwrap(), published.live.len());
    counters(&world).await;
    let of_pool = |result: &str| {
        worker.metric("weir_processed_set_lookups_total", &format!("pool=\"{pool}\",result=\"{result}\""))
    };
    assert_eq!(of_pool("miss"), 0.0);
    assert!(of_pool("unverified") >= published.live.len() as f64, "{} false positives", of_pool("unverified"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_held_back_stays_so_when_its_events_are_false_positives() {
    let world = World::new(2).await;
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 5 of [123]$')").await;
    let plan = Plan { keys: 100, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(73, 10_000) };
    let published = publish(&world, plan).await;
    fill(&world).await;
    let worker = Worker::start_configured(&world, &config(&world, "on_reject = \"park\"\n")).await;
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
    // Of events whose key is held back already nothing is asked.
    all_were_hits(&worker, usize::try_from(rows).unwrap());
}

/// A repeat can change a row there, so nothing is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_updates_rows_asks_no_bitmap() {
    let world = World::new(2).await;
    let update = "handler = \"persist\"\non_duplicate = \"update\"\nnewer_by = \"timestamp\"\n";
    fill(&world).await;
    let config = config(&world, "").replacen("handler = \"persist\"\n", update, 1);
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(74, 5_000) }).await;
    let worker = Worker::start_configured(&world, &config).await;
    world.drained(PATIENCE).await;
    assert_eq!(usize::try_from(world.count("SELECT count(*) FROM messages").await).unwrap(), published.live.len());
    for result in ["hit", "miss", "unverified"] {
        assert_eq!(lookups(&worker, result), 0.0, "{result}");
    }
}
