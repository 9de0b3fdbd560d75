//! SQLite: one file, for one machine. Writers wait for each other in a queue of this process, since SQLite has one
//! at a time; readers go beside them (WAL). Batches go in as JSON arrays, so that one statement takes any number.
//!
//! A killed process undoes no commit. A power cut may undo the last ones (`synchronous = NORMAL`): the effects and the
//! ledger go back together, and Kafka still has the events, so they are handled again. That spares a wait for the disk
//! a batch, of which there is only one at a time. What breaks the promises: a file on a network file system whose
//! locks do not hold.

mod address;
mod codes;
mod control;
mod dead;
mod describe;
mod driver;
mod file;
mod find;
mod ledger;
mod migrate;
mod pipelines;
mod replay;
mod rows;
mod scratch;
mod seek;
mod tx;
mod verdict;

pub(super) use driver::SqliteDriver;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use uuid::Uuid;

use self::file::File;
use super::connection::{Connections, OpenTx, bounded};
use super::{
    Claim, Claimant, Column, Error, Fault, Held, IdKey, LedgerRow, Place, Result, Store, Tx, UnpublishedLetter, claim,
};
use crate::config;

/// How much longer than a statement may take a batch waits for its turn to write.
const TURN_GRACE: Duration = Duration::from_secs(3);

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

/// How many steps of SQLite's machine go by between two looks at the clock.
const STEPS_A_LOOK: i32 = 1000;

/// A SQLite database.
#[derive(Debug, Clone)]
pub struct Sqlite {
    /// Changes nothing about the file.
    plain: SqliteConnectOptions,
    options: SqliteConnectOptions,
    file: Arc<File>,
    /// How long a transaction may work from its turn on, waiting for another process's lock included.
    patience: Duration,
    deadline: Duration,
}

impl Sqlite {
    /// Prepares the connections; opens none yet.
    ///
    /// # Errors
    /// The URL names no file of SQLite that can be written.
    pub fn new(store: &config::Store) -> Result<Self> {
        let plain = address::options(store)?.busy_timeout(store.lock_timeout);
        let options = plain.clone().journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal);
        let deadline = store.statement_timeout + TURN_GRACE;
        let file = Arc::new(File::new(options.clone(), store.connections, deadline));
        Ok(Self { plain, options, file, patience: store.statement_timeout + store.lock_timeout, deadline })
    }

    async fn read(&self, action: &'static str) -> Result<OpenTx<sqlx::Sqlite>> {
        self.open(&self.file.opened().readers, action, "BEGIN").await
    }

    /// Waits for the turn to write.
    async fn write(&self, action: &'static str) -> Result<OpenTx<sqlx::Sqlite>> {
        self.open(&self.file.opened().writer, action, "BEGIN IMMEDIATE").await
    }

    /// SQLite has no time-out of its own for a statement, so one that takes too long is interrupted from within.
    async fn open(
        &self,
        connections: &Connections<sqlx::Sqlite>,
        action: &'static str,
        begin: &str,
    ) -> Result<OpenTx<sqlx::Sqlite>> {
        let mut tx = connections.take(action).await?;
        let until = Instant::now() + self.patience;
        let watch = async {
            let mut handle = tx.connection().lock_handle().await?;
            handle.set_progress_handler(STEPS_A_LOOK, move || Instant::now() < until);
            Ok(())
        };
        bounded(self.deadline, action, watch).await?;
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
        migrate::run(&self.options, self.deadline).await
    }

    async fn reach(&self) -> Result<()> {
        address::reach(&self.plain, self.deadline).await
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

    async fn rows_as_json(&self, table: &str, columns: &[&str], limit: i64) -> Result<Vec<String>> {
        const ACTION: &str = "read a lookup table";
        let mut tx = self.read(ACTION).await?;
        let rows =
            bounded(self.deadline, ACTION, describe::rows_as_json(tx.connection(), table, columns, limit)).await?;
        tx.finish().await?;
        Ok(rows)
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

    async fn claim(&self, place: &Place, read: LedgerRow, claimant: Claimant<'_>, token: Uuid) -> Result<Claim> {
        const ACTION: &str = "claim a partition";
        let mut tx = self.write(ACTION).await?;
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
        let mut tx = self.read(ACTION).await?;
        let names = bounded(self.deadline, ACTION, pipelines::of_group(tx.connection(), group)).await?;
        tx.finish().await?;
        Ok(names)
    }

    async fn retire(&self, group: &str, pipeline: &str) -> Result<u64> {
        const ACTION: &str = "retire a pipeline";
        let mut tx = self.write(ACTION).await?;
        let retired = bounded(self.deadline, ACTION, pipelines::retire(tx.connection(), group, pipeline)).await?;
        tx.finish().await?;
        Ok(retired)
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
