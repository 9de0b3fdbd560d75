//! Whether the database can be reached. The connection pool tries for as long as a caller waits for a connection, and
//! then says only that it waited; one connection by itself says at once what is wrong.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::session;
use crate::config::Pooler;
use crate::store::fault;
use crate::store::{Error, Fault, Result};

pub(super) const ACTION: &str = "connect to the database (store.url)";
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Connects once, and asks once.
pub(super) async fn reach(pooler: Option<Pooler>, options: &PgConnectOptions) -> Result<()> {
    match tokio::time::timeout(ATTEMPT, attempt(pooler, options)).await {
        Ok(answer) => answer,
        Err(_) => Err(away(options, &format!("no answer within {} s", ATTEMPT.as_secs()))),
    }
}

async fn attempt(pooler: Option<Pooler>, options: &PgConnectOptions) -> Result<()> {
    let mut connection = match Box::pin(options.connect()).await {
        Ok(connection) => connection,
        Err(sqlx::Error::Io(error)) => return Err(away(options, &error.to_string())),
        Err(error) => {
            return Err(session::refusal(pooler, &error).unwrap_or_else(|| fault::error(ACTION, &error)));
        }
    };
    session::look(pooler, options, &mut connection).await?;
    // It has answered; how it takes the goodbye changes nothing.
    connection.close().await.ok();
    Ok(())
}

fn away(options: &PgConnectOptions, why: &str) -> Error {
    let (host, port) = (options.get_host(), options.get_port());
    let message = format!("{host}:{port} does not answer: {why}; check store.url, and that the database is up");
    Error { fault: Fault::Outage, action: ACTION, message }
}
