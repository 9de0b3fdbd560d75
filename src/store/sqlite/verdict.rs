//! Verdicts of moderation.

use async_trait::async_trait;
use sqlx::{Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{now_ms, rows};
use crate::store::connection::{OpenTx, bounded};
use crate::store::{IdKey, Result, StoredVerdict, UnpublishedVerdict, VerdictTx, Verdicts};

#[async_trait]
impl VerdictTx for OpenTx<Sqlite> {
    async fn keep_verdicts(&mut self, pool: &str, pipeline: &str, verdicts: &[StoredVerdict]) -> Result<()> {
        for row in verdicts {
            let insert = sqlx::query(
                "INSERT INTO weir_verdicts (pool, pipeline, event_id, verdict, reason, conversation, topic_id, partition, key,
                                            decided_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (event_id, pool, pipeline) DO UPDATE
                    SET verdict = excluded.verdict, reason = excluded.reason, conversation = excluded.conversation,
                        topic_id = excluded.topic_id, partition = excluded.partition, key = excluded.key,
                        decided_at = excluded.decided_at, published_at = NULL",
            )
            .bind(pool)
            .bind(pipeline)
            .bind(&row.event_id)
            .bind(&row.verdict)
            .bind(&row.reason)
            .bind(row.conversation.as_deref())
            .bind(row.topic_id.hyphenated())
            .bind(row.partition)
            .bind(row.key.as_deref())
            .bind(now_ms());
            bounded(self.deadline, "keep verdicts", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn set_status(&mut self, messages: &IdKey, verdicts: &[StoredVerdict]) -> Result<()> {
        let IdKey { table, column, kind } = messages;
        // A number's column compares with text by its number, as the column's affinity says.
        let sql = format!(
            "UPDATE \"{table}\" AS m SET status = u.value ->> 1 FROM json_each(?1) AS u WHERE m.\"{column}\" = u.value ->> 0"
        );
        let known: Vec<(String, &str)> = verdicts
            .iter()
            .filter_map(|row| Some((kind.spelt(&row.event_id)?.into_owned(), row.verdict.as_str())))
            .collect();
        let update = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(rows::json(&known));
        bounded(self.deadline, "set the status of messages", update.execute(self.connection())).await?;
        Ok(())
    }
}

#[async_trait]
impl Verdicts for super::Sqlite {
    async fn unpublished_verdicts(
        &self,
        pool: &str,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedVerdict>> {
        const ACTION: &str = "read verdicts";
        let mut tx = self.read(ACTION).await?;
        let verdicts = bounded(self.deadline, ACTION, unpublished(tx.connection(), pool, partitions, limit)).await?;
        tx.finish().await?;
        Ok(verdicts)
    }

    async fn published_verdicts(&self, pool: &str, verdicts: &[UnpublishedVerdict]) -> Result<()> {
        const ACTION: &str = "note published verdicts";
        let mut tx = self.write(ACTION).await?;
        let of =
            |row: &UnpublishedVerdict| (row.stored.event_id.clone(), row.pipeline.clone(), row.stored.verdict.clone());
        let update = sqlx::query(
            "UPDATE weir_verdicts SET published_at = ?3
              WHERE pool = ?1 AND (event_id, pipeline, verdict) IN
                    (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?2))",
        )
        .bind(pool)
        .bind(rows::json(&verdicts.iter().map(of).collect::<Vec<_>>()))
        .bind(now_ms());
        bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await
    }
}

async fn unpublished(
    db: &mut SqliteConnection,
    pool: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedVerdict>> {
    let rows = sqlx::query(
        "SELECT event_id, pipeline, verdict, reason, conversation, topic_id, partition, key, decided_at
           FROM weir_verdicts
          WHERE pool = ?1 AND published_at IS NULL
            AND (topic_id, partition) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))
          ORDER BY decided_at LIMIT ?3",
    )
    .bind(pool)
    .bind(rows::json(partitions))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let topic_id: uuid::fmt::Hyphenated = row.try_get("topic_id")?;
            let stored = StoredVerdict {
                event_id: row.try_get("event_id")?,
                verdict: row.try_get("verdict")?,
                reason: row.try_get("reason")?,
                conversation: row.try_get("conversation")?,
                topic_id: topic_id.into_uuid(),
                partition: row.try_get("partition")?,
                key: row.try_get("key")?,
            };
            Ok(UnpublishedVerdict {
                pipeline: row.try_get("pipeline")?,
                stored,
                decided_ms: row.try_get("decided_at")?,
            })
        })
        .collect()
}
