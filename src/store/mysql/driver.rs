//! MariaDB and MySQL as one of weir's databases.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

#[cfg(test)]
use super::migrate;
use super::{Mysql, codes, scratch};
use crate::config;
use crate::store::driver::{Audit, Driver};
#[cfg(test)]
use crate::store::migrations::Step;
use crate::store::{Fault, Result, Store};

/// What the auditor's transaction, which takes long, sets for itself, and its beginning.
const STILL: &str = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES'), net_write_timeout = 3600; \
                     SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

#[derive(Debug)]
pub(in crate::store) struct MysqlDriver;

#[async_trait]
impl Driver for MysqlDriver {
    fn schemes(&self) -> &'static [&'static str] {
        &["mysql", "mariadb"]
    }

    fn example(&self) -> &'static str {
        "mysql://user:password@host:3306/database"
    }

    fn has_days(&self) -> bool {
        true
    }

    fn open(&self, store: &config::Store) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Mysql::new(store)?))
    }

    #[cfg(test)]
    fn steps(&self) -> (&'static str, &'static [Step]) {
        ("mysql", migrate::STEPS)
    }

    fn fault(&self, error: &(dyn DatabaseError + 'static)) -> Option<(Fault, String)> {
        let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
        let number = error.number();
        let message = codes::public_message(number, error.message());
        Some((codes::classify(number), format!("{message} (error {number}){}", codes::advice(number))))
    }

    fn audit(&self, store: &config::Store) -> Result<Audit> {
        let url = store.url.expose().to_owned();
        Ok(Audit {
            url,
            begin: "START TRANSACTION".to_owned(),
            hold_still: STILL.to_owned(),
            column_type: "SELECT CAST(data_type AS char) FROM information_schema.columns \
                          WHERE table_schema = DATABASE() AND table_name = TRIM(BOTH '\"' FROM ?) AND column_name = ?",
            stats: "SELECT CAST(TIMESTAMPDIFF(MINUTE, '1970-01-01', minute) AS signed), dimension, member, count FROM message_stats",
            effect_us: "CAST(UNIX_TIMESTAMP(received_at) * 1000000 AS signed)",
            text: "char",
            bigint: "signed",
            first: "?",
            #[cfg(feature = "load")]
            version: ("MariaDB or MySQL", "SELECT VERSION()"),
        })
    }

    async fn make_scratch(&self, store: &config::Store, name: &str) -> Result<config::Store> {
        scratch::make(store, name).await
    }

    async fn remove_scratch(&self, store: &config::Store, name: &str) -> Result<()> {
        scratch::remove(store, name).await
    }
}
