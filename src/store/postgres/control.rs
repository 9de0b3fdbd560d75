//! What operators ask of a group.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};

use super::Postgres;
use crate::store::connection::bounded;
use crate::store::control::{Columns, read};
use crate::store::{Change, Control, Controls, Result};

const SELECT: &str = "\
    SELECT (extract(epoch FROM paused_at) * 1000)::int8, (extract(epoch FROM paused_until) * 1000)::int8, paused_by,
           pause_reason, rate, (extract(epoch FROM rate_at) * 1000)::int8, (extract(epoch FROM now()) * 1000)::int8
      FROM weir_control WHERE group_name = $1";

#[async_trait]
impl Controls for Postgres {
    async fn control(&self, group: &str) -> Result<Control> {
        const ACTION: &str = "look at weir_control";
        let mut tx = self.open(ACTION).await?;
        let row = sqlx::query_as::<_, Columns>(SELECT).bind(group).fetch_optional(tx.connection());
        let row = bounded(self.deadline, ACTION, row).await?;
        tx.finish().await?;
        row.map_or_else(|| Ok(Control::default()), |row| Ok(read(row)?.0))
    }

    async fn change_control(&self, group: &str, pool: &str, change: &Change, by: &str) -> Result<(Control, Control)> {
        const ACTION: &str = "change weir_control";
        let mut tx = self.open(ACTION).await?;
        let row = bounded(self.deadline, ACTION, locked(tx.connection(), group, pool)).await?;
        let (before, now_ms) = read(row)?;
        let after = before.after(change, by, now_ms);
        bounded(self.deadline, ACTION, write(tx.connection(), group, &after)).await?;
        bounded(self.deadline, ACTION, note(tx.connection(), (group, pool), change, (&before, &after), by)).await?;
        tx.finish().await?;
        Ok((before, after))
    }
}

/// The row, made if it is not there, which nobody else changes until the transaction ends.
async fn locked(db: &mut PgConnection, group: &str, pool: &str) -> sqlx::Result<Columns> {
    sqlx::query("INSERT INTO weir_control (group_name, pool) VALUES ($1, $2) ON CONFLICT (group_name) DO NOTHING")
        .bind(group)
        .bind(pool)
        .execute(&mut *db)
        .await?;
    sqlx::query_as(AssertSqlSafe(format!("{SELECT} FOR UPDATE"))).bind(group).fetch_one(db).await
}

async fn write(db: &mut PgConnection, group: &str, control: &Control) -> sqlx::Result<()> {
    let pause = control.pause.as_ref();
    sqlx::query(
        "UPDATE weir_control
            SET paused_at = to_timestamp($2::int8 / 1000.0), paused_until = to_timestamp($3::int8 / 1000.0),
                paused_by = $4, pause_reason = $5, rate = $6, rate_at = to_timestamp($7::int8 / 1000.0)
          WHERE group_name = $1",
    )
    .bind(group)
    .bind(pause.map(|pause| pause.since_ms))
    .bind(pause.and_then(|pause| pause.until_ms))
    .bind(pause.map(|pause| pause.by.as_str()))
    .bind(pause.and_then(|pause| pause.reason.as_deref()))
    .bind(control.rate_text())
    .bind(control.rate.map(|set| set.at_ms))
    .execute(db)
    .await?;
    Ok(())
}

async fn note(
    db: &mut PgConnection,
    (group, pool): (&str, &str),
    change: &Change,
    (before, after): (&Control, &Control),
    by: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO weir_control_log (group_name, pool, what, from_state, to_state, reason, changed_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(group)
    .bind(pool)
    .bind(change.what())
    .bind(change.state(before))
    .bind(change.state(after))
    .bind(change.reason())
    .bind(by)
    .execute(db)
    .await?;
    Ok(())
}
