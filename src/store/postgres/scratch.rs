//! A schema of its own.

use sqlx::Connection as _;

use crate::config;
use crate::store::{Result, fault};

/// The settings that lead into the new schema.
pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
    execute(store, &format!("CREATE SCHEMA \"{name}\"")).await?;
    let url = store.url.expose();
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(config::Store { url: format!("{url}{separator}options[search_path]={name}").into(), ..store.clone() })
}

pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
    execute(store, &format!("DROP SCHEMA \"{name}\" CASCADE")).await
}

async fn execute(store: &config::Store, sql: &str) -> Result<()> {
    const ACTION: &str = "make or remove a scratch schema";
    let failed = |error: sqlx::Error| fault::error(ACTION, &error);
    let mut connection = sqlx::PgConnection::connect(store.url.expose()).await.map_err(failed)?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
    // It is done; how the database takes the goodbye changes nothing.
    connection.close().await.ok();
    Ok(())
}
