//! What the database has of one event.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::{Sqlite, describe, rows};
use crate::store::connection::bounded;
use crate::store::find::VerdictColumns;
use crate::store::{Column, Finds, FoundVerdict, IdKey, Result};

#[async_trait]
impl Finds for Sqlite {
    async fn row_of(&self, key: &IdKey, id: &str) -> Result<Option<String>> {
        const ACTION: &str = "look for a row";
        let IdKey { table, column, .. } = key;
        let mut tx = self.read(ACTION).await?;
        let columns = bounded(self.deadline, ACTION, describe::columns(tx.connection(), table)).await?;
        // A JSON object takes no bytes.
        let field = |column: &Column| {
            let (text, name) = (column.name.replace('\'', "''"), column.name.replace('"', "\"\""));
            format!("'{text}', CASE typeof(\"{name}\") WHEN 'blob' THEN hex(\"{name}\") ELSE \"{name}\" END")
        };
        let fields: Vec<String> = columns.iter().map(field).collect();
        let sql = format!(
            "SELECT json_object({}) FROM \"{table}\" WHERE \"{column}\" IN (SELECT value FROM json_each(?1))",
            fields.join(", ")
        );
        let row = sqlx::query_scalar(AssertSqlSafe(sql)).bind(rows::keys(key, &[id])).fetch_optional(tx.connection());
        let row = bounded(self.deadline, ACTION, row).await?;
        tx.finish().await?;
        Ok(row)
    }

    async fn seen_of(&self, pool: &str, id: &str) -> Result<Vec<(String, i64)>> {
        const ACTION: &str = "look for an id";
        let mut tx = self.read(ACTION).await?;
        let select =
            sqlx::query_as("SELECT type, seen_at FROM weir_seen WHERE pool = ?1 AND event_id = ?2 ORDER BY type");
        let seen = bounded(self.deadline, ACTION, select.bind(pool).bind(id).fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(seen)
    }

    async fn verdicts_of(&self, pool: &str, id: &str) -> Result<Vec<FoundVerdict>> {
        const ACTION: &str = "look for verdicts";
        let mut tx = self.read(ACTION).await?;
        let select = sqlx::query_as::<_, VerdictColumns>(
            "SELECT pipeline, verdict, reason, decided_at AS decided_ms, published_at IS NOT NULL AS is_published
               FROM weir_verdicts WHERE event_id = ?2 AND pool = ?1 ORDER BY pipeline",
        );
        let select = select.bind(pool).bind(id);
        let verdicts = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(verdicts.into_iter().map(FoundVerdict::from).collect())
    }
}
