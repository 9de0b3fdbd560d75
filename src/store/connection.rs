//! A connection inside a transaction, the same for every database behind sqlx.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use sqlx::Connection as _;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Executor, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Fault, Result, fault};

/// Connections, and turns at them. Who waits for a turn waits for this process's own work, not for the database.
#[derive(Debug)]
pub(super) struct Connections<DB: Database> {
    pool: Pool<DB>,
    turns: Arc<Semaphore>,
    /// How long a turn, and then an answer, is waited for.
    deadline: Duration,
}

impl<DB: Database> Connections<DB> {
    pub(super) fn new(pool: Pool<DB>, turns: Arc<Semaphore>, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { pool, turns, deadline })
    }

    pub(super) async fn take(&self, action: &'static str) -> Result<OpenTx<DB>> {
        let turn = tokio::time::timeout(self.deadline, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let waited = self.deadline.as_secs_f32();
            let message =
                format!("no connection of this process came free within {waited} s: its other batches are slow");
            return Err(Error { fault: Fault::Busy, action, message });
        };
        // Connecting takes a large future; boxed, it is not carried along by everything that begins a batch.
        let connection = bounded(self.deadline, action, Box::pin(self.pool.acquire())).await?;
        Ok(OpenTx {
            connection: Some(connection),
            _turn: turn,
            deadline: self.deadline,
            #[cfg(feature = "postgres")]
            assumes_new: false,
            #[cfg(feature = "postgres")]
            lane: 0,
        })
    }
}

/// Dropped before its end, it closes the connection, and the database undoes what was done: a connection cut off
/// in the middle of an exchange must never be used again.
pub(super) struct OpenTx<DB: Database> {
    connection: Option<PoolConnection<DB>>,
    _turn: OwnedSemaphorePermit,
    pub(super) deadline: Duration,
    /// Whether rows may be written in a way that fails if one of them is there; see [`Tx::assume_new`](super::Tx::assume_new).
    #[cfg(feature = "postgres")]
    pub(super) assumes_new: bool,
    /// Which of a counter's rows it adds to: what is added to a shard's number.
    #[cfg(feature = "postgres")]
    pub(super) lane: i32,
}

impl<DB: Database> OpenTx<DB> {
    pub(super) fn connection(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("the connection leaves only with the end of the transaction")
    }
}

impl<DB> OpenTx<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Runs the statements that begin or end the transaction.
    pub(super) async fn run(&mut self, action: &'static str, sql: &str) -> Result<()> {
        let deadline = self.deadline;
        let statements = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        bounded(deadline, action, statements.execute(self.connection())).await.map(drop)
    }

    /// Ends the transaction; the connection goes back to the pool only when the database has said so.
    pub(super) async fn end(mut self, action: &'static str, sql: &'static str) -> Result<()> {
        self.run(action, sql).await?;
        drop(self.connection.take());
        Ok(())
    }

    /// Commits.
    pub(super) async fn finish(self) -> Result<()> {
        self.end("commit", "COMMIT").await
    }
}

impl<DB: Database> Drop for OpenTx<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// Runs a statement on a connection of its own, which no deadline bounds.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) async fn execute_alone<DB>(url: &str, action: &'static str, sql: String) -> Result<()>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let failed = |error: sqlx::Error| fault::error(action, &error);
    let mut connection = DB::Connection::connect(url).await.map_err(failed)?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
    // It is done; how the database takes the goodbye changes nothing.
    connection.close().await.ok();
    Ok(())
}

/// Gives an operation up after a deadline.
pub(super) async fn bounded<T>(
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
