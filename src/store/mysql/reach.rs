//! Whether the database can be reached. The connection pool tries for as long as a caller waits for a connection, and
//! then says only that it waited; one connection by itself says at once what is wrong.

use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::store::connection::bounded;
use crate::store::fault;
use crate::store::{Error, Fault, Result};

const ACTION: &str = "connect to the database (store.url)";
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Connects once.
pub(super) async fn reach(options: &MySqlConnectOptions) -> Result<()> {
    let connected = Box::pin(options.connect());
    let connection = match tokio::time::timeout(ATTEMPT, connected).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(sqlx::Error::Io(error))) => return Err(away(options, &error.to_string())),
        Ok(Err(error)) => return Err(fault::error(ACTION, &error)),
        Err(_) => return Err(away(options, &format!("no answer within {} s", ATTEMPT.as_secs()))),
    };
    // It has answered; how it takes the goodbye changes nothing.
    bounded(ATTEMPT, ACTION, connection.close()).await.ok();
    Ok(())
}

fn away(options: &MySqlConnectOptions, why: &str) -> Error {
    let (host, port) = (options.get_host(), options.get_port());
    let message = format!("{host}:{port} does not answer: {why}; check store.url, and that the database is up");
    Error { fault: Fault::Outage, action: ACTION, message }
}
