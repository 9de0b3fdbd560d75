//! Which pipelines have begun where.

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::NOW_MS;
use crate::store::Place;
use crate::store::claim::Begun;

pub(super) async fn begun(db: &mut MySqlConnection, place: &Place) -> sqlx::Result<Vec<Begun>> {
    let rows = sqlx::query_as::<_, (String, String, bool)>(
        "SELECT CONVERT(pipeline USING utf8mb4), CONVERT(pool USING utf8mb4), retired_at IS NOT NULL FROM weir_pipelines
          WHERE group_name = ? AND topic_id = ? AND \"partition\" = ?",
    )
    .bind(place.group.as_bytes())
    .bind(place.origin.topic_id.to_string())
    .bind(place.origin.partition)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(pipeline, pool, is_retired)| Begun { pipeline, pool, is_retired }).collect())
}

/// A pool has few pipelines, and they begin with a claim: a statement each. The table has no other unique key.
pub(super) async fn begin(
    db: &mut MySqlConnection,
    place: &Place,
    pool: &str,
    (names, offset): (Vec<&str>, i64),
) -> sqlx::Result<()> {
    let sql = format!(
        "INSERT INTO weir_pipelines (group_name, topic_id, \"partition\", pool, begin_offset, pipeline, begun_at)
         VALUES (?, ?, ?, ?, ?, ?, {NOW_MS})
         ON DUPLICATE KEY UPDATE begin_offset = VALUES(begin_offset), begun_at = VALUES(begun_at), runs = runs + 1,
                                 retired_at = NULL"
    );
    for name in names {
        sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(place.group.as_bytes())
            .bind(place.origin.topic_id.to_string())
            .bind(place.origin.partition)
            .bind(pool.as_bytes())
            .bind(offset)
            .bind(name.as_bytes())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

pub(super) async fn of_group(db: &mut MySqlConnection, group: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT DISTINCT CONVERT(pipeline USING utf8mb4) AS name FROM weir_pipelines
          WHERE group_name = ? AND retired_at IS NULL ORDER BY name",
    )
    .bind(group.as_bytes())
    .fetch_all(db)
    .await
}

pub(super) async fn retire(db: &mut MySqlConnection, group: &str, pipeline: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(AssertSqlSafe(format!(
        "UPDATE weir_pipelines SET retired_at = {NOW_MS} WHERE group_name = ? AND pipeline = ? AND retired_at IS NULL"
    )))
    .bind(group.as_bytes())
    .bind(pipeline.as_bytes())
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
