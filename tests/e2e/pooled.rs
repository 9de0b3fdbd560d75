//! Through PgBouncer in transaction mode, which hands few sessions around among all: nothing of a worker's may outlive its
//! transaction, and all that it promises holds.

use super::audit::{Sampler, audit};
use super::dead::{json, run, verified};
use super::load::{Plan, publish};
use super::pgbouncer::Bouncer;
use super::worker::Worker;
use super::world::World;
use super::zombie::freeze_when;
use super::{PATIENCE, until};

/// Fewer sessions than the workers have connections.
const LINES: &str = "default_pool_size = 4\nignore_startup_parameters = extra_float_digits";

/// The world's configuration with the address of the pooler.
fn through(world: &World, bouncer: &Bouncer, pooler: &str) -> String {
    let config = world.config("");
    let (before, rest) = config.split_once("[store]\n").unwrap();
    let after = rest.split_once('\n').unwrap().1;
    format!("{before}[store]\nurl = \"{}\"\n{pooler}{after}", bouncer.url(&world.database))
}

#[tokio::test(flavor = "multi_thread")]
async fn through_pgbouncer_nothing_is_lost_or_repeated_whatever_dies() {
    let world = World::new(6).await;
    let mut bouncer = Bouncer::start("transaction", LINES);
    let config = through(&world, &bouncer, "pooler = \"transaction\"\n");
    world.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    let (code, _, told) = run(&world, &config, &["migrate"]);
    assert_eq!(code, 0, "{told}");

    let sampler = Sampler::start(&world);
    let plan = Plan { per_second: 4_000, poison_per_mille: 2, ..Plan::new(90, 120_000) };
    let (published, workers) = tokio::join!(publish(&world, plan), disturbed(&world, &mut bouncer, &config));
    world.drained(PATIENCE * 2).await;
    until("every letter to be sent", PATIENCE, async || {
        let waiting = world.count("SELECT count(*) FROM weir_dead WHERE published_at IS NULL").await;
        (waiting == 0, waiting)
    })
    .await;
    sampler.finish().await;
    let (_, lag) = json(&world, &config, &["lag"]);
    assert!(lag.to_string().contains(&world.topic), "{lag}");
    let (_, listed) = json(&world, &config, &["dead", "list"]);
    assert_eq!(listed["total"].as_u64().unwrap() as usize, published.dead.len());
    verified(&world, &config, published.live.len(), published.dead.len());
    let (code, _, told) = run(&world, &config, &["dead", "replay"]);
    assert_eq!(code, 1, "poison stays poison: {told}");
    for mut worker in workers {
        let (status, took) = worker.terminate();
        assert!(status.success(), "{status:?} after {took:?}\n{}", worker.log());
    }
    audit(&world, &published).await;
    let left = world
        .count(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
              WHERE l.locktype = 'advisory' AND d.datname = current_database()",
        )
        .await;
    assert_eq!(left, 0, "a lock has outlived its transaction");
}

/// A worker killed, one frozen, both inside a transaction, and the pooler killed: two workers are left.
async fn disturbed(world: &World, bouncer: &mut Bouncer, config: &str) -> Vec<Worker> {
    let start = async || Worker::start_configured(world, config).await;
    let (mut killed, other) = (start().await, start().await);
    killed.owns(1).await;
    freeze_when(&killed, "the worker to be inside a transaction", async || {
        world.is_inside_transaction(killed.pid()).await
    })
    .await;
    killed.kill();
    let frozen = start().await;
    frozen.owns(1).await;
    freeze_when(&frozen, "the worker to be inside a transaction", async || {
        world.is_inside_transaction(frozen.pid()).await
    })
    .await;
    // Nobody but the database's own time-out ends it.
    until("its transaction to be ended", PATIENCE, async || {
        let is_inside = world.is_inside_transaction(frozen.pid()).await;
        (!is_inside, is_inside)
    })
    .await;
    frozen.signal("CONT");
    bouncer.kill();
    let behind = world.ledger().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    bouncer.run();
    until("the database to be written again", PATIENCE, async || {
        let now = world.ledger().await;
        (now.iter().sum::<i64>() > behind.iter().sum::<i64>(), now)
    })
    .await;
    vec![other, frozen]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_told_of_a_pooler_ends_and_says_what_to_set() {
    let world = World::new(1).await;
    let bouncer = Bouncer::start("transaction", &format!("{LINES}, options"));
    for args in [["run"], ["migrate"], ["verify"], ["lag"]] {
        let (code, _, told) = run(&world, &through(&world, &bouncer, ""), &args);
        assert_eq!(code, 2, "{args:?}: {told}");
        assert!(told.contains("store.pooler is not set"), "{args:?}: {told}");
    }
    let (code, _, told) = run(&world, &through(&world, &bouncer, "pooler = \"session\"\n"), &["lag"]);
    assert!(code == 2 && told.contains("set store.pooler = \"transaction\""), "{told}");
}
