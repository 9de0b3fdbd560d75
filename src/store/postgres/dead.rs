//! Dead rows on their way to the dead-letter topic.

use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::store::{IdKey, KeyType, UnpublishedLetter};

/// Removes unpublished dead rows whose id is live. A good and a bad copy of one id, handled at the same moment on
/// two partitions, do not see each other; whoever publishes the dead row looks again.
pub(super) async fn drop_live(pool: &PgPool, name: &str, key: &IdKey) -> sqlx::Result<()> {
    let IdKey { table, column, kind } = key;
    let live = match kind {
        KeyType::Text => format!("EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id)"),
        KeyType::Uuid => format!(
            "CASE WHEN d.event_id ~* '^[0-9a-f]{{8}}(-?[0-9a-f]{{4}}){{3}}-?[0-9a-f]{{12}}$'
                  THEN EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id::uuid) ELSE false END"
        ),
        KeyType::Int => format!(
            "CASE WHEN d.event_id ~ '^-?[0-9]{{1,18}}$'
                  THEN EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id::int8) ELSE false END"
        ),
    };
    let sql = format!("DELETE FROM weir_dead d WHERE d.pool = $1 AND d.published_at IS NULL AND {live}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name).execute(pool).await?;
    Ok(())
}

/// Only rows beside whose transaction nothing runs any more: their standing is settled. A restored database counts
/// its transactions from elsewhere, so a row a minute old passes as well.
pub(super) async fn unpublished(
    pool: &PgPool,
    name: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedLetter>> {
    let (topic_ids, numbers): (Vec<Uuid>, Vec<i32>) = partitions.iter().copied().unzip();
    let rows = sqlx::query(
        "SELECT event_id, pipeline, reason, message, topic, partition, \"offset\", key, value, headers
           FROM weir_dead
          WHERE pool = $1 AND published_at IS NULL
            AND (topic_id, partition) IN (SELECT * FROM unnest($2::uuid[], $3::int4[]))
            AND (written_in < pg_snapshot_xmin(pg_current_snapshot()) OR created_at < now() - interval '1 minute')
          ORDER BY created_at LIMIT $4",
    )
    .bind(name)
    .bind(topic_ids)
    .bind(numbers)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(UnpublishedLetter {
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

pub(super) async fn published(pool: &PgPool, name: &str, event_ids: &[String]) -> sqlx::Result<()> {
    sqlx::query("UPDATE weir_dead SET published_at = now() WHERE pool = $1 AND event_id = ANY($2)")
        .bind(name)
        .bind(event_ids)
        .execute(pool)
        .await?;
    Ok(())
}
