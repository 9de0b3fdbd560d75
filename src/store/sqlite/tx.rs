//! The one transaction of a batch. It has the write lock from its beginning, so what it reads stays as it is.

use std::collections::HashSet;
use std::fmt::Write as _;

use async_trait::async_trait;
use sqlx::Sqlite;

use super::{now_ms, rows};
use crate::store::connection::{OpenTx, bounded};
use crate::store::{ColumnData, ColumnType, Count, DeadRow, Fence, Held, IdKey, OnDuplicate, Result, Table, Tx};

#[async_trait]
impl Tx for OpenTx<Sqlite> {
    async fn fence(&mut self, held: &Held, next: i64, pool: &str) -> Result<Fence> {
        let place = &held.place;
        let update = sqlx::query_scalar::<_, bool>(
            "UPDATE weir_ledger SET next_offset = ?1, updated_at = ?2
              WHERE group_name = ?3 AND topic_id = ?4 AND partition = ?5 AND owner = ?6 AND next_offset = ?7
             RETURNING EXISTS (SELECT 1 FROM weir_dead WHERE pool = ?8)",
        )
        .bind(next)
        .bind(now_ms())
        .bind(&*place.group)
        .bind(place.origin.topic_id.hyphenated())
        .bind(place.origin.partition)
        .bind(held.token.hyphenated())
        .bind(held.next_offset)
        .bind(pool);
        let moved = bounded(self.deadline, "fence the batch", update.fetch_optional(self.connection())).await?;
        Ok(moved.map_or(Fence::Fenced, |has_dead_rows| Fence::Passed { has_dead_rows }))
    }

    async fn existing(&mut self, key: &IdKey, ids: &[&str]) -> Result<HashSet<String>> {
        let IdKey { table, column, kind } = key;
        let sql = format!(
            "SELECT CAST(\"{column}\" AS TEXT) FROM \"{table}\" WHERE \"{column}\" IN (SELECT value FROM json_each(?1))"
        );
        let select = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).bind(rows::keys(key, ids));
        let found = bounded(self.deadline, "look for ids", select.fetch_all(self.connection())).await?;
        let found: HashSet<String> = found.into_iter().collect();
        let is_found = |id: &&&str| kind.spelt(id).is_some_and(|spelt| found.contains(&*spelt));
        Ok(ids.iter().filter(is_found).map(|id| (*id).to_owned()).collect())
    }

    async fn claim_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<Vec<bool>> {
        const ACTION: &str = "claim ids";
        let select = sqlx::query_as::<_, (String, String)>(
            "SELECT s.type, s.event_id FROM json_each(?2) AS u CROSS JOIN weir_seen AS s
                 ON s.pool = ?1 AND s.type = u.value ->> 0 AND s.event_id = u.value ->> 1",
        )
        .bind(pool)
        .bind(rows::json(ids));
        let known = bounded(self.deadline, ACTION, select.fetch_all(self.connection())).await?;
        let known: HashSet<(&str, &str)> = known.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        let fresh: Vec<bool> = ids.iter().map(|id| !known.contains(id)).collect();
        let new: Vec<&(&str, &str)> = ids.iter().filter(|id| !known.contains(*id)).collect();
        let insert = sqlx::query(
            "INSERT INTO weir_seen (pool, type, event_id, seen_at)
             SELECT ?1, value ->> 0, value ->> 1, ?3 FROM json_each(?2) WHERE true
             ON CONFLICT (pool, type, event_id) DO NOTHING",
        )
        .bind(pool)
        .bind(rows::json(&new))
        .bind(now_ms());
        bounded(self.deadline, ACTION, insert.execute(self.connection())).await?;
        Ok(fresh)
    }

    async fn existing_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<HashSet<(String, String)>> {
        let select = sqlx::query_as::<_, (String, String)>(
            "SELECT u.value ->> 0, u.value ->> 1 FROM json_each(?2) AS u
              WHERE EXISTS (SELECT 1 FROM weir_seen AS s WHERE s.pool = ?1 AND s.type = u.value ->> 0
                                                          AND s.event_id = u.value ->> 1)
                 OR (u.value ->> 0 = '' AND EXISTS (SELECT 1 FROM weir_seen AS s
                                                     WHERE s.pool = ?1 AND s.event_id = u.value ->> 1))",
        )
        .bind(pool)
        .bind(rows::json(ids));
        let found = bounded(self.deadline, "look for ids", select.fetch_all(self.connection())).await?;
        Ok(found.into_iter().collect())
    }

    /// Nobody else can write meanwhile: ids that are not there now are new, and the insert says it if any other unique
    /// key is in the way, whatever the table says to do about conflicts.
    async fn insert(&mut self, table: &Table, ids: &[&str], columns: &[ColumnData<'_>]) -> Result<Vec<bool>> {
        let existing = self.existing(&table.key, ids).await?;
        let fresh: Vec<bool> = ids.iter().map(|id| !existing.contains(*id)).collect();
        let takes_all = table.on_duplicate != OnDuplicate::Ignore;
        let chosen = (0..ids.len()).filter(|at| takes_all || fresh[*at]);
        let rows = rows::table(columns, chosen);
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert_sql(table))).bind(rows);
        bounded(self.deadline, "insert rows", insert.execute(self.connection())).await?;
        Ok(fresh)
    }

    async fn count(&mut self, counts: &[Count]) -> Result<()> {
        let mut sorted: Vec<&Count> = counts.iter().collect();
        sorted.sort_unstable();
        let (noted, added): (Vec<&Count>, Vec<&Count>) = sorted.into_iter().partition(|count| count.by.is_none());
        for (counts, on_conflict) in
            [(added, "DO UPDATE SET count = weir_counts.count + excluded.count"), (noted, "DO NOTHING")]
        {
            if counts.is_empty() {
                continue;
            }
            let row = |count: &&Count| {
                (count.minute, count.dimension, count.member.clone(), count.shard, count.by.unwrap_or(0))
            };
            let sql = format!(
                "INSERT INTO weir_counts (minute, dimension, member, shard, count)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1) WHERE true
                 ON CONFLICT (minute, dimension, member, shard) {on_conflict}"
            );
            let upsert =
                sqlx::query(sqlx::AssertSqlSafe(sql)).bind(rows::json(&counts.iter().map(row).collect::<Vec<_>>()));
            bounded(self.deadline, "add to counters", upsert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn bury(&mut self, pool: &str, rows: &[DeadRow]) -> Result<()> {
        for row in rows {
            let insert = sqlx::query(
                "INSERT INTO weir_dead (pool, type, event_id, pipeline, reason, message, topic, topic_id, partition,
                                        \"offset\", key, value, headers, attempts, created_at, record_ms, holds_key,
                                        replay_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                         CASE WHEN ?17 THEN (SELECT max(o.replay_at) FROM weir_dead AS o
                              WHERE o.pool = ?1 AND o.topic = ?7 AND o.partition = ?9 AND o.holds_key AND o.key = ?11) END)
                 ON CONFLICT (pool, type, event_id) DO UPDATE
                    SET pipeline = excluded.pipeline, reason = excluded.reason, message = excluded.message,
                        topic = excluded.topic, topic_id = excluded.topic_id, partition = excluded.partition,
                        \"offset\" = excluded.\"offset\", key = excluded.key, value = excluded.value,
                        headers = excluded.headers, attempts = excluded.attempts, record_ms = excluded.record_ms,
                        holds_key = excluded.holds_key, replay_at = excluded.replay_at, replay_request = NULL
                  WHERE excluded.reason = 'parked' AND weir_dead.reason <> 'parked'",
            )
            .bind(pool)
            .bind(&row.kind)
            .bind(&row.event_id)
            .bind(&row.pipeline)
            .bind(row.reason.as_str())
            .bind(row.message.replace('\0', "\u{fffd}"))
            .bind(&*row.origin.topic)
            .bind(row.origin.topic_id.hyphenated())
            .bind(row.origin.partition)
            .bind(row.offset)
            .bind(row.key.as_deref())
            .bind(row.value.as_deref())
            .bind(row.headers.as_deref())
            .bind(row.attempts)
            .bind(now_ms())
            .bind(row.record_ms)
            .bind(row.holds_key);
            bounded(self.deadline, "keep a rejected event", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn unbury(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let delete = sqlx::query(
            "DELETE FROM weir_dead WHERE rowid IN
                (SELECT d.rowid FROM json_each(?2) AS u CROSS JOIN weir_dead AS d
                     ON d.pool = ?1 AND d.type IN ('', u.value ->> 0) AND d.event_id = u.value ->> 1)",
        )
        .bind(pool)
        .bind(rows::json(ids));
        bounded(self.deadline, "remove dead rows", delete.execute(self.connection())).await?;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.end("commit the batch", "COMMIT").await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.end("roll the batch back", "ROLLBACK").await
    }

    fn any_connection(&mut self) -> Option<&mut (dyn std::any::Any + Send)> {
        Some(self.connection())
    }
}

/// The names were checked to be plain when they were configured.
fn insert_sql(table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let value = |(at, column): (usize, &crate::store::Column)| match column.kind {
        ColumnType::Timestamp => format!("strftime('%Y-%m-%dT%H:%M:%fZ', (value ->> {at}) / 1000.0, 'unixepoch')"),
        _ => format!("value ->> {at}"),
    };
    let values: Vec<String> = table.columns.iter().enumerate().map(value).collect();
    let mut sql = format!(
        "INSERT OR ABORT INTO \"{}\" AS t ({}) SELECT {} FROM json_each(?1) WHERE true",
        table.key.table,
        names.join(", "),
        values.join(", "),
    );
    if let OnDuplicate::Update { newer_by } = &table.on_duplicate {
        let key = &table.key.column;
        let set: Vec<String> = names
            .iter()
            .filter(|name| name.trim_matches('"') != key)
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let newer = format!("t.\"{newer_by}\" IS NULL OR excluded.\"{newer_by}\" > t.\"{newer_by}\"");
        write!(sql, " ON CONFLICT (\"{key}\") DO UPDATE SET {} WHERE {newer}", set.join(", "))
            .expect("writing to a String cannot fail");
    }
    sql
}
