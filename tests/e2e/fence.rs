//! The ledger's fence: whoever does not own a partition's row writes nothing, and an owner by the group claims again.

use super::audit::audit;
use super::load::{Plan, publish};
use super::worker::Worker;
use super::world::World;
use super::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_rows_were_taken_writes_nothing_until_it_has_claimed_again() {
    let world = World::new(4).await;
    let worker = Worker::start(&world).await;
    worker.owns(4).await;
    let (published, ()) = tokio::join!(publish(&world, Plan { per_second: 10_000, ..Plan::new(50, 60_000) }), async {
        for round in 1..=5_u32 {
            until("batches to go on", PATIENCE, async || {
                let at: i64 = world.ledger().await.iter().sum();
                (at > i64::from(round) * 5_000, at)
            })
            .await;
            world.sql("UPDATE weir_ledger SET owner = gen_random_uuid(), epoch = epoch + 1").await;
        }
    });
    world.drained(PATIENCE).await;
    let fences = worker.metric("weir_fences_total", "");
    assert!(fences >= 5.0, "the fence was met {fences} times:\n{}", worker.log());
    assert!(worker.log().contains("fenced: the ledger has another owner or offset; nothing was written"));
    let claims = worker.metric("weir_claims_total", "");
    assert!(claims >= 4.0 + fences, "{claims} claims after {fences} fences");
    drop(worker);
    audit(&world, &published).await;
}

/// A row that stands where the worker does not is believed over the worker: a deliberate move by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_set_back_is_read_again_and_every_effect_stays_one() {
    let world = World::new(1).await;
    let worker = Worker::start(&world).await;
    worker.owns(1).await;
    let published = publish(&world, Plan { poison_per_mille: 0, ..Plan::new(51, 5_000) }).await;
    world.drained(PATIENCE).await;
    let consumed = worker.metric("weir_events_consumed_total", "");
    world.sql("UPDATE weir_ledger SET next_offset = 1000").await;
    until("the events from there to be read again", PATIENCE, async || {
        let now = worker.metric("weir_events_consumed_total", "");
        (now >= consumed + 4_000.0, now)
    })
    .await;
    world.drained(PATIENCE).await;
    drop(worker);
    audit(&world, &published).await;
}
