//! PostgreSQL as one of weir's databases.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

#[cfg(test)]
use super::migrate;
use super::{Postgres, codes, scratch, session};
use crate::config::{self, Pooler};
use crate::store::driver::{Audit, Driver};
#[cfg(test)]
use crate::store::migrations::Step;
use crate::store::{Fault, Result, Store};

/// What the auditor's transaction, which takes long, sets for itself.
const STILL: &str = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
                     SET LOCAL application_name = 'weir verify'";

#[derive(Debug)]
pub(in crate::store) struct PostgresDriver;

#[async_trait]
impl Driver for PostgresDriver {
    fn schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
    }

    fn example(&self) -> &'static str {
        "postgres://user:password@host:5432/database"
    }

    fn has_poolers(&self) -> bool {
        true
    }

    fn has_days(&self) -> bool {
        true
    }

    fn open(&self, store: &config::Store) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Postgres::new(store)?))
    }

    #[cfg(test)]
    fn steps(&self) -> (&'static str, &'static [Step]) {
        ("postgres", migrate::STEPS)
    }

    fn fault(&self, error: &(dyn DatabaseError + 'static)) -> Option<(Fault, String)> {
        let error = error.try_downcast_ref::<PgDatabaseError>()?;
        let (code, told) = (error.code(), error.message());
        let fault = codes::classify(code, told);
        let (message, advice) = (codes::public_message(told, fault), codes::advice(code, told));
        Some((fault, format!("{message} (SQLSTATE {code}){advice}")))
    }

    fn audit(&self, store: &config::Store) -> Result<Audit> {
        let mut url = store.url.expose().to_owned();
        // Behind a pooler a name of a statement is for one use; see `session::begin`.
        if store.pooler == Some(Pooler::Transaction) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str("statement-cache-capacity=0");
        }
        Ok(Audit {
            url,
            begin: session::begin(store.pooler, ""),
            hold_still: session::begin_as(" ISOLATION LEVEL REPEATABLE READ READ ONLY", store.pooler, STILL),
            column_type: "SELECT format_type(atttypid, NULL) FROM pg_attribute \
                          WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
            stats: "SELECT (extract(epoch FROM minute) / 60)::bigint, dimension, member, count FROM message_stats",
            effect_us: "CAST(extract(epoch FROM received_at) * 1000000 AS bigint)",
            text: "text",
            bigint: "bigint",
            first: "$1",
            #[cfg(feature = "load")]
            version: ("PostgreSQL", "SELECT current_setting('server_version')"),
        })
    }

    async fn make_scratch(&self, store: &config::Store, name: &str) -> Result<config::Store> {
        scratch::make(store, name).await
    }

    async fn remove_scratch(&self, store: &config::Store, name: &str) -> Result<()> {
        scratch::remove(store, name).await
    }
}
