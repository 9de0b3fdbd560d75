//! A database that a newer release has migrated while this one runs on it, as in a rolling deploy, and after a roll-back.

use weir::store::{Column, Held};

use super::{World, begin, passed, place, rows};

/// What a newer release leaves: an additive step of which this one knows nothing.
async fn migrate_further(world: &World) {
    world.sql("CREATE TABLE weir_newer (id BIGINT NOT NULL PRIMARY KEY)").await;
    for table in ["messages", "weir_ledger"] {
        world.sql(&format!("ALTER TABLE {table} ADD COLUMN newer VARCHAR(20)")).await;
    }
    // The checksum is any that no step of this release has to match.
    world
        .sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT version + 1, 'newer', success, checksum, 0 FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
        )
        .await;
}

/// How many steps are recorded, the newest of them, and the columns of `messages`.
async fn schema(world: &World) -> (i64, i64, Vec<Column>) {
    let steps = world.number("SELECT count(*) FROM _sqlx_migrations").await;
    let newest = world.number("SELECT max(version) FROM _sqlx_migrations").await;
    (steps, newest, world.store.describe("messages").await.unwrap())
}

async fn write(world: &World, held: &Held, id: &str) {
    let table = world.messages().await;
    let mut tx = begin(world).await;
    assert!(passed(tx.fence(held, held.next_offset + 1, "p").await.unwrap()));
    assert_eq!(tx.insert(&table, &[id], &rows(&[id])).await.unwrap(), [true]);
    tx.commit().await.unwrap();
}

pub(super) async fn what_a_newer_release_has_migrated_is_left_alone_and_worked_on(world: World) {
    let (steps, newest, _) = schema(&world).await;
    let held = world.claimed(&place(0)).await;
    migrate_further(&world).await;
    let migrated = schema(&world).await;
    assert_eq!((migrated.0, migrated.1), (steps + 1, newest + 1));
    assert!(migrated.2.iter().any(|column| column.name == "newer" && column.nullable));

    world.store.migrate().await.unwrap();
    assert_eq!(schema(&world).await, migrated);
    world.store.check().await.unwrap();
    // Who had claimed before goes on, and so does who claims now.
    write(&world, &held, "a").await;
    let again = world.claimed(&place(0)).await;
    assert_eq!(again.next_offset, 1);
    write(&world, &again, "b").await;
    assert_eq!(world.number("SELECT count(*) FROM messages").await, 2);
}
