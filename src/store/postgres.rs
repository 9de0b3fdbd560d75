//! PostgreSQL. One connection pool a process; every transaction sets its own time-outs by `SET LOCAL`, so that
//! a pooler in transaction mode works and a frozen owner cannot hold the ledger's row.

mod codes;
mod control;
mod copy;
mod days;
mod dead;
mod describe;
mod driver;
mod fence;
mod find;
mod last_seen;
mod ledger;
mod migrate;
mod partition;
mod pipelines;
mod reach;
mod replay;
mod scratch;
mod seek;
mod session;
mod tx;
mod verdict;

pub(super) use driver::PostgresDriver;
pub(super) use last_seen::LastSeen;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::claim;
use super::connection::{Connections, OpenTx, bounded};
use super::{
    ByDay, Claim, Claimant, Column, Error, Fault, Fence, Held, IdKey, LedgerRow, Place, Result, Store, Tx,
    UnpublishedLetter, socket,
};
use crate::config;

/// How much longer than the server's statement time-out the client waits before it gives a connection up.
const CLIENT_GRACE: Duration = Duration::from_secs(3);

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

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    connections: Arc<Connections<sqlx::Postgres>>,
    pooler: Option<config::Pooler>,
    begin: String,
    deadline: Duration,
    idle_in_transaction_timeout: Duration,
    lock_timeout: Duration,
    messages_retention: Option<Duration>,
}

impl Postgres {
    /// Prepares the connections; makes none yet.
    ///
    /// # Errors
    /// The URL is not one of PostgreSQL.
    pub fn new(store: &config::Store) -> Result<Self> {
        let options = session::options(store)?;
        let deadline = store.statement_timeout + CLIENT_GRACE;
        let port = options.get_port();
        let pooler = store.pooler;
        let pool = PgPoolOptions::new()
            .max_connections(store.connections)
            .acquire_timeout(deadline)
            .test_before_acquire(false)
            .after_connect(move |db, _| {
                Box::pin(async move {
                    socket::send_at_once(port);
                    if session::is_kept(pooler) { fence::prepare_ahead(db).await } else { Ok(()) }
                })
            })
            .connect_lazy_with(options);
        let begin = session::begin(store.pooler, &session::time_outs(store));
        let turns = Arc::new(Semaphore::new(store.connections as usize));
        let connections = Connections::new(pool.clone(), turns, deadline);
        Ok(Self {
            pool,
            connections,
            pooler,
            begin,
            deadline,
            idle_in_transaction_timeout: store.idle_in_transaction_timeout,
            lock_timeout: store.lock_timeout,
            messages_retention: store.messages_retention,
        })
    }

    /// Opens a transaction with its time-outs. Reads use one too: a connection that is cut off in the middle of an
    /// exchange is closed, where the pool would wait for it without a bound.
    async fn open(&self, action: &'static str) -> Result<OpenTx<sqlx::Postgres>> {
        let mut tx = self.connections.take(action).await?;
        tx.run(action, &self.begin).await?;
        Ok(tx)
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<()> {
        let mut connection = bounded(self.deadline, migrate::ACTION, Box::pin(self.pool.acquire())).await?;
        migrate::run(&mut connection, self.pooler, self.deadline).await
    }

    fn by_day(&self) -> Option<&dyn ByDay> {
        Some(self)
    }

    async fn reach(&self) -> Result<()> {
        reach::reach(self.pooler, &self.pool.connect_options()).await
    }

    async fn check(&self) -> Result<()> {
        const ACTION: &str = "check the schema";
        let mut tx = self.open(ACTION).await?;
        let missing = sqlx::query_scalar("SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL")
            .bind(RELATIONS.as_slice())
            .fetch_all(tx.connection());
        let missing: Vec<String> = bounded(self.deadline, ACTION, missing).await?;
        tx.finish().await?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error {
            fault: Fault::Hold,
            action: "check the schema",
            message: format!(
                "missing: {}; run `weir migrate` once, with a role that may create tables",
                missing.join(", ")
            ),
        })
    }

    async fn describe(&self, table: &str) -> Result<Vec<Column>> {
        let mut tx = self.open("describe a table").await?;
        let columns = bounded(self.deadline, "describe a table", describe::columns(tx.connection(), table)).await?;
        tx.finish().await?;
        if columns.is_empty() {
            return Err(Error {
                fault: Fault::Hold,
                action: "describe a table",
                message: format!(
                    "there is no table {table:?}; run `weir migrate`, or make the table that `persist` is configured for"
                ),
            });
        }
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
        let answer = bounded(self.deadline, "read the ledger", ledger::read(tx.connection(), place)).await?;
        tx.finish().await?;
        Ok(answer)
    }

    async fn ledger_of_group(&self, group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        let mut tx = self.open("read the ledger").await?;
        let answer = bounded(self.deadline, "read the ledger", ledger::of_group(tx.connection(), group)).await?;
        tx.finish().await?;
        Ok(answer)
    }

    async fn ledger_bytes(&self) -> Result<Option<i64>> {
        const ACTION: &str = "read the ledger's size";
        let mut tx = self.open(ACTION).await?;
        let size = sqlx::query_scalar("SELECT pg_relation_size('weir_ledger')").fetch_one(tx.connection());
        let bytes = bounded(self.deadline, ACTION, size).await?;
        tx.finish().await?;
        Ok(Some(bytes))
    }

    async fn knows_topic(&self, group: &str, topic: &str) -> Result<bool> {
        let mut tx = self.open("read the ledger").await?;
        let answer =
            bounded(self.deadline, "read the ledger", ledger::knows_topic(tx.connection(), group, topic)).await?;
        tx.finish().await?;
        Ok(answer)
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

    async fn end_silent(&self) -> Result<u64> {
        const ACTION: &str = "end transactions of workers that stand still";
        let mut tx = self.open(ACTION).await?;
        let end = copy::end_silent(tx.connection(), self.idle_in_transaction_timeout);
        let ended = bounded(self.deadline, ACTION, end).await?;
        tx.finish().await?;
        Ok(ended)
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        Ok(Box::new(self.open("begin a batch").await?))
    }

    async fn begin_fenced(&self, held: &Held, next: i64, pool: &str) -> Result<(Box<dyn Tx>, Fence)> {
        const ACTION: &str = "begin a batch";
        if !session::is_kept(self.pooler) {
            return super::fence(self.begin().await?, held, next, pool).await;
        }
        let mut tx = self.connections.take(ACTION).await?;
        let begun = fence::begin(tx.connection(), &self.begin, held, next, pool);
        match bounded(self.deadline, ACTION, begun).await {
            Ok(fence) => {
                tx.lane = held.row.last_seen().lane();
                Ok((Box::new(tx), fence))
            }
            Err(error) => {
                super::leave(Box::new(tx), error.fault).await;
                Err(error)
            }
        }
    }

    async fn unpublished(
        &self,
        pool: &str,
        key: Option<&IdKey>,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        const ACTION: &str = "read dead rows";
        let mut tx = self.open(ACTION).await?;
        bounded(self.deadline, ACTION, dead::drop_live(tx.connection(), pool, key)).await?;
        let letters =
            bounded(self.deadline, ACTION, dead::unpublished(tx.connection(), pool, partitions, limit)).await?;
        tx.finish().await?;
        Ok(letters)
    }

    async fn published(&self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        let mut tx = self.open("note published letters").await?;
        bounded(self.deadline, "note published letters", dead::published(tx.connection(), pool, ids)).await?;
        tx.finish().await
    }

    async fn forget_seen(&self, pool: &str, horizon: Duration, limit: i64) -> Result<u64> {
        let mut tx = self.open("forget old ids").await?;
        let answer =
            bounded(self.deadline, "forget old ids", ledger::forget_seen(tx.connection(), pool, horizon, limit))
                .await?;
        tx.finish().await?;
        Ok(answer)
    }
}
