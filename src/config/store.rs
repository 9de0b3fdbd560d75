//! The database.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// The database that holds every effect, and the ledger beside them.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Its address, such as `postgres://weir:…@db/weir`.
    pub url: Secret,
    /// A file that holds the address, in place of `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The pooler that stands before the database, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooler: Option<Pooler>,
    /// Connections of the whole process, shared by its pools.
    pub connections: u32,
    /// How long a statement may take before the database ends it.
    #[serde(with = "super::duration")]
    pub statement_timeout: Duration,
    /// How long a transaction may wait for its client before the database ends it.
    #[serde(with = "super::duration")]
    pub idle_in_transaction_timeout: Duration,
    /// How long a statement may wait for another's lock.
    #[serde(with = "super::duration")]
    pub lock_timeout: Duration,
    /// How long `messages` keeps a day of ids, where it is partitioned; without it, for ever.
    #[serde(with = "super::duration::optional", skip_serializing_if = "Option::is_none")]
    pub messages_retention: Option<Duration>,
}

/// For how long a pooler such as PgBouncer gives a client a connection of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooler {
    /// As long as the client stays.
    Session,
    /// For each transaction anew.
    Transaction,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            url_file: None,
            pooler: None,
            connections: 8,
            statement_timeout: Duration::from_secs(7),
            idle_in_transaction_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            messages_retention: None,
        }
    }
}
