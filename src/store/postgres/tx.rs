//! The one transaction of a batch.

use std::borrow::Cow;
use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};

use super::copy::{self, Copy};
use super::{fence, last_seen};
use crate::store::connection::{OpenTx, bounded};
use crate::store::{
    ColumnData, ColumnType, Count, DeadRow, Error, Fault, Fence, Held, IdKey, KeyType, OnDuplicate, Result, Table, Tx,
};

#[async_trait]
impl Tx for OpenTx<Postgres> {
    async fn fence(&mut self, held: &Held, next: i64, pool: &str) -> Result<Fence> {
        let deadline = self.deadline;
        let fence = bounded(deadline, "fence the batch", fence::pass(self.connection(), held, next, pool)).await?;
        self.lane = held.row.last_seen().lane();
        Ok(fence)
    }

    async fn existing(&mut self, key: &IdKey, ids: &[&str]) -> Result<HashSet<String>> {
        let IdKey { table, column, kind } = key;
        let array = match kind {
            KeyType::Text => "text[]",
            KeyType::Uuid => "text[]::uuid[]",
            KeyType::Int => "text[]::int8[]",
        };
        let sql =
            format!("SELECT \"{column}\"::text COLLATE \"C\" FROM \"{table}\" WHERE \"{column}\" = ANY($1::{array})");
        let known: Vec<(Cow<'_, str>, &str)> = ids.iter().filter_map(|id| Some((kind.spelt(id)?, *id))).collect();
        let asked: Vec<&str> = known.iter().map(|(spelt, _)| &**spelt).collect();
        let select = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).bind(asked);
        let found = bounded(self.deadline, "look for ids", select.fetch_all(self.connection())).await?;
        let found: HashSet<String> = found.into_iter().collect();
        Ok(known.into_iter().filter(|(spelt, _)| found.contains(&**spelt)).map(|(_, id)| id.to_owned()).collect())
    }

    fn assume_new(&mut self, rows: usize) -> bool {
        self.assumes_new = rows >= copy::ROWS_MIN;
        self.assumes_new
    }

    async fn claim_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<Vec<bool>> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        if self.assumes_new {
            let key = ["pool", "type", "event_id"];
            let mut rows = Copy::into("weir_seen", &key, key.into_iter());
            sorted.iter().for_each(|(kind, id)| rows.text(Some(pool)).text(Some(kind)).text(Some(id)).end_row());
            return self.copy("claim ids", rows).await;
        }
        let (kinds, event_ids): (Vec<&str>, Vec<&str>) = sorted.into_iter().unzip();
        let insert = sqlx::query_as::<_, (String, String)>(
            "INSERT INTO weir_seen (pool, type, event_id) SELECT $1, * FROM unnest($2::text[], $3::text[])
             ON CONFLICT (pool, type, event_id) DO NOTHING RETURNING type, event_id",
        )
        .bind(pool)
        .bind(kinds)
        .bind(event_ids);
        let new = bounded(self.deadline, "claim ids", insert.fetch_all(self.connection())).await?;
        if new.len() == ids.len() {
            return Ok(vec![true; ids.len()]);
        }
        let new: HashSet<(&str, &str)> = new.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        Ok(ids.iter().map(|id| new.contains(id)).collect())
    }

    async fn existing_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<HashSet<(String, String)>> {
        let (kinds, event_ids): (Vec<&str>, Vec<&str>) = ids.iter().copied().unzip();
        let select = sqlx::query_as::<_, (String, String)>(
            "SELECT u.type, u.event_id FROM weir_seen s JOIN unnest($2::text[], $3::text[]) AS u(type, event_id)
                 ON u.type IN ('', s.type) AND s.event_id = u.event_id WHERE s.pool = $1",
        )
        .bind(pool)
        .bind(kinds)
        .bind(event_ids);
        let found = bounded(self.deadline, "look for ids", select.fetch_all(self.connection())).await?;
        Ok(found.into_iter().collect())
    }

    async fn insert(&mut self, table: &Table, ids: &[&str], columns: &[ColumnData<'_>]) -> Result<Vec<bool>> {
        let deadline = self.deadline;
        if self.assumes_new && table.on_duplicate == OnDuplicate::Ignore {
            return self.copy("insert rows", Copy::of(table, columns, ids.len())).await;
        }
        let insert = bind_all(sqlx::query(sqlx::AssertSqlSafe(insert_sql(table))), columns);
        let insert = insert.bind(i64::try_from(ids.len()).unwrap_or(i64::MAX));
        let answer = async { insert.fetch_one(self.connection()).await?.try_get::<Option<Vec<String>>, _>(0) };
        let new = bounded(deadline, "insert rows", answer).await?;
        let Some(new) = new else { return Ok(vec![true; ids.len()]) };
        if let OnDuplicate::Update { newer_by } = &table.on_duplicate {
            let update = bind_all(sqlx::query(sqlx::AssertSqlSafe(update_sql(table, newer_by))), columns);
            bounded(deadline, "update rows", update.execute(self.connection())).await?;
        }
        let new: HashSet<&str> = new.iter().map(String::as_str).collect();
        let kind = table.key.kind;
        Ok(ids.iter().map(|id| kind.spelt(id).is_some_and(|id| new.contains(&*id))).collect())
    }

    async fn count(&mut self, counts: &[Count]) -> Result<()> {
        let mut sorted: Vec<&Count> = counts.iter().collect();
        sorted.sort_unstable();
        let (noted, added): (Vec<&Count>, Vec<&Count>) = sorted.into_iter().partition(|count| count.by.is_none());
        // What is only noted is never written again.
        for (counts, lane, on_conflict) in
            [(added, self.lane, "DO UPDATE SET count = weir_counts.count + excluded.count"), (noted, 0, "DO NOTHING")]
        {
            if counts.is_empty() {
                continue;
            }
            let sql = format!(
                "INSERT INTO weir_counts (minute, dimension, member, shard, count)
                 SELECT to_timestamp(m * 60), d, n, s, c
                   FROM unnest($1::int8[], $2::text[], $3::text[], $4::int4[], $5::int8[]) AS u(m, d, n, s, c)
                 ON CONFLICT (minute, dimension, member, shard) {on_conflict}"
            );
            let upsert = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(counts.iter().map(|count| count.minute).collect::<Vec<_>>())
                .bind(counts.iter().map(|count| count.dimension).collect::<Vec<_>>())
                .bind(counts.iter().map(|count| count.member.as_str()).collect::<Vec<_>>())
                .bind(counts.iter().map(|count| last_seen::in_lane(count.shard, lane)).collect::<Vec<_>>())
                .bind(counts.iter().map(|count| count.by.unwrap_or(0)).collect::<Vec<_>>());
            bounded(self.deadline, "add to counters", upsert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn bury(&mut self, pool: &str, rows: &[DeadRow]) -> Result<()> {
        for row in rows {
            let insert = sqlx::query(
                "INSERT INTO weir_dead (pool, event_id, pipeline, reason, message, topic, topic_id, partition, \"offset\",
                                        key, value, headers, attempts, type, record_ms, holds_key, replay_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                         CASE WHEN $16 THEN (SELECT max(o.replay_at) FROM weir_dead o
                              WHERE o.pool = $1 AND o.topic = $6 AND o.partition = $8 AND o.holds_key
                                AND md5(o.key) = md5($10) AND o.key = $10) END)
                 ON CONFLICT (pool, type, event_id) DO UPDATE
                    SET pipeline = excluded.pipeline, reason = excluded.reason, message = excluded.message,
                        topic = excluded.topic, topic_id = excluded.topic_id, partition = excluded.partition,
                        \"offset\" = excluded.\"offset\", key = excluded.key, value = excluded.value,
                        headers = excluded.headers, attempts = excluded.attempts, record_ms = excluded.record_ms,
                        holds_key = excluded.holds_key, replay_at = excluded.replay_at, replay_request = NULL
                  WHERE excluded.reason = 'parked' AND weir_dead.reason <> 'parked'",
            )
            .bind(pool)
            .bind(&row.event_id)
            .bind(&row.pipeline)
            .bind(row.reason.as_str())
            .bind(row.message.replace('\0', "\u{fffd}"))
            .bind(&*row.origin.topic)
            .bind(row.origin.topic_id)
            .bind(row.origin.partition)
            .bind(row.offset)
            .bind(row.key.as_deref())
            .bind(row.value.as_deref())
            .bind(row.headers.as_deref())
            .bind(row.attempts)
            .bind(&row.kind)
            .bind(row.record_ms)
            .bind(row.holds_key);
            bounded(self.deadline, "keep a rejected event", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn unbury(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let (kinds, event_ids): (Vec<&str>, Vec<&str>) = ids.iter().copied().unzip();
        let delete = sqlx::query(
            "DELETE FROM weir_dead d USING unnest($2::text[], $3::text[]) AS u(type, event_id)
              WHERE d.pool = $1 AND d.event_id = u.event_id AND d.type IN ('', u.type)",
        )
        .bind(pool)
        .bind(kinds)
        .bind(event_ids);
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

impl OpenTx<Postgres> {
    /// All of the rows are new, or it is an error.
    async fn copy(&mut self, action: &'static str, rows: Copy) -> Result<Vec<bool>> {
        let count = rows.count;
        if bounded(self.deadline, action, rows.run(self.connection())).await? {
            return Ok(vec![true; count]);
        }
        let message = "the database kept rows back without an error, as a trigger may".to_owned();
        Err(Error { fault: Fault::Reject, action, message })
    }
}

fn bind_all<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    columns: &'q [ColumnData<'_>],
) -> Query<'q, Postgres, PgArguments> {
    for column in columns {
        query = match column {
            ColumnData::Bool(values) => query.bind(values),
            ColumnData::Int(values) | ColumnData::TimestampMs(values) => query.bind(values),
            ColumnData::Float(values) => query.bind(values),
            ColumnData::Text(values) => query.bind(values),
            ColumnData::Uuid(values) => query.bind(values),
        };
    }
    query
}

/// The rows of a batch as a query: an array a column, whatever their number. Their names are the columns'.
fn rows_sql(table: &Table, names: &[String]) -> String {
    let (mut arrays, mut values) = (Vec::new(), Vec::new());
    for (column, name) in table.columns.iter().zip(names) {
        let (array, value) = match column.kind {
            ColumnType::Bool => ("bool[]", format!("u.{name}")),
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => ("int8[]", format!("u.{name}")),
            ColumnType::Float8 => ("float8[]", format!("u.{name}")),
            ColumnType::Numeric => ("text[]", format!("u.{name}::numeric")),
            ColumnType::Uuid => ("uuid[]", format!("u.{name}")),
            // to_timestamp takes floating point, which is some microseconds off in distant centuries.
            ColumnType::Timestamp => (
                "int8[]",
                format!(
                    "timestamptz 'epoch' + u.{name} / 1000 * interval '1 second' + u.{name} % 1000 * interval '1 ms'"
                ),
            ),
            ColumnType::Json => ("text[]", format!("u.{name}::json")),
            ColumnType::Text { .. } | ColumnType::Other(_) => ("text[]", format!("u.{name}")),
        };
        arrays.push(format!("${}::{array}", arrays.len() + 1));
        values.push(format!("{value} AS {name}"));
    }
    format!("SELECT {} FROM unnest({}) AS u({})", values.join(", "), arrays.join(", "), names.join(", "))
}

fn names(table: &Table) -> Vec<String> {
    table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect()
}

/// After the rows the statement takes their number. The names were checked to be plain when they were configured, and the
/// key is named: a bare ON CONFLICT would swallow other unique keys too. Its answer is one value, the ids that were new, or
/// NULL if all were: a row an id would cost more than the rest of the answer. What is there already is updated by a
/// statement of its own: one that does both tells new rows from others by `xmax` only, which partitioned tables do not have.
/// The answer's collation is named, so that it stays the same when `messages` is partitioned under a prepared statement.
fn insert_sql(table: &Table) -> String {
    let (key, names) = (&table.key.column, names(table));
    format!(
        "WITH written AS (INSERT INTO \"{}\" AS t ({}) {} ON CONFLICT (\"{key}\") DO NOTHING RETURNING t.\"{key}\"::text COLLATE \"C\" AS id)
         SELECT CASE WHEN count(*) < ${} THEN coalesce(array_agg(id), '{{}}') END FROM written",
        table.key.table,
        names.join(", "),
        rows_sql(table, &names),
        table.columns.len() + 1
    )
}

/// Replaces what is older.
fn update_sql(table: &Table, newer_by: &str) -> String {
    let (key, names) = (&table.key.column, names(table));
    let others = names.iter().filter(|name| name.trim_matches('"') != key);
    let set: Vec<String> = others.map(|name| format!("{name} = n.{name}")).collect();
    format!(
        "UPDATE \"{}\" AS t SET {} FROM ({}) AS n
          WHERE t.\"{key}\" = n.\"{key}\" AND (t.\"{newer_by}\" IS NULL OR n.\"{newer_by}\" > t.\"{newer_by}\")",
        table.key.table,
        set.join(", "),
        rows_sql(table, &names),
    )
}
