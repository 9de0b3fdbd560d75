//! The database's side: SQL of the auditor's own, in one transaction that sees one moment.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::Error;
use super::events::{Counter, KeyKind};
use super::ids::TABLES_MAX;
use crate::config;
use crate::store;

/// A table whose key column holds a pool's ids.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    select: String,
    pub(super) key: KeyKind,
}

/// The next offset of each partition, by topic id and number.
pub(super) type Ledger = HashMap<(Uuid, i32), i64>;

/// A connection to the pools' database.
pub(super) struct Database(PgConnection);

impl Database {
    /// Connects, and waits for a database that does not answer yet.
    pub(super) async fn connect(settings: &config::Store, patience: Duration) -> Result<Self, Error> {
        store::await_answer(&store::Postgres::new(settings)?, patience).await?;
        let failed = |source| Error::database("connect to the database (store.url)", source);
        let options: PgConnectOptions = settings.url.expose().parse().map_err(failed)?;
        let options = options.application_name("weir verify").disable_statement_logging();
        PgConnection::connect_with(&options).await.map(Self).map_err(failed)
    }

    /// The tables that `persist` pipelines write: `None` for a pool that has no such pipeline.
    pub(super) async fn tables(&mut self, pool: &config::Pool) -> Result<Vec<Table>, Error> {
        let mut tables = Vec::new();
        for pipeline in pool.pipelines.iter().filter(|pipeline| pipeline.handler == "persist") {
            let name = pipeline.table.as_deref().unwrap_or("messages");
            let key = pipeline.key.as_deref().unwrap_or("message_id");
            tables.push(self.table(name, key).await?);
        }
        match tables.len() {
            count if count > TABLES_MAX => Err(Error::TooManyTables(count)),
            _ => Ok(tables),
        }
    }

    async fn table(&mut self, name: &str, key: &str) -> Result<Table, Error> {
        let quoted = name.split('.').map(quote).collect::<Vec<_>>().join(".");
        let kind: Option<String> = sqlx::query_scalar(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute \
             WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
        )
        .bind(&quoted)
        .bind(key)
        .fetch_optional(&mut self.0)
        .await
        .map_err(|source| Error::database(format!("look at table {name}"), source))?;
        let key_kind = match kind.as_deref() {
            None => {
                return Err(Error::NoKey { table: name.to_owned(), key: key.to_owned() });
            }
            Some("uuid") => KeyKind::Uuid,
            Some("smallint" | "integer" | "bigint") => KeyKind::Integer,
            Some(_) => KeyKind::Text,
        };
        let select = format!("SELECT {}::text FROM {quoted}", quote(key));
        Ok(Table { name: name.to_owned(), select, key: key_kind })
    }

    /// From here to [`Database::release`] everything is seen as it is now.
    pub(super) async fn hold_still(&mut self) -> Result<(), Error> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
                     SET LOCAL idle_in_transaction_session_timeout = 0";
        self.execute(begin, "begin the audit's transaction").await
    }

    pub(super) async fn release(&mut self) -> Result<(), Error> {
        self.execute("ROLLBACK", "end the audit's transaction").await
    }

    async fn execute(&mut self, sql: &'static str, what: &str) -> Result<(), Error> {
        let done = sqlx::raw_sql(sql).execute(&mut self.0).await;
        done.map(drop).map_err(|source| Error::database(what, source))
    }

    /// A group's places, and the ids of all topics that it ever read.
    pub(super) async fn ledger(&mut self, group: &str) -> Result<(Ledger, BTreeSet<Uuid>), Error> {
        let rows: Vec<(Uuid, i32, i64)> =
            sqlx::query_as("SELECT topic_id, partition, next_offset FROM weir_ledger WHERE group_name = $1")
                .bind(group)
                .fetch_all(&mut self.0)
                .await
                .map_err(|source| Error::database("read weir_ledger", source))?;
        let topics = rows.iter().map(|row| row.0).collect();
        Ok((rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect(), topics))
    }

    /// Shows every id in a table.
    pub(super) async fn ids(&mut self, table: &Table, each: impl FnMut(&str)) -> Result<(), Error> {
        let ids = sqlx::query_scalar(AssertSqlSafe(table.select.as_str())).fetch(&mut self.0);
        show(ids, each).await.map_err(|source| Error::database(format!("read table {}", table.name), source))
    }

    /// Shows every id that a pool without a table of its own has settled.
    pub(super) async fn seen(&mut self, pool: &str, each: impl FnMut(&str)) -> Result<(), Error> {
        let ids = sqlx::query_scalar("SELECT event_id FROM weir_seen WHERE pool = $1").bind(pool).fetch(&mut self.0);
        show(ids, each).await.map_err(|source| Error::database("read weir_seen", source))
    }

    /// Shows the id of every dead row of a pool.
    pub(super) async fn dead(&mut self, pool: &str, each: impl FnMut(&str)) -> Result<(), Error> {
        let ids = sqlx::query_scalar("SELECT event_id FROM weir_dead WHERE pool = $1").bind(pool).fetch(&mut self.0);
        show(ids, each).await.map_err(|source| Error::database("read weir_dead", source))
    }

    /// Shows every counter and its count.
    pub(super) async fn stats(&mut self, mut each: impl FnMut(Counter, i64)) -> Result<(), Error> {
        let mut rows = sqlx::query_as::<_, (i64, String, String, i64)>(
            "SELECT (extract(epoch FROM minute) / 60)::bigint, dimension, member, count FROM message_stats",
        )
        .fetch(&mut self.0);
        let failed = |source| Error::database("read message_stats", source);
        while let Some((minute, dimension, member, count)) = rows.try_next().await.map_err(failed)? {
            each(Counter { minute, dimension, member }, count);
        }
        Ok(())
    }
}

async fn show(
    mut ids: impl futures_util::Stream<Item = Result<String, sqlx::Error>> + Unpin,
    mut each: impl FnMut(&str),
) -> Result<(), sqlx::Error> {
    while let Some(id) = ids.try_next().await? {
        each(&id);
    }
    Ok(())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
