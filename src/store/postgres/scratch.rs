//! A schema of its own.

use sqlx::Postgres;

use crate::config;
use crate::store::Result;
use crate::store::connection::execute_alone;

const ACTION: &str = "make or remove a scratch schema";

/// The settings that lead into the new schema.
pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
    let url = store.url.expose();
    execute_alone::<Postgres>(url, ACTION, format!("CREATE SCHEMA \"{name}\"")).await?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(config::Store { url: format!("{url}{separator}options[search_path]={name}").into(), ..store.clone() })
}

pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
    execute_alone::<Postgres>(store.url.expose(), ACTION, format!("DROP SCHEMA \"{name}\" CASCADE")).await
}
