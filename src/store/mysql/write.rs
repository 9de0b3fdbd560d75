//! Rows that are new, rows that are there, and how the two are told apart.
//!
//! Rows go in by a plain INSERT, which any repeated key refuses. Where repeats are not expected that is all, and a refusal
//! has the batch begun anew. Else the ids that are there are looked up first and left out, and after a refusal again, until
//! there is none, or one that no id explains: that is another unique key, and an error. A refusal undoes the one statement,
//! never the transaction.
//!
//! The look locks each row that it finds, so that it waits for all rows that others are writing, in one
//! statement. Inserts alone would find out one row a round, and each undone round leaves gaps locked in which nobody can
//! insert: with repeats that arrive while their originals are being written the partitions queued behind each other.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;

use super::NOW_MS;
use super::codes::DUPLICATE_ENTRY;
use super::rows::{bind_row, portions, row_bytes, tuples, value};
use super::tx::{BatchTx, SHARED};
use crate::store::connection::bounded;
use crate::store::{ColumnData, ColumnType, Error, Fault, OnDuplicate, Result, Table, fault};

/// Rows that claim ids.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Rows of a table that a handler writes.
    Table { table: &'a Table, ids: &'a [&'a str], columns: &'a [ColumnData<'a>] },
    /// Types and ids for weir's own table.
    Seen { pool: &'a str, ids: &'a [(&'a str, &'a str)] },
}

impl Rows<'_> {
    fn action(self) -> &'static str {
        match self {
            Self::Table { .. } => "insert rows",
            Self::Seen { .. } => "claim ids",
        }
    }

    fn columns(self) -> usize {
        match self {
            Self::Table { columns, .. } => columns.len(),
            Self::Seen { .. } => 3,
        }
    }

    fn bytes(self, at: usize) -> usize {
        match self {
            Self::Table { columns, .. } => row_bytes(columns, at),
            Self::Seen { pool, ids } => pool.len() + ids[at].0.len() + ids[at].1.len() + 48,
        }
    }

    /// `noted_by` is a column that takes the time at which the transaction began.
    fn insert_sql(self, count: usize, noted_by: Option<&str>) -> String {
        match self {
            Self::Table { table, .. } => {
                let mut names: Vec<String> =
                    table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
                let mut values: Vec<String> = table.columns.iter().map(|column| value(&column.kind, "?")).collect();
                names.extend(noted_by.map(|name| format!("\"{name}\"")));
                values.extend(noted_by.map(|_| "@weir_begun".to_owned()));
                let row = format!("({})", values.join(", "));
                let table = &table.key.table;
                format!("INSERT INTO \"{table}\" ({}) VALUES {}", names.join(", "), tuples(&row, count))
            }
            Self::Seen { .. } => {
                let rows = tuples(&format!("(?, ?, ?, {NOW_MS})"), count);
                format!("INSERT INTO weir_seen (pool, type, event_id, seen_at) VALUES {rows}")
            }
        }
    }
}

impl BatchTx {
    /// Inserts those of the rows whose ids are not there; says which these are.
    pub(super) async fn insert_new(&mut self, rows: Rows<'_>, chosen: Vec<usize>) -> Result<HashSet<usize>> {
        let mut left = chosen;
        if !self.expects_new {
            let there = self.there(rows, &left).await?;
            left.retain(|at| !there.contains(at));
        }
        let mut new = HashSet::with_capacity(left.len());
        let mut waiting = self.portions(rows, &left)?;
        while let Some(portion) = waiting.pop() {
            let Some(refusal) = self.insert_plainly(rows, &portion).await? else {
                new.extend(portion);
                continue;
            };
            let there = if self.expects_new { HashSet::new() } else { self.there(rows, &portion).await? };
            if there.is_empty() {
                return Err(refusal);
            }
            // Each round has fewer rows than the one before.
            let rest: Vec<usize> = portion.into_iter().filter(|at| !there.contains(at)).collect();
            waiting.extend(self.portions(rows, &rest)?);
        }
        Ok(new)
    }

    /// The rows in portions; a row that is too large for the server is refused here, since the server would close the
    /// connection over it.
    fn portions(&self, rows: Rows<'_>, chosen: &[usize]) -> Result<Vec<Vec<usize>>> {
        let bytes: Vec<usize> = chosen.iter().map(|at| rows.bytes(*at)).collect();
        let portions = portions(&bytes, rows.columns(), self.packet_bytes).map_err(|at| {
            let message = format!(
                "a row of {} bytes; the server takes {} at once (max_allowed_packet), of which weir uses half",
                bytes[at], self.packet_bytes
            );
            Error { fault: Fault::Reject, action: rows.action(), message }
        })?;
        // The first one comes last, where it is taken from: rows are locked in the order of their ids.
        Ok(portions.into_iter().rev().map(|range| chosen[range].to_vec()).collect())
    }

    /// `Some`: a unique key refused them all.
    async fn insert_plainly(&mut self, rows: Rows<'_>, chosen: &[usize]) -> Result<Option<Error>> {
        let action = rows.action();
        let noted_by = match rows {
            Rows::Table { table, .. } => self.session.noted_by(table),
            Rows::Seen { .. } => None,
        };
        let mut insert = sqlx::query(AssertSqlSafe(rows.insert_sql(chosen.len(), noted_by)));
        for at in chosen {
            insert = match rows {
                Rows::Table { columns, .. } => bind_row(insert, columns, *at),
                Rows::Seen { pool, ids } => {
                    insert.bind(pool.as_bytes()).bind(ids[*at].0.as_bytes()).bind(ids[*at].1.as_bytes())
                }
            };
        }
        let deadline = self.deadline();
        let connection = self.connection();
        let inserted = async {
            match insert.execute(connection).await {
                Ok(_) => Ok(None),
                Err(error) if is_repeat(&error) => Ok(Some(fault::error(action, &error))),
                Err(error) => Err(error),
            }
        };
        bounded(deadline, action, inserted).await
    }

    /// Those of the rows whose ids are there, once whoever is writing one has ended.
    async fn there(&mut self, rows: Rows<'_>, chosen: &[usize]) -> Result<HashSet<usize>> {
        match rows {
            Rows::Table { table, ids, .. } => {
                let asked: Vec<&str> = chosen.iter().map(|at| ids[*at]).collect();
                // Rows that are updated next: two that both shared them would wait for each other.
                let lock = if matches!(table.on_duplicate, OnDuplicate::Ignore) { SHARED } else { "FOR UPDATE" };
                let found = self.ids_in(&table.key, &asked, lock).await?;
                Ok(chosen.iter().copied().filter(|at| found.contains(ids[*at])).collect())
            }
            Rows::Seen { pool, ids } => {
                let asked: Vec<&str> = chosen.iter().map(|at| ids[*at].1).collect();
                let found = self.seen_in(pool, &asked, SHARED).await?;
                let is_there = |at: &usize| found.contains(&(ids[*at].0.to_owned(), ids[*at].1.to_owned()));
                Ok(chosen.iter().copied().filter(is_there).collect())
            }
        }
    }

    /// Replaces rows that are there by newer ones. An UPDATE meets other unique keys as errors, where "ON DUPLICATE KEY"
    /// would take them for the id's.
    pub(super) async fn update_older(
        &mut self,
        table: &Table,
        newer_by: &str,
        rows: Rows<'_>,
        chosen: &[usize],
    ) -> Result<()> {
        let Rows::Table { columns, .. } = rows else { return Ok(()) };
        for portion in self.portions(rows, chosen)?.into_iter().rev() {
            let mut update = sqlx::query(AssertSqlSafe(update_sql(table, newer_by, portion.len())));
            for at in portion {
                update = bind_row(update, columns, at);
            }
            let deadline = self.deadline();
            bounded(deadline, "update rows", update.execute(self.connection())).await?;
        }
        Ok(())
    }

    /// As the table says: repeated ids change nothing, or replace what is older. Which of the ids are new.
    pub(super) async fn write(&mut self, table: &Table, ids: &[&str], columns: &[ColumnData<'_>]) -> Result<Vec<bool>> {
        let rows = Rows::Table { table, ids, columns };
        let new = self.insert_new(rows, (0..ids.len()).collect()).await?;
        if let OnDuplicate::Update { newer_by } = &table.on_duplicate {
            let known: Vec<usize> = (0..ids.len()).filter(|at| !new.contains(at)).collect();
            self.update_older(table, newer_by, rows, &known).await?;
        }
        Ok((0..ids.len()).map(|at| new.contains(&at)).collect())
    }
}

fn is_repeat(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().is_some_and(|error| error.number() == DUPLICATE_ENTRY)
}

/// The new rows as a table of their own. Its columns' types are told by casts: the bound values alone do not tell them
/// when the statement is prepared.
fn update_sql(table: &Table, newer_by: &str, count: usize) -> String {
    let key = &table.key.column;
    let cast = |kind: &ColumnType| match kind {
        ColumnType::Bool | ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Timestamp => {
            "CAST(? AS SIGNED)"
        }
        ColumnType::Float8 => "CAST(? AS DOUBLE)",
        _ => "CAST(? AS CHAR CHARACTER SET utf8mb4)",
    };
    let named: Vec<String> =
        table.columns.iter().enumerate().map(|(at, column)| format!("{} AS c{at}", cast(&column.kind))).collect();
    let row: Vec<&str> = table.columns.iter().map(|column| cast(&column.kind)).collect();
    let further = format!(" UNION ALL SELECT {}", row.join(", ")).repeat(count.saturating_sub(1));
    let (mut on, mut newer, mut set) = (String::new(), String::new(), Vec::new());
    for (at, column) in table.columns.iter().enumerate() {
        let name = &column.name;
        let value = value(&column.kind, &format!("u.c{at}"));
        if name == newer_by {
            newer = format!("t.\"{name}\" IS NULL OR {value} > t.\"{name}\"");
        }
        match name == key {
            true => on = format!("t.\"{name}\" = {value}"),
            false => set.push(format!("t.\"{name}\" = {value}")),
        }
    }
    format!(
        "UPDATE \"{}\" AS t JOIN (SELECT {}{further}) AS u ON {on} SET {} WHERE {newer}",
        table.key.table,
        named.join(", "),
        set.join(", ")
    )
}
