//! Rows by `COPY`, which takes the database about half of what an `INSERT` takes that looks for repeats
//! (docs/performance.md), and refuses all of them when one is a repeat. So it is for ids that are expected to be new.
//!
//! Two things that the `INSERT` has by itself are done here: that the unique key is there is looked at first, and who does
//! not send the rows that it announced is ended by the others ([`end_silent`]).

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::store::{ColumnData, Table};

/// With fewer rows its further exchange with the database costs more than it saves.
pub(super) const ROWS_MIN: usize = 100;

const DAY_MS: i64 = 86_400_000;
/// 1 January 1970 as a Julian date, which PostgreSQL reads without a calendar on our side.
const EPOCH_JULIAN: i64 = 2_440_588;

/// Rows in `COPY`'s text format, whose fields the database reads by the column's type: a tab after each field, a new line
/// after each row (<https://www.postgresql.org/docs/current/sql-copy.html>).
#[derive(Debug)]
pub(super) struct Copy {
    /// Writes nothing; fails if the table has no such key, and keeps the table as it is until the transaction ends.
    key_check: String,
    statement: String,
    rows: Vec<u8>,
    pub(super) count: usize,
}

impl Copy {
    /// No rows yet, for a table's unique key and columns, whose names were checked to be plain.
    pub(super) fn into<'a>(table: &str, key: &[&str], columns: impl Iterator<Item = &'a str>) -> Self {
        let quoted = |name: &str| format!("\"{name}\"");
        let list = |names: Vec<String>| names.join(", ");
        let columns = list(columns.map(quoted).collect());
        let (nulls, key) = (vec!["NULL"; key.len()].join(", "), list(key.iter().map(|name| quoted(name)).collect()));
        Self {
            key_check: format!(
                "INSERT INTO \"{table}\" ({key}) SELECT {nulls} WHERE false ON CONFLICT ({key}) DO NOTHING"
            ),
            statement: format!("COPY \"{table}\" ({columns}) FROM STDIN"),
            rows: Vec::new(),
            count: 0,
        }
    }

    /// All rows of columns.
    pub(super) fn of(table: &Table, columns: &[ColumnData<'_>], rows: usize) -> Self {
        let key = [&*table.key.column];
        let mut copy = Self::into(&table.key.table, &key, table.columns.iter().map(|column| &*column.name));
        for row in 0..rows {
            for column in columns {
                match column {
                    ColumnData::Bool(values) => copy.value(values[row]),
                    ColumnData::Int(values) => copy.value(values[row]),
                    ColumnData::Float(values) => copy.value(values[row]),
                    ColumnData::Text(values) => copy.text(values[row].as_deref()),
                    ColumnData::Uuid(values) => copy.value(values[row]),
                    ColumnData::TimestampMs(values) => copy.value(values[row].map(timestamp)),
                };
            }
            copy.end_row();
        }
        copy
    }

    /// What needs no escaping.
    fn value(&mut self, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => write!(self.rows, "{value}\t").expect("writing to a Vec cannot fail"),
            None => self.rows.extend_from_slice(b"\\N\t"),
        }
        self
    }

    pub(super) fn text(&mut self, value: Option<&str>) -> &mut Self {
        let Some(value) = value else { return self.value(None::<&str>) };
        let mut rest = value.as_bytes();
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')) {
            self.rows.extend_from_slice(&rest[..at]);
            self.rows.extend_from_slice(match rest[at] {
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                _ => b"\\t",
            });
            rest = &rest[at + 1..];
        }
        self.rows.extend_from_slice(rest);
        self.rows.push(b'\t');
        self
    }

    pub(super) fn end_row(&mut self) {
        if let Some(last) = self.rows.last_mut() {
            *last = b'\n';
        }
        self.count += 1;
    }

    /// Whether all rows were written. A trigger may have kept some back without an error.
    pub(super) async fn run(self, db: &mut PgConnection) -> sqlx::Result<bool> {
        sqlx::query(AssertSqlSafe(self.key_check)).execute(&mut *db).await?;
        let mut copy = db.copy_in_raw(&self.statement).await?;
        copy.send(self.rows).await?;
        Ok(copy.finish().await? == self.count as u64)
    }
}

/// Ends the connections of workers that announced rows and have sent none for so long. No time-out of the database's own
/// comes to that: it cancels nothing in the middle of a message, and takes whom it waits for to be active.
pub(super) async fn end_silent(db: &mut PgConnection, silence: Duration) -> sqlx::Result<u64> {
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE datname = current_database() AND usename = current_user AND application_name LIKE 'weir/%'
            AND state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY %'
            AND query_start < clock_timestamp() - $1 * interval '1 second'",
    )
    .bind(silence.as_secs_f64())
    .fetch_one(db)
    .await?;
    Ok(ended.unsigned_abs())
}

/// Milliseconds since 1970 in PostgreSQL's spelling.
fn timestamp(ms: i64) -> String {
    let (day, ms) = (ms.div_euclid(DAY_MS) + EPOCH_JULIAN, ms.rem_euclid(DAY_MS));
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("J{day} {:02}:{:02}:{:02}.{ms:03}+00", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_rows_end_where_they_should_whatever_is_in_them() {
        let mut copy = Copy::into("t", &["a"], ["a", "b"].into_iter());
        copy.text(Some("a\tb\\N\r\n\\.")).text(None).end_row();
        copy.text(Some("")).value(Some(-1)).end_row();
        assert_eq!(copy.statement, r#"COPY "t" ("a", "b") FROM STDIN"#);
        let check = r#"INSERT INTO "t" ("a") SELECT NULL WHERE false ON CONFLICT ("a") DO NOTHING"#;
        assert_eq!(copy.key_check, check);
        assert_eq!(String::from_utf8(copy.rows).unwrap(), "a\\tb\\\\N\\r\\n\\\\.\t\\N\n\t-1\n");
        assert_eq!(copy.count, 2);
    }

    #[test]
    fn times_before_1970_have_their_day() {
        assert_eq!(timestamp(-1), "J2440587 23:59:59.999+00");
        assert_eq!(timestamp(DAY_MS + 3_723_004), "J2440589 01:02:03.004+00");
    }
}
