//! Dead rows that are looked at, asked for and replayed.

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Postgres;
use crate::store::connection::{OpenTx, bounded};
use crate::store::{Asked, DeadFilter, DeadRows, KeptDead, Rejected, Release, ReplayTx, RequestStanding, Result};

const COLUMNS: &str =
    "type, event_id, pipeline, reason, message, topic, topic_id, partition, \"offset\", record_ms, key,
    value, headers, attempts, (extract(epoch FROM created_at) * 1000)::int8 AS created_ms,
    (extract(epoch FROM published_at) * 1000)::int8 AS published_ms, holds_key,
    (extract(epoch FROM replay_at) * 1000)::int8 AS replay_ms";

/// Binds $1 to $7.
const MATCHES: &str = "pool = $1 AND ($2::text[] IS NULL OR event_id = ANY($2)) AND ($3::text IS NULL OR pipeline = $3)
    AND ($4::text IS NULL OR reason = $4) AND ($5::bytea IS NULL OR key = $5)
    AND ($6::int8 IS NULL OR created_at >= to_timestamp($6::numeric / 1000))
    AND ($7::int8 IS NULL OR created_at < to_timestamp($7::numeric / 1000))";

/// The rows of keys that are named, or of the keys of events that are. Binds $1 to $3.
const RELEASED: &str = "d.pool = $1 AND d.holds_key AND ($2::text[] IS NULL OR d.key = ANY($3::bytea[])
    OR (d.topic, d.partition, d.key) IN (SELECT o.topic, o.partition, o.key FROM weir_dead o
                                          WHERE o.pool = $1 AND o.holds_key AND o.event_id = ANY($2)))";

const OLDEST_FIRST: &str = "created_at, topic, partition, \"offset\", event_id, type";

fn bind<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    filter: &'q DeadFilter,
) -> Query<'q, sqlx::Postgres, PgArguments> {
    query
        .bind(&filter.pool)
        .bind(filter.ids.as_deref())
        .bind(filter.pipeline.as_deref())
        .bind(filter.reason.as_deref())
        .bind(filter.key.as_deref())
        .bind(filter.since_ms)
        .bind(filter.until_ms)
}

fn kept(row: &PgRow) -> sqlx::Result<KeptDead> {
    Ok(KeptDead {
        kind: row.try_get("type")?,
        event_id: row.try_get("event_id")?,
        pipeline: row.try_get("pipeline")?,
        reason: row.try_get("reason")?,
        message: row.try_get("message")?,
        topic: row.try_get("topic")?,
        topic_id: row.try_get("topic_id")?,
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        record_ms: row.try_get("record_ms")?,
        key: row.try_get("key")?,
        value: row.try_get("value")?,
        headers: row.try_get("headers")?,
        attempts: row.try_get("attempts")?,
        created_ms: row.try_get("created_ms")?,
        published_ms: row.try_get("published_ms")?,
        holds_key: row.try_get("holds_key")?,
        replay_ms: row.try_get("replay_ms")?,
    })
}

fn all_kept(rows: &[PgRow]) -> Result<Vec<KeptDead>> {
    let kept: sqlx::Result<Vec<KeptDead>> = rows.iter().map(kept).collect();
    kept.map_err(|error| crate::store::fault::error("read dead rows", &error))
}

#[async_trait]
impl DeadRows for Postgres {
    async fn dead_rows(&self, filter: &DeadFilter) -> Result<Vec<KeptDead>> {
        const ACTION: &str = "read dead rows";
        let mut tx = self.open(ACTION).await?;
        let columns = match filter.without_bodies {
            true => COLUMNS.replace("value, headers", "NULL::bytea AS value, NULL::bytea AS headers"),
            false => COLUMNS.to_owned(),
        };
        let order = filter.order(OLDEST_FIRST);
        let sql = format!("SELECT {columns} FROM weir_dead WHERE {MATCHES} ORDER BY {order} LIMIT $8 OFFSET $9");
        let select = bind(sqlx::query(AssertSqlSafe(sql)), filter).bind(filter.limit).bind(filter.skip);
        let rows = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        all_kept(&rows)
    }

    async fn count_dead(&self, filter: &DeadFilter) -> Result<i64> {
        const ACTION: &str = "count dead rows";
        let mut tx = self.open(ACTION).await?;
        let sql = format!("SELECT count(*) AS rows FROM weir_dead WHERE {MATCHES}");
        let count = bind(sqlx::query(AssertSqlSafe(sql)), filter);
        let row = bounded(self.deadline, ACTION, count.fetch_one(tx.connection())).await?;
        tx.finish().await?;
        row.try_get("rows").map_err(|error| crate::store::fault::error(ACTION, &error))
    }

    async fn request_replay(&self, filter: &DeadFilter, request: Uuid, per_second: Option<f64>) -> Result<Asked> {
        const ACTION: &str = "ask for a replay";
        let mut tx = self.open(ACTION).await?;
        let sql = format!(
            "SELECT count(*) FILTER (WHERE replay_at IS NOT NULL) AS before, count(*) FILTER (WHERE holds_key) AS holding
               FROM weir_dead WHERE {MATCHES}"
        );
        let count = bind(sqlx::query(AssertSqlSafe(sql)), filter);
        let row = bounded(self.deadline, ACTION, count.fetch_one(tx.connection())).await?;
        let read = |name| row.try_get::<i64, _>(name).map_err(|error| crate::store::fault::error(ACTION, &error));
        let (before, holding) = (read("before")?.cast_unsigned(), read("holding")?.cast_unsigned());
        let sql = format!(
            "UPDATE weir_dead d SET replay_at = now() + c.n * $9::float8 * interval '1 second', replay_request = $10, replay_outcome = NULL
               FROM (SELECT pool, type, event_id, row_number() OVER (ORDER BY {OLDEST_FIRST}) - 1 AS n FROM weir_dead
                      WHERE {MATCHES} AND replay_at IS NULL AND NOT holds_key ORDER BY n LIMIT $8) AS c
              WHERE d.pool = c.pool AND d.type = c.type AND d.event_id = c.event_id AND d.replay_at IS NULL"
        );
        let seconds_each = per_second.map_or(0.0, |rate| 1.0 / rate);
        let update = bind(sqlx::query(AssertSqlSafe(sql)), filter).bind(filter.limit).bind(seconds_each).bind(request);
        let done = bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await?;
        Ok(Asked { asked: done.rows_affected(), before, holding })
    }

    async fn request_release(&self, release: &Release, request: Uuid, per_second: Option<f64>) -> Result<Asked> {
        const ACTION: &str = "release keys";
        let ids = release.keys_or_ids.as_deref();
        let keys: Option<Vec<&[u8]>> = ids.map(|ids| ids.iter().map(String::as_bytes).collect());
        let mut tx = self.open(ACTION).await?;
        let before = sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!(
            "SELECT count(*) FROM weir_dead d WHERE {RELEASED} AND replay_at IS NOT NULL"
        )));
        let before = before.bind(&release.pool).bind(ids).bind(keys.as_deref()).fetch_one(tx.connection());
        let before = bounded(self.deadline, ACTION, before).await?;
        let update = sqlx::query(AssertSqlSafe(format!(
            "UPDATE weir_dead r SET replay_at = now() + c.n * $4::float8 * interval '1 second', replay_request = $5,
                    replay_outcome = NULL
               FROM (SELECT pool, type, event_id, row_number() OVER (ORDER BY topic, partition, \"offset\") - 1 AS n
                       FROM weir_dead d WHERE {RELEASED} AND replay_at IS NULL) AS c
              WHERE r.pool = c.pool AND r.type = c.type AND r.event_id = c.event_id"
        )));
        let seconds_each = per_second.map_or(0.0, |rate| 1.0 / rate);
        let update = update.bind(&release.pool).bind(ids).bind(keys.as_deref()).bind(seconds_each).bind(request);
        let done = bounded(self.deadline, ACTION, update.execute(tx.connection())).await?;
        tx.finish().await?;
        Ok(Asked { asked: done.rows_affected(), before: before.cast_unsigned(), holding: 0 })
    }

    async fn parked_keys(&self, pool: &str, topic: &str, partition: i32) -> Result<Vec<(Vec<u8>, i64)>> {
        const ACTION: &str = "read the keys that are held back";
        let mut tx = self.open(ACTION).await?;
        let select = sqlx::query_as(
            "SELECT key, count(*) FROM weir_dead
              WHERE pool = $1 AND topic = $2 AND partition = $3 AND holds_key AND key IS NOT NULL GROUP BY key",
        );
        let keys = select.bind(pool).bind(topic).bind(partition).fetch_all(tx.connection());
        let keys = bounded(self.deadline, ACTION, keys).await?;
        tx.finish().await?;
        Ok(keys)
    }

    async fn request_standing(&self, request: Uuid) -> Result<RequestStanding> {
        const ACTION: &str = "look at a replay";
        let mut tx = self.open(ACTION).await?;
        let waiting = sqlx::query_as::<_, (String, i32, i64)>(
            "SELECT topic, partition, count(*) FROM weir_dead
              WHERE replay_request = $1 AND replay_at IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
        );
        let waiting = bounded(self.deadline, ACTION, waiting.bind(request).fetch_all(tx.connection())).await?;
        let outcomes = sqlx::query_as::<_, (i64, i64)>(
            "SELECT count(*) FILTER (WHERE replay_outcome = 'rejected'), count(*) FILTER (WHERE replay_outcome = 'stopped')
               FROM weir_dead WHERE replay_request = $1 AND replay_at IS NULL",
        );
        let outcomes = outcomes.bind(request).fetch_one(tx.connection());
        let (rejected, stopped) = bounded(self.deadline, ACTION, outcomes).await?;
        tx.finish().await?;
        Ok(RequestStanding { waiting, rejected, stopped })
    }

    async fn due_replays(&self, pool: &str, partitions: &[(String, i32)]) -> Result<Vec<(String, i32)>> {
        const ACTION: &str = "look for replays";
        let (topics, numbers): (Vec<&str>, Vec<i32>) =
            partitions.iter().map(|(topic, partition)| (topic.as_str(), *partition)).unzip();
        let mut tx = self.open(ACTION).await?;
        let due = sqlx::query_as(
            "SELECT p.topic, p.partition FROM unnest($2::text[], $3::int4[]) AS p(topic, partition)
              WHERE EXISTS (SELECT 1 FROM weir_dead d WHERE d.pool = $1 AND d.topic = p.topic
                                AND d.partition = p.partition AND d.replay_at <= now())",
        );
        let due = due.bind(pool).bind(topics).bind(numbers).fetch_all(tx.connection());
        let due = bounded(self.deadline, ACTION, due).await?;
        tx.finish().await?;
        Ok(due)
    }

    async fn next_replays(&self, pool: &str, topic: &str, partition: i32, limit: i64) -> Result<Vec<KeptDead>> {
        const ACTION: &str = "read dead rows to replay";
        let mut tx = self.open(ACTION).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM weir_dead
              WHERE pool = $1 AND topic = $2 AND partition = $3 AND replay_at <= now()
              ORDER BY replay_at, \"offset\" LIMIT $4"
        );
        let select = sqlx::query(AssertSqlSafe(sql)).bind(pool).bind(topic).bind(partition).bind(limit);
        let rows = bounded(self.deadline, ACTION, select.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        all_kept(&rows)
    }
}

#[async_trait]
impl ReplayTx for OpenTx<sqlx::Postgres> {
    async fn exhume(&mut self, pool: &str, row: &KeptDead) -> Result<bool> {
        let delete = sqlx::query(
            "DELETE FROM weir_dead d WHERE pool = $1 AND type = $2 AND event_id = $3 AND replay_at IS NOT NULL
                AND NOT (holds_key AND EXISTS (SELECT 1 FROM weir_dead o
                    WHERE o.pool = $1 AND o.topic = d.topic AND o.partition = d.partition AND o.holds_key
                      AND md5(o.key) = md5(d.key) AND o.key = d.key AND o.\"offset\" < d.\"offset\"))",
        );
        let delete = delete.bind(pool).bind(&row.kind).bind(&row.event_id);
        let done = bounded(self.deadline, "take a dead row", delete.execute(self.connection())).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn note_replayed(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let (kinds, event_ids): (Vec<&str>, Vec<&str>) = ids.iter().copied().unzip();
        let insert = sqlx::query(
            "INSERT INTO weir_replayed (pool, type, event_id)
             SELECT $1, u.type, u.event_id FROM unnest($2::text[], $3::text[]) AS u(type, event_id)
             ON CONFLICT (pool, type, event_id) DO UPDATE SET replayed_at = excluded.replayed_at",
        )
        .bind(pool)
        .bind(kinds)
        .bind(event_ids);
        bounded(self.deadline, "note a replay", insert.execute(self.connection())).await?;
        Ok(())
    }

    async fn rebury(&mut self, pool: &str, row: &KeptDead, rejected: &Rejected) -> Result<bool> {
        const ACTION: &str = "keep an event that was rejected again";
        // Decoded in another way, it can have another id by now; where that one has a row already, one row is enough.
        let update = sqlx::query(
            "UPDATE weir_dead SET type = $4, event_id = $5, pipeline = $6, reason = $7, message = $8,
                    attempts = attempts + 1, replay_at = NULL, replay_outcome = 'rejected'
              WHERE pool = $1 AND type = $2 AND event_id = $3 AND replay_at IS NOT NULL
                AND (($2 = $4 AND $3 = $5) OR NOT EXISTS
                    (SELECT 1 FROM weir_dead o WHERE o.pool = $1 AND o.type = $4 AND o.event_id = $5))",
        )
        .bind(pool)
        .bind(&row.kind)
        .bind(&row.event_id)
        .bind(&rejected.kind)
        .bind(&rejected.event_id)
        .bind(&rejected.pipeline)
        .bind(rejected.reason.as_str())
        .bind(rejected.message.replace('\0', "\u{fffd}"));
        let done = bounded(self.deadline, ACTION, update.execute(self.connection())).await?;
        if done.rows_affected() == 1 {
            return Ok(true);
        }
        self.exhume(pool, row).await
    }

    async fn stop_key(&mut self, pool: &str, row: &KeptDead) -> Result<()> {
        let update = sqlx::query(
            "UPDATE weir_dead SET replay_at = NULL, replay_outcome = 'stopped'
              WHERE pool = $1 AND topic = $2 AND partition = $3 AND holds_key AND md5(key) = md5($4) AND key = $4
                AND replay_at IS NOT NULL",
        );
        let update = update.bind(pool).bind(&row.topic).bind(row.partition).bind(row.key.as_deref());
        bounded(self.deadline, "stop a key", update.execute(self.connection())).await?;
        Ok(())
    }
}
