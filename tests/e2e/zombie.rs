//! A worker that is frozen while another takes over, and wakes up.

use std::time::{Duration, Instant};

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{SESSION_TIMEOUT, World};
use super::{PATIENCE, until};

/// Whether one of the process's connections is inside a transaction of a batch.
pub(crate) async fn is_inside_transaction(world: &World, pid: u32) -> bool {
    world
        .count(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir/{pid}' AND datname = current_database()
                AND (state = 'idle in transaction' OR (state = 'active' AND xact_start IS NOT NULL))
                AND query NOT ILIKE 'COMMIT%' AND backend_xid IS NOT NULL"
        ))
        .await
        > 0
}

/// Freezes a worker at a moment when a condition holds, trying as often as it takes.
pub(crate) async fn freeze_when(worker: &Worker, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    until(what, PATIENCE, async || {
        worker.signal("STOP");
        // What the stopped process had already sent to the database is let through first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if holds().await {
            return (true, ());
        }
        worker.signal("CONT");
        tokio::time::sleep(Duration::from_millis(u64::from(std::process::id() % 7 + 3))).await;
        (false, ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_inside_a_transaction_writes_nothing_after_it_was_replaced() {
    let world = World::new(8).await;
    let published = publish(&world, Plan::new(3, 200_000)).await;
    let zombie = Worker::start(&world).await;
    zombie.owns(8).await;
    let heir = Worker::start(&world).await;
    until("both to own partitions", PATIENCE, async || {
        let owned = (zombie.metric("weir_partitions_assigned", ""), heir.metric("weir_partitions_assigned", ""));
        (owned.0 > 0.0 && owned.1 > 0.0, owned)
    })
    .await;
    // Load that lasts longer than the takeover, on every partition.
    let more = publish(&world, Plan { seed: 4, ..Plan::new(4, 300_000) });
    let (more, before) = tokio::join!(more, async {
        freeze_when(&zombie, "the worker to be caught inside a transaction", async || {
            is_inside_transaction(&world, zombie.pid()).await
        })
        .await;
        (Instant::now(), world.ledger().await)
    });
    let (frozen_at, ledger_then) = before;
    let limit = SESSION_TIMEOUT + Duration::from_secs(5);
    let ends = world.ends();
    until("every partition to advance", limit.saturating_sub(frozen_at.elapsed()), async || {
        let now = world.ledger().await;
        let advanced = now.iter().zip(&ledger_then).zip(&ends).all(|((now, then), end)| now > then || now == end);
        (advanced, now)
    })
    .await;
    println!("every partition advanced {:?} after the freeze", frozen_at.elapsed());
    world.drained(PATIENCE).await;
    let rows = world.count("SELECT count(*) FROM messages").await;
    let owners_before: Vec<(i32, String)> = owners(&world).await;

    zombie.signal("CONT");
    until("the zombie to be fenced or to find its partitions lost", PATIENCE, async || {
        let seen = (zombie.metric("weir_fences_total", ""), zombie.metric("weir_rebalances_total", ""));
        (zombie.metric("weir_partitions_assigned", "") == 0.0 || seen.1 >= 3.0, seen)
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM messages").await, rows, "the zombie wrote");
    assert_eq!(owners_before.len(), 8);
    let mut all = published;
    all.live.extend(more.live);
    all.dead.extend(more.dead);
    all.elsewhere.extend(more.elsewhere);
    // It is a member again and works on.
    let last = publish(&world, Plan::new(5, 5_000)).await;
    all.live.extend(last.live);
    all.dead.extend(last.dead);
    all.elsewhere.extend(last.elsewhere);
    until("the group to be shared again", PATIENCE, async || {
        let owned = (zombie.metric("weir_partitions_assigned", ""), heir.metric("weir_partitions_assigned", ""));
        (owned.0 > 0.0 && owned.1 > 0.0, owned)
    })
    .await;
    world.drained(PATIENCE).await;
    drop((zombie, heir));
    audit(&world, &all).await;
}

async fn owners(world: &World) -> Vec<(i32, String)> {
    sqlx::query_as("SELECT partition, owner::text FROM weir_ledger ORDER BY partition")
        .fetch_all(&world.db)
        .await
        .unwrap()
}
