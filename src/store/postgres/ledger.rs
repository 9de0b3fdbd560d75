//! Reading, beginning and claiming ledger rows, and forgetting old ids. Moving a row is the transaction's (`tx.rs`).

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::store::{LedgerRow, Place};

/// What is read of a row.
const COLUMNS: &str = "owner, epoch, next_offset, (extract(epoch FROM updated_at) * 1000)::int8 AS updated_ms";

pub(super) async fn read(db: &mut PgConnection, place: &Place) -> sqlx::Result<Option<LedgerRow>> {
    let sql = format!("SELECT {COLUMNS} FROM weir_ledger WHERE group_name = $1 AND topic_id = $2 AND partition = $3");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(&*place.group)
        .bind(place.origin.topic_id)
        .bind(place.origin.partition)
        .fetch_optional(db)
        .await?;
    row.map(|row| ledger_row(&row)).transpose()
}

fn ledger_row(row: &PgRow) -> sqlx::Result<LedgerRow> {
    Ok(LedgerRow {
        owner: row.try_get("owner")?,
        epoch: row.try_get("epoch")?,
        next_offset: row.try_get("next_offset")?,
        updated_ms: row.try_get("updated_ms")?,
    })
}

pub(super) async fn of_group(db: &mut PgConnection, group: &str) -> sqlx::Result<HashMap<(Uuid, i32), LedgerRow>> {
    let sql = format!("SELECT topic_id, partition, {COLUMNS} FROM weir_ledger WHERE group_name = $1");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(group).fetch_all(db).await?;
    rows.iter().map(|row| Ok(((row.try_get("topic_id")?, row.try_get("partition")?), ledger_row(row)?))).collect()
}

pub(super) async fn knows_topic(db: &mut PgConnection, group: &str, topic: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM weir_ledger WHERE group_name = $1 AND topic = $2)")
        .bind(group)
        .bind(topic)
        .fetch_one(db)
        .await
}

/// One statement is one transaction. Sorted by partition: of two workers that begin the same group, the second
/// waits for the first and then adds nothing.
pub(super) async fn begin(db: &mut PgConnection, rows: &[(Place, i64)]) -> sqlx::Result<()> {
    let mut rows: Vec<&(Place, i64)> = rows.iter().collect();
    rows.sort_by_key(|(place, _)| (place.origin.topic_id, place.origin.partition));
    let groups: Vec<&str> = rows.iter().map(|(place, _)| &*place.group).collect();
    let topic_ids: Vec<_> = rows.iter().map(|(place, _)| place.origin.topic_id).collect();
    let partitions: Vec<i32> = rows.iter().map(|(place, _)| place.origin.partition).collect();
    let topics: Vec<&str> = rows.iter().map(|(place, _)| &*place.origin.topic).collect();
    let offsets: Vec<i64> = rows.iter().map(|(_, offset)| *offset).collect();
    sqlx::query(
        "INSERT INTO weir_ledger (group_name, topic_id, partition, topic, next_offset)
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::int4[], $4::text[], $5::int8[])
         ON CONFLICT (group_name, topic_id, partition) DO NOTHING",
    )
    .bind(groups)
    .bind(topic_ids)
    .bind(partitions)
    .bind(topics)
    .bind(offsets)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a partition over if its row is still as it was read.
pub(super) async fn claim(db: &mut PgConnection, place: &Place, read: LedgerRow, token: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "UPDATE weir_ledger SET owner = $1, epoch = epoch + 1, updated_at = now()
          WHERE group_name = $2 AND topic_id = $3 AND partition = $4 AND epoch = $5 AND next_offset = $6",
    )
    .bind(token)
    .bind(&*place.group)
    .bind(place.origin.topic_id)
    .bind(place.origin.partition)
    .bind(read.epoch)
    .bind(read.next_offset)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn forget_seen(db: &mut PgConnection, name: &str, horizon: Duration, limit: i64) -> sqlx::Result<u64> {
    let seconds = i64::try_from(horizon.as_secs()).unwrap_or(i64::MAX);
    let done = sqlx::query(
        "DELETE FROM weir_seen WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM weir_seen WHERE pool = $1 AND seen_at < now() - $2 * interval '1 second' LIMIT $3))",
    )
    .bind(name)
    .bind(seconds)
    .bind(limit)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
