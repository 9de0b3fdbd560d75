//! The database's side: SQL of the auditor's own, in one transaction that sees one moment.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Row as _};
use uuid::Uuid;

use super::Error;
use super::events::{Counter, KeyKind};
use super::ids::TABLES_MAX;
use crate::config;
use crate::store;

/// A table whose key column holds a pool's ids.
#[derive(Debug)]
pub(crate) struct Table {
    /// The pipeline that writes it.
    pub(super) pipeline: String,
    pub(super) name: String,
    /// Its keys as text, and when each row took effect, where it says so.
    select: String,
    pub(super) key: KeyKind,
    /// Its rows say when they took effect: weir's own `messages`, written once.
    pub(super) says_when: bool,
}

/// The next offset of each partition, by topic id and number.
pub(super) type Ledger = HashMap<(Uuid, i32), i64>;

/// Where a pipeline began on a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    pub(super) offset: i64,
    /// It was not there before, retired and come back.
    pub(super) is_first: bool,
}

/// By topic id, partition and the pipeline's name.
pub(super) type Begins = HashMap<(Uuid, i32, String), Begin>;

/// Deliberate moves of one partition.
#[derive(Debug, Default, Clone)]
pub(super) struct Moved {
    /// Ranges of offsets that were passed over and are still.
    pub(super) skipped: Vec<Range<i64>>,
    /// All that lies between the two ends of any move: it may have been handled out of its turn.
    pub(super) spans: Vec<Range<i64>>,
}

impl Moved {
    /// Takes a move into account: forth, it skips; back, it handles what lies behind its target after all.
    fn note(&mut self, from: i64, to: i64) {
        self.spans.push(from.min(to)..from.max(to));
        if to > from {
            return self.skipped.push(from..to);
        }
        self.skipped.iter_mut().for_each(|range| range.end = range.end.min(to));
        self.skipped.retain(|range| !range.is_empty());
    }
}

/// By topic id and partition.
pub(super) type Moves = HashMap<(Uuid, i32), Moved>;

/// A connection to the pools' database.
pub(crate) struct Database {
    connection: AnyConnection,
    dialect: store::Audit,
}

impl Database {
    /// Connects, and waits for a database that does not answer yet.
    pub(crate) async fn connect(settings: &config::Store, patience: Duration) -> Result<Self, Error> {
        store::await_answer(&*store::open(settings)?, patience).await?;
        sqlx::any::install_default_drivers();
        let dialect = store::audit(settings)?;
        let failed = |source| Error::database("connect to the database (store.url)", source);
        // Reading whole tables takes long, which is nothing to be warned of.
        let options = dialect.url.parse::<AnyConnectOptions>().map_err(failed)?.disable_statement_logging();
        Ok(Self { connection: options.connect().await.map_err(failed)?, dialect })
    }

    /// Its name, and its version as it says.
    #[cfg(feature = "load")]
    pub(super) async fn version(&mut self) -> Result<(&'static str, String), Error> {
        let (name, select) = self.dialect.version;
        self.begin().await?;
        let version = sqlx::query_scalar(select).fetch_one(&mut self.connection).await;
        self.release().await?;
        Ok((name, version.map_err(|source| Error::database("ask the database for its version", source))?))
    }

    /// The tables that `persist` pipelines write; none for a pool that has no such pipeline.
    pub(crate) async fn tables(&mut self, pool: &config::Pool) -> Result<Vec<Table>, Error> {
        let mut tables = Vec::new();
        self.begin().await?;
        for pipeline in pool.pipelines.iter().filter(|pipeline| pipeline.handler == "persist") {
            let name = pipeline.persist_table();
            let key = pipeline.persist_key();
            let is_own = pipeline.table.is_none() && pipeline.columns.is_none();
            let says_when = is_own && pipeline.on_duplicate != Some(config::OnDuplicate::Update);
            tables.push(self.table(&pipeline.name, name, key, says_when).await?);
        }
        self.release().await?;
        match tables.len() {
            count if count > TABLES_MAX => Err(Error::TooManyTables(count)),
            _ => Ok(tables),
        }
    }

    async fn table(&mut self, pipeline: &str, name: &str, key: &str, says_when: bool) -> Result<Table, Error> {
        let quoted = name.split('.').map(quote).collect::<Vec<_>>().join(".");
        let kind: Option<String> = sqlx::query_scalar(self.dialect.column_type)
            .bind(quoted.as_str())
            .bind(key)
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|source| Error::database(format!("look at table {name}"), source))?;
        let key_kind = match kind.as_deref() {
            None => {
                return Err(Error::NoKey { table: name.to_owned(), key: key.to_owned() });
            }
            Some("uuid") => KeyKind::Uuid,
            Some("smallint" | "integer" | "bigint" | "int" | "int2" | "int4" | "int8") => KeyKind::Integer,
            Some(_) => KeyKind::Text,
        };
        let store::Audit { text, bigint, effect_us, .. } = self.dialect;
        let when = if says_when { effect_us.to_owned() } else { format!("CAST(NULL AS {bigint})") };
        let select = format!("SELECT CAST({} AS {text}), {when} FROM {quoted}", quote(key));
        Ok(Table { pipeline: pipeline.to_owned(), name: name.to_owned(), select, key: key_kind, says_when })
    }

    /// From here to [`Database::release`] everything is seen as it is now.
    pub(crate) async fn hold_still(&mut self) -> Result<(), Error> {
        self.execute(self.dialect.hold_still.clone(), "begin the audit's transaction").await
    }

    /// From here to [`Database::release`] a pooler leaves the connection its session.
    async fn begin(&mut self) -> Result<(), Error> {
        self.execute(self.dialect.begin.clone(), "begin to look at tables").await
    }

    pub(crate) async fn release(&mut self) -> Result<(), Error> {
        self.execute("ROLLBACK".to_owned(), "end the audit's transaction").await
    }

    async fn execute(&mut self, sql: String, what: &str) -> Result<(), Error> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await;
        done.map(drop).map_err(|source| Error::database(what, source))
    }

    /// A group's places, and the ids of all topics that it ever read.
    pub(super) async fn ledger(&mut self, group: &str) -> Result<(Ledger, BTreeSet<Uuid>), Error> {
        let failed = |source| Error::database("read weir_ledger", source);
        let store::Audit { text, bigint, first, .. } = self.dialect;
        let select = format!(
            "SELECT CAST(topic_id AS {text}), CAST(\"partition\" AS {bigint}), next_offset FROM weir_ledger WHERE group_name = {first}"
        );
        let rows =
            sqlx::query(AssertSqlSafe(select)).bind(group).fetch_all(&mut self.connection).await.map_err(failed)?;
        let place = |row: &AnyRow| {
            let topic: String = row.try_get(0)?;
            let topic = topic.parse::<Uuid>().map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(((topic, narrow(row.try_get(1)?)?), row.try_get(2)?))
        };
        let ledger: Ledger = rows.iter().map(place).collect::<sqlx::Result<_>>().map_err(failed)?;
        let topics = ledger.keys().map(|(topic, _)| *topic).collect();
        Ok((ledger, topics))
    }

    /// From which offset on each pipeline of a group has its effects, by place and name.
    pub(super) async fn begins(&mut self, group: &str) -> Result<Begins, Error> {
        let failed = |source| Error::database("read weir_pipelines", source);
        let store::Audit { text, bigint, first, .. } = self.dialect;
        let select = format!(
            "SELECT CAST(topic_id AS {text}), CAST(\"partition\" AS {bigint}), CAST(pipeline AS {text}), begin_offset, \
                    CAST(runs AS {bigint}) FROM weir_pipelines WHERE group_name = {first}"
        );
        let rows = sqlx::query_as::<_, (String, i64, String, i64, i64)>(AssertSqlSafe(select)).bind(group);
        let mut begins = Begins::new();
        for (topic, partition, pipeline, offset, runs) in rows.fetch_all(&mut self.connection).await.map_err(failed)? {
            let topic = topic.parse::<Uuid>().map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
            let partition = narrow(partition).map_err(failed)?;
            begins.insert((topic, partition, pipeline), Begin { offset, is_first: runs == 1 });
        }
        Ok(begins)
    }

    /// Where `weir seek` has moved a group, by topic id and partition.
    pub(super) async fn moves(&mut self, group: &str) -> Result<Moves, Error> {
        let failed = |source| Error::database("read weir_seeks", source);
        let store::Audit { text, bigint, first, .. } = self.dialect;
        let select = format!(
            "SELECT CAST(topic_id AS {text}), CAST(\"partition\" AS {bigint}), from_offset, to_offset FROM weir_seeks \
              WHERE group_name = {first} ORDER BY moved_at"
        );
        let rows = sqlx::query_as::<_, (String, i64, i64, i64)>(AssertSqlSafe(select));
        let rows = rows.bind(group).fetch_all(&mut self.connection);
        let mut moves = Moves::new();
        for (topic, partition, from, to) in rows.await.map_err(failed)? {
            let topic = topic.parse::<Uuid>().map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
            moves.entry((topic, narrow(partition).map_err(failed)?)).or_default().note(from, to);
        }
        Ok(moves)
    }

    /// Shows every id in a table, and when its row took effect, in microseconds since 1970, where the table says it.
    pub(crate) async fn ids(
        &mut self,
        table: &Table,
        mut each: impl FnMut(&str, Option<i64>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let rows = sqlx::query_as::<_, (String, Option<i64>)>(AssertSqlSafe(table.select.as_str()));
        let mut rows = rows.fetch(&mut self.connection);
        let failed = |source| Error::database(format!("read table {}", table.name), source);
        while let Some((id, effect_us)) = rows.try_next().await.map_err(failed)? {
            each(&id, effect_us)?;
        }
        Ok(())
    }

    /// Shows the type and id of every event that a pool without a table of its own has settled.
    pub(super) async fn seen(
        &mut self,
        pool: &str,
        each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.of_pool("weir_seen", "read weir_seen", pool, each).await
    }

    /// Shows the type and id of every dead row of a pool.
    pub(crate) async fn dead(
        &mut self,
        pool: &str,
        each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.of_pool("weir_dead", "read weir_dead", pool, each).await
    }

    /// Shows the type and id of every event that took effect when its dead row was replayed.
    pub(super) async fn replayed(
        &mut self,
        pool: &str,
        each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.of_pool("weir_replayed", "read weir_replayed", pool, each).await
    }

    async fn of_pool(
        &mut self,
        table: &'static str,
        action: &str,
        pool: &str,
        mut each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |source| Error::database(action, source);
        let store::Audit { text, first, .. } = self.dialect;
        let select = format!("SELECT CAST(type AS {text}), CAST(event_id AS {text}) FROM {table} WHERE pool = {first}");
        let mut rows = sqlx::query(AssertSqlSafe(select)).bind(pool).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            each(row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?)?;
        }
        Ok(())
    }

    /// Shows every counter and its count.
    pub(crate) async fn stats(&mut self, mut each: impl FnMut(Counter, i64) -> Result<(), Error>) -> Result<(), Error> {
        let mut rows = sqlx::query_as::<_, (i64, String, String, i64)>(self.dialect.stats).fetch(&mut self.connection);
        let failed = |source| Error::database("read message_stats", source);
        while let Some((minute, dimension, member, count)) = rows.try_next().await.map_err(failed)? {
            each(Counter { minute, dimension, member }, count)?;
        }
        Ok(())
    }
}

fn narrow(partition: i64) -> sqlx::Result<i32> {
    i32::try_from(partition).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
