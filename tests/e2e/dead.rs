//! Dead letters as an operator meets them: listed, shown, tried again, over kills of the worker that does it.

use std::time::Duration;

use serde_json::Value;

use super::load::{Plan, Published, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// Runs a command; its exit code, standard output and standard error.
pub(crate) fn run(world: &World, config: &str, args: &[&str]) -> (i32, String, String) {
    let done = world.weir_with(config, args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr))
}

pub(crate) fn json(world: &World, config: &str, args: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(world, config, &[args, &["--json"]].concat());
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}\n{err}"));
    (code, value)
}

/// Nothing is lost or repeated, and the counters are exact.
pub(crate) fn verified(world: &World, config: &str, persisted: usize, dead: usize) {
    let (_, report) = json(world, config, &["verify"]);
    let of = |name: &str| report[name].as_u64().unwrap() as usize;
    assert_eq!((of("lost"), of("repeated"), of("counters_wrong"), of("pending")), (0, 0, 0, 0), "{report:#}");
    assert_eq!((of("persisted"), of("dead_lettered")), (persisted, dead), "{report:#}");
}

/// Events of which the database refuses some, for as long as it has the constraint.
async fn refused(world: &World, seed: u64, events: u64) -> (Published, usize) {
    world.sql("ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number [34] of')").await;
    let plan = Plan { keys: events / 20, poison_per_mille: 0, ..Plan::new(seed, events) };
    let published = publish(world, plan).await;
    (published, usize::try_from(events / 20).unwrap())
}

async fn dead_rows(world: &World) -> i64 {
    world.count("SELECT count(*) FROM weir_dead").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_is_replayed_and_what_was_not_is_rejected_again() {
    let world = World::new(4).await;
    let config = world.config("");
    let worker = Worker::start(&world).await;
    let (published, _) = refused(&world, 60, 1_000).await;
    world.drained(PATIENCE).await;
    let dead = usize::try_from(dead_rows(&world).await).unwrap();
    assert!(dead > 50, "only {dead} were refused: nothing is tried");

    let (code, listed) =
        json(&world, &config, &["dead", "list", "--reason", "refused", "--since", "1h", "--limit", "7"]);
    assert_eq!((code, listed["total"].as_u64().unwrap() as usize), (0, dead));
    let first = &listed["rows"][0];
    assert_eq!((listed["rows"].as_array().unwrap().len(), first["pipeline"].as_str()), (7, Some("persist")));
    let id = first["id"].as_str().unwrap();
    let (code, shown, _) = run(&world, &config, &["dead", "show", id]);
    assert!(code == 0 && shown.contains(id) && shown.contains("\"new_message\"") && shown.contains("picky"), "{shown}");
    let (code, _, told) = run(&world, &config, &["dead", "show", "nobody"]);
    assert!(code == 1 && told.contains("no dead row of nobody"), "{told}");
    let (_, listed, _) = run(&world, &config, &["dead", "list", "--limit", "1"]);
    assert!(listed.contains(&format!("1 of {dead} dead rows")), "{listed}");
    assert!(!worker.log().contains("number 3 of"), "a payload is in the log");

    let (code, dry) = json(&world, &config, &["dead", "replay", "--dry-run"]);
    assert_eq!((code, dry["would_replay"].as_array().unwrap().len()), (0, dead));
    assert_eq!(world.count("SELECT count(*) FROM weir_dead WHERE replay_at IS NOT NULL").await, 0);

    // Half of what was refused is mended; no worker is started anew for it.
    world
        .sql("ALTER TABLE messages DROP CONSTRAINT picky; ALTER TABLE messages ADD CONSTRAINT picky CHECK (content !~ 'number 4 of')")
        .await;
    let (code, done) = json(&world, &config, &["dead", "replay", "--rate", "200/s"]);
    let of = |name: &str| done[name].as_u64().unwrap() as usize;
    assert_eq!((code, of("asked"), of("waiting")), (1, dead, 0), "{done}");
    let left = of("rejected");
    assert!(left > 0 && of("replayed") > 0 && of("replayed") + left == dead, "{done}");
    assert_eq!(dead_rows(&world).await, left as i64);
    assert_eq!(world.count("SELECT count(*) FROM weir_dead WHERE attempts < 2 OR replay_at IS NOT NULL").await, 0);
    verified(&world, &config, published.live.len() - left, left);
    assert_eq!(worker.metric("weir_dead_replayed_total", "outcome=\"rejected\""), left as f64);
    assert_eq!(worker.metric("weir_dead_replayed_total", "outcome=\"applied\""), (dead - left) as f64);

    // Asked for while no worker runs.
    drop(worker);
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    let (code, told, _) = run(&world, &config, &["dead", "replay", "--wait", "1s"]);
    assert!(code == 0 && told.contains("as soon as one does"), "{told}");
    let (_, told, _) = run(&world, &config, &["dead", "replay", "--wait", "0s"]);
    assert!(told.contains("asked for before"), "{told}");
    let _worker = Worker::start(&world).await;
    until("the request to be carried out", PATIENCE, async || {
        let left = dead_rows(&world).await;
        (left == 0, left)
    })
    .await;
    verified(&world, &config, published.live.len(), 0);
    let (code, told, _) = run(&world, &config, &["dead", "replay"]);
    assert!(code == 0 && told.contains("nothing to replay"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_id_is_live_by_then_leaves_no_second_effect() {
    let world = World::new(1).await;
    let config = world.config("");
    let worker = Worker::start(&world).await;
    refused(&world, 61, 100).await;
    world.drained(PATIENCE).await;
    let dead = dead_rows(&world).await;
    assert!(dead > 0);
    // A row without its letter goes as soon as its id is live.
    until("the letters to be sent", PATIENCE, async || {
        let left = world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NULL").await;
        (left == 0, left)
    })
    .await;
    world.sql("ALTER TABLE messages DROP CONSTRAINT picky").await;
    let counted = world.count("SELECT sum(count)::bigint FROM weir_counts").await;
    // As another hand would have settled them.
    world
        .sql(
            "INSERT INTO messages (message_id, conversation, sender, recipient, content, message_type, timestamp)
             SELECT event_id, 'c', 's', 'r', 'by hand', 1, 1 FROM weir_dead",
        )
        .await;
    let (code, done) = json(&world, &config, &["dead", "replay"]);
    assert_eq!((code, done["replayed"].as_i64().unwrap()), (0, dead), "{done}");
    assert_eq!(dead_rows(&world).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM messages WHERE content = 'by hand'").await, dead);
    assert_eq!(world.count("SELECT sum(count)::bigint FROM weir_counts").await, counted);
    assert_eq!(worker.metric("weir_dead_replayed_total", "outcome=\"settled\""), dead as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_leaves_one_effect_each_whatever_is_killed_meanwhile() {
    let world = World::new(4).await;
    let config = world.config("");
    let mut worker = Worker::start(&world).await;
    let (published, _) = refused(&world, 62, 2_000).await;
    world.drained(PATIENCE).await;
    let dead = dead_rows(&world).await;
    // Long enough transactions for kills to fall into them.
    world
        .sql(
            "ALTER TABLE messages DROP CONSTRAINT picky;
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END';
             CREATE TRIGGER slow AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let (_, asked) = json(&world, &config, &["dead", "replay", "--wait", "0s"]);
    assert_eq!(asked["asked"].as_i64(), Some(dead));
    let mut inside = 0;
    for kill in 1..=4 {
        let below = dead - dead * kill / 6;
        until("some rows to be replayed", PATIENCE, async || {
            let left = dead_rows(&world).await;
            (left < below, left)
        })
        .await;
        assert!(dead_rows(&world).await > 0, "it was over before the kill");
        worker.signal("STOP");
        tokio::time::sleep(Duration::from_millis(20)).await;
        inside += i32::from(world.is_inside_transaction(worker.pid()).await);
        worker.kill();
        worker = Worker::start(&world).await;
    }
    assert!(inside > 0, "no kill fell into a transaction");
    until("all rows to be replayed", PATIENCE, async || {
        let left = dead_rows(&world).await;
        (left == 0, left)
    })
    .await;
    verified(&world, &config, published.live.len(), 0);
    // Live events go on beside it.
    world.drained(PATIENCE).await;
}
