//! Reading, beginning and claiming ledger rows, and forgetting old ids. Moving a row is the transaction's (`tx.rs`).

use std::collections::HashMap;
use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use uuid::Uuid;

use super::NOW_MS;
use super::rows::{tuples, uuid_of};
use crate::store::{LedgerRow, Place};

/// What is read of a row.
const COLUMNS: &str = "owner, epoch, next_offset, updated_at AS updated_ms";

/// Rows of the ledger that one statement begins.
const ROWS_AT_ONCE: usize = 500;

pub(super) async fn read(db: &mut MySqlConnection, place: &Place) -> sqlx::Result<Option<LedgerRow>> {
    let sql = format!("SELECT {COLUMNS} FROM weir_ledger WHERE group_name = ? AND topic_id = ? AND \"partition\" = ?");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(place.group.as_bytes())
        .bind(place.origin.topic_id.to_string())
        .bind(place.origin.partition)
        .fetch_optional(db)
        .await?;
    row.map(|row| ledger_row(&row)).transpose()
}

fn ledger_row(row: &MySqlRow) -> sqlx::Result<LedgerRow> {
    let owner: Option<String> = row.try_get("owner")?;
    Ok(LedgerRow {
        owner: owner.as_deref().map(uuid_of).transpose()?,
        epoch: row.try_get("epoch")?,
        next_offset: row.try_get("next_offset")?,
        updated_ms: row.try_get("updated_ms")?,
    })
}

pub(super) async fn of_group(db: &mut MySqlConnection, group: &str) -> sqlx::Result<HashMap<(Uuid, i32), LedgerRow>> {
    let sql = format!("SELECT topic_id, \"partition\", {COLUMNS} FROM weir_ledger WHERE group_name = ?");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(group.as_bytes()).fetch_all(db).await?;
    let entry = |row: &MySqlRow| {
        let topic_id = uuid_of(row.try_get("topic_id")?)?;
        Ok(((topic_id, row.try_get("partition")?), ledger_row(row)?))
    };
    rows.iter().map(entry).collect()
}

pub(super) async fn knows_topic(db: &mut MySqlConnection, group: &str, topic: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM weir_ledger WHERE group_name = ? AND topic = ?)")
        .bind(group.as_bytes())
        .bind(topic.as_bytes())
        .fetch_one(db)
        .await
}

/// Sorted by partition: of two workers that begin the same group, the second waits for the first and then adds nothing.
/// The table has no other unique key than the one that is meant.
pub(super) async fn begin(db: &mut MySqlConnection, rows: &[(Place, i64)]) -> sqlx::Result<()> {
    let mut rows: Vec<&(Place, i64)> = rows.iter().collect();
    rows.sort_by_key(|(place, _)| (place.origin.topic_id, place.origin.partition));
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let sql = format!(
            "INSERT INTO weir_ledger (group_name, topic_id, \"partition\", topic, next_offset, updated_at) VALUES {}
             ON DUPLICATE KEY UPDATE next_offset = next_offset",
            tuples(&format!("(?, ?, ?, ?, ?, {NOW_MS})"), rows.len())
        );
        let mut insert = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for (place, offset) in rows {
            let origin = &place.origin;
            insert = insert
                .bind(place.group.as_bytes())
                .bind(origin.topic_id.to_string())
                .bind(origin.partition)
                .bind(origin.topic.as_bytes())
                .bind(offset);
        }
        insert.execute(&mut *db).await?;
    }
    Ok(())
}

/// Takes a partition over if its row is still as it was read. The driver counts the rows that were found.
pub(super) async fn claim(db: &mut MySqlConnection, place: &Place, read: LedgerRow, token: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query(AssertSqlSafe(format!(
        "UPDATE weir_ledger SET owner = ?, epoch = epoch + 1, updated_at = {NOW_MS}
          WHERE group_name = ? AND topic_id = ? AND \"partition\" = ? AND epoch = ? AND next_offset = ?"
    )))
    .bind(token.to_string())
    .bind(place.group.as_bytes())
    .bind(place.origin.topic_id.to_string())
    .bind(place.origin.partition)
    .bind(read.epoch)
    .bind(read.next_offset)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn forget_seen(
    db: &mut MySqlConnection,
    pool: &str,
    horizon: Duration,
    limit: i64,
) -> sqlx::Result<u64> {
    let horizon_ms = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX);
    let done = sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM weir_seen WHERE pool = ? AND seen_at < {NOW_MS} - ? ORDER BY seen_at LIMIT ?"
    )))
    .bind(pool.as_bytes())
    .bind(horizon_ms)
    .bind(limit)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
