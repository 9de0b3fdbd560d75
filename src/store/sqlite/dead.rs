//! Dead rows on their way to the dead-letter topic.

use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{now_ms, rows};
use crate::store::{IdKey, UnpublishedLetter};

/// Whether any dead row waits for its letter: a look that needs no turn to write.
pub(super) async fn has_unpublished(db: &mut SqliteConnection, pool: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM weir_dead WHERE pool = ?1 AND published_at IS NULL)")
        .bind(pool)
        .fetch_one(db)
        .await
}

/// Removes unpublished dead rows whose id is live.
pub(super) async fn drop_live(db: &mut SqliteConnection, pool: &str, key: Option<&IdKey>) -> sqlx::Result<()> {
    let live = match key {
        None => "EXISTS (SELECT 1 FROM weir_seen s WHERE s.pool = d.pool AND s.event_id = d.event_id AND d.type IN ('', s.type))"
            .to_owned(),
        // A number's column compares with text by its number, as the column's affinity says.
        Some(IdKey { table, column, .. }) => {
            format!("EXISTS (SELECT 1 FROM \"{table}\" AS t WHERE t.\"{column}\" = d.event_id)")
        }
    };
    let sql = format!("DELETE FROM weir_dead AS d WHERE d.pool = ?1 AND d.published_at IS NULL AND {live}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(pool).execute(db).await?;
    Ok(())
}

/// Writers go one after the other, so the standing of every row that can be seen is settled.
pub(super) async fn unpublished(
    db: &mut SqliteConnection,
    pool: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedLetter>> {
    let rows = sqlx::query(
        "SELECT type, event_id, pipeline, reason, message, topic, partition, \"offset\", key, value, headers
           FROM weir_dead
          WHERE pool = ?1 AND published_at IS NULL
            AND (topic_id, partition) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))
          ORDER BY created_at LIMIT ?3",
    )
    .bind(pool)
    .bind(rows::json(partitions))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(UnpublishedLetter {
                kind: row.try_get("type")?,
                event_id: row.try_get("event_id")?,
                pipeline: row.try_get("pipeline")?,
                reason: row.try_get("reason")?,
                message: row.try_get("message")?,
                topic: row.try_get("topic")?,
                partition: row.try_get("partition")?,
                offset: row.try_get("offset")?,
                key: row.try_get("key")?,
                value: row.try_get("value")?,
                headers: row.try_get("headers")?,
            })
        })
        .collect()
}

pub(super) async fn published(db: &mut SqliteConnection, pool: &str, ids: &[(&str, &str)]) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE weir_dead SET published_at = ?3
          WHERE pool = ?1 AND (type, event_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))",
    )
    .bind(pool)
    .bind(rows::json(ids))
    .bind(now_ms())
    .execute(db)
    .await?;
    Ok(())
}
