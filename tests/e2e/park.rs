//! on_reject = "park": what comes behind a rejected event of its key waits, in order, until the key is released.

use std::time::Duration;

use super::audit::audit;
use super::dead::{json, run};
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

const PARK: &str = "on_reject = \"park\"\n";

fn clean(seed: u64, events: u64, keys: u64) -> Plan {
    Plan { keys, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) }
}

/// Refuses the fifth event of three conversations.
async fn refuse(world: &World) {
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 5 of [123]$')").await;
}

async fn dead_rows(world: &World) -> i64 {
    world.count("SELECT count(*) FROM weir_dead").await
}

async fn of_the_three(world: &World) -> i64 {
    world.count("SELECT count(*) FROM messages WHERE sender IN ('1', '2', '3')").await
}

/// Events of the three conversations that took effect although an earlier one waits.
async fn overtook(world: &World) -> i64 {
    world
        .count(
            "SELECT count(*) FROM messages m WHERE EXISTS (SELECT 1 FROM weir_dead d
               WHERE convert_from(d.key, 'UTF8') = m.conversation AND d.partition >= 0
                 AND (convert_from(d.value, 'UTF8')::json -> 'message' ->> 'timestamp')::bigint < m.timestamp)",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_waits_behind_its_rejected_event_and_goes_on_in_order_over_kills() {
    let world = World::new(2).await;
    let config = world.config(PARK);
    refuse(&world).await;
    let mut worker = Worker::start_with(&world, PARK).await;
    let mut all = publish(&world, clean(90, 400, 20)).await;
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM weir_dead WHERE reason = 'refused'").await, 3);
    let parked = world.count("SELECT count(*) FROM weir_dead WHERE reason = 'parked'").await;
    assert!(parked > 10, "only {parked} wait: nothing is tried");
    assert_eq!(overtook(&world).await, 0);
    assert_eq!(worker.metric("weir_dead_events_total", "reason=\"parked\""), parked as f64);
    until("the metric to tell the keys", PATIENCE, async || {
        let keys = worker.metric("weir_parked_keys", "");
        (keys == 3.0, keys)
    })
    .await;

    // The next owner knows them from the database.
    worker.kill();
    worker = Worker::start_with(&world, PARK).await;
    all.live.extend(publish(&world, clean(91, 200, 20)).await.live);
    world.drained(PATIENCE).await;
    assert!(world.count("SELECT count(*) FROM weir_dead WHERE reason = 'parked'").await > parked);
    assert_eq!(overtook(&world).await, 0);

    // A replay leaves them alone; a release stops where one is rejected again.
    let dead = dead_rows(&world).await;
    let (code, told, _) = run(&world, &config, &["dead", "replay"]);
    assert!(code == 0 && told.contains("nothing to replay") && told.contains("weir dead release"), "{told}");
    let id: String =
        sqlx::query_scalar("SELECT event_id FROM weir_dead WHERE reason = 'parked' ORDER BY event_id LIMIT 1")
            .fetch_one(world.db.postgres())
            .await
            .unwrap();
    let (code, done) = json(&world, &config, &["dead", "release", &id]);
    let of = |name: &str| done[name].as_i64().unwrap();
    assert_eq!((code, of("rejected"), of("replayed"), of("waiting")), (1, 1, 0, 0), "{done}");
    assert_eq!(of("stopped"), of("asked") - 1);
    assert_eq!(dead_rows(&world).await, dead);
    let (code, _, err) = run(&world, &config, &["dead", "release", "nobody"]);
    assert!(code == 1 && err.contains("holds no such key back"), "{err}");
    let (code, _, err) = run(&world, &config, &["dead", "release"]);
    assert!(code == 2 && err.contains("--all"), "{err}");

    // Mended and released, while more arrives and the worker is killed.
    world
        .sql(
            "ALTER TABLE messages DROP CONSTRAINT picky;
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
             CREATE TRIGGER slow AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let (_, asked) = json(&world, &config, &["dead", "release", "--all", "--wait", "0s"]);
    assert_eq!(asked["asked"].as_i64(), Some(dead));
    let more = publish(&world, Plan { per_second: 500, ..clean(92, 200, 20) });
    let (more, ()) = tokio::join!(more, async {
        for _ in 0..2 {
            let before = of_the_three(&world).await;
            until("some rows to be replayed", PATIENCE, async || {
                let now = of_the_three(&world).await;
                (now >= before + 8, now)
            })
            .await;
            assert_eq!(overtook(&world).await, 0);
            worker.kill();
            worker = Worker::start_with(&world, PARK).await;
        }
    });
    all.live.extend(more.live);
    until("the keys to be empty", PATIENCE, async || {
        let left = dead_rows(&world).await;
        (left == 0, left)
    })
    .await;
    world.drained(PATIENCE).await;
    until("no key to wait", PATIENCE, async || {
        let keys = worker.metric("weir_parked_keys", "");
        (keys == 0.0, keys)
    })
    .await;
    assert_eq!(dead_rows(&world).await, 0, "what came last was parked behind nothing");
    drop(worker);
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_too_many_holds_its_partition_until_it_is_released() {
    let world = World::new(1).await;
    let lines = format!("{PARK}park_limit = 20\n");
    let config = world.config(&lines);
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 5 of 0$')").await;
    let worker = Worker::start_with(&world, &lines).await;
    let all = publish(&world, clean(93, 100, 1)).await;
    until("the partition to be held", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 1.0, worker.get("/readyz"))
    })
    .await;
    assert!(worker.get("/readyz").contains("park_limit = 20"), "{}", worker.get("/readyz"));
    assert_eq!((dead_rows(&world).await, world.count("SELECT count(*) FROM messages").await), (20, 4));
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    let key = world.count("SELECT count(*) FROM weir_dead WHERE convert_from(key, 'UTF8') = '0:1000000'").await;
    assert_eq!(key, 20);
    let (code, told, err) = run(&world, &config, &["dead", "release", "0:1000000"]);
    assert!(code == 0 && told.contains("20 replayed"), "{told}{err}");
    world.drained(PATIENCE + Duration::from_secs(30)).await;
    assert_eq!(dead_rows(&world).await, 0);
    drop(worker);
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_too_many_keys_held_back_waits_until_some_are_released() {
    let world = World::new(1).await;
    let lines = format!("{PARK}park_limit = 20\nreject_hold_ratio = 1.0\n");
    let config = world.config(&lines);
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 5 of')").await;
    let worker = Worker::start_with(&world, &lines).await;
    let all = publish(&world, clean(94, 300, 30)).await;
    until("the partition to be held", PATIENCE, async || {
        let held = worker.metric("weir_holds", "");
        (held == 1.0, worker.get("/readyz"))
    })
    .await;
    assert!(worker.get("/readyz").contains("park_limit = 20 keys held back"), "{}", worker.get("/readyz"));
    let keys = "SELECT count(DISTINCT key) FROM weir_dead";
    assert_eq!((world.count(keys).await, worker.metric("weir_parked_keys", "")), (20, 20.0));
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    // What is mended is not rejected any more: the one that found no place is tried again.
    let (code, told, err) = run(&world, &config, &["dead", "release", "--pool", &world.pool, "--all"]);
    assert_eq!(code, 0, "{told}{err}");
    world.drained(PATIENCE + Duration::from_secs(30)).await;
    assert_eq!(dead_rows(&world).await, 0);
    drop(worker);
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parking_is_refused_where_the_newest_wins_in_any_order() {
    let world = World::new(1).await;
    let config = world.config(PARK).replacen(
        "handler = \"persist\"\n",
        "handler = \"persist\"\non_duplicate = \"update\"\nnewer_by = \"timestamp\"\n",
        1,
    );
    let (code, _, err) = run(&world, &config, &["check"]);
    assert!(code == 2 && err.contains("on_reject") && err.contains("on_duplicate"), "{err}");
}
