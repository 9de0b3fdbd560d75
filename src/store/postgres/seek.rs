//! Deliberate moves of the ledger.

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Postgres;
use crate::store::connection::bounded;
use crate::store::{Move, Result, Seeks};

#[async_trait]
impl Seeks for Postgres {
    async fn seek(&self, moves: &[Move], moved_by: &str) -> Result<Option<Vec<i64>>> {
        const ACTION: &str = "move the ledger";
        let mut tx = self.open(ACTION).await?;
        let mut from = Vec::with_capacity(moves.len());
        for step in moves {
            match bounded(self.deadline, ACTION, one(tx.connection(), step, moved_by)).await? {
                Some(stood_at) => from.push(stood_at),
                None => return tx.end(ACTION, "ROLLBACK").await.map(|()| None),
            }
        }
        tx.finish().await?;
        Ok(Some(from))
    }
}

async fn one(db: &mut PgConnection, step: &Move, moved_by: &str) -> sqlx::Result<Option<i64>> {
    let origin = &step.place.origin;
    sqlx::query_scalar(
        "WITH held AS (SELECT next_offset FROM weir_ledger
                        WHERE group_name = $1 AND topic_id = $2 AND partition = $3 FOR UPDATE),
              moved AS (UPDATE weir_ledger SET owner = $4, epoch = epoch + 1, next_offset = $5, updated_at = now()
                         WHERE group_name = $1 AND topic_id = $2 AND partition = $3 AND EXISTS (SELECT 1 FROM held))
         INSERT INTO weir_seeks (moved_at, group_name, topic, topic_id, partition, from_offset, to_offset, moved_by)
         SELECT clock_timestamp(), $1, $6, $2, $3, next_offset, $5, $7 FROM held RETURNING from_offset",
    )
    .bind(&*step.place.group)
    .bind(origin.topic_id)
    .bind(origin.partition)
    .bind(Uuid::new_v4())
    .bind(step.to)
    .bind(&*origin.topic)
    .bind(moved_by)
    .fetch_optional(db)
    .await
}
