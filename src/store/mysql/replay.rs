//! Dead rows that are looked at, asked for and replayed.

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::rows::{Statement, tuples, uuid_of};
use super::tx::BatchTx;
use super::{Mysql, NOW_MS};
use crate::store::connection::bounded;
use crate::store::{
    Asked, DeadFilter, DeadRows, KeptDead, Rejected, Release, ReplayTx, RequestStanding, Result, fault,
};

const COLUMNS: &str = "CONVERT(type USING utf8mb4) AS type, CONVERT(event_id USING utf8mb4) AS event_id,
    CONVERT(pipeline USING utf8mb4) AS pipeline, reason, message, CONVERT(topic USING utf8mb4) AS topic, topic_id,
    \"partition\", \"offset\", record_ms, \"key\", value, headers, attempts, created_at, published_at, holds_key, replay_at";

const OLDEST_FIRST: &str = "created_at, topic, \"partition\", \"offset\", event_id, type";

/// The condition of a filter, with as many placeholders as [`bind`] binds.
fn matches(filter: &DeadFilter) -> String {
    let mut all = vec!["pool = ?".to_owned()];
    if let Some(ids) = &filter.ids {
        all.push(one_of("event_id", ids.len()));
    }
    let optional = [
        (filter.pipeline.is_some(), "pipeline = ?"),
        (filter.reason.is_some(), "reason = ?"),
        (filter.key.is_some(), "\"key\" = ?"),
        (filter.since_ms.is_some(), "created_at >= ?"),
        (filter.until_ms.is_some(), "created_at < ?"),
    ];
    all.extend(optional.iter().filter(|(given, _)| *given).map(|(_, condition)| (*condition).to_owned()));
    all.join(" AND ")
}

fn one_of(column: &str, count: usize) -> String {
    if count == 0 { "false".to_owned() } else { format!("{column} IN ({})", tuples("?", count)) }
}

fn bind<'q>(mut query: Statement<'q>, filter: &'q DeadFilter) -> Statement<'q> {
    query = query.bind(filter.pool.as_bytes());
    for id in filter.ids.iter().flatten() {
        query = query.bind(id.as_bytes());
    }
    if let Some(pipeline) = &filter.pipeline {
        query = query.bind(pipeline.as_bytes());
    }
    if let Some(reason) = &filter.reason {
        query = query.bind(reason.as_str());
    }
    if let Some(key) = &filter.key {
        query = query.bind(key.as_slice());
    }
    for time in [filter.since_ms, filter.until_ms].into_iter().flatten() {
        query = query.bind(time);
    }
    query
}

/// The rows of keys that are named, or of the keys of events that are; `d` is the table.
fn released(release: &Release) -> String {
    let Some(names) = &release.keys_or_ids else { return "d.pool = ? AND d.holds_key".to_owned() };
    format!(
        "d.pool = ? AND d.holds_key AND ({} OR (d.topic, d.\"partition\", d.\"key\") IN
            (SELECT o.topic, o.\"partition\", o.\"key\" FROM weir_dead AS o WHERE o.pool = ? AND o.holds_key AND {}))",
        one_of("d.\"key\"", names.len()),
        one_of("o.event_id", names.len())
    )
}

fn bind_released<'q>(mut query: Statement<'q>, release: &'q Release) -> Statement<'q> {
    query = query.bind(release.pool.as_bytes());
    if let Some(names) = &release.keys_or_ids {
        for name in names {
            query = query.bind(name.as_bytes());
        }
        query = query.bind(release.pool.as_bytes());
        for name in names {
            query = query.bind(name.as_bytes());
        }
    }
    query
}

fn kept(row: &MySqlRow) -> sqlx::Result<KeptDead> {
    Ok(KeptDead {
        kind: row.try_get("type")?,
        event_id: row.try_get("event_id")?,
        pipeline: row.try_get("pipeline")?,
        reason: row.try_get("reason")?,
        message: row.try_get("message")?,
        topic: row.try_get("topic")?,
        topic_id: uuid_of(row.try_get("topic_id")?)?,
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        record_ms: row.try_get("record_ms")?,
        key: row.try_get("key")?,
        value: row.try_get("value")?,
        headers: row.try_get("headers")?,
        attempts: row.try_get("attempts")?,
        created_ms: row.try_get("created_at")?,
        published_ms: row.try_get("published_at")?,
        holds_key: row.try_get("holds_key")?,
        replay_ms: row.try_get("replay_at")?,
    })
}

fn all_kept(rows: &[MySqlRow]) -> Result<Vec<KeptDead>> {
    let kept: sqlx::Result<Vec<KeptDead>> = rows.iter().map(kept).collect();
    kept.map_err(|error| fault::error("read dead rows", &error))
}

fn number(action: &'static str, row: &MySqlRow, name: &str) -> Result<u64> {
    row.try_get::<i64, _>(name).map(i64::cast_unsigned).map_err(|error| fault::error(action, &error))
}

#[async_trait]
impl DeadRows for Mysql {
    async fn dead_rows(&self, filter: &DeadFilter) -> Result<Vec<KeptDead>> {
        const ACTION: &str = "read dead rows";
        let mut tx = self.open(ACTION).await?;
        let columns = match filter.without_bodies {
            true => COLUMNS.replace("value, headers", "CAST(NULL AS BINARY) AS value, CAST(NULL AS BINARY) AS headers"),
            false => COLUMNS.to_owned(),
        };
        let order = filter.order(OLDEST_FIRST);
        let sql =
            format!("SELECT {columns} FROM weir_dead WHERE {} ORDER BY {order} LIMIT ? OFFSET ?", matches(filter));
        let select = bind(sqlx::query(AssertSqlSafe(sql)), filter).bind(filter.limit).bind(filter.skip);
        let rows = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        all_kept(&rows)
    }

    async fn count_dead(&self, filter: &DeadFilter) -> Result<i64> {
        const ACTION: &str = "count dead rows";
        let mut tx = self.open(ACTION).await?;
        let sql = format!("SELECT count(*) AS found FROM weir_dead WHERE {}", matches(filter));
        let count = bind(sqlx::query(AssertSqlSafe(sql)), filter);
        let row = bounded(self.deadline, ACTION, count.fetch_one(tx.connection())).await?;
        tx.finish().await?;
        row.try_get("found").map_err(|error| fault::error(ACTION, &error))
    }

    async fn request_replay(&self, filter: &DeadFilter, request: Uuid, per_second: Option<f64>) -> Result<Asked> {
        const ACTION: &str = "ask for a replay";
        let mut tx = self.open(ACTION).await?;
        let sql = format!(
            "SELECT count(CASE WHEN replay_at IS NOT NULL THEN 1 END) AS before_now, count(CASE WHEN holds_key THEN 1 END) AS holding
               FROM weir_dead WHERE {}",
            matches(filter)
        );
        let count = bind(sqlx::query(AssertSqlSafe(sql)), filter);
        let row = bounded(self.deadline, ACTION, count.fetch_one(tx.connection())).await?;
        let (before, holding) = (number(ACTION, &row, "before_now")?, number(ACTION, &row, "holding")?);
        let sql = format!(
            "UPDATE weir_dead AS d
               JOIN (SELECT pool, type, event_id, row_number() OVER (ORDER BY {OLDEST_FIRST}) - 1 AS n FROM weir_dead
                      WHERE {} AND replay_at IS NULL AND NOT holds_key ORDER BY n LIMIT ?) AS c
                 ON d.pool = c.pool AND d.type = c.type AND d.event_id = c.event_id
                SET d.replay_at = {NOW_MS} + CAST(c.n * ? AS SIGNED), d.replay_request = ?, d.replay_outcome = NULL",
            matches(filter)
        );
        let ms_each = per_second.map_or(0.0, |rate| 1_000.0 / rate);
        let update =
            bind(sqlx::query(AssertSqlSafe(sql)), filter).bind(filter.limit).bind(ms_each).bind(request.to_string());
        let done = bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await?;
        Ok(Asked { asked: done.rows_affected(), before, holding })
    }

    async fn request_release(&self, release: &Release, request: Uuid, per_second: Option<f64>) -> Result<Asked> {
        const ACTION: &str = "release keys";
        let condition = released(release);
        let mut tx = self.open(ACTION).await?;
        let before = sqlx::query(AssertSqlSafe(format!(
            "SELECT count(*) AS before_now FROM weir_dead AS d WHERE {condition} AND d.replay_at IS NOT NULL"
        )));
        let before = bind_released(before, release).fetch_one(tx.connection());
        let before = number(ACTION, &bounded(self.deadline, ACTION, before).await?, "before_now")?;
        let update = sqlx::query(AssertSqlSafe(format!(
            "UPDATE weir_dead AS r
               JOIN (SELECT d.pool, d.type, d.event_id,
                            row_number() OVER (ORDER BY d.topic, d.\"partition\", d.\"offset\") - 1 AS n
                       FROM weir_dead AS d WHERE {condition} AND d.replay_at IS NULL) AS c
                 ON r.pool = c.pool AND r.type = c.type AND r.event_id = c.event_id
                SET r.replay_at = {NOW_MS} + CAST(c.n * ? AS SIGNED), r.replay_request = ?, r.replay_outcome = NULL"
        )));
        let ms_each = per_second.map_or(0.0, |rate| 1_000.0 / rate);
        let update = bind_released(update, release).bind(ms_each).bind(request.to_string());
        let done = bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await?;
        Ok(Asked { asked: done.rows_affected(), before, holding: 0 })
    }

    async fn parked_keys(&self, pool: &str, topic: &str, partition: i32) -> Result<Vec<(Vec<u8>, i64)>> {
        const ACTION: &str = "read the keys that are held back";
        let mut tx = self.open(ACTION).await?;
        let select = sqlx::query_as(
            "SELECT \"key\", count(*) FROM weir_dead
              WHERE pool = ? AND holds_key AND topic = ? AND \"partition\" = ? AND \"key\" IS NOT NULL GROUP BY \"key\"",
        );
        let keys = select.bind(pool.as_bytes()).bind(topic.as_bytes()).bind(partition).fetch_all(tx.connection());
        let keys = bounded(self.deadline, ACTION, keys).await?;
        tx.finish().await?;
        Ok(keys)
    }

    async fn request_standing(&self, request: Uuid) -> Result<RequestStanding> {
        const ACTION: &str = "look at a replay";
        let mut tx = self.open(ACTION).await?;
        let waiting = sqlx::query_as::<_, (String, i32, i64)>(
            "SELECT CONVERT(topic USING utf8mb4) AS name, \"partition\", count(*) FROM weir_dead
              WHERE replay_request = ? AND replay_at IS NOT NULL GROUP BY topic, \"partition\" ORDER BY topic, \"partition\"",
        );
        let waiting = waiting.bind(request.to_string()).fetch_all(tx.connection());
        let waiting = bounded(self.deadline, ACTION, waiting).await?;
        let outcomes = sqlx::query_as::<_, (i64, i64)>(
            "SELECT count(CASE WHEN replay_outcome = 'rejected' THEN 1 END), count(CASE WHEN replay_outcome = 'stopped' THEN 1 END)
               FROM weir_dead WHERE replay_request = ? AND replay_at IS NULL",
        );
        let outcomes = outcomes.bind(request.to_string()).fetch_one(tx.connection());
        let (rejected, stopped) = bounded(self.deadline, ACTION, outcomes).await?;
        tx.finish().await?;
        Ok(RequestStanding { waiting, rejected, stopped })
    }

    async fn due_replays(&self, pool: &str, partitions: &[(String, i32)]) -> Result<Vec<(String, i32)>> {
        const ACTION: &str = "look for replays";
        let mut tx = self.open(ACTION).await?;
        let due = sqlx::query_as::<_, (String, i32)>(AssertSqlSafe(format!(
            "SELECT DISTINCT CONVERT(topic USING utf8mb4), \"partition\" FROM weir_dead WHERE pool = ? AND replay_at <= {NOW_MS}"
        )));
        let due = due.bind(pool.as_bytes()).fetch_all(tx.connection());
        let mut due = bounded(self.deadline, ACTION, due).await?;
        tx.finish().await?;
        due.retain(|place| partitions.contains(place));
        Ok(due)
    }

    async fn next_replays(&self, pool: &str, topic: &str, partition: i32, limit: i64) -> Result<Vec<KeptDead>> {
        const ACTION: &str = "read dead rows to replay";
        let mut tx = self.open(ACTION).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM weir_dead WHERE pool = ? AND topic = ? AND \"partition\" = ? AND replay_at <= {NOW_MS}
              ORDER BY replay_at, \"offset\" LIMIT ?"
        );
        let select =
            sqlx::query(AssertSqlSafe(sql)).bind(pool.as_bytes()).bind(topic.as_bytes()).bind(partition).bind(limit);
        let rows = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        all_kept(&rows)
    }
}

/// A statement names the table that it changes only once, so what decides is read first, and the row locked.
impl BatchTx {
    async fn is_asked_for(&mut self, action: &'static str, pool: &str, row: &KeptDead) -> Result<bool> {
        let select = sqlx::query_scalar::<_, bool>(
            "SELECT replay_at IS NOT NULL FROM weir_dead WHERE pool = ? AND event_id = ? AND type = ? FOR UPDATE",
        );
        let select = select.bind(pool.as_bytes()).bind(row.event_id.as_bytes()).bind(row.kind.as_bytes());
        let deadline = self.deadline();
        Ok(bounded(deadline, action, select.fetch_optional(self.connection())).await?.unwrap_or(false))
    }

    async fn is_behind_its_key(&mut self, action: &'static str, pool: &str, row: &KeptDead) -> Result<bool> {
        if !row.holds_key {
            return Ok(false);
        }
        let earlier = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT 1 FROM weir_dead WHERE pool = ? AND holds_key AND topic = ? AND \"partition\" = ?
                                AND \"key\" = ? AND \"offset\" < ?)",
        );
        let earlier = earlier
            .bind(pool.as_bytes())
            .bind(row.topic.as_bytes())
            .bind(row.partition)
            .bind(row.key.as_deref())
            .bind(row.offset);
        let deadline = self.deadline();
        bounded(deadline, action, earlier.fetch_one(self.connection())).await
    }
}

#[async_trait]
impl ReplayTx for BatchTx {
    async fn exhume(&mut self, pool: &str, row: &KeptDead) -> Result<bool> {
        const ACTION: &str = "take a dead row";
        if !self.is_asked_for(ACTION, pool, row).await? || self.is_behind_its_key(ACTION, pool, row).await? {
            return Ok(false);
        }
        self.remove_dead(pool, &row.kind, &row.event_id).await?;
        Ok(true)
    }

    async fn note_replayed(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let sql = format!(
            "INSERT INTO weir_replayed (pool, type, event_id, replayed_at) VALUES (?, ?, ?, {NOW_MS})
             ON DUPLICATE KEY UPDATE replayed_at = VALUES(replayed_at)"
        );
        let deadline = self.deadline();
        for (kind, id) in ids {
            let insert = sqlx::query(AssertSqlSafe(sql.as_str()));
            let insert = insert.bind(pool.as_bytes()).bind(kind.as_bytes()).bind(id.as_bytes());
            bounded(deadline, "note a replay", insert.execute(self.connection())).await?;
        }
        Ok(())
    }

    async fn rebury(&mut self, pool: &str, row: &KeptDead, rejected: &Rejected) -> Result<bool> {
        const ACTION: &str = "keep an event that was rejected again";
        if !self.is_asked_for(ACTION, pool, row).await? {
            return Ok(false);
        }
        let deadline = self.deadline();
        // Decoded in another way, it can have another id by now; where that one has a row already, one row is enough.
        if (&rejected.kind, &rejected.event_id) != (&row.kind, &row.event_id) {
            let other = sqlx::query_scalar::<_, bool>(
                "SELECT EXISTS (SELECT 1 FROM weir_dead WHERE pool = ? AND event_id = ? AND type = ?)",
            );
            let other = other.bind(pool.as_bytes()).bind(rejected.event_id.as_bytes()).bind(rejected.kind.as_bytes());
            if bounded(deadline, ACTION, other.fetch_one(self.connection())).await? {
                return self.exhume(pool, row).await;
            }
        }
        let update = sqlx::query(
            "UPDATE weir_dead SET type = ?, event_id = ?, pipeline = ?, reason = ?, message = ?, attempts = attempts + 1,
                    replay_at = NULL, replay_outcome = 'rejected'
              WHERE pool = ? AND event_id = ? AND type = ?",
        )
        .bind(rejected.kind.as_bytes())
        .bind(rejected.event_id.as_bytes())
        .bind(rejected.pipeline.as_bytes())
        .bind(rejected.reason.as_str())
        .bind(rejected.message.replace('\0', "\u{fffd}"))
        .bind(pool.as_bytes())
        .bind(row.event_id.as_bytes())
        .bind(row.kind.as_bytes());
        bounded(deadline, ACTION, update.execute(self.connection())).await?;
        Ok(true)
    }

    async fn stop_key(&mut self, pool: &str, row: &KeptDead) -> Result<()> {
        let update = sqlx::query(
            "UPDATE weir_dead SET replay_at = NULL, replay_outcome = 'stopped'
              WHERE pool = ? AND holds_key AND topic = ? AND \"partition\" = ? AND \"key\" = ? AND replay_at IS NOT NULL",
        );
        let update =
            update.bind(pool.as_bytes()).bind(row.topic.as_bytes()).bind(row.partition).bind(row.key.as_deref());
        let deadline = self.deadline();
        bounded(deadline, "stop a key", update.execute(self.connection())).await.map(drop)
    }
}
