//! Verdicts of moderation.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use uuid::Uuid;

use super::rows::{AT_ONCE, filled, pieces, size_for, tuples, uuid_of};
use super::tx::BatchTx;
use super::{Mysql, NOW_MS};
use crate::store::connection::bounded;
use crate::store::{IdKey, KeyType, Result, StoredVerdict, UnpublishedVerdict, VerdictTx, Verdicts};

#[async_trait]
impl VerdictTx for BatchTx {
    /// The table has no other unique key than the one that is meant.
    async fn keep_verdicts(&mut self, pool: &str, pipeline: &str, verdicts: &[StoredVerdict]) -> Result<()> {
        const REPLACED: [&str; 8] =
            ["verdict", "reason", "conversation", "topic_id", "partition", "key", "decided_at", "published_at"];
        let replaced = REPLACED.map(|name| format!("\"{name}\" = VALUES(\"{name}\")")).join(", ");
        for rows in pieces(verdicts) {
            let sql = format!(
                "INSERT INTO weir_verdicts (pool, pipeline, event_id, verdict, reason, conversation, topic_id, \"partition\",
                                            \"key\", decided_at) VALUES {} ON DUPLICATE KEY UPDATE {replaced}",
                tuples(&format!("(?, ?, ?, ?, ?, ?, ?, ?, ?, {NOW_MS})"), rows.len())
            );
            let mut insert = sqlx::query(AssertSqlSafe(sql));
            for row in rows {
                insert = insert
                    .bind(pool.as_bytes())
                    .bind(pipeline.as_bytes())
                    .bind(row.event_id.as_bytes())
                    .bind(row.verdict.as_str())
                    .bind(row.reason.as_str())
                    .bind(row.conversation.as_deref())
                    .bind(row.topic_id.to_string())
                    .bind(row.partition)
                    .bind(row.key.as_deref());
            }
            let deadline = self.deadline();
            bounded(deadline, "keep verdicts", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn set_status(&mut self, messages: &IdKey, verdicts: &[StoredVerdict]) -> Result<()> {
        let IdKey { table, column, kind } = messages;
        for status in ["flag", "hide"] {
            let of_status = verdicts.iter().filter(|row| row.verdict == status);
            let ids: Vec<String> = of_status.filter_map(|row| Some(kind.spelt(&row.event_id)?.into_owned())).collect();
            for ids in ids.chunks(AT_ONCE) {
                let size = size_for(ids.len());
                let sql = format!("UPDATE \"{table}\" SET status = ? WHERE \"{column}\" IN ({})", tuples("?", size));
                let mut update = sqlx::query(AssertSqlSafe(sql)).bind(status);
                for id in filled(ids, size) {
                    update = match kind {
                        KeyType::Int => update.bind(id.parse::<i64>().ok()),
                        KeyType::Text | KeyType::Uuid => update.bind(id.as_str()),
                    };
                }
                let deadline = self.deadline();
                bounded(deadline, "set the status of messages", update.execute(self.connection())).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Verdicts for Mysql {
    async fn unpublished_verdicts(
        &self,
        pool: &str,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedVerdict>> {
        const ACTION: &str = "read verdicts";
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.open(ACTION).await?;
        let verdicts = bounded(self.deadline, ACTION, unpublished(tx.connection(), pool, partitions, limit)).await?;
        tx.finish().await?;
        Ok(verdicts)
    }

    async fn published_verdicts(&self, pool: &str, verdicts: &[UnpublishedVerdict]) -> Result<()> {
        const ACTION: &str = "note published verdicts";
        let mut tx = self.open(ACTION).await?;
        let sql = format!(
            "UPDATE weir_verdicts SET published_at = {NOW_MS} WHERE event_id = ? AND pool = ? AND pipeline = ? AND verdict = ?"
        );
        for row in verdicts {
            let update = sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(row.stored.event_id.as_bytes())
                .bind(pool.as_bytes())
                .bind(row.pipeline.as_bytes())
                .bind(row.stored.verdict.as_str());
            bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        }
        tx.finish().await
    }
}

async fn unpublished(
    db: &mut MySqlConnection,
    pool: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedVerdict>> {
    let sql = format!(
        "SELECT CONVERT(event_id USING utf8mb4) AS event_id, CONVERT(pipeline USING utf8mb4) AS pipeline, verdict, reason,
                conversation, topic_id, \"partition\", \"key\", decided_at
           FROM weir_verdicts
          WHERE pool = ? AND published_at IS NULL AND (topic_id, \"partition\") IN ({})
          ORDER BY decided_at LIMIT ?",
        tuples("(?, ?)", partitions.len())
    );
    let mut select = sqlx::query(AssertSqlSafe(sql)).bind(pool.as_bytes());
    for (topic_id, partition) in partitions {
        select = select.bind(topic_id.to_string()).bind(partition);
    }
    let rows = select.bind(limit).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            let stored = StoredVerdict {
                event_id: row.try_get("event_id")?,
                verdict: row.try_get("verdict")?,
                reason: row.try_get("reason")?,
                conversation: row.try_get("conversation")?,
                topic_id: uuid_of(row.try_get("topic_id")?)?,
                partition: row.try_get("partition")?,
                key: row.try_get("key")?,
            };
            let (pipeline, decided_ms) = (row.try_get("pipeline")?, row.try_get("decided_at")?);
            Ok(UnpublishedVerdict { pipeline, stored, decided_ms })
        })
        .collect()
}
