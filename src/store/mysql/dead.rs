//! Dead rows on their way to the dead-letter topic.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use uuid::Uuid;

use super::NOW_MS;
use super::rows::tuples;
use crate::store::UnpublishedLetter;

/// The oldest that have no letter yet. Whether their ids are live is the transaction's to say (`tx.rs`, `drop_live`).
pub(super) async fn unpublished(
    db: &mut MySqlConnection,
    pool: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedLetter>> {
    let sql = format!(
        "SELECT CONVERT(type USING utf8mb4) AS type, CONVERT(event_id USING utf8mb4) AS event_id,
                CONVERT(pipeline USING utf8mb4) AS pipeline, reason, message, CONVERT(topic USING utf8mb4) AS topic,
                \"partition\", \"offset\", \"key\", value, headers
           FROM weir_dead
          WHERE pool = ? AND published_at IS NULL AND (topic_id, \"partition\") IN ({})
          ORDER BY created_at LIMIT ?",
        tuples("(?, ?)", partitions.len())
    );
    let mut select = sqlx::query(AssertSqlSafe(sql)).bind(pool.as_bytes());
    for (topic_id, partition) in partitions {
        select = select.bind(topic_id.to_string()).bind(partition);
    }
    let rows = select.bind(limit).fetch_all(db).await?;
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

pub(super) async fn published(db: &mut MySqlConnection, pool: &str, ids: &[(&str, &str)]) -> sqlx::Result<()> {
    let sql = format!("UPDATE weir_dead SET published_at = {NOW_MS} WHERE pool = ? AND event_id = ? AND type = ?");
    for (kind, event_id) in ids {
        sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(pool.as_bytes())
            .bind(event_id.as_bytes())
            .bind(kind.as_bytes())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
