//! What operators ask of a group.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::{Mysql, NOW_MS};
use crate::store::connection::bounded;
use crate::store::control::{Columns, read};
use crate::store::{Change, Control, Controls, Result};

#[async_trait]
impl Controls for Mysql {
    async fn control(&self, group: &str) -> Result<Control> {
        const ACTION: &str = "look at weir_control";
        let mut tx = self.open(ACTION).await?;
        let sql = select("");
        let row =
            sqlx::query_as::<_, Columns>(AssertSqlSafe(sql)).bind(group.as_bytes()).fetch_optional(tx.connection());
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

fn select(lock: &str) -> String {
    format!(
        "SELECT paused_at, paused_until, paused_by, pause_reason, rate, rate_at, {NOW_MS}
           FROM weir_control WHERE group_name = ? {lock}"
    )
}

/// The row, made if it is not there, which nobody else changes until the transaction ends.
async fn locked(db: &mut MySqlConnection, group: &str, pool: &str) -> sqlx::Result<Columns> {
    sqlx::query(
        "INSERT INTO weir_control (group_name, pool) VALUES (?, ?) ON DUPLICATE KEY UPDATE group_name = group_name",
    )
    .bind(group.as_bytes())
    .bind(pool.as_bytes())
    .execute(&mut *db)
    .await?;
    sqlx::query_as(AssertSqlSafe(select("FOR UPDATE"))).bind(group.as_bytes()).fetch_one(db).await
}

async fn write(db: &mut MySqlConnection, group: &str, control: &Control) -> sqlx::Result<()> {
    let pause = control.pause.as_ref();
    sqlx::query(
        "UPDATE weir_control SET paused_at = ?, paused_until = ?, paused_by = ?, pause_reason = ?, rate = ?, rate_at = ?
          WHERE group_name = ?",
    )
    .bind(pause.map(|pause| pause.since_ms))
    .bind(pause.and_then(|pause| pause.until_ms))
    .bind(pause.map(|pause| pause.by.as_str()))
    .bind(pause.and_then(|pause| pause.reason.as_deref()))
    .bind(control.rate_text())
    .bind(control.rate.map(|set| set.at_ms))
    .bind(group.as_bytes())
    .execute(db)
    .await?;
    Ok(())
}

async fn note(
    db: &mut MySqlConnection,
    (group, pool): (&str, &str),
    change: &Change,
    (before, after): (&Control, &Control),
    by: &str,
) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO weir_control_log (changed_at, group_name, pool, what, from_state, to_state, reason, changed_by)
         VALUES ({NOW_MS}, ?, ?, ?, ?, ?, ?, ?)"
    )))
    .bind(group.as_bytes())
    .bind(pool.as_bytes())
    .bind(change.what())
    .bind(change.state(before))
    .bind(change.state(after))
    .bind(change.reason())
    .bind(by)
    .execute(db)
    .await?;
    Ok(())
}
