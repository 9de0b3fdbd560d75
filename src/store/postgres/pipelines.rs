//! Which pipelines have begun where.

use sqlx::PgConnection;

use crate::store::Place;
use crate::store::claim::Begun;

pub(super) async fn begun(db: &mut PgConnection, place: &Place) -> sqlx::Result<Vec<Begun>> {
    let rows = sqlx::query_as::<_, (String, String, bool)>(
        "SELECT pipeline, pool, retired_at IS NOT NULL FROM weir_pipelines
          WHERE group_name = $1 AND topic_id = $2 AND partition = $3",
    )
    .bind(&*place.group)
    .bind(place.origin.topic_id)
    .bind(place.origin.partition)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(pipeline, pool, is_retired)| Begun { pipeline, pool, is_retired }).collect())
}

pub(super) async fn begin(
    db: &mut PgConnection,
    place: &Place,
    pool: &str,
    (names, offset): (Vec<&str>, i64),
) -> sqlx::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO weir_pipelines AS p (group_name, topic_id, partition, pool, begin_offset, pipeline)
         SELECT $1, $2, $3, $4, $5, name FROM unnest($6::text[]) AS name
         ON CONFLICT (group_name, topic_id, partition, pipeline) DO UPDATE
            SET begin_offset = excluded.begin_offset, begun_at = now(), runs = p.runs + 1, retired_at = NULL",
    )
    .bind(&*place.group)
    .bind(place.origin.topic_id)
    .bind(place.origin.partition)
    .bind(pool)
    .bind(offset)
    .bind(names)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn of_group(db: &mut PgConnection, group: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT DISTINCT pipeline FROM weir_pipelines WHERE group_name = $1 AND retired_at IS NULL ORDER BY pipeline",
    )
    .bind(group)
    .fetch_all(db)
    .await
}

pub(super) async fn retire(db: &mut PgConnection, group: &str, pipeline: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "UPDATE weir_pipelines SET retired_at = now() WHERE group_name = $1 AND pipeline = $2 AND retired_at IS NULL",
    )
    .bind(group)
    .bind(pipeline)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
