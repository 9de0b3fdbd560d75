//! What the database has of one event.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::{Mysql, describe};
use crate::store::connection::bounded;
use crate::store::find::VerdictColumns;
use crate::store::{Column, ColumnType, Finds, FoundVerdict, IdKey, Result};

#[async_trait]
impl Finds for Mysql {
    async fn row_of(&self, key: &IdKey, id: &str) -> Result<Option<String>> {
        const ACTION: &str = "look for a row";
        let IdKey { table, column, kind } = key;
        let Some(id) = kind.spelt(id) else { return Ok(None) };
        let mut tx = self.open(ACTION).await?;
        let is_mariadb = self.session.is_mariadb();
        let columns = bounded(self.deadline, ACTION, describe::columns(tx.connection(), table, is_mariadb)).await?;
        // A JSON object takes no bytes.
        let field = |column: &Column| {
            let (text, name) = (column.name.replace('\'', "''"), column.name.replace('"', "\"\""));
            let is_binary = matches!(&column.kind, ColumnType::Other(kind) if ["blob", "binary", "bit"].iter().any(|word| kind.contains(word)));
            if is_binary { format!("'{text}', HEX(\"{name}\")") } else { format!("'{text}', \"{name}\"") }
        };
        let fields: Vec<String> = columns.iter().map(field).collect();
        let sql = format!("SELECT JSON_OBJECT({}) FROM \"{table}\" WHERE \"{column}\" = ?", fields.join(", "));
        let row = sqlx::query_scalar(AssertSqlSafe(sql)).bind(&*id).fetch_optional(tx.connection());
        let row = bounded(self.deadline, ACTION, row).await?;
        tx.finish().await?;
        Ok(row)
    }

    async fn seen_of(&self, pool: &str, id: &str) -> Result<Vec<(String, i64)>> {
        const ACTION: &str = "look for an id";
        let mut tx = self.open(ACTION).await?;
        let select = sqlx::query_as(
            "SELECT CONVERT(type USING utf8mb4) AS kind, seen_at FROM weir_seen WHERE pool = ? AND event_id = ? ORDER BY kind",
        );
        let select = select.bind(pool.as_bytes()).bind(id.as_bytes());
        let seen = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(seen)
    }

    async fn verdicts_of(&self, pool: &str, id: &str) -> Result<Vec<FoundVerdict>> {
        const ACTION: &str = "look for verdicts";
        let mut tx = self.open(ACTION).await?;
        let select = sqlx::query_as::<_, VerdictColumns>(
            "SELECT CONVERT(pipeline USING utf8mb4) AS pipeline, verdict, reason, decided_at AS decided_ms,
                    published_at IS NOT NULL AS is_published
               FROM weir_verdicts WHERE event_id = ? AND pool = ? ORDER BY pipeline",
        );
        let select = select.bind(id.as_bytes()).bind(pool.as_bytes());
        let verdicts = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        Ok(verdicts.into_iter().map(FoundVerdict::from).collect())
    }
}
