//! Dead rows on their way to the dead-letter topic.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::store::{IdKey, KeyType, UnpublishedLetter};

/// Removes unpublished dead rows whose id is live. A good and a bad copy of one id, handled at the same moment on
/// two partitions, do not see each other; whoever publishes the dead row looks again.
pub(super) async fn drop_live(db: &mut PgConnection, name: &str, key: Option<&IdKey>) -> sqlx::Result<()> {
    let live = match key {
        None => "EXISTS (SELECT 1 FROM weir_seen s WHERE s.pool = d.pool AND s.event_id = d.event_id AND d.type IN ('', s.type))".to_owned(),
        Some(key) => live_in_table(key),
    };
    let sql = format!("DELETE FROM weir_dead d WHERE d.pool = $1 AND d.published_at IS NULL AND {live}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name).execute(db).await?;
    Ok(())
}

fn live_in_table(key: &IdKey) -> String {
    let IdKey { table, column, kind } = key;
    match kind {
        KeyType::Text => format!("EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id)"),
        KeyType::Uuid => format!(
            "CASE WHEN d.event_id ~* '^[0-9a-f]{{8}}(-?[0-9a-f]{{4}}){{3}}-?[0-9a-f]{{12}}$'
                  THEN EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id::uuid) ELSE false END"
        ),
        KeyType::Int => format!(
            "CASE WHEN d.event_id ~ '^-?[0-9]{{1,18}}$'
                  THEN EXISTS (SELECT 1 FROM \"{table}\" WHERE \"{column}\" = d.event_id::int8) ELSE false END"
        ),
    }
}

/// Only rows beside whose transaction nothing runs any more: their standing is settled. A restored database counts
/// its transactions from elsewhere, so a row a minute old passes as well.
pub(super) async fn unpublished(
    db: &mut PgConnection,
    name: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedLetter>> {
    let (topic_ids, numbers): (Vec<Uuid>, Vec<i32>) = partitions.iter().copied().unzip();
    let rows = sqlx::query(
        "SELECT type, event_id, pipeline, reason, message, topic, partition, \"offset\", key, value, headers
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

pub(super) async fn published(db: &mut PgConnection, name: &str, ids: &[(&str, &str)]) -> sqlx::Result<()> {
    let (kinds, event_ids): (Vec<&str>, Vec<&str>) = ids.iter().copied().unzip();
    sqlx::query(
        "UPDATE weir_dead d SET published_at = now() FROM unnest($2::text[], $3::text[]) AS u(type, event_id)
          WHERE d.pool = $1 AND d.type = u.type AND d.event_id = u.event_id",
    )
    .bind(name)
    .bind(kinds)
    .bind(event_ids)
    .execute(db)
    .await?;
    Ok(())
}
