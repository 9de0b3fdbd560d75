//! MariaDB (10.6 or newer), and MySQL 8 by the same SQL. One connection pool a process; what a transaction needs of its
//! session is set when a connection is made (`session.rs`).
//!
//! Transactions read what is committed at each statement, not what was at their beginning: what was there when an insert
//! was refused must be seen. Neither database says which rows of an insert were new, and "ON DUPLICATE KEY" takes any
//! unique key for the one that is meant, so rows are inserted plainly, and a refusal is looked into (`tx.rs`).
//!
//! What breaks the promises: tables of an engine without transactions, and `innodb_flush_log_at_trx_commit = 0 | 2`
//! together with a crash of the machine, which undoes the last commits as a restored backup does.

mod codes;
mod control;
mod days;
mod dead;
mod describe;
mod driver;
mod find;
mod ledger;
mod migrate;
mod pipelines;
mod reach;
mod replay;
mod rows;
mod scratch;
mod seek;
mod session;
mod tx;
mod verdict;
mod write;

pub(super) use driver::MysqlDriver;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{ConnectOptions as _, MySqlPool};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::session::Session;
use self::tx::BatchTx;
use super::connection::{Connections, OpenTx, bounded};
use super::{
    ByDay, Claim, Claimant, Column, Error, Fault, Held, IdKey, LedgerRow, Place, Result, Store, Tx, UnpublishedLetter,
    claim, socket,
};
use crate::config;

/// How much longer than the server's statement time-out the client waits before it gives a connection up.
const CLIENT_GRACE: Duration = Duration::from_secs(3);

/// Statements that a connection keeps prepared, more than a pool has: closing one delays the next (`rows.rs`).
const STATEMENTS_KEPT: usize = 150;

/// The server's time, in milliseconds since 1970.
const NOW_MS: &str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/// The tables and the view that `weir migrate` makes.
const RELATIONS: [&str; 11] = [
    "weir_ledger",
    "weir_dead",
    "weir_seen",
    "weir_counts",
    "weir_pipelines",
    "weir_seeks",
    "weir_replayed",
    "weir_verdicts",
    "weir_control",
    "weir_control_log",
    "message_stats",
];

/// A MariaDB or MySQL database.
#[derive(Debug, Clone)]
pub struct Mysql {
    pool: MySqlPool,
    connections: Arc<Connections<sqlx::MySql>>,
    session: Arc<Session>,
    deadline: Duration,
    messages_retention: Option<Duration>,
}

impl Mysql {
    /// Prepares the connections; makes none yet.
    ///
    /// # Errors
    /// The URL is not one of MariaDB or MySQL, or names no database.
    pub fn new(store: &config::Store) -> Result<Self> {
        let invalid = |message| Error { fault: Fault::Fatal, action: "read store.url", message };
        const EXPECTED: &str = "expected mysql://USER:PASSWORD@HOST:PORT/DATABASE";
        let options: MySqlConnectOptions =
            store.url.expose().parse().map_err(|error: sqlx::Error| invalid(format!("{error}; {EXPECTED}")))?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(invalid(format!("it names no database; {EXPECTED}")));
        }
        // Slow statements would be logged with a placeholder a value. What else the driver would set has its place in
        // the session.
        let options = options
            .statement_cache_capacity(STATEMENTS_KEPT)
            .disable_statement_logging()
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false);
        let deadline = store.statement_timeout + CLIENT_GRACE;
        let session = Arc::new(Session::new(store));
        let of_each = Arc::clone(&session);
        let port = options.get_port();
        let pool = MySqlPoolOptions::new()
            .max_connections(store.connections)
            .acquire_timeout(deadline)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = Arc::clone(&of_each);
                Box::pin(async move {
                    socket::send_at_once(port);
                    session.begin(connection).await
                })
            })
            .connect_lazy_with(options);
        let turns = Arc::new(Semaphore::new(store.connections as usize));
        let connections = Connections::new(pool.clone(), turns, deadline);
        Ok(Self { pool, connections, session, deadline, messages_retention: store.messages_retention })
    }

    /// Opens a transaction. Reads use one too: a connection that is cut off in the middle of an exchange is closed, where
    /// the pool would wait for it without a bound.
    async fn open(&self, action: &'static str) -> Result<OpenTx<sqlx::MySql>> {
        let mut tx = self.connections.take(action).await?;
        tx.run(action, "START TRANSACTION").await?;
        Ok(tx)
    }
}

#[async_trait]
impl Store for Mysql {
    async fn migrate(&self) -> Result<()> {
        const ACTION: &str = "migrate the schema";
        let mut connection = bounded(self.deadline, ACTION, Box::pin(self.pool.acquire())).await?;
        migrate::run(&mut connection, self.session.is_mariadb(), self.deadline).await
    }

    fn by_day(&self) -> Option<&dyn ByDay> {
        Some(self)
    }

    async fn reach(&self) -> Result<()> {
        reach::reach(&self.pool.connect_options()).await
    }

    async fn check(&self) -> Result<()> {
        const ACTION: &str = "check the schema";
        let mut tx = self.open(ACTION).await?;
        let present = sqlx::query_scalar::<_, String>(
            "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()",
        );
        let present = bounded(self.deadline, ACTION, present.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        let missing: Vec<&str> =
            RELATIONS.into_iter().filter(|relation| !present.iter().any(|name| name == relation)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message =
            format!("missing: {}; run `weir migrate` once, with a user that may create tables", missing.join(", "));
        Err(Error { fault: Fault::Hold, action: ACTION, message })
    }

    async fn describe(&self, table: &str) -> Result<Vec<Column>> {
        const ACTION: &str = "describe a table";
        let mut tx = self.open(ACTION).await?;
        let is_mariadb = self.session.is_mariadb();
        let columns = bounded(self.deadline, ACTION, describe::columns(tx.connection(), table, is_mariadb)).await?;
        tx.finish().await?;
        if columns.is_empty() {
            let message = format!(
                "there is no table {table:?}; run `weir migrate`, or make the table that `persist` is configured for"
            );
            return Err(Error { fault: Fault::Hold, action: ACTION, message });
        }
        self.session.note(table, &columns);
        Ok(columns)
    }

    async fn rows_as_json(&self, table: &str, columns: &[&str], limit: i64) -> Result<Vec<String>> {
        const ACTION: &str = "read a lookup table";
        let mut tx = self.open(ACTION).await?;
        let rows =
            bounded(self.deadline, ACTION, describe::rows_as_json(tx.connection(), table, columns, limit)).await?;
        tx.finish().await?;
        Ok(rows)
    }

    async fn ledger(&self, place: &Place) -> Result<Option<LedgerRow>> {
        let mut tx = self.open("read the ledger").await?;
        let row = bounded(self.deadline, "read the ledger", ledger::read(tx.connection(), place)).await?;
        tx.finish().await?;
        Ok(row)
    }

    async fn ledger_of_group(&self, group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        let mut tx = self.open("read the ledger").await?;
        let rows = bounded(self.deadline, "read the ledger", ledger::of_group(tx.connection(), group)).await?;
        tx.finish().await?;
        Ok(rows)
    }

    async fn knows_topic(&self, group: &str, topic: &str) -> Result<bool> {
        let mut tx = self.open("read the ledger").await?;
        let knows =
            bounded(self.deadline, "read the ledger", ledger::knows_topic(tx.connection(), group, topic)).await?;
        tx.finish().await?;
        Ok(knows)
    }

    async fn begin_ledger(&self, rows: &[(Place, i64)]) -> Result<()> {
        let mut tx = self.open("begin the ledger").await?;
        bounded(self.deadline, "begin the ledger", ledger::begin(tx.connection(), rows)).await?;
        tx.finish().await
    }

    async fn claim(&self, place: &Place, read: LedgerRow, claimant: Claimant<'_>, token: Uuid) -> Result<Claim> {
        const ACTION: &str = "claim a partition";
        let mut tx = self.open(ACTION).await?;
        let claim = ledger::claim(tx.connection(), place, read, token);
        if !bounded(self.deadline, ACTION, claim).await? {
            tx.finish().await?;
            return Ok(Claim::Moved);
        }
        let begun = bounded(self.deadline, ACTION, pipelines::begun(tx.connection(), place)).await?;
        if let Some(refusal) = claim::refusal(&begun, &claimant) {
            tx.end(ACTION, "ROLLBACK").await?;
            return Ok(refusal);
        }
        let beginning = claim::beginning(&begun, &claimant, read.epoch, read.next_offset);
        bounded(self.deadline, ACTION, pipelines::begin(tx.connection(), place, claimant.pool, beginning)).await?;
        tx.finish().await?;
        Ok(Claim::Taken(Held::new(place.clone(), token, read.next_offset)))
    }

    async fn pipelines(&self, group: &str) -> Result<Vec<String>> {
        const ACTION: &str = "read the pipelines";
        let mut tx = self.open(ACTION).await?;
        let names = bounded(self.deadline, ACTION, pipelines::of_group(tx.connection(), group)).await?;
        tx.finish().await?;
        Ok(names)
    }

    async fn retire(&self, group: &str, pipeline: &str) -> Result<u64> {
        const ACTION: &str = "retire a pipeline";
        let mut tx = self.open(ACTION).await?;
        let retired = bounded(self.deadline, ACTION, pipelines::retire(tx.connection(), group, pipeline)).await?;
        tx.finish().await?;
        Ok(retired)
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        const ACTION: &str = "begin a batch";
        let mut tx = self.connections.take(ACTION).await?;
        tx.run(ACTION, "START TRANSACTION; SET @weir_begun = NOW(3)").await?;
        Ok(Box::new(BatchTx::new(tx, Arc::clone(&self.session))))
    }

    async fn unpublished(
        &self,
        pool: &str,
        key: Option<&IdKey>,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        const ACTION: &str = "read dead rows";
        let mut tx = BatchTx::new(self.open(ACTION).await?, Arc::clone(&self.session));
        let letters = dead::unpublished(tx.connection(), pool, partitions, limit);
        let letters = bounded(self.deadline, ACTION, letters).await?;
        let letters = tx.drop_live(pool, key, letters).await?;
        Box::new(tx).commit().await?;
        Ok(letters)
    }

    async fn published(&self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let mut tx = self.open("note published letters").await?;
        bounded(self.deadline, "note published letters", dead::published(tx.connection(), pool, ids)).await?;
        tx.finish().await
    }

    async fn forget_seen(&self, pool: &str, horizon: Duration, limit: i64) -> Result<u64> {
        const ACTION: &str = "forget old ids";
        let mut tx = self.open(ACTION).await?;
        let forgotten = ledger::forget_seen(tx.connection(), pool, horizon, limit);
        let forgotten = bounded(self.deadline, ACTION, forgotten).await?;
        tx.finish().await?;
        Ok(forgotten)
    }
}
