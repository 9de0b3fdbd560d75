//! The fence: moves a partition's ledger row, if it is still as it was held. Every batch begins with it, so it goes to the
//! database in one exchange with what begins the transaction. Such a text cannot use the driver's prepared statements:
//! each session prepares it under a name of its own.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::store::{Fence, Held};

const SQL: &str = "UPDATE weir_ledger SET next_offset = $1, updated_at = now()
      WHERE group_name = $2 AND topic_id = $3 AND partition = $4 AND owner = $5 AND next_offset = $6
     RETURNING EXISTS (SELECT 1 FROM weir_dead WHERE pool = $7)";

const PREPARE: &str = "PREPARE weir_fence AS ";

/// PostgreSQL's: there is no such prepared statement.
const UNPREPARED: &str = "26000";

/// Prepares it in a new session, if weir's tables are there. Where they are not, or are those of another release, the session
/// is good for what `weir migrate` does.
pub(super) async fn prepare_ahead(db: &mut PgConnection) -> sqlx::Result<()> {
    let asked = sqlx::raw_sql("SELECT to_regclass('weir_ledger') IS NOT NULL AND to_regclass('weir_dead') IS NOT NULL");
    if !asked.fetch_one(&mut *db).await?.try_get::<bool, _>(0)? {
        return Ok(());
    }
    match prepare(db).await {
        Err(sqlx::Error::Database(_)) => Ok(()),
        other => other,
    }
}

async fn prepare(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!("{PREPARE}{SQL}"))).execute(db).await.map(drop)
}

/// Begins a transaction with the fence, in a session that no other connection shares.
pub(super) async fn begin(
    db: &mut PgConnection,
    begin: &str,
    held: &Held,
    next: i64,
    pool: &str,
) -> sqlx::Result<Fence> {
    let sql = format!("{begin}; {}", call(held, next, pool));
    let answer = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_optional(&mut *db).await;
    let row = match answer {
        // The session is older than weir's tables.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNPREPARED) => {
            sqlx::raw_sql("ROLLBACK").execute(&mut *db).await?;
            prepare(db).await?;
            sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(db).await?
        }
        other => other?,
    };
    Ok(outcome(row.map(|row| row.try_get(0)).transpose()?))
}

/// The same where a transaction has begun, by a statement of the driver's.
pub(super) async fn pass(db: &mut PgConnection, held: &Held, next: i64, pool: &str) -> sqlx::Result<Fence> {
    let place = &held.place;
    let moved = sqlx::query_scalar(SQL)
        .bind(next)
        .bind(&*place.group)
        .bind(place.origin.topic_id)
        .bind(place.origin.partition)
        .bind(held.token)
        .bind(held.next_offset)
        .bind(pool)
        .fetch_optional(db)
        .await?;
    Ok(outcome(moved))
}

fn outcome(moved: Option<bool>) -> Fence {
    moved.map_or(Fence::Fenced, |has_dead_rows| Fence::Passed { has_dead_rows })
}

fn call(held: &Held, next: i64, pool: &str) -> String {
    let place = &held.place;
    format!(
        "EXECUTE weir_fence ({next}, {}, '{}', {}, '{}', {}, {})",
        quoted(&place.group),
        place.origin.topic_id,
        place.origin.partition,
        held.token,
        held.next_offset,
        quoted(pool),
    )
}

/// A text as SQL writes it, whatever `standard_conforming_strings` is.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 3);
    quoted.push_str(if text.contains('\\') { " E'" } else { "'" });
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            quoted.push(char);
        }
        quoted.push(char);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_a_name_whatever_is_in_it() {
        let cases = [("chat", "'chat'"), ("o'clock", "'o''clock'"), (r"a\'b", r" E'a\\''b'"), ("", "''")];
        for (text, expected) in cases {
            assert_eq!(quoted(text), expected);
        }
    }
}
