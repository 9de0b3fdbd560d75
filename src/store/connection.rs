//! A connection inside a transaction, the same for every database behind sqlx.

use std::future::Future;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Executor};

use super::{Error, Fault, Result, fault};

/// Dropped before its end, it closes the connection, and the database undoes what was done: a connection cut off
/// in the middle of an exchange must never be used again.
pub(super) struct OpenTx<DB: Database> {
    connection: Option<PoolConnection<DB>>,
    pub(super) deadline: Duration,
}

impl<DB: Database> OpenTx<DB> {
    pub(super) fn new(connection: PoolConnection<DB>, deadline: Duration) -> Self {
        Self { connection: Some(connection), deadline }
    }

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
