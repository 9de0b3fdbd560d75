//! Pauses and rates that an operator asks of running workers.

use std::time::{Duration, Instant};

use super::audit::audit;
use super::dead::{json, run};
use super::load::{Plan, publish};
use super::rate::{self, RATE};
use super::worker::Worker;
use super::world::{SESSION_TIMEOUT, World};
use super::{PATIENCE, until};

/// By when running workers follow.
const SOON: Duration = Duration::from_secs(5);

async fn two_workers(world: &World) -> [Worker; 2] {
    let workers = [Worker::start(world).await, Worker::start(world).await];
    until("each to own half", PATIENCE, async || {
        let owned = workers.each_ref().map(|worker| worker.metric("weir_partitions_assigned", ""));
        let claims: f64 = workers.iter().map(|worker| worker.metric("weir_claims_total", "")).sum();
        (owned == [4.0, 4.0] && claims >= 8.0, owned)
    })
    .await;
    workers
}

/// What changes when a worker leaves, or is thrown out.
fn membership(workers: &[Worker]) -> Vec<(f64, f64, f64)> {
    let of = |worker: &Worker| {
        let metric = |name| worker.metric(name, "");
        (metric("weir_partitions_assigned"), metric("weir_rebalances_total"), metric("weir_claims_total"))
    };
    workers.iter().map(of).collect()
}

async fn handled(world: &World, so_many: i64) {
    until("events to be handled", PATIENCE, async || {
        let count = world.count("SELECT count(*) FROM messages").await;
        (count >= so_many, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_under_load_stops_every_partition_and_nobody_leaves() {
    let world = World::new(8).await;
    let config = world.config("");
    let workers = two_workers(&world).await;
    let load = publish(&world, Plan { per_second: 500, ..Plan::new(80, 15_000) });
    let operator = async {
        handled(&world, 1_000).await;
        let before = membership(&workers);
        let asked = ["pause", &world.pool, "--for", "1h", "--reason", "index"];
        let (code, told) = json(&world, &config, &asked);
        let paused_at = Instant::now();
        let (was, is) = (&told["pools"][0]["was"], &told["pools"][0]["is"]);
        assert!(code == 0 && was["paused"].is_null() && is["paused"]["reason"] == "index", "{told:#}");
        assert!(is["paused"]["until"].is_string() && is["paused"]["by"].as_str().unwrap().contains('@'), "{told:#}");

        // That nothing moves from then on is the promise itself.
        tokio::time::sleep(SOON.saturating_sub(paused_at.elapsed())).await;
        let (stood, ends) = (world.ledger().await, world.ends());
        until("more events to wait, for longer than a member may be silent", PATIENCE, async || {
            let arrived = world.ends().iter().sum::<i64>() - ends.iter().sum::<i64>();
            (arrived >= 1_000 && paused_at.elapsed() > SOON + SESSION_TIMEOUT, arrived)
        })
        .await;
        assert_eq!(world.ledger().await, stood, "a partition moved later than {SOON:?} after the command");
        assert_eq!(membership(&workers), before, "nobody left and nothing was taken over");
        for worker in &workers {
            let ready = worker.get("/readyz");
            assert!(ready.contains("200 OK") && ready.contains("\"reason\":\"index\""), "{ready}");
            assert!(worker.metric("weir_paused", "") == 1.0 && worker.metric("weir_lag_events", "") > 0.0);
        }

        let (code, told) = json(&world, &config, &["resume", &world.pool]);
        assert!(code == 0 && told["pools"][0]["is"]["paused"].is_null(), "{told:#}");
        until("every partition to go on", SOON, async || {
            let now = world.ledger().await;
            (now.iter().zip(&stood).all(|(now, stood)| now > stood), now)
        })
        .await;
        before
    };
    let (published, before) = tokio::join!(load, operator);
    world.drained(PATIENCE).await;
    assert_eq!(membership(&workers), before);
    for worker in &workers {
        assert_eq!(worker.log().matches("paused by `weir pause`").count(), 1, "{}", worker.log());
        assert_eq!(worker.log().matches("resumed: batches are taken again").count(), 1, "{}", worker.log());
        assert!(worker.metric("weir_paused", "") == 0.0 && worker.get("/readyz").contains("\"paused\":null"));
    }
    let rows = "SELECT count(*) FROM weir_control_log WHERE pool = group_name AND changed_by LIKE '%@%' AND";
    assert_eq!(world.count(&format!("{rows} what = 'pause' AND from_state = 'running' AND reason = 'index'")).await, 1);
    assert_eq!(world.count(&format!("{rows} what = 'resume' AND to_state = 'running'")).await, 1);
    drop(workers);
    audit(&world, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_in_a_pause_takes_nothing_until_it_runs_out() {
    let world = World::new(4).await;
    let config = world.config("");
    let published = publish(&world, Plan::new(81, 1_000)).await;
    let (code, told, err) = run(&world, &config, &["pause"]);
    assert!(code == 0 && told.contains("running -> paused, since"), "{told}{err}");
    let worker = Worker::start(&world).await;
    worker.owns(4).await;
    until("the lag to be told", PATIENCE, async || {
        let lag = worker.metric("weir_lag_events", "");
        (lag == published.records as f64, lag)
    })
    .await;
    assert_eq!(world.ledger().await, [0; 4]);
    let (code, told, err) = run(&world, &config, &["pause", &world.pool, "--for", "3s"]);
    assert!(code == 0 && told.contains("-> paused until 2"), "{told}{err}");
    world.drained(PATIENCE).await;
    let (code, told, _) = run(&world, &config, &["resume"]);
    assert!(code == 0 && told.contains("running -> running"), "{told}");
    drop(worker);
    audit(&world, &published).await;
}

/// Sets a rate, and waits until every worker says so; no longer than it may take.
async fn set(world: &World, workers: &[Worker], asked: &str, per_s: f64) {
    let (code, told, err) = run(world, &world.config(""), &["rate", &world.pool, asked]);
    assert_eq!(code, 0, "{told}{err}");
    until("every worker to follow", SOON, async || {
        let rates: Vec<f64> = workers.iter().map(|worker| worker.metric("weir_rate_events_per_second", "")).collect();
        (rates.iter().all(|rate| *rate == per_s), rates)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_set_on_a_running_pool_holds_until_it_is_taken_back() {
    let world = World::new(8).await;
    let mut workers = Vec::from(two_workers(&world).await);
    set(&world, &workers, &format!("{RATE}/s"), RATE as f64).await;
    let published = publish(&world, rate::plan(82, 14)).await;
    world.drained(PATIENCE).await;
    rate::assert_kept(&rate::seconds(&world).await);

    set(&world, &workers, "1/m", 1.0 / 60.0).await;
    let late = publish(&world, rate::plan(83, 5)).await;
    // The rate is the group's, not the process's.
    workers.push(Worker::start(&world).await);
    workers[2].owns(1).await;
    let stood = world.count("SELECT count(*) FROM messages").await;
    set(&world, &workers, "default", 0.0).await;
    until("the removal to be felt", PATIENCE, async || {
        let count = world.count("SELECT count(*) FROM messages").await;
        (count > stood + 5 * RATE / 2, count)
    })
    .await;
    world.drained(PATIENCE).await;
    assert!(stood <= published.live.len() as i64 + 50, "{stood}: at 1/m nearly nothing is handled");
    let rows = "SELECT count(*) FROM weir_control_log WHERE what = 'rate' AND to_state IN ('2000/s', '1/m', 'default')";
    assert_eq!(world.count(rows).await, 3);
    drop(workers);
    let mut all = published;
    all.live.extend(late.live);
    all.records += late.records;
    audit(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_there_is_told_with_the_nearest_name() {
    let world = World::new(1).await;
    let config = world.config("");
    let misspelt = format!("{}x", world.pool);
    for command in [&["pause"][..], &["resume"]] {
        let (code, _, err) = run(&world, &config, &[command, &[misspelt.as_str()]].concat());
        assert!(code == 2 && err.contains(&format!("did you mean {:?}?", world.pool)), "{code}: {err}");
    }
    let (code, _, err) = run(&world, &config, &["rate", "elsewhere", "5/s"]);
    assert!(code == 2 && err.contains(&format!("known are {}", world.pool)), "{code}: {err}");
    let (code, _, err) = run(&world, &config, &["rate", &world.pool, "fast"]);
    assert!(code == 2 && err.contains("none or default"), "{code}: {err}");
    let (before, after) = config.split_once("[store]").unwrap();
    let storeless = format!("{before}{}", &after[after.find("[redis]").unwrap()..]);
    let (code, _, err) = run(&world, &storeless, &["pause", &world.pool]);
    assert!(code == 2 && err.contains("store.url"), "{code}: {err}");
    assert_eq!(world.count("SELECT count(*) FROM weir_control_log").await, 0);
}
