//! SQLite as one of weir's databases.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

#[cfg(test)]
use super::migrate;
use super::{Sqlite, address, codes, scratch};
use crate::config;
use crate::store::driver::{Audit, Driver};
#[cfg(test)]
use crate::store::migrations::Step;
use crate::store::{Fault, Result, Store};

#[derive(Debug)]
pub(in crate::store) struct SqliteDriver;

#[async_trait]
impl Driver for SqliteDriver {
    fn schemes(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    fn example(&self) -> &'static str {
        "sqlite:///path/weir.db"
    }

    fn problems(&self, store: &config::Store) -> Vec<String> {
        let read = address::of_url(store.url.expose());
        read.err().map(|why| format!("`store.url`: {why}")).into_iter().collect()
    }

    fn open(&self, store: &config::Store) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Sqlite::new(store)?))
    }

    #[cfg(test)]
    fn steps(&self) -> (&'static str, &'static [Step]) {
        ("sqlite", migrate::STEPS)
    }

    fn fault(&self, error: &(dyn DatabaseError + 'static)) -> Option<(Fault, String)> {
        error.try_downcast_ref::<SqliteError>()?;
        let code = codes::primary(&error.code().unwrap_or_default());
        Some((codes::classify(code), format!("{} (SQLite error {code}){}", error.message(), codes::advice(code))))
    }

    fn audit(&self, store: &config::Store) -> Result<Audit> {
        let url = address::plain_url(store)?;
        Ok(Audit {
            url,
            begin: "BEGIN".to_owned(),
            hold_still: "BEGIN; SELECT count(*) FROM weir_ledger".to_owned(),
            column_type: "SELECT lower(type) FROM pragma_table_info(trim($1, '\"')) WHERE name = $2",
            stats: "SELECT CAST(strftime('%s', minute) AS INTEGER) / 60, dimension, member, count FROM message_stats",
            effect_us: "received_at * 1000",
            text: "text",
            bigint: "bigint",
            first: "$1",
            #[cfg(feature = "load")]
            version: ("SQLite", "SELECT sqlite_version()"),
        })
    }

    fn check_scratch(&self, store: &config::Store) -> Result<()> {
        scratch::is_unused(store)
    }

    async fn make_scratch(&self, store: &config::Store, _name: &str) -> Result<config::Store> {
        scratch::is_unused(store).map(|()| store.clone())
    }

    async fn remove_scratch(&self, store: &config::Store, _name: &str) -> Result<()> {
        scratch::remove(store)
    }
}
