//! `messages` by days on MariaDB: RANGE COLUMNS over the id, whose collation compares bytes.
//!
//! A part holds what sorts before its bound and behind the one before it, so there is none for all others: ids of days that
//! are not made yet have one between the last day and the end of all days ([`AHEAD_PART`]), and those of dropped days are
//! in [`DROPPED`], whose bound moves on. Every statement here ends its own transaction, so what was begun is taken up by the
//! next turn: a part that is dropped is first exchanged for an empty table, which takes an instant, its strays
//! (`store/days.rs`) are put back, and then that table goes, which no writer waits for.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Mysql, NOW_MS};
use crate::store::connection::{OpenTx, bounded};
use crate::store::days::{
    AHEAD, ByDay, Converted, Day, Effort, FIRST, LAST, Part, Parts, ROWS_MAX, STRAYS_MAX, reason, refused,
};
use crate::store::{Error, Fault, Result, Upkeep, fault};

type Connection = OpenTx<sqlx::MySql>;

const ACTION: &str = "keep the days of messages";
const CONVERT: &str = "partition messages";
/// The server counts whole seconds. Whoever comes behind the waiting statement waits as well.
const LOCK_S: u128 = 1;
const TURN: &str = "left(concat('weir days of ', DATABASE()), 64)";
/// How long a turn is waited for by whoever was asked.
const TURN_S: u64 = 60;
/// How often the lock is tried for when somebody waits for it.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

const BELOW: &str = "weir_below";
const BEFORE: &str = "weir_before";
const DROPPED: &str = "weir_dropped";
const AHEAD_PART: &str = "weir_ahead";
const ABOVE: &str = "weir_above";
/// The table that a part is exchanged for.
const DROPPING: &str = "weir_dropping";
/// The strays of a part that is about to go, for the connection that drops it.
const STRAYS: &str = "weir_strays";

const STRAY: &str =
    "(message_id NOT LIKE '________-____-7___-____-____________' OR message_id NOT REGEXP '^[0-9a-f-]+$')";

const PARTS: &str = "
    SELECT CAST(partition_name AS CHAR) AS name, CAST(partition_description AS CHAR) AS bound,
           CAST(partition_method AS CHAR) AS method, CAST(partition_expression AS CHAR) AS expression
      FROM information_schema.partitions
     WHERE table_schema = DATABASE() AND table_name = 'messages' ORDER BY partition_ordinal_position";

/// What keeps it from being partitioned. The server would say it too, less plainly.
const OBSTACLES: &str = "
    SELECT 'its primary key is not message_id alone' AS obstacle
     WHERE (SELECT CAST(group_concat(column_name) AS CHAR) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'messages' AND index_name = 'PRIMARY') <> 'message_id'
        OR NOT EXISTS (SELECT 1 FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'messages' AND index_name = 'PRIMARY')
    UNION ALL SELECT CONCAT('index ', index_name, ' is unique, which it could not be over all days')
      FROM (SELECT DISTINCT CAST(index_name AS CHAR) AS index_name FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND table_name = 'messages' AND non_unique = 0 AND index_name <> 'PRIMARY') AS i
    UNION ALL SELECT CONCAT('message_id is ', column_type, ' ', coalesce(collation_name, ''),
                            ', and has to be varchar with a collation that ends in _bin')
      FROM information_schema.columns
     WHERE table_schema = DATABASE() AND table_name = 'messages' AND column_name = 'message_id'
       AND (data_type NOT IN ('char', 'varchar') OR right(coalesce(collation_name, ''), 4) <> '_bin')
    UNION ALL SELECT DISTINCT CONCAT('foreign key ', CAST(constraint_name AS CHAR))
      FROM information_schema.key_column_usage
     WHERE referenced_table_name IS NOT NULL
       AND (table_schema = DATABASE() AND table_name = 'messages'
            OR referenced_table_schema = DATABASE() AND referenced_table_name = 'messages')
    UNION ALL SELECT CONCAT('engine ', engine) FROM information_schema.tables
     WHERE table_schema = DATABASE() AND table_name = 'messages' AND engine <> 'InnoDB'";

#[async_trait]
impl ByDay for Mysql {
    async fn divide(&self) -> Result<Option<Converted>> {
        self.convert_messages().await
    }

    async fn keep(&self, effort: Effort) -> Result<Option<Upkeep>> {
        let retention = self.messages_retention;
        let mut db = self.beside(effort).await?;
        let is_ours = turn(&mut db, effort).await?;
        let Some(mut parts) = parts(&mut db).await? else {
            end_turn(&mut db).await?;
            return Ok(None);
        };
        let mut upkeep = Upkeep::default();
        if is_ours {
            make_days(&mut db, &parts, effort, &mut upkeep).await?;
            if let Err(error) = finish_drop(&mut db).await {
                upkeep.kept.push(reason(DROPPING, error)?);
            }
            for part in parts.expired(retention) {
                // What follows would be merged into one that is kept.
                if let Err(error) = drop_part(&mut db, part).await {
                    upkeep.kept.push(reason(&part.name, error)?);
                    break;
                }
                upkeep.dropped.push(part.name.clone());
            }
            parts = self::parts(&mut db).await?.unwrap_or(parts);
        }
        end_turn(&mut db).await?;
        upkeep.stands(&parts, retention);
        Ok(Some(upkeep))
    }

    async fn look(&self) -> Result<Option<Upkeep>> {
        let mut db = self.open(ACTION).await?;
        let parts = parts(&mut db).await?;
        db.finish().await?;
        Ok(parts.map(|parts| Upkeep::of(&parts, self.messages_retention)))
    }

    fn background(&self) -> Effort {
        Effort { rows_max: ROWS_MAX, deadline: self.deadline }
    }

    fn retention(&self) -> Option<Duration> {
        self.messages_retention
    }
}

impl Mysql {
    /// `None`: it is partitioned already. The server copies the table, and lets others read meanwhile.
    async fn convert_messages(&self) -> Result<Option<Converted>> {
        let mut db = self.beside(Effort::ASKED).await?;
        if !turn(&mut db, Effort::ASKED).await? {
            return Err(refused("somebody else is at it: try again when that is done".to_owned()));
        }
        if parts(&mut db).await?.is_some() {
            end_turn(&mut db).await?;
            return Ok(None);
        }
        let obstacles = sqlx::query_scalar::<_, String>(OBSTACLES).fetch_all(db.connection());
        let obstacles = bounded(self.deadline, CONVERT, obstacles).await?;
        if !obstacles.is_empty() {
            return Err(refused(format!(
                "the table messages is not as weir makes it: {}; change that first",
                obstacles.join("; ")
            )));
        }
        let first = Day::of_ms(now_ms(&mut db).await?).plus(1);
        let sql = format!("ALTER TABLE messages PARTITION BY RANGE COLUMNS (message_id) ({})", divided(first));
        for attempt in 1.. {
            let begun = Instant::now();
            match db.run(CONVERT, &sql).await {
                Ok(()) => {
                    let locked = begun.elapsed();
                    end_turn(&mut db).await?;
                    return Ok(Some(Converted { moved: 0, locked }));
                }
                Err(error) if error.fault == Fault::Busy && attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                Err(error) if error.fault == Fault::Busy => {
                    let told = error.message.clone();
                    let message = format!(
                        "{told}; somebody has kept the table locked, such as a dump or a long query (SHOW PROCESSLIST): end it, \
                         or try again later"
                    );
                    return Err(Error { message, ..error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// A connection for statements that are no transaction and take their time; it is closed afterwards, and with it go its
    /// settings and its turn.
    async fn beside(&self, effort: Effort) -> Result<Connection> {
        let mut db = self.connections.take(ACTION).await?;
        db.deadline = Effort::ASKED.deadline;
        let lock_s = if effort.rows_max == i64::MAX { self.session.lock_s().max(LOCK_S) } else { LOCK_S };
        let untimed = if self.session.is_mariadb() { ", max_statement_time = 0" } else { "" };
        db.run(ACTION, &format!("SET SESSION lock_wait_timeout = {lock_s}{untimed}")).await?;
        Ok(db)
    }
}

/// One at a time, the command and all workers. Who was asked to do it waits for whoever is at it, in the background.
async fn turn(db: &mut Connection, effort: Effort) -> Result<bool> {
    let deadline = db.deadline;
    let wait_s = if effort.rows_max == i64::MAX { TURN_S } else { 0 };
    let sql = format!("SELECT coalesce(GET_LOCK({TURN}, {wait_s}), 0) = 1");
    bounded(deadline, ACTION, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db.connection())).await
}

/// The turn would end with the connection, but nobody knows when the server sees that.
async fn end_turn(db: &mut Connection) -> Result<()> {
    db.run(ACTION, &format!("DO RELEASE_LOCK({TURN})")).await
}

async fn now_ms(db: &mut Connection) -> Result<i64> {
    let deadline = db.deadline;
    let now_ms = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW_MS}"))).fetch_one(db.connection());
    bounded(deadline, ACTION, now_ms).await
}

/// How it is divided; `None`: it is not.
async fn parts(db: &mut Connection) -> Result<Option<Parts>> {
    let now_ms = now_ms(db).await?;
    let deadline = db.deadline;
    let rows = bounded(deadline, ACTION, sqlx::query(PARTS).fetch_all(db.connection())).await?;
    let read = || {
        let (mut from, mut parts, mut divided_by) = (None, Vec::new(), String::new());
        for row in &rows {
            let Some(name) = row.try_get::<Option<String>, _>("name")? else { return Ok(None) };
            let (method, expression): (String, String) = (row.try_get("method")?, row.try_get("expression")?);
            divided_by = format!("{method} {}", expression.replace(['`', '"'], ""));
            let to = Day::of_bound(row.try_get::<String, _>("bound")?.trim_matches('\''));
            if let (Some(from), Some(to)) = (from, to)
                && name != AHEAD_PART
                && name != DROPPED
            {
                parts.push(Part { name, from, to });
            }
            from = to;
        }
        Ok(Some((parts, divided_by)))
    };
    match read().map_err(|error| fault::error(ACTION, &error))? {
        None => Ok(None),
        Some((_, divided_by)) if divided_by.is_empty() => {
            Err(refused("there is no table messages: run `weir migrate`".to_owned()))
        }
        Some((parts, divided_by)) if divided_by == "RANGE COLUMNS message_id" => Ok(Some(Parts { parts, now_ms })),
        Some((_, divided_by)) => {
            Err(refused(format!("the table messages is partitioned by {divided_by} already, which is not weir's way")))
        }
    }
}

fn part(name: &str, to: Day) -> String {
    format!("PARTITION {name} VALUES LESS THAN ('{}')", to.bound())
}

fn of_day(day: Day) -> String {
    part(&format!("weir_{}", day.digits()), day.plus(1))
}

/// All parts of a table that is divided from this day on.
fn divided(first: Day) -> String {
    let mut all = vec![part(BELOW, FIRST), part(BEFORE, first)];
    all.extend((0..AHEAD).map(|days| of_day(first.plus(days))));
    all.push(part(AHEAD_PART, LAST));
    all.push(format!("PARTITION {ABOVE} VALUES LESS THAN (MAXVALUE)"));
    all.join(", ")
}

/// Takes the days out of the part of those that are not made yet, all at once: it is copied each time.
async fn make_days(db: &mut Connection, parts: &Parts, effort: Effort, upkeep: &mut Upkeep) -> Result<()> {
    let today = parts.today();
    let from = parts.parts.last().map_or(today, |part| part.to);
    let days: Vec<Day> = std::iter::successors(Some(from), |day| Some(day.plus(1)))
        .take_while(|day| *day <= today.plus(AHEAD))
        .collect();
    let Some(first) = days.first() else { return Ok(()) };
    let late = format!("SELECT 1 FROM messages PARTITION ({AHEAD_PART}) LIMIT {}", effort.rows_max.saturating_add(1));
    let late = count(db, &late).await?;
    if late > effort.rows_max {
        upkeep.unmade.push(format!(
            "{first} and later: {AHEAD_PART} holds more than {} rows, and dividing it would hold writers up: run `weir migrate \
             --partitioned` when they may wait",
            effort.rows_max
        ));
        return Ok(());
    }
    let mut into: Vec<String> = days.iter().map(|day| of_day(*day)).collect();
    into.push(part(AHEAD_PART, LAST));
    let sql = format!("ALTER TABLE messages REORGANIZE PARTITION {AHEAD_PART} INTO ({})", into.join(", "));
    match db.run(ACTION, &sql).await {
        Ok(()) => upkeep.made.extend(days.iter().map(|day| format!("weir_{}", day.digits()))),
        Err(error) => upkeep.unmade.push(reason(&format!("{first} and later"), error)?),
    }
    Ok(())
}

async fn drop_part(db: &mut Connection, part: &Part) -> Result<()> {
    let name = &part.name;
    let limit = STRAYS_MAX + 1;
    db.run(ACTION, &format!("DROP TEMPORARY TABLE IF EXISTS {STRAYS}")).await?;
    let strays = format!(
        "CREATE TEMPORARY TABLE {STRAYS} AS SELECT message_id FROM messages PARTITION ({name}) WHERE {STRAY} LIMIT {limit}"
    );
    db.run(ACTION, &strays).await?;
    if count(db, &format!("SELECT 1 FROM {STRAYS}")).await? > STRAYS_MAX {
        return Err(refused(format!(
            "more than {STRAYS_MAX} of its ids are no UUIDv7, and would go with it whatever their age: delete what you do not \
             need by statements of your own"
        )));
    }
    db.run(ACTION, &format!("CREATE TABLE {DROPPING} LIKE messages")).await?;
    db.run(ACTION, &format!("ALTER TABLE {DROPPING} REMOVE PARTITIONING")).await?;
    let exchange = format!("ALTER TABLE messages EXCHANGE PARTITION {name} WITH TABLE {DROPPING}");
    let exchanged = db.run(ACTION, &exchange).await;
    if exchanged.is_ok() {
        // Those that are known at once; whatever came meanwhile is looked for in the whole part.
        let back =
            format!("INSERT INTO messages SELECT d.* FROM {STRAYS} AS s JOIN {DROPPING} AS d USING (message_id)");
        db.run(ACTION, &back).await?;
    }
    finish_drop(db).await?;
    exchanged?;
    let present = format!(
        "SELECT 1 FROM information_schema.partitions
          WHERE table_schema = DATABASE() AND table_name = 'messages' AND partition_name = '{DROPPED}'"
    );
    let present = count(db, &present).await?;
    let merged = if present > 0 { format!("{DROPPED}, {name}") } else { name.clone() };
    let into = self::part(DROPPED, part.to);
    db.run(ACTION, &format!("ALTER TABLE messages REORGANIZE PARTITION {merged} INTO ({into})")).await
}

/// Puts back what is to stay of a part that was taken out, and drops the rest; does nothing where there is none.
async fn finish_drop(db: &mut Connection) -> Result<()> {
    let there = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{DROPPING}'"
    );
    if count(db, &there).await? == 0 {
        return Ok(());
    }
    let back = format!(
        "INSERT INTO messages SELECT * FROM {DROPPING} AS d
          WHERE {STRAY} AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.message_id = d.message_id)"
    );
    db.run(ACTION, &back).await?;
    db.run(ACTION, &format!("DROP TABLE {DROPPING}")).await
}

async fn count(db: &mut Connection, query: &str) -> Result<i64> {
    let deadline = db.deadline;
    let sql = format!("SELECT CAST(count(*) AS SIGNED) FROM ({query}) AS counted");
    bounded(deadline, ACTION, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db.connection())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_divided_without_a_gap_from_what_was_there_to_what_is_not_made_yet() {
        let first = Day::of_ms(1_793_836_800_000);
        let divided = divided(first);
        let names: Vec<&str> = divided.split("PARTITION ").skip(1).filter_map(|part| part.split(' ').next()).collect();
        assert_eq!(names[..3], [BELOW, BEFORE, "weir_20261105"]);
        assert_eq!(names[8..], ["weir_20261111", AHEAD_PART, ABOVE]);
        assert!(divided.contains(&format!("PARTITION weir_20261105 VALUES LESS THAN ('{}')", first.plus(1).bound())));
    }
}
