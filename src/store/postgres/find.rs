//! What the database has of one event.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::Postgres;
use crate::store::connection::bounded;
use crate::store::find::VerdictColumns;
use crate::store::{Finds, FoundVerdict, IdKey, KeyType, Result};

#[async_trait]
impl Finds for Postgres {
    async fn row_of(&self, key: &IdKey, id: &str) -> Result<Option<String>> {
        const ACTION: &str = "look for a row";
        let IdKey { table, column, kind } = key;
        let Some(id) = kind.spelt(id) else { return Ok(None) };
        let cast = match kind {
            KeyType::Text => "text",
            KeyType::Uuid => "text::uuid",
            KeyType::Int => "text::int8",
        };
        let sql = format!("SELECT row_to_json(t)::text FROM \"{table}\" AS t WHERE \"{column}\" = $1::{cast}");
        let mut tx = self.open(ACTION).await?;
        let row = sqlx::query_scalar(AssertSqlSafe(sql)).bind(&*id).fetch_optional(tx.connection());
        let row = bounded(self.deadline, ACTION, row).await?;
        tx.finish().await?;
        Ok(row)
    }

    async fn seen_of(&self, pool: &str, id: &str) -> Result<Vec<(String, i64)>> {
        const ACTION: &str = "look for an id";
        let mut tx = self.open(ACTION).await?;
        // The key begins with the type: a loose scan over the few types there are, in place of one over all ids.
        let select = sqlx::query_as(
            "WITH RECURSIVE types AS (
                 (SELECT type FROM weir_seen WHERE pool = $1 ORDER BY type LIMIT 1)
                 UNION ALL
                 SELECT (SELECT s.type FROM weir_seen s WHERE s.pool = $1 AND s.type > t.type ORDER BY s.type LIMIT 1)
                   FROM types t WHERE t.type IS NOT NULL)
             SELECT s.type, (extract(epoch FROM s.seen_at) * 1000)::int8 FROM types t
               JOIN weir_seen s ON s.pool = $1 AND s.type = t.type AND s.event_id = $2 ORDER BY 1",
        );
        let seen = bounded(self.deadline, ACTION, select.bind(pool).bind(id).fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(seen)
    }

    async fn verdicts_of(&self, pool: &str, id: &str) -> Result<Vec<FoundVerdict>> {
        const ACTION: &str = "look for verdicts";
        let mut tx = self.open(ACTION).await?;
        let select = sqlx::query_as::<_, VerdictColumns>(
            "SELECT pipeline, verdict, reason, (extract(epoch FROM decided_at) * 1000)::int8 AS decided_ms,
                    published_at IS NOT NULL AS is_published
               FROM weir_verdicts WHERE event_id = $2 AND pool = $1 ORDER BY pipeline",
        );
        let select = select.bind(pool).bind(id);
        let verdicts = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(verdicts.into_iter().map(FoundVerdict::from).collect())
    }
}
