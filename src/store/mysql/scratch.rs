//! A database of its own.

use sqlx::MySql;

use crate::config;
use crate::store::connection::execute_alone;
use crate::store::{Error, Fault, Result};

const ACTION: &str = "make or remove a scratch database";

/// The settings that lead into the new database.
pub(super) async fn make(store: &config::Store, name: &str) -> Result<config::Store> {
    let mut url = url::Url::parse(store.url.expose()).map_err(|error| Error {
        fault: Fault::Fatal,
        action: "read store.url",
        message: error.to_string(),
    })?;
    url.set_path(name);
    execute_alone::<MySql>(store.url.expose(), ACTION, format!("CREATE DATABASE `{name}`")).await?;
    Ok(config::Store { url: String::from(url).into(), ..store.clone() })
}

pub(super) async fn remove(store: &config::Store, name: &str) -> Result<()> {
    execute_alone::<MySql>(store.url.expose(), ACTION, format!("DROP DATABASE `{name}`")).await
}
