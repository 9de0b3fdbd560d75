//! What a connection is told when it is made, and what it tells of its server.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use crate::config;
use crate::store::{Column, ColumnType, Table};

/// Strict in every table: a value that does not fit is an error, never changed. Names and text are quoted as in standard SQL.
const SQL_MODE: &str = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,ANSI_QUOTES,NO_BACKSLASH_ESCAPES";

/// What servers take in one packet by their distributions' defaults, at least; each says it when it is met.
const PACKET_BYTES: usize = 1 << 20;

/// Shared by all connections of a process.
#[derive(Debug)]
pub(super) struct Session {
    statement_timeout: Duration,
    idle_in_transaction_timeout: Duration,
    lock_timeout: Duration,
    packet_bytes: AtomicUsize,
    is_mariadb: AtomicBool,
    /// Tables that note when a row was received.
    noting: Mutex<HashSet<String>>,
}

/// The column by which `weir verify` tells the order of effects.
const RECEIVED_AT: &str = "received_at";

impl Session {
    pub(super) fn new(store: &config::Store) -> Self {
        Self {
            statement_timeout: store.statement_timeout,
            idle_in_transaction_timeout: store.idle_in_transaction_timeout,
            lock_timeout: store.lock_timeout,
            packet_bytes: AtomicUsize::new(PACKET_BYTES),
            is_mariadb: AtomicBool::new(true),
            noting: Mutex::default(),
        }
    }

    /// Notes a described table.
    pub(super) fn note(&self, table: &str, columns: &[Column]) {
        let is_noting =
            |column: &Column| column.name == RECEIVED_AT && column.has_default && column.kind == ColumnType::Timestamp;
        if columns.iter().any(is_noting) {
            self.noting.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned());
        }
    }

    /// The column that takes the time at which a transaction began, of a table in which nothing else is mapped to it. Its
    /// default would be the time of each statement, of which a batch has several, in the order of ids.
    pub(super) fn noted_by(&self, table: &Table) -> Option<&'static str> {
        let is_mapped = table.columns.iter().any(|column| column.name == RECEIVED_AT);
        let noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        (!is_mapped && noting.contains(&table.key.table)).then_some(RECEIVED_AT)
    }

    /// One exchange: a connection is made anew when the database is slow to answer, too.
    pub(super) async fn begin(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let told = sqlx::raw_sql(AssertSqlSafe(self.settings())).fetch_one(connection).await?;
        let (version, packet_bytes): (String, i64) = (told.try_get(0)?, told.try_get(1)?);
        self.is_mariadb.store(version.contains("MariaDB"), Ordering::Relaxed);
        self.packet_bytes.store(usize::try_from(packet_bytes).unwrap_or(PACKET_BYTES), Ordering::Relaxed);
        Ok(())
    }

    /// Comments that begin with `M!` are for MariaDB, those with `!80000` for MySQL. MySQL ends only a SELECT that takes too
    /// long, and no transaction that waits for its client: there, the client's own deadline, and TCP's, are what bounds them.
    fn settings(&self) -> String {
        let whole_s = |timeout: Duration| timeout.as_millis().div_ceil(1000);
        format!(
            "SET NAMES utf8mb4; SET SESSION sql_mode = '{SQL_MODE}', time_zone = '+00:00', innodb_lock_wait_timeout = {}\
             /*M! , max_statement_time = {:.3}, idle_transaction_timeout = {} */\
             /*!80000 , max_execution_time = {} */; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SELECT VERSION(), CAST(@@max_allowed_packet AS SIGNED)",
            whole_s(self.lock_timeout),
            self.statement_timeout.as_secs_f64(),
            whole_s(self.idle_in_transaction_timeout),
            self.statement_timeout.as_millis(),
        )
    }

    /// How long a lock is waited for, in the server's whole seconds.
    pub(super) fn lock_s(&self) -> u128 {
        self.lock_timeout.as_millis().div_ceil(1000)
    }

    /// The most bytes that the server takes at once.
    pub(super) fn packet_bytes(&self) -> usize {
        self.packet_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.is_mariadb.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_of_less_than_a_second_are_rounded_up_where_the_server_counts_seconds() {
        let store = config::Store { lock_timeout: Duration::from_millis(1), ..config::Store::default() };
        let session = Session::new(&store);
        let settings = session.settings();
        assert!(settings.contains("innodb_lock_wait_timeout = 1/*M!"), "{settings}");
        assert!(settings.contains("max_statement_time = 7.000, idle_transaction_timeout = 5 "), "{settings}");
        assert!(settings.contains("max_execution_time = 7000 "), "{settings}");
    }
}
