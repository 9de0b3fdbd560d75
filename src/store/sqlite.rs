//! SQLite: one file, for one machine. Writers wait for each other in a queue of this process, since SQLite has one
//! at a time; readers go beside them (WAL). Batches go in as JSON arrays, so that one statement takes any number.
//!
//! A killed process undoes no commit. A power cut may undo the last ones (`synchronous = NORMAL`): the effects and the
//! ledger go back together, and Kafka still has the events, so they are handled again. That spares a wait for the disk
//! a batch, of which there is only one at a time. What breaks the promises: a file on a network file system whose
//! locks do not hold.

pub(super) mod codes;
mod dead;
mod describe;
mod find;
mod ledger;
mod replay;
mod rows;
mod seek;
mod tx;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlitePool};
use uuid::Uuid;

use super::connection::{OpenTx, bounded};
use super::{Column, Error, Fault, Held, IdKey, LedgerRow, Place, Result, Store, Tx, UnpublishedLetter, migrations};
use crate::config;

/// How much longer than a statement may take a batch waits for its turn to write.
const TURN_GRACE: Duration = Duration::from_secs(3);

/// The tables and the view that `weir migrate` makes.
const RELATIONS: [&str; 6] = ["weir_ledger", "weir_dead", "weir_seen", "weir_counts", "message_stats", "weir_seeks"];

/// A SQLite database.
#[derive(Debug, Clone)]
pub struct Sqlite {
    options: SqliteConnectOptions,
    /// One connection: whoever holds it is the writer.
    writer: SqlitePool,
    readers: SqlitePool,
    deadline: Duration,
}

impl Sqlite {
    /// Prepares the connections; opens none yet.
    ///
    /// # Errors
    /// The URL is not one of SQLite.
    pub fn new(store: &config::Store) -> Result<Self> {
        let options: SqliteConnectOptions = store.url.expose().parse().map_err(|error: sqlx::Error| Error {
            fault: Fault::Fatal,
            action: "read store.url",
            message: format!("{error}; expected sqlite:///absolute/path.db or sqlite://relative/path.db"),
        })?;
        let options = options
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(store.lock_timeout);
        let deadline = store.statement_timeout + TURN_GRACE;
        let pool = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(deadline)
                .test_before_acquire(false)
                .connect_lazy_with(options.clone())
        };
        Ok(Self { writer: pool(1), readers: pool(store.connections), options, deadline })
    }

    async fn read(&self, action: &'static str) -> Result<OpenTx<sqlx::Sqlite>> {
        self.open(&self.readers, action, "BEGIN").await
    }

    /// Waits for the turn to write.
    async fn write(&self, action: &'static str) -> Result<OpenTx<sqlx::Sqlite>> {
        self.open(&self.writer, action, "BEGIN IMMEDIATE").await
    }

    async fn open(&self, pool: &SqlitePool, action: &'static str, begin: &str) -> Result<OpenTx<sqlx::Sqlite>> {
        let connection = bounded(self.deadline, action, Box::pin(pool.acquire())).await?;
        let mut tx = OpenTx::new(connection, self.deadline);
        tx.run(action, begin).await?;
        Ok(tx)
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<()> {
        let create = self.options.clone().create_if_missing(true);
        let mut connection = bounded(self.deadline, "open the database", create.connect()).await?;
        migrations::run(migrations::SQLITE, &mut connection).await?;
        bounded(self.deadline, "close the database", connection.close()).await
    }

    async fn check(&self) -> Result<()> {
        const ACTION: &str = "check the schema";
        let mut tx = self.read(ACTION).await?;
        let present = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')");
        let present: Vec<String> = bounded(self.deadline, ACTION, present.fetch_all(tx.connection())).await?;
        tx.finish().await?;
        let missing: Vec<&str> =
            RELATIONS.into_iter().filter(|relation| !present.iter().any(|name| name == relation)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("missing: {}; run `weir migrate` once", missing.join(", "));
        Err(Error { fault: Fault::Hold, action: ACTION, message })
    }

    async fn describe(&self, table: &str) -> Result<Vec<Column>> {
        const ACTION: &str = "describe a table";
        let mut tx = self.read(ACTION).await?;
        let columns = bounded(self.deadline, ACTION, describe::columns(tx.connection(), table)).await?;
        tx.finish().await?;
        if columns.is_empty() {
            let message = format!(
                "there is no table {table:?}; run `weir migrate`, or make the table that `persist` is configured for"
            );
            return Err(Error { fault: Fault::Hold, action: ACTION, message });
        }
        Ok(columns)
    }

    async fn ledger(&self, place: &Place) -> Result<Option<LedgerRow>> {
        let mut tx = self.read("read the ledger").await?;
        let row = bounded(self.deadline, "read the ledger", ledger::read(tx.connection(), place)).await?;
        tx.finish().await?;
        Ok(row)
    }

    async fn ledger_of_group(&self, group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        let mut tx = self.read("read the ledger").await?;
        let rows = bounded(self.deadline, "read the ledger", ledger::of_group(tx.connection(), group)).await?;
        tx.finish().await?;
        Ok(rows)
    }

    async fn knows_topic(&self, group: &str, topic: &str) -> Result<bool> {
        let mut tx = self.read("read the ledger").await?;
        let knows =
            bounded(self.deadline, "read the ledger", ledger::knows_topic(tx.connection(), group, topic)).await?;
        tx.finish().await?;
        Ok(knows)
    }

    async fn begin_ledger(&self, rows: &[(Place, i64)]) -> Result<()> {
        let mut tx = self.write("begin the ledger").await?;
        bounded(self.deadline, "begin the ledger", ledger::begin(tx.connection(), rows)).await?;
        tx.finish().await
    }

    async fn claim(&self, place: &Place, read: LedgerRow, token: Uuid) -> Result<Option<Held>> {
        let mut tx = self.write("claim a partition").await?;
        let claim = ledger::claim(tx.connection(), place, read, token);
        let claimed = bounded(self.deadline, "claim a partition", claim).await?;
        tx.finish().await?;
        let held = Held { place: place.clone(), token, next_offset: read.next_offset };
        Ok(claimed.then_some(held))
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        Ok(Box::new(self.write("begin a batch").await?))
    }

    async fn unpublished(
        &self,
        pool: &str,
        key: Option<&IdKey>,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        const ACTION: &str = "read dead rows";
        let mut tx = self.read(ACTION).await?;
        let waits = bounded(self.deadline, ACTION, dead::has_unpublished(tx.connection(), pool)).await?;
        tx.finish().await?;
        if !waits {
            return Ok(Vec::new());
        }
        let mut tx = self.write(ACTION).await?;
        bounded(self.deadline, ACTION, dead::drop_live(tx.connection(), pool, key)).await?;
        let letters = dead::unpublished(tx.connection(), pool, partitions, limit);
        let letters = bounded(self.deadline, ACTION, letters).await?;
        tx.finish().await?;
        Ok(letters)
    }

    async fn published(&self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let mut tx = self.write("note published letters").await?;
        bounded(self.deadline, "note published letters", dead::published(tx.connection(), pool, ids)).await?;
        tx.finish().await
    }

    async fn forget_seen(&self, pool: &str, horizon: Duration, limit: i64) -> Result<u64> {
        const ACTION: &str = "forget old ids";
        let mut tx = self.write(ACTION).await?;
        let forgotten = ledger::forget_seen(tx.connection(), pool, horizon, limit);
        let forgotten = bounded(self.deadline, ACTION, forgotten).await?;
        tx.finish().await?;
        Ok(forgotten)
    }
}
