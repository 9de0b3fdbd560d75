//! The days of a partitioned `messages`: those ahead are made, those older than the retention dropped.
//!
//! A day is attached under a lock that lets writers go on; only whoever writes into the part for all other ids waits. It is
//! dropped under one that lets nobody in, for some milliseconds and never waited for longer than [`LOCK_MS_MAX`]: whoever
//! comes behind the waiting statement waits as well. `DETACH … CONCURRENTLY` is refused by PostgreSQL where there is such a part.
//!
//! Strays (`store/days.rs`) are found by an index that is made without a lock when the day is to go, and kept up to date by
//! PostgreSQL from then on: so that under the lock none is missed, and the day need not be read.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use crate::store::connection::{OpenTx, bounded};
use crate::store::days::{ByDay, Converted, Day, Effort, Part, Parts, ROWS_MAX, STRAYS_MAX, reason, refused};
use crate::store::{Fault, Result, Upkeep, fault};

type Transaction = OpenTx<sqlx::Postgres>;

const ACTION: &str = "keep the days of messages";
/// How long a lock is waited for that keeps writers out meanwhile.
const LOCK_MS_MAX: u128 = 1_000;
/// One at a time, the command and all workers. The number is of no meaning but that it is the same.
const TURN: &str = "SELECT pg_try_advisory_xact_lock(8245648573093)";
/// Ids of no day.
pub(super) const OTHER: &str = "messages_other";
/// The table that there was.
pub(super) const BEFORE: &str = "messages_before";

/// Where `messages` is, and its type of ids. No row: it is not partitioned by them.
const TABLE: &str = "
    SELECT quote_ident(n.nspname) AS schema, a.atttypid = 'uuid'::regtype AS is_uuid,
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_partitioned_table p ON p.partrelid = c.oid AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partdefid <> 0
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0] AND a.attname = 'message_id'
     WHERE c.oid = to_regclass('messages')";

const PARTS: &str = "
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = to_regclass('messages') AND NOT i.inhdetachpending";

/// The table and how it is divided.
struct Standing {
    /// Quoted where it has to be.
    schema: String,
    is_uuid: bool,
    parts: Parts,
}

impl Standing {
    fn named(&self, table: &str) -> String {
        format!("{}.\"{table}\"", self.schema)
    }

    /// What is true of strays, as the database sees it.
    fn stray(&self) -> &'static str {
        if self.is_uuid {
            return "substr(message_id::text, 15, 1) <> '7'";
        }
        // A regular expression of the whole takes many times as long.
        "(message_id NOT LIKE '________-____-7___-____-____________' OR message_id ~ '[^0-9a-f-]')"
    }
}

#[async_trait]
impl ByDay for Postgres {
    async fn divide(&self) -> Result<Option<Converted>> {
        self.convert_messages().await
    }

    async fn keep(&self, effort: Effort) -> Result<Option<Upkeep>> {
        let retention = self.messages_retention;
        let Some(mut standing) = self.standing().await? else { return Ok(None) };
        let mut upkeep = Upkeep::default();
        for day in standing.parts.missing(retention) {
            let name = format!("messages_{}", day.digits());
            let made = self.make_day(&standing, day, &name, effort).await.map(|is_made| is_made.then_some(name));
            if !goes_on(made, &day.to_string(), &mut upkeep.made, &mut upkeep.unmade)? {
                break;
            }
        }
        for part in standing.parts.expired(retention) {
            let dropped = self.drop_part(&standing, part, effort).await;
            let dropped = dropped.map(|is_dropped| is_dropped.then(|| part.name.clone()));
            if !goes_on(dropped, &part.name, &mut upkeep.dropped, &mut upkeep.kept)? {
                break;
            }
        }
        if let Some(now) = self.standing().await? {
            standing = now;
        }
        upkeep.stands(&standing.parts, retention);
        Ok(Some(upkeep))
    }

    async fn look(&self) -> Result<Option<Upkeep>> {
        let standing = self.standing().await?;
        Ok(standing.map(|standing| Upkeep::of(&standing.parts, self.messages_retention)))
    }

    fn background(&self) -> Effort {
        Effort { rows_max: ROWS_MAX, deadline: self.deadline }
    }

    fn retention(&self) -> Option<Duration> {
        self.messages_retention
    }
}

impl Postgres {
    async fn standing(&self) -> Result<Option<Standing>> {
        let mut tx = self.open(ACTION).await?;
        let table = sqlx::query(TABLE).fetch_optional(tx.connection());
        let Some(table) = bounded(self.deadline, ACTION, table).await? else {
            tx.finish().await?;
            return Ok(None);
        };
        let rows = bounded(self.deadline, ACTION, sqlx::query(PARTS).fetch_all(tx.connection())).await?;
        tx.finish().await?;
        standing_of(&table, &rows).map(Some).map_err(|error| fault::error(ACTION, &error))
    }

    /// A transaction whose turn it is; `None`: somebody else is at it.
    async fn turn(&self, effort: Effort) -> Result<Option<Transaction>> {
        let mut tx = self.open(ACTION).await?;
        let turn = sqlx::query_scalar::<_, bool>(TURN).fetch_one(tx.connection());
        if !bounded(self.deadline, ACTION, turn).await? {
            tx.finish().await?;
            return Ok(None);
        }
        let lock_ms = self.lock_timeout.as_millis().min(LOCK_MS_MAX);
        let mut settings = format!("SET LOCAL lock_timeout = {lock_ms}");
        if effort.rows_max == i64::MAX {
            settings.push_str("; SET LOCAL statement_timeout = 0");
        }
        tx.run(ACTION, &settings).await?;
        Ok(Some(tx))
    }

    /// Whether it was made, with the rows of the day that came before it.
    async fn make_day(&self, standing: &Standing, day: Day, name: &str, effort: Effort) -> Result<bool> {
        let Some(mut tx) = self.turn(effort).await? else { return Ok(false) };
        let (messages, other, table) = (standing.named("messages"), standing.named(OTHER), standing.named(name));
        if self.is_there(&mut tx, &table).await? {
            tx.finish().await?;
            return Ok(false);
        }
        let (from, to) = (day.bound(), day.plus(1).bound());
        let of_day = format!("message_id >= '{from}' AND message_id < '{to}'");
        let late = format!("SELECT 1 FROM {other} WHERE {of_day} LIMIT {}", effort.rows_max.saturating_add(1));
        let late = count(&mut tx, &late, effort).await?;
        if late > effort.rows_max {
            return Err(refused(format!(
                "{other} holds more than {} rows of that day, and moving them would hold writers up: run `weir migrate \
                 --partitioned` when they may wait",
                effort.rows_max
            )));
        }
        execute(&mut tx, effort, &format!("CREATE TABLE {table} (LIKE {messages} INCLUDING ALL)")).await?;
        if late > 0 {
            execute(&mut tx, effort, &format!("LOCK TABLE {other} IN ACCESS EXCLUSIVE MODE")).await?;
            execute(&mut tx, effort, &moved(&other, &of_day, &table)).await?;
        }
        let attach = format!("ALTER TABLE {messages} ATTACH PARTITION {table} FOR VALUES FROM ('{from}') TO ('{to}')");
        execute(&mut tx, effort, &attach).await?;
        tx.finish().await?;
        Ok(true)
    }

    /// Whether it was dropped, its strays kept.
    async fn drop_part(&self, standing: &Standing, part: &Part, effort: Effort) -> Result<bool> {
        let (messages, table) = (standing.named("messages"), standing.named(&part.name));
        if !self.index_strays(standing, part).await? {
            return Ok(false);
        }
        let Some(mut tx) = self.turn(effort).await? else { return Ok(false) };
        if !self.is_there(&mut tx, &table).await? {
            tx.finish().await?;
            return Ok(false);
        }
        let stray = standing.stray();
        let strays =
            count(&mut tx, &format!("SELECT 1 FROM {table} WHERE {stray} LIMIT {}", STRAYS_MAX + 1), effort).await?;
        if strays > STRAYS_MAX {
            return Err(refused(format!(
                "more than {STRAYS_MAX} of its ids are no UUIDv7, and would go with it whatever their age: delete what you do \
                 not need by statements of your own"
            )));
        }
        execute(&mut tx, effort, &format!("LOCK TABLE ONLY {messages} IN ACCESS EXCLUSIVE MODE")).await?;
        execute(&mut tx, effort, &format!("ALTER TABLE {messages} DETACH PARTITION {table}")).await?;
        execute(&mut tx, effort, &format!("INSERT INTO {messages} SELECT * FROM {table} WHERE {stray}")).await?;
        execute(&mut tx, effort, &format!("DROP TABLE {table}")).await?;
        tx.finish().await?;
        Ok(true)
    }

    /// Whether there is an index of a part's strays. One that was cut off is begun anew; one that is being made is left alone.
    async fn index_strays(&self, standing: &Standing, part: &Part) -> Result<bool> {
        let (table, index) = (standing.named(&part.name), format!("{}_strays", part.name));
        let (named, stray) = (standing.named(&index), standing.stray());
        let create = format!("CREATE INDEX CONCURRENTLY \"{index}\" ON {table} (message_id) WHERE {stray}");
        self.index(&table, &named, &create).await
    }

    /// Makes an index that keeps nobody out. Whether it is there then.
    pub(super) async fn index(&self, table: &str, index: &str, create: &str) -> Result<bool> {
        let state = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE relid = to_regclass('{table}')) THEN 'busy'
                         WHEN i.indisvalid THEN 'made' WHEN i.indexrelid IS NOT NULL THEN 'broken' ELSE 'none' END
               FROM (SELECT to_regclass('{index}') AS oid) AS x LEFT JOIN pg_index i ON i.indexrelid = x.oid"
        );
        let mut tx = self.open(ACTION).await?;
        let state = sqlx::query_scalar::<_, String>(AssertSqlSafe(state)).fetch_one(tx.connection());
        let state = bounded(self.deadline, ACTION, state).await?;
        tx.finish().await?;
        match state.as_str() {
            "made" => return Ok(true),
            "busy" => return Ok(false),
            "broken" => self.alone(&format!("DROP INDEX CONCURRENTLY {index}")).await?,
            _ => {}
        }
        self.alone(create).await?;
        Ok(true)
    }

    /// Runs a statement that cannot be in a transaction. It takes as long as the table is large, and nobody waits for it.
    /// Its connection is closed afterwards.
    pub(super) async fn alone(&self, sql: &str) -> Result<()> {
        let mut connection = self.connections.take(ACTION).await?;
        connection.deadline = Effort::ASKED.deadline;
        connection.run(ACTION, sql).await
    }

    async fn is_there(&self, tx: &mut Transaction, table: &str) -> Result<bool> {
        let sql = format!("SELECT to_regclass('{table}') IS NOT NULL");
        let asked = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.connection());
        bounded(self.deadline, ACTION, asked).await
    }
}

/// Notes what came of a turn, which somebody else may have had; whether another is taken. After a lock that was not to be had
/// none is: each further wait would hold writers up anew.
fn goes_on(turn: Result<Option<String>>, what: &str, done: &mut Vec<String>, undone: &mut Vec<String>) -> Result<bool> {
    match turn {
        Ok(name) => {
            let is_done = name.is_some();
            done.extend(name);
            Ok(is_done)
        }
        Err(error) => {
            let is_busy = error.fault == Fault::Busy;
            undone.push(reason(what, error)?);
            Ok(!is_busy)
        }
    }
}

fn standing_of(table: &PgRow, rows: &[PgRow]) -> sqlx::Result<Standing> {
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let (name, bounds): (String, String) = (row.try_get("relname")?, row.try_get("bounds")?);
        parts.extend(between(&bounds).map(|(from, to)| Part { name, from, to }));
    }
    parts.sort_by_key(|part| part.from);
    let parts = Parts { parts, now_ms: table.try_get("now_ms")? };
    Ok(Standing { schema: table.try_get("schema")?, is_uuid: table.try_get("is_uuid")?, parts })
}

/// The days that a part lies between, from `FOR VALUES FROM ('…') TO ('…')`; `None`: it has no end on one side.
fn between(bounds: &str) -> Option<(Day, Day)> {
    let mut quoted = bounds.split('\'').skip(1).step_by(2).map(Day::of_bound);
    Some((quoted.next()??, quoted.next()??))
}

/// The rows of a query, which has a limit.
async fn count(tx: &mut Transaction, query: &str, effort: Effort) -> Result<i64> {
    let sql = format!("SELECT count(*) FROM ({query}) AS rows");
    let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.connection());
    bounded(effort.deadline, ACTION, counted).await
}

pub(super) async fn execute(tx: &mut Transaction, effort: Effort, sql: &str) -> Result<u64> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(tx.connection());
    bounded(effort.deadline, ACTION, done).await.map(|done| done.rows_affected())
}

/// Moves rows from a table into another.
pub(super) fn moved(from: &str, which: &str, to: &str) -> String {
    format!("WITH moved AS (DELETE FROM {from} WHERE {which} RETURNING *) INSERT INTO {to} SELECT * FROM moved")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_between_two_days_or_has_no_end() {
        let (from, to) = (Day::of_ms(1_793_836_800_000), Day::of_ms(1_793_923_200_000));
        let bounds = format!("FOR VALUES FROM ('{}') TO ('{}')", from.bound(), to.bound());
        assert_eq!(between(&bounds), Some((from, to)));
        assert_eq!(between(&format!("FOR VALUES FROM ('{}') TO (MAXVALUE)", from.bound())), None);
        assert_eq!(between("DEFAULT"), None);
    }
}
