//! PostgreSQL. One connection pool a process; every transaction sets its own time-outs by `SET LOCAL`, so that
//! a pooler in transaction mode works and a frozen owner cannot hold the ledger's row.

mod dead;
mod describe;
mod fault;
mod ledger;
mod tx;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use super::{Column, Error, Fault, Held, IdKey, LedgerRow, Place, Result, Store, Tx, UnpublishedLetter};
use crate::config;

/// How much longer than the server's statement time-out the client waits before it gives a connection up.
const CLIENT_GRACE: Duration = Duration::from_secs(3);

/// The tables and the view that `weir migrate` makes.
const RELATIONS: [&str; 5] = ["weir_ledger", "weir_dead", "weir_seen", "weir_counts", "message_stats"];

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    begin: String,
    deadline: Duration,
}

impl Postgres {
    /// Prepares the connections; makes none yet.
    ///
    /// # Errors
    /// The URL is not one of PostgreSQL.
    pub fn new(store: &config::Store) -> Result<Self> {
        let options: PgConnectOptions = store.url.expose().parse().map_err(|error: sqlx::Error| Error {
            fault: Fault::Fatal,
            action: "read store.url",
            message: format!("{error}; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
        })?;
        let options =
            options.application_name(&format!("weir/{}", std::process::id())).options([("tcp_user_timeout", "10000")]);
        let deadline = store.statement_timeout + CLIENT_GRACE;
        let pool = PgPoolOptions::new()
            .max_connections(store.connections)
            .acquire_timeout(deadline)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}; \
             SET LOCAL lock_timeout = {}",
            store.statement_timeout.as_millis(),
            store.idle_in_transaction_timeout.as_millis(),
            store.lock_timeout.as_millis(),
        );
        Ok(Self { pool, begin, deadline })
    }

    /// Brings the schema up to this release. Migrations of a newer release are left alone.
    ///
    /// # Errors
    /// The database does not answer, or a migration fails; nothing of a failed migration stays.
    pub async fn migrate(&self) -> Result<()> {
        let mut migrator = sqlx::migrate!("migrations/postgres");
        migrator.set_ignore_missing(true);
        migrator.run(&self.pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => fault::error("migrate the schema", &error),
            error => Error { fault: Fault::Hold, action: "migrate the schema", message: error.to_string() },
        })
    }

    /// The pool of connections, for the parts of weir that read on their own.
    pub fn connections(&self) -> &PgPool {
        &self.pool
    }

    /// Runs one operation within the deadline. A future cut off by it drops its connection.
    async fn bounded<T>(
        &self,
        action: &'static str,
        operation: impl Future<Output = sqlx::Result<T>> + Send,
    ) -> Result<T> {
        bounded(self.deadline, action, operation).await
    }
}

async fn bounded<T>(
    deadline: Duration,
    action: &'static str,
    operation: impl Future<Output = sqlx::Result<T>> + Send,
) -> Result<T> {
    match tokio::time::timeout(deadline, operation).await {
        Ok(result) => result.map_err(|error| fault::error(action, &error)),
        Err(_) => Err(Error {
            fault: Fault::Outage,
            action,
            message: format!("the database did not answer within {} s", deadline.as_secs_f32()),
        }),
    }
}

#[async_trait]
impl Store for Postgres {
    async fn check(&self) -> Result<()> {
        let missing: Vec<String> = self
            .bounded("check the schema", async {
                sqlx::query_scalar("SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL")
                    .bind(RELATIONS.as_slice())
                    .fetch_all(&self.pool)
                    .await
            })
            .await?;
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
        let columns = self.bounded("describe a table", describe::columns(&self.pool, table)).await?;
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

    async fn ledger(&self, place: &Place) -> Result<Option<LedgerRow>> {
        self.bounded("read the ledger", ledger::read(&self.pool, place)).await
    }

    async fn ledger_of_group(&self, group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>> {
        self.bounded("read the ledger", ledger::of_group(&self.pool, group)).await
    }

    async fn knows_topic(&self, group: &str, topic: &str) -> Result<bool> {
        self.bounded("read the ledger", ledger::knows_topic(&self.pool, group, topic)).await
    }

    async fn begin_ledger(&self, rows: &[(Place, i64)]) -> Result<()> {
        self.bounded("begin the ledger", ledger::begin(&self.pool, rows)).await
    }

    async fn claim(&self, place: &Place, read: LedgerRow, token: Uuid) -> Result<Option<Held>> {
        let mut tx = self.open("claim a partition").await?;
        let claimed = tx.claim(place, read, token).await?;
        Box::new(tx).commit().await?;
        let held = Held { place: place.clone(), token, next_offset: read.next_offset };
        Ok(claimed.then_some(held))
    }

    async fn begin(&self) -> Result<Box<dyn Tx>> {
        Ok(Box::new(self.open("begin a batch").await?))
    }

    async fn unpublished(
        &self,
        pool: &str,
        key: Option<&IdKey>,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedLetter>> {
        self.bounded("drop dead rows of live events", dead::drop_live(&self.pool, pool, key)).await?;
        self.bounded("read dead rows", dead::unpublished(&self.pool, pool, partitions, limit)).await
    }

    async fn published(&self, pool: &str, ids: &[(&str, &str)]) -> Result<()> {
        self.bounded("note published letters", dead::published(&self.pool, pool, ids)).await
    }

    async fn forget_seen(&self, pool: &str, horizon: Duration, limit: i64) -> Result<u64> {
        self.bounded("forget old ids", ledger::forget_seen(&self.pool, pool, horizon, limit)).await
    }
}

impl Postgres {
    async fn open(&self, action: &'static str) -> Result<tx::PgTx> {
        let connection = self
            // Connecting takes a large future; boxed, it is not carried along by everything that begins a batch.
            .bounded(
                action,
                Box::pin(async {
                    let mut connection = self.pool.acquire().await?;
                    let begun = sqlx::raw_sql(sqlx::AssertSqlSafe(self.begin.clone())).execute(&mut *connection).await;
                    match begun {
                        Ok(_) => Ok(connection),
                        Err(error) => {
                            drop(connection.detach());
                            Err(error)
                        }
                    }
                }),
            )
            .await?;
        Ok(tx::PgTx::new(connection, self.deadline))
    }
}
