//! Deliberate moves of the ledger.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, MySqlConnection};
use uuid::Uuid;

use super::{Mysql, NOW_MS};
use crate::store::connection::bounded;
use crate::store::{Move, Result, Seeks};

#[async_trait]
impl Seeks for Mysql {
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

async fn one(db: &mut MySqlConnection, step: &Move, moved_by: &str) -> sqlx::Result<Option<i64>> {
    let (place, origin) = (&step.place, &step.place.origin);
    let stood_at: Option<i64> = sqlx::query_scalar(
        "SELECT next_offset FROM weir_ledger WHERE group_name = ? AND topic_id = ? AND \"partition\" = ? FOR UPDATE",
    )
    .bind(place.group.as_bytes())
    .bind(origin.topic_id.to_string())
    .bind(origin.partition)
    .fetch_optional(&mut *db)
    .await?;
    let Some(stood_at) = stood_at else { return Ok(None) };
    sqlx::query(AssertSqlSafe(format!(
        "UPDATE weir_ledger SET owner = ?, epoch = epoch + 1, next_offset = ?, updated_at = {NOW_MS}
          WHERE group_name = ? AND topic_id = ? AND \"partition\" = ?"
    )))
    .bind(Uuid::new_v4().to_string())
    .bind(step.to)
    .bind(place.group.as_bytes())
    .bind(origin.topic_id.to_string())
    .bind(origin.partition)
    .execute(&mut *db)
    .await?;
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO weir_seeks (moved_at, group_name, topic, topic_id, \"partition\", from_offset, to_offset, moved_by)
         VALUES ({NOW_MS}, ?, ?, ?, ?, ?, ?, ?)"
    )))
    .bind(place.group.as_bytes())
    .bind(origin.topic.as_bytes())
    .bind(origin.topic_id.to_string())
    .bind(origin.partition)
    .bind(stood_at)
    .bind(step.to)
    .bind(moved_by)
    .execute(db)
    .await?;
    Ok(Some(stood_at))
}
