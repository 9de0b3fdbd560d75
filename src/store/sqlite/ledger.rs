//! Reading, beginning and claiming ledger rows, and forgetting old ids. Moving a row is the transaction's (`tx.rs`).

use std::collections::HashMap;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{now_ms, rows};
use crate::store::{LedgerRow, Place};

/// What is read of a row.
const COLUMNS: &str = "owner, epoch, next_offset, updated_at AS updated_ms";

pub(super) async fn read(db: &mut SqliteConnection, place: &Place) -> sqlx::Result<Option<LedgerRow>> {
    let sql = format!("SELECT {COLUMNS} FROM weir_ledger WHERE group_name = ?1 AND topic_id = ?2 AND partition = ?3");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(&*place.group)
        .bind(place.origin.topic_id.hyphenated())
        .bind(place.origin.partition)
        .fetch_optional(db)
        .await?;
    row.map(|row| ledger_row(&row)).transpose()
}

fn ledger_row(row: &SqliteRow) -> sqlx::Result<LedgerRow> {
    Ok(LedgerRow {
        owner: row.try_get::<Option<Hyphenated>, _>("owner")?.map(Uuid::from),
        epoch: row.try_get("epoch")?,
        next_offset: row.try_get("next_offset")?,
        updated_ms: row.try_get("updated_ms")?,
    })
}

pub(super) async fn of_group(db: &mut SqliteConnection, group: &str) -> sqlx::Result<HashMap<(Uuid, i32), LedgerRow>> {
    let sql = format!("SELECT topic_id, partition, {COLUMNS} FROM weir_ledger WHERE group_name = ?1");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(group).fetch_all(db).await?;
    let entry = |row: &SqliteRow| {
        let topic_id = Uuid::from(row.try_get::<Hyphenated, _>("topic_id")?);
        Ok(((topic_id, row.try_get("partition")?), ledger_row(row)?))
    };
    rows.iter().map(entry).collect()
}

pub(super) async fn knows_topic(db: &mut SqliteConnection, group: &str, topic: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM weir_ledger WHERE group_name = ?1 AND topic = ?2)")
        .bind(group)
        .bind(topic)
        .fetch_one(db)
        .await
}

pub(super) async fn begin(db: &mut SqliteConnection, rows: &[(Place, i64)]) -> sqlx::Result<()> {
    let row = |(place, offset): &(Place, i64)| {
        let origin = &place.origin;
        (place.group.to_string(), origin.topic_id, origin.partition, origin.topic.to_string(), *offset)
    };
    sqlx::query(
        "INSERT INTO weir_ledger (group_name, topic_id, partition, topic, next_offset, updated_at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2 FROM json_each(?1) WHERE true
         ON CONFLICT (group_name, topic_id, partition) DO NOTHING",
    )
    .bind(rows::json(&rows.iter().map(row).collect::<Vec<_>>()))
    .bind(now_ms())
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a partition over if its row is still as it was read.
pub(super) async fn claim(
    db: &mut SqliteConnection,
    place: &Place,
    read: LedgerRow,
    token: Uuid,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "UPDATE weir_ledger SET owner = ?1, epoch = epoch + 1, updated_at = ?2
          WHERE group_name = ?3 AND topic_id = ?4 AND partition = ?5 AND epoch = ?6 AND next_offset = ?7",
    )
    .bind(token.hyphenated())
    .bind(now_ms())
    .bind(&*place.group)
    .bind(place.origin.topic_id.hyphenated())
    .bind(place.origin.partition)
    .bind(read.epoch)
    .bind(read.next_offset)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn forget_seen(
    db: &mut SqliteConnection,
    pool: &str,
    horizon: Duration,
    limit: i64,
) -> sqlx::Result<u64> {
    let horizon_ms = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX);
    let done = sqlx::query(
        "DELETE FROM weir_seen WHERE (pool, type, event_id) IN
            (SELECT pool, type, event_id FROM weir_seen WHERE pool = ?1 AND seen_at < ?2 LIMIT ?3)",
    )
    .bind(pool)
    .bind(now_ms().saturating_sub(horizon_ms))
    .bind(limit)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
