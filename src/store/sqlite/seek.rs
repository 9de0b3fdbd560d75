//! Deliberate moves of the ledger.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Sqlite, ledger, now_ms};
use crate::store::connection::bounded;
use crate::store::{Move, Result, Seeks};

#[async_trait]
impl Seeks for Sqlite {
    async fn seek(&self, moves: &[Move], moved_by: &str) -> Result<Option<Vec<i64>>> {
        const ACTION: &str = "move the ledger";
        let mut tx = self.write(ACTION).await?;
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

async fn one(db: &mut SqliteConnection, step: &Move, moved_by: &str) -> sqlx::Result<Option<i64>> {
    let (place, origin) = (&step.place, &step.place.origin);
    let Some(row) = ledger::read(db, place).await? else { return Ok(None) };
    sqlx::query(
        "UPDATE weir_ledger SET owner = ?1, epoch = epoch + 1, next_offset = ?2, updated_at = ?3
          WHERE group_name = ?4 AND topic_id = ?5 AND partition = ?6",
    )
    .bind(Uuid::new_v4().hyphenated())
    .bind(step.to)
    .bind(now_ms())
    .bind(&*place.group)
    .bind(origin.topic_id.hyphenated())
    .bind(origin.partition)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO weir_seeks (moved_at, group_name, topic, topic_id, partition, from_offset, to_offset, moved_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(now_ms())
    .bind(&*place.group)
    .bind(&*origin.topic)
    .bind(origin.topic_id.hyphenated())
    .bind(origin.partition)
    .bind(row.next_offset)
    .bind(step.to)
    .bind(moved_by)
    .execute(db)
    .await?;
    Ok(Some(row.next_offset))
}
