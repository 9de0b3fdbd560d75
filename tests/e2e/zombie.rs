//! A worker that is frozen while another takes over, and wakes up.

use std::time::{Duration, Instant};

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::{SESSION_TIMEOUT, World};
use super::{PATIENCE, until};

/// Freezes a worker at a moment when a condition holds, trying as often as it takes.
pub(crate) async fn freeze_when(worker: &Worker, what: &str, holds: impl AsyncFnMut() -> bool) {
    let is_caught = try_freeze(worker, PATIENCE, holds).await;
    assert!(is_caught, "{what}: not within {PATIENCE:?}\n{}", worker.log());
}

/// Freezes a worker at a moment when a condition holds. `false`: there was none, and it runs on.
pub(crate) async fn try_freeze(worker: &Worker, patience: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    // Of no common measure with the worker's own rhythm.
    let mut run_for = Duration::from_millis(3);
    while Instant::now() < deadline {
        worker.signal("STOP");
        // What the stopped process had already sent to the database is let through first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if holds().await {
            return true;
        }
        worker.signal("CONT");
        tokio::time::sleep(run_for).await;
        run_for = Duration::from_millis(3 + (run_for.as_millis() as u64 * 7) % 23);
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_inside_a_transaction_writes_nothing_after_it_was_replaced() {
    Box::pin(replace_a_frozen_worker(3, true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_between_transactions_writes_nothing_after_it_was_replaced() {
    Box::pin(replace_a_frozen_worker(6, false)).await;
}

async fn replace_a_frozen_worker(seed: u64, inside_transaction: bool) {
    let world = World::new(8).await;
    let published = publish(&world, Plan::new(seed, 200_000)).await;
    let zombie = Worker::start(&world).await;
    zombie.owns(8).await;
    let heir = Worker::start(&world).await;
    until("both to own partitions", PATIENCE, async || {
        let owned = (zombie.metric("weir_partitions_assigned", ""), heir.metric("weir_partitions_assigned", ""));
        (owned.0 > 0.0 && owned.1 > 0.0, owned)
    })
    .await;
    // Load that lasts longer than the takeover, on every partition.
    let more = publish(&world, Plan::new(seed + 1, 300_000));
    let (more, before) = tokio::join!(more, async {
        freeze_when(&zombie, "the worker to be caught", async || {
            world.is_inside_transaction(zombie.pid()).await == inside_transaction
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
    let written = written(&world).await;
    let zombies = zombie.claims();
    assert!(!zombies.is_empty(), "it owned nothing: nothing was tried");
    let is_kept = world.owners().await.iter().any(|row| row.owner.is_some_and(|owner| zombies.contains(&owner)));
    assert!(!is_kept, "a partition of the frozen worker was not claimed by its heir");

    zombie.signal("CONT");
    // It joins the tasks of the partitions that it has lost before it claims any anew.
    until("the zombie to find its partitions lost and to claim others", PATIENCE, async || {
        (zombie.claims().len() > zombies.len(), zombie.log())
    })
    .await;
    println!("the zombie was fenced {} times", zombie.metric("weir_fences_total", ""));
    assert_eq!(self::written(&world).await, written, "the zombie wrote");
    let mut all = published;
    all.live.extend(more.live);
    all.dead.extend(more.dead);
    all.elsewhere.extend(more.elsewhere);
    // It is a member again and works on.
    let last = publish(&world, Plan::new(seed + 2, 5_000)).await;
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

/// Rows, counts and dead rows.
async fn written(world: &World) -> (i64, i64, i64) {
    let rows = world.count("SELECT count(*) FROM messages").await;
    let counted = world.count("SELECT sum(count)::bigint FROM weir_counts").await;
    (rows, counted, world.count("SELECT count(*) FROM weir_dead").await)
}
