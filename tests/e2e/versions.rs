//! Two releases side by side: a deploy that adds a pipeline, its way back, and a pool that changes its name. The newer
//! release is a second build where its handler matters (`examples/newer_release.rs`), else one with more configured.

use std::process::Command;

use serde_json::Value;

use super::audit::audit;
use super::examples::built;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

/// The configuration of the release before: without the counting pipeline.
fn older(world: &World) -> String {
    let config = world.config("");
    let at = config.find("[[pools").and_then(|first| Some(first + 1 + config[first + 1..].find("[[pools")?));
    config[..at.expect("two pipelines")].to_owned()
}

/// The configuration of a release that ships `receipts`.
fn with_receipts(world: &World) -> String {
    let pool = &world.pool;
    format!("{}[[pools.{pool}.pipelines]]\nname = \"receipts\"\nhandler = \"receipts\"\n", world.config(""))
}

/// The build of that release.
fn newer_release(world: &World, args: &[&str]) -> Command {
    world.program_with(&built("newer_release"), &with_receipts(world), args)
}

fn verify(world: &World, config: &str) -> Value {
    let ran = world.weir_with(config, &["verify", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&ran.stderr)));
    assert!(ran.status.success(), "{report:#}");
    report
}

async fn rows_reach(world: &World, count: i64) {
    until("rows", PATIENCE, async || {
        let rows = world.count("SELECT count(*) FROM messages").await;
        (rows >= count, rows)
    })
    .await;
}

async fn has_begun(world: &World, pipeline: &str) {
    until("the pipeline to begin somewhere", PATIENCE, async || {
        let begun = format!("SELECT count(*) FROM weir_pipelines WHERE pipeline = '{pipeline}'");
        let begun = world.count(&begun).await;
        (begun > 0, begun)
    })
    .await;
}

/// Waits until the workers together leave so many partitions alone, or more.
async fn left_alone(workers: &[&Worker], partitions: f64) {
    until("partitions to be left alone", PATIENCE, async || {
        let held: f64 = workers.iter().map(|worker| worker.metric("weir_holds", "")).sum();
        (held >= partitions, held)
    })
    .await;
}

fn stop(worker: &mut Worker) {
    let (status, _) = worker.terminate();
    assert!(status.success(), "{}", worker.log());
}

/// A partition, its first and its last receipt, how many there are, and of how many offsets.
type Receipts = (i32, i64, i64, i64, i64);

async fn receipts(world: &World) -> Vec<Receipts> {
    let sql = "SELECT partition, min(\"offset\"), max(\"offset\"), count(*), count(DISTINCT \"offset\")
                 FROM receipts GROUP BY partition ORDER BY partition";
    sqlx::query_as(sql).fetch_all(world.db.postgres()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_lacks_a_handler_refuses_a_configuration_that_names_it() {
    let world = World::new(1).await;
    let refused = world.weir_with(&with_receipts(&world), &["run"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    let expected = format!("`pools.{}.pipelines[2].handler`: there is no handler \"receipts\"", world.pool);
    assert!(told.contains(&expected), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_build_comes_and_goes_worker_by_worker_under_load_and_its_pipeline_has_every_event_from_its_begin_on() {
    const PARTITIONS: i32 = 6;
    let world = World::new(PARTITIONS).await;
    let columns = "partition integer NOT NULL, \"offset\" bigint NOT NULL, event_id text NOT NULL";
    world.sql(&format!("CREATE TABLE receipts ({columns})")).await;
    let config = world.config("");
    // Each record is an event with effects, so that every offset from the begin on has a receipt.
    let plan =
        |seed, events| Plan { per_second: 3_000, repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(seed, events) };
    let mut first = Worker::start_configured(&world, &config).await;
    first.owns(PARTITIONS).await;
    let mut second = Worker::start_configured(&world, &config).await;

    let deploy = async {
        rows_reach(&world, 5_000).await;
        let mut visitor = Worker::spawn(newer_release(&world, &["run"]), &world).await;
        has_begun(&world, "receipts").await;
        // Its partitions come back to the older build, which must not go on without the pipeline, and says why.
        stop(&mut visitor);
        left_alone(&[&first, &second], 1.0).await;
        let why = "receipts has begun on this partition, and this worker lacks it";
        let told = first.log() + &second.log();
        assert!(told.contains(why) && told.contains(&format!("weir retire {} receipts", world.pool)), "{told}");
        let third = Worker::spawn(newer_release(&world, &["run"]), &world).await;
        stop(&mut first);
        let fourth = Worker::spawn(newer_release(&world, &["run"]), &world).await;
        stop(&mut second);
        (third, fourth)
    };
    let (mut published, (mut third, mut fourth)) = tokio::join!(publish(&world, plan(60, 40_000)), deploy);
    world.drained(PATIENCE).await;
    let mut begins = world.db.begins(&world.pool, world.topic_id(), "receipts").await.unwrap();
    begins.sort_unstable();
    assert!(begins.len() == 6 && begins.iter().all(|(_, begin)| *begin > 0), "in the middle: {begins:?}");

    let roll_back = async {
        let back = Worker::start_configured(&world, &config).await;
        left_alone(&[&back], 1.0).await;
        stop(&mut third);
        stop(&mut fourth);
        left_alone(&[&back], PARTITIONS.into()).await;
        back
    };
    let (more, mut back) = tokio::join!(publish(&world, plan(61, 15_000)), roll_back);
    published.live.extend(more.live);
    let left_at = world.ledger().await;
    published.live.extend(publish(&world, plan(62, 2_000)).await.live);
    assert_eq!(world.ledger().await, left_at, "nothing passes without the pipeline");
    let retire = ["retire", &world.pool, "receipts"];
    let refused = newer_release(&world, &retire).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is configured in pool"), "{refused:?}");
    let retired = world.weir_with(&config, &retire).output().unwrap();
    assert!(retired.status.success(), "{retired:?}");
    assert!(String::from_utf8_lossy(&retired.stdout).contains("retired on 6 partitions"), "{retired:?}");
    world.drained(PATIENCE).await;
    stop(&mut back);

    // From the begin to where the older build took over there is one for each offset, and none elsewhere.
    let expected =
        |((partition, begin), end): (&(i32, i64), &i64)| (*partition, *begin, end - 1, end - begin, end - begin);
    let expected: Vec<Receipts> = begins.iter().zip(&left_at).map(expected).collect();
    assert_eq!(receipts(&world).await, expected);
    audit(&world, &published).await;
    verify(&world, &config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_a_rolling_deploy_adds_is_counted_from_where_it_has_begun() {
    let world = World::new(6).await;
    let (old, new) = (older(&world), world.config(""));
    let mut first = Worker::start_configured(&world, &old).await;
    first.owns(6).await;
    let mut second = Worker::start_configured(&world, &old).await;

    let plan = Plan { per_second: 3_000, repeats_per_mille: 20, ..Plan::new(50, 60_000) };
    let deploy = async {
        rows_reach(&world, 5_000).await;
        let mut visitor = Worker::start_configured(&world, &new).await;
        has_begun(&world, "stats").await;
        stop(&mut visitor);
        left_alone(&[&first, &second], 1.0).await;
        let third = Worker::start_configured(&world, &new).await;
        stop(&mut first);
        let fourth = Worker::start_configured(&world, &new).await;
        stop(&mut second);
        (third, fourth)
    };
    let (published, (mut third, mut fourth)) = tokio::join!(publish(&world, plan), deploy);
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM weir_pipelines WHERE begin_offset > 0").await, 6);
    let report = verify(&world, &new);
    assert_eq!((report["lost"].as_u64(), report["counters_wrong"].as_u64()), (Some(0), Some(0)), "{report:#}");
    let rows = world.count("SELECT count(*) FROM messages").await;
    assert_eq!(rows, published.live.len() as i64);
    let counted = world.count("SELECT sum(count)::bigint FROM message_stats WHERE dimension = 'type'").await;
    assert!(0 < counted && counted < rows, "begun in the middle: {counted} of {rows}");
    stop(&mut third);
    stop(&mut fourth);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_changes_its_name_is_refused_with_what_to_do() {
    let world = World::new(1).await;
    let config = world.config("");
    let mut worker = Worker::start_configured(&world, &config).await;
    worker.owns(1).await;
    worker.terminate();
    let renamed = config.replace(&format!("[pools.{}", world.pool), "[pools.renamed");
    let mut worker = Worker::start_configured(&world, &renamed).await;
    until("the worker to end", PATIENCE, async || (worker.has_ended(), worker.log())).await;
    let log = worker.log();
    assert!(log.contains("Keep the name, or give the new pool a group of its own"), "{log}");
    assert!(worker.exit_code() == Some(1), "{log}");
}
