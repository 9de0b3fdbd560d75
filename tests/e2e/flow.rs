//! A rate, a limit of transactions and batches by their time, all at once, on a database that is far away.

use std::time::Duration;

use super::audit::audit;
use super::load::{Plan, publish};
use super::proxy::{Proxy, Weather};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, services, until};

const EVENTS: u64 = 12_000;
const PARTITIONS: i32 = 8;
/// Each answer of the database comes so much later; a batch's transaction takes a handful of them.
const DELAY: Duration = Duration::from_millis(50);

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_a_slow_database_is_worked_off_within_every_bound() {
    let world = World::alone(PARTITIONS).await;
    let proxy = Proxy::listen().await.unwrap();
    let url = services::env("POSTGRES_URL");
    let host = url.rsplit_once('/').unwrap().0;
    let port = host.rsplit_once(':').unwrap().1;
    proxy.lead_to(port.parse().unwrap());
    proxy.set(Weather::Slow(DELAY));
    let config = world.config("rate = \"2000/s\"\ntransactions_max = 8");
    let (direct, proxied) = (format!(":{port}/{}", world.database), format!(":{}/{}", proxy.port, world.database));
    assert!(config.contains(&direct), "{config}");
    let worker = Worker::start_configured(&world, &config.replace(&direct, &proxied)).await;
    worker.owns(PARTITIONS).await;

    let published = publish(&world, Plan::new(60, EVENTS)).await;
    let handled = async |part: f64| {
        until("a part of the burst", PATIENCE * 3, async || {
            let count = world.count("SELECT count(*) FROM messages").await;
            (count as f64 >= EVENTS as f64 * part * 0.9, count)
        })
        .await;
    };
    handled(0.3).await;
    let early_kib = resident_kib(worker.pid());
    handled(1.0).await;
    let late_kib = resident_kib(worker.pid());
    world.drained(PATIENCE * 2).await;

    let limit = worker.metric("weir_transactions_limit", "");
    let queued = worker.metric("weir_loop_seconds_total", "phase=\"queue\"");
    println!("limit {limit}, {queued} s queued, {early_kib} to {late_kib} KiB");
    assert!((1.0..=8.0).contains(&limit), "{limit}");
    assert!(limit > 2.0, "far is not busy: the limit grows from where it begins");
    assert!(queued > 0.0, "nobody had to wait for a turn while the limit was low");
    let (in_time, all) = (
        worker.metric("weir_apply_duration_seconds_bucket", "le=\"2.5\""),
        worker.metric("weir_apply_duration_seconds_count", ""),
    );
    assert_eq!(in_time, all, "a batch took more than its budget of 3 s");
    assert_eq!(worker.metric("weir_claims_total", ""), f64::from(PARTITIONS), "somebody was evicted");
    assert_eq!(worker.metric("weir_fences_total", ""), 0.0);
    assert!(
        late_kib <= early_kib + early_kib / 4,
        "memory grows with what is worked off: {early_kib} to {late_kib} KiB"
    );
    drop(worker);
    audit(&world, &published).await;
}
