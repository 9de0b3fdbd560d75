//! The fence, as every batch begins with it.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;
use weir::config;
use weir::store::{Count, Fault, Fence, Held, Place, Tx};

use super::{World, passed, place};

/// Names that a text of SQL has to quote.
const GROUP: &str = r"o'clock\";
const POOL: &str = r"\it's";

/// A counter that every batch adds to.
const BUSY: Count = Count { minute: 0, dimension: "type", member: String::new(), shard: 0, by: Some(1) };

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

/// Waits until nobody on the server, whatever its database, is as old as what has been written so far: until then no version
/// that has been replaced can be removed.
async fn what_was_written_can_be_removed(db: &mut PgConnection) {
    const OLDER: &str = "SELECT pid, datname, query FROM pg_stat_activity
          WHERE pid <> pg_backend_pid() AND greatest(age(backend_xid), age(backend_xmin)) > age($1::text::xid)";
    let now: String = sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text").fetch_one(&mut *db).await.unwrap();
    let begun = Instant::now();
    loop {
        let older: Vec<(i32, Option<String>, String)> =
            sqlx::query_as(OLDER).bind(&now).fetch_all(&mut *db).await.unwrap();
        if older.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "still open: {older:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A page of the ledger has room for three times as many versions as it has rows at most.
#[tokio::test]
async fn on_postgres_the_ledger_stays_one_page_and_a_counter_one_row_while_their_versions_can_be_removed() {
    const PARTITIONS: i32 = 18;
    let world = World::postgres().await;
    let mut admin = PgConnection::connect(&world.url).await.unwrap();
    let all: Vec<_> = (0..PARTITIONS).map(|partition| (place(partition), 0)).collect();
    world.store.begin_ledger(&all).await.unwrap();
    let mut owned = Vec::new();
    for partition in 0..PARTITIONS {
        owned.push(world.claimed(&place(partition)).await);
    }
    for next in 1..=60 {
        for held in &mut owned {
            // Tests beside this one have transactions of their own, which may outlast a whole page of versions.
            if held.place.origin.partition % 6 == 0 {
                what_was_written_can_be_removed(&mut admin).await;
            }
            let (mut tx, fence) = begun(&world, held, next).await;
            assert!(passed(fence));
            tx.count(&[BUSY]).await.unwrap();
            tx.commit().await.unwrap();
            held.next_offset = next;
        }
    }
    assert_eq!(world.number("SELECT count FROM message_stats").await, 60 * i64::from(PARTITIONS));
    assert_eq!(world.number("SELECT pg_relation_size('weir_ledger')").await, 8192);
    assert_eq!(world.number("SELECT count(*) FROM weir_counts").await, 1);
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

/// The table is of one page when its plan is made, and a snapshot lets it grow: neither reading it as a whole nor the versions
/// that its index knows may be a batch's way to its row.
#[tokio::test]
async fn on_postgres_a_batch_goes_to_its_row_past_the_versions_that_a_snapshot_keeps() {
    const SCANS: &str =
        "SELECT (seq_scan + idx_scan)::int8 FROM pg_stat_xact_user_tables WHERE relname = 'weir_ledger'";
    let world = World::postgres().await;
    let mut held = world.claimed(&place(0)).await;
    let mut admin = PgConnection::connect(&world.url).await.unwrap();
    admin.execute("VACUUM ANALYZE weir_ledger").await.unwrap();
    let store = world.open(config::Store { connections: 1, ..config::Store::default() });
    let mut snapshot = PgConnection::connect(&world.url).await.unwrap();
    snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM weir_ledger").await.unwrap();
    let mut most_scans = 0;
    for next in 1..=300 {
        let (mut tx, fence) = store.begin_fenced(&held, next, POOL).await.unwrap();
        assert!(passed(fence));
        let scans: i64 = sqlx::query_scalar(SCANS).fetch_one(tx.postgres().unwrap()).await.unwrap();
        most_scans = most_scans.max(scans);
        tx.count(&[BUSY]).await.unwrap();
        tx.commit().await.unwrap();
        held.next_offset = next;
    }
    // Counted since the session's statistics were sent last, a second ago at most: the first, then near the end of a page, after 4, 8,
    // 16, 32 and 64 others at least.
    assert!(most_scans <= 7, "{most_scans} of 300 batches looked for the row by its key, or through the whole table");
    assert!(world.number("SELECT pg_relation_size('weir_ledger')").await > 8192, "the snapshot has kept no version");
    assert_eq!(world.number("SELECT count FROM message_stats").await, 300);
    let most = world.number("SELECT max(count) FROM weir_counts").await;
    assert!(most < 150, "{most} versions of one counter's row");
    snapshot.close().await.unwrap();

    // Where the row was is another place now, or nothing's.
    admin.execute("VACUUM FULL weir_ledger").await.unwrap();
    for next in 301..=302 {
        let (tx, fence) = store.begin_fenced(&held, next, POOL).await.unwrap();
        assert!(passed(fence), "{next}");
        tx.commit().await.unwrap();
        held.next_offset = next;
    }
    assert_eq!(world.store.ledger(&held.place).await.unwrap().unwrap().next_offset, 302);
}

/// Whoever holds the row's lock at the place where a batch looks for it: what they leave behind decides, not what was there.
#[tokio::test]
async fn on_postgres_a_batch_that_waits_at_its_rows_place_goes_by_what_is_left_there() {
    const CLAIM: &str = "UPDATE weir_ledger SET owner = gen_random_uuid(), epoch = epoch + 1";
    const SEEK: &str = "UPDATE weir_ledger SET next_offset = 1";
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%EXECUTE weir_fence_by_ctid%'";
    let cases =
        [(CLAIM, "ROLLBACK", true), (SEEK, "ROLLBACK", true), (SEEK, "COMMIT", false), (CLAIM, "COMMIT", false)];
    for (change, end, passes) in cases {
        let world = World::postgres().await;
        let mut held = world.claimed(&place(0)).await;
        let (tx, fence) = begun(&world, &held, 7).await;
        assert!(passed(fence));
        tx.commit().await.unwrap();
        held.next_offset = 7;
        let mut other = PgConnection::connect(&world.url).await.unwrap();
        other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {change}")))).await.unwrap();
        let (batch, ()) = tokio::join!(world.store.begin_fenced(&held, 9, POOL), async {
            let begun = Instant::now();
            while world.number(WAITING).await == 0 {
                assert!(begun.elapsed() < Duration::from_secs(10), "the batch does not wait");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other.execute(end).await.unwrap();
        });
        let (tx, fence) = batch.unwrap();
        assert_eq!(passes, matches!(fence, Fence::Passed { .. }), "{change}, {end}");
        tx.rollback().await.unwrap();
    }
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
