//! The fence: moves a partition's ledger row, if it is still as it was held. Every batch begins with it, so it goes to the
//! database in one exchange with what begins the transaction. Such a text cannot use the driver's prepared statements:
//! each session prepares it under names of its own.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::store::{Fence, Held};

const BY_CTID: &str = "UPDATE weir_ledger SET next_offset = $1, updated_at = now()
      WHERE group_name = $2 AND topic_id = $3 AND partition = $4 AND owner = $5 AND next_offset = $6 AND ctid = $8::text::tid
     RETURNING EXISTS (SELECT 1 FROM weir_dead WHERE pool = $7), ctid::text";

const BY_KEY: &str = "UPDATE weir_ledger SET next_offset = $1, updated_at = now()
      WHERE group_name = $2 AND topic_id = $3 AND partition = $4 AND owner = $5 AND next_offset = $6
     RETURNING EXISTS (SELECT 1 FROM weir_dead WHERE pool = $7), ctid::text, pg_column_size(weir_ledger.*)";

/// PostgreSQL's: there is no such prepared statement.
const UNPREPARED: &str = "26000";
/// And: there is one of this name already.
const PREPARED: &str = "42P05";

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
    for (name, sql) in [("weir_fence_by_ctid", BY_CTID), ("weir_fence_by_key", BY_KEY)] {
        match sqlx::raw_sql(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).execute(&mut *db).await {
            // As far as an earlier attempt came.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(PREPARED) => {}
            prepared => {
                prepared?;
            }
        }
    }
    Ok(())
}

/// Begins a transaction with the fence, in a session that no other connection shares.
pub(super) async fn begin(
    db: &mut PgConnection,
    begin: &str,
    held: &Held,
    next: i64,
    pool: &str,
) -> sqlx::Result<Fence> {
    let values = values(held, next, pool);
    let by_key = || always_by_index(&format!("EXECUTE weir_fence_by_key ({values})"));
    let ctid = held.row.last_seen().place();
    let first = match &ctid {
        Some(ctid) => always_by_index(&format!("EXECUTE weir_fence_by_ctid ({values}, '{ctid}')")),
        None => by_key(),
    };
    let first = format!("{begin}; {first}");
    let moved = match fetch(db, &first).await {
        // The session is older than weir's tables.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNPREPARED) => {
            sqlx::raw_sql("ROLLBACK").execute(&mut *db).await?;
            prepare(db).await?;
            fetch(db, &first).await?
        }
        other => other?,
    };
    match (moved, ctid) {
        (Some(row), Some(_)) => found(&row, held),
        (None, Some(_)) => searched(fetch(db, &by_key()).await?, held),
        (moved, None) => searched(moved, held),
    }
}

/// A prepared statement is planned for the table as it is then, and a ledger of one page is read as a whole. The plan would stay
/// while a snapshot lets the table grow.
fn always_by_index(call: &str) -> String {
    format!("SET LOCAL enable_seqscan = off; {call}; SET LOCAL enable_seqscan TO DEFAULT")
}

async fn fetch(db: &mut PgConnection, sql: &str) -> sqlx::Result<Option<PgRow>> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_optional(db).await
}

/// The same where a transaction has begun, by statements of the driver's.
pub(super) async fn pass(db: &mut PgConnection, held: &Held, next: i64, pool: &str) -> sqlx::Result<Fence> {
    let place = &held.place;
    let update = |sql| {
        sqlx::query(sql)
            .bind(next)
            .bind(&*place.group)
            .bind(place.origin.topic_id)
            .bind(place.origin.partition)
            .bind(held.token)
            .bind(held.next_offset)
            .bind(pool)
    };
    let ctid = held.row.last_seen().place();
    if let Some(ctid) = ctid
        && let Some(row) = update(BY_CTID).bind(ctid).fetch_optional(&mut *db).await?
    {
        return found(&row, held);
    }
    searched(update(BY_KEY).fetch_optional(db).await?, held)
}

fn found(row: &PgRow, held: &Held) -> sqlx::Result<Fence> {
    held.row.last_seen().found(row.try_get(1)?);
    Ok(Fence::Passed { has_dead_rows: row.try_get(0)? })
}

fn searched(moved: Option<PgRow>, held: &Held) -> sqlx::Result<Fence> {
    let Some(row) = moved else { return Ok(Fence::Fenced) };
    let bytes = usize::try_from(row.try_get::<i32, _>(2)?).unwrap_or(0);
    held.row.last_seen().searched(row.try_get(1)?, bytes);
    Ok(Fence::Passed { has_dead_rows: row.try_get(0)? })
}

fn values(held: &Held, next: i64, pool: &str) -> String {
    let place = &held.place;
    format!(
        "{next}, {}, '{}', {}, '{}', {}, {}",
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
