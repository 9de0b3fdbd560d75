//! Verdicts of moderation.

use async_trait::async_trait;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::store::connection::{OpenTx, bounded};
use crate::store::{IdKey, KeyType, Result, StoredVerdict, UnpublishedVerdict, VerdictTx, Verdicts};

#[async_trait]
impl VerdictTx for OpenTx<Postgres> {
    async fn keep_verdicts(&mut self, pool: &str, pipeline: &str, verdicts: &[StoredVerdict]) -> Result<()> {
        let insert = sqlx::query(
            "INSERT INTO weir_verdicts (pool, pipeline, event_id, verdict, reason, conversation, topic_id, partition, key)
             SELECT $1, $2, u.* FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::int4[], $9::bytea[])
                 AS u(event_id, verdict, reason, conversation, topic_id, partition, key)
             ON CONFLICT (event_id, pool, pipeline) DO UPDATE
                SET verdict = excluded.verdict, reason = excluded.reason, conversation = excluded.conversation,
                    topic_id = excluded.topic_id, partition = excluded.partition, key = excluded.key,
                    decided_at = excluded.decided_at, published_at = NULL",
        )
        .bind(pool)
        .bind(pipeline)
        .bind(verdicts.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.verdict.as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.conversation.as_deref()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.topic_id).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.partition).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.key.as_deref()).collect::<Vec<_>>());
        bounded(self.deadline, "keep verdicts", insert.execute(self.connection())).await?;
        Ok(())
    }

    async fn set_status(&mut self, messages: &IdKey, verdicts: &[StoredVerdict]) -> Result<()> {
        let IdKey { table, column, kind } = messages;
        let id = match kind {
            KeyType::Text => "u.id",
            KeyType::Uuid => "u.id::uuid",
            KeyType::Int => "u.id::int8",
        };
        let sql = format!(
            "UPDATE \"{table}\" AS m SET status = u.status FROM unnest($1::text[], $2::text[]) AS u(id, status)
              WHERE m.\"{column}\" = {id}"
        );
        let known =
            verdicts.iter().filter_map(|row| Some((kind.spelt(&row.event_id)?.into_owned(), row.verdict.as_str())));
        let (ids, statuses): (Vec<String>, Vec<&str>) = known.unzip();
        let update = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(ids).bind(statuses);
        bounded(self.deadline, "set the status of messages", update.execute(self.connection())).await?;
        Ok(())
    }
}

#[async_trait]
impl Verdicts for super::Postgres {
    async fn unpublished_verdicts(
        &self,
        pool: &str,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedVerdict>> {
        const ACTION: &str = "read verdicts";
        let mut tx = self.open(ACTION).await?;
        let verdicts = bounded(self.deadline, ACTION, unpublished(tx.connection(), pool, partitions, limit)).await?;
        tx.finish().await?;
        Ok(verdicts)
    }

    async fn published_verdicts(&self, pool: &str, verdicts: &[UnpublishedVerdict]) -> Result<()> {
        const ACTION: &str = "note published verdicts";
        let mut tx = self.open(ACTION).await?;
        let update = sqlx::query(
            "UPDATE weir_verdicts v SET published_at = now()
               FROM unnest($2::text[], $3::text[], $4::text[]) AS u(event_id, pipeline, verdict)
              WHERE v.pool = $1 AND v.event_id = u.event_id AND v.pipeline = u.pipeline AND v.verdict = u.verdict",
        )
        .bind(pool)
        .bind(verdicts.iter().map(|row| row.stored.event_id.as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.pipeline.as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|row| row.stored.verdict.as_str()).collect::<Vec<_>>());
        bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await
    }
}

async fn unpublished(
    db: &mut PgConnection,
    pool: &str,
    partitions: &[(Uuid, i32)],
    limit: i64,
) -> sqlx::Result<Vec<UnpublishedVerdict>> {
    let (topic_ids, numbers): (Vec<Uuid>, Vec<i32>) = partitions.iter().copied().unzip();
    let rows = sqlx::query(
        "SELECT event_id, pipeline, verdict, reason, conversation, topic_id, partition, key,
                (extract(epoch FROM decided_at) * 1000)::int8 AS decided_ms
           FROM weir_verdicts
          WHERE pool = $1 AND published_at IS NULL
            AND (topic_id, partition) IN (SELECT * FROM unnest($2::uuid[], $3::int4[]))
          ORDER BY decided_at LIMIT $4",
    )
    .bind(pool)
    .bind(topic_ids)
    .bind(numbers)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let stored = StoredVerdict {
                event_id: row.try_get("event_id")?,
                verdict: row.try_get("verdict")?,
                reason: row.try_get("reason")?,
                conversation: row.try_get("conversation")?,
                topic_id: row.try_get("topic_id")?,
                partition: row.try_get("partition")?,
                key: row.try_get("key")?,
            };
            Ok(UnpublishedVerdict {
                pipeline: row.try_get("pipeline")?,
                stored,
                decided_ms: row.try_get("decided_ms")?,
            })
        })
        .collect()
}
