//! The fence, as every batch begins with it.

use std::time::Duration;

use sqlx::Executor as _;
use uuid::Uuid;
use weir::config;
use weir::store::{Fault, Fence, Held, Place, Tx};

use super::{World, passed, place};

/// Names that a text of SQL has to quote.
const GROUP: &str = r"o'clock\";
const POOL: &str = r"\it's";

async fn begun(world: &World, held: &Held, next: i64) -> (Box<dyn Tx>, Fence) {
    world.store.begin_fenced(held, next, POOL).await.unwrap()
}

pub(super) async fn a_batch_begins_for_the_owner_and_from_its_offset_only(world: World) {
    let held = world.claimed(&Place { group: GROUP.into(), ..place(0) }).await;
    let (tx, fence) = begun(&world, &held, 5).await;
    assert!(passed(fence));
    tx.rollback().await.unwrap();
    let (tx, fence) = begun(&world, &held, 5).await;
    assert_eq!(fence, Fence::Passed { has_dead_rows: world.looks_later() }, "what was rolled back has moved nothing");
    tx.commit().await.unwrap();

    let ahead = Held { next_offset: 5, ..held.clone() };
    let stranger = Held { token: Uuid::new_v4(), ..ahead.clone() };
    let elsewhere = Held { place: Place { group: GROUP.into(), ..place(1) }, ..ahead.clone() };
    let other = Held { place: place(0), ..ahead.clone() };
    for (who, held) in [("behind", held), ("a stranger", stranger), ("elsewhere", elsewhere), ("another group", other)]
    {
        let (tx, fence) = begun(&world, &held, 9).await;
        assert_eq!(fence, Fence::Fenced, "{who}");
        tx.rollback().await.unwrap();
    }
    let (tx, fence) = begun(&world, &ahead, 9).await;
    assert!(passed(fence));
    tx.commit().await.unwrap();
    let row = world.store.ledger(&ahead.place).await.unwrap().unwrap();
    assert_eq!((row.owner, row.epoch, row.next_offset), (Some(ahead.token), 1, 9));
}

/// As one that was made before `weir migrate`, or whose names a pooler has removed.
#[tokio::test]
async fn on_postgres_a_session_without_the_prepared_fence_gets_it() {
    let world = World::postgres().await;
    let held = world.claimed(&place(0)).await;
    let store = world.open(config::Store { connections: 1, ..config::Store::default() });
    let mut tx = store.begin().await.unwrap();
    tx.postgres().unwrap().execute("DEALLOCATE ALL").await.unwrap();
    tx.commit().await.unwrap();
    for next in [4, 8] {
        let held = Held { next_offset: next - 4, ..held.clone() };
        let (tx, fence) = store.begin_fenced(&held, next, "p").await.unwrap();
        assert!(passed(fence), "{next}");
        tx.commit().await.unwrap();
    }
    assert_eq!(world.store.ledger(&held.place).await.unwrap().unwrap().next_offset, 8);
}

#[tokio::test]
async fn on_postgres_whoever_waits_too_long_at_the_fence_is_busy_and_leaves_nothing() {
    let world = World::postgres().await;
    let held = world.claimed(&place(0)).await;
    let timed = config::Store { lock_timeout: Duration::from_millis(200), connections: 1, ..config::Store::default() };
    let store = world.open(timed);
    let (first, fence) = begun(&world, &held, 5).await;
    assert!(passed(fence));
    let error = store.begin_fenced(&held, 6, "p").await.err().expect("the row is locked");
    assert_eq!(error.fault, Fault::Busy, "{error}");
    first.rollback().await.unwrap();
    let (tx, fence) = store.begin_fenced(&held, 7, "p").await.unwrap();
    assert!(passed(fence));
    tx.commit().await.unwrap();
    assert_eq!(world.store.ledger(&held.place).await.unwrap().unwrap().next_offset, 7);
}
