//! A database of its own.

use sqlx::Connection as _;

use crate::config;
use crate::store::{Error, Fault, Result, fault};

const ACTION: &str = "make or remove a scratch database";

/// The settings that lead into the new database.
pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
    let mut url = url::Url::parse(store.url.expose()).map_err(|error| Error {
        fault: Fault::Fatal,
        action: "read store.url",
        message: error.to_string(),
    })?;
    url.set_path(name);
    execute(store, &format!("CREATE DATABASE `{name}`")).await?;
    Ok(config::Store { url: String::from(url).into(), ..store.clone() })
}

pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
    execute(store, &format!("DROP DATABASE `{name}`")).await
}

async fn execute(store: &config::Store, sql: &str) -> Result<()> {
    let failed = |error: sqlx::Error| fault::error(ACTION, &error);
    let mut connection = sqlx::MySqlConnection::connect(store.url.expose()).await.map_err(failed)?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
    // It is done; how the database takes the goodbye changes nothing.
    connection.close().await.ok();
    Ok(())
}
