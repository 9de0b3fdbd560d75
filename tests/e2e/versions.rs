//! Two releases side by side: a deploy that adds a pipeline, its way back, and a pool that changes its name.

use serde_json::Value;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deploy_that_adds_a_pipeline_leaves_no_hole_in_it_and_the_way_back_needs_its_retirement() {
    let world = World::new(6).await;
    let (old, new) = (older(&world), world.config(""));
    let mut first = Worker::start_configured(&world, &old).await;
    first.owns(6).await;
    let mut second = Worker::start_configured(&world, &old).await;

    let plan = Plan { per_second: 3_000, repeats_per_mille: 20, ..Plan::new(50, 60_000) };
    let deploy = async {
        rows_reach(&world, 5_000).await;
        let third = Worker::start_configured(&world, &new).await;
        until("the pipeline to begin somewhere", PATIENCE, async || {
            let begun = world.count("SELECT count(*) FROM weir_pipelines WHERE pipeline = 'stats'").await;
            (begun > 0, begun)
        })
        .await;
        // The new worker leaves, and its partitions come back to old ones, which must not go on without the pipeline.
        let mut third = third;
        third.terminate();
        until("an old worker to leave a partition alone", PATIENCE, async || {
            let held = first.metric("weir_holds", "") + second.metric("weir_holds", "");
            (held > 0.0, held)
        })
        .await;
        let third = Worker::start_configured(&world, &new).await;
        let (status, _) = first.terminate();
        assert!(status.success(), "{}", first.log());
        let fourth = Worker::start_configured(&world, &new).await;
        let (status, _) = second.terminate();
        assert!(status.success(), "{}", second.log());
        assert!(first.log().contains("weir retire") || second.log().contains("weir retire"), "{}", first.log());
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

    // The way back.
    let retire = |config: &str| world.weir_with(config, &["retire", &world.pool, "stats"]).output().unwrap();
    let refused = retire(&new);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is configured in pool"), "{refused:?}");
    third.terminate();
    fourth.terminate();
    let mut back = Worker::start_configured(&world, &old).await;
    until("all partitions to be left alone", PATIENCE, async || {
        let held = back.metric("weir_holds", "");
        (held == 6.0, held)
    })
    .await;
    publish(&world, Plan { repeats_per_mille: 0, poison_per_mille: 0, ..Plan::new(51, 2_000) }).await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, rows, "nothing passes without the pipeline");
    let retired = retire(&old);
    assert!(retired.status.success(), "{retired:?}");
    assert!(String::from_utf8_lossy(&retired.stdout).contains("retired on 6 partitions"), "{retired:?}");
    world.drained(PATIENCE).await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, rows + 2_000);
    verify(&world, &old);
    let (status, _) = back.terminate();
    assert!(status.success(), "{}", back.log());
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
