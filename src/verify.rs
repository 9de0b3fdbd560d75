//! The auditor: reconciles Kafka with the database.
//!
//! **What it promises:** for every event of a pool's topics that the pool has passed, either every table of
//! the pool has it, or there is a dead row and no table has it, and the counters are those of exactly these
//! events; or a finding says otherwise. It shares no decoding and no SQL with the workers, joins no group and
//! writes nothing, so it can run beside them: it sees the database at one moment, and what the ledger had not
//! passed at that moment is pending, not lost.
//!
//! **What breaks it:** events that Kafka has deleted cannot be looked for; then counters that are too high may
//! be theirs and are not reported. Rows that were removed from a table on purpose are lost to it.
//!
//! **Order:** rows of weir's own table `messages` say when their transaction began. Along the offsets of a key these
//! times must not go back; a database whose clock was set back in between breaks that.
//!
//! **Since a moment:** only records whose time stamp is not before it are events of the audit. An id whose effect came
//! from an earlier record has it all the same; counters of minutes that may count earlier events can only be too low.
//!
//! **Identity:** an event is its id, and in pools without a table its type and its id (`verify/identity.rs`). Its type is what
//! `event.type` finds in the payload.
//!
//! **Memory and disk:** what is known is sorted on disk (`verify/spill.rs`), and memory is the same for a thousand
//! records and for a thousand million. Ids are kept as digests of 96 bits, with 32 of the type: about 100 bytes of disk a record, 60 more
//! for each counter that it adds to, and up to 40 for each counter of the database.

mod audit;
mod counters;
mod database;
mod events;
mod findings;
mod identity;
mod ids;
mod log;
mod moment;
mod order;
mod spill;
mod story;
mod wants;

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::error::KafkaError;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::kafka::{Unanswered, Unresolved};
use crate::source::TopicIdError;
use crate::store;
use audit::Audit;
#[cfg(any(feature = "demo", feature = "load"))]
pub(crate) use database::Database;
#[cfg(feature = "demo")]
pub(crate) use events::Counter;
pub use wants::WantsError;

/// How many findings of a kind are named.
const NAMED_MAX: usize = 10;

/// The parts of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Every record is read.
    Kafka,
    /// Every row is read.
    Database,
    /// What should be is compared with what is.
    Comparing,
}

impl Stage {
    /// What is done, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "reading Kafka",
            Self::Database => "reading the database",
            Self::Comparing => "comparing",
        }
    }
}

/// How an audit gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is done from now on.
    Doing(Stage),
    /// So many more records are to be read.
    Ahead(u64),
    /// So many records or rows were read.
    Done(u64),
}

/// Told of each step.
pub type Progress = dyn FnMut(Step) + Send;

/// Says of an event's id whether the event is audited.
pub type Wanted = dyn Fn(&str) -> bool + Send + Sync;

/// What is audited.
#[derive(Clone, Default)]
pub struct Scope {
    /// The pools.
    pub pools: Vec<String>,
    /// Only events whose record is not older, in milliseconds since 1970; without it, all that Kafka has.
    pub since_ms: Option<i64>,
    /// Only events of the ids that it wants, asked once a record; without it, all. Counters can then only be too low,
    /// since they count the others too.
    pub wanted: Option<Arc<Wanted>>,
}

/// Why an audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka did not give what was asked for.
    #[error("{action}: {source}")]
    Kafka {
        /// What was done.
        action: String,
        /// What the client said.
        source: KafkaError,
    },
    /// No broker answers, or the login is refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// It is not known which topics a pool reads.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The cluster has no such topic.
    #[error(
        "topic {topic} does not exist on {brokers}; create it with `kafka-topics.sh --create --topic {topic} --bootstrap-server {brokers}`, or correct the pool's topics"
    )]
    NoTopic {
        /// The topic.
        topic: String,
        /// The cluster's addresses.
        brokers: String,
    },
    /// The topic's id is not known.
    #[error(transparent)]
    TopicId(#[from] TopicIdError),
    /// Kafka stopped sending.
    #[error(
        "topic {topic}: {partitions} partitions were not read to their end, nothing came for a minute; look at the brokers"
    )]
    Silence {
        /// The topic.
        topic: String,
        /// How many of its partitions are left.
        partitions: usize,
    },
    /// The database did not give what was asked for.
    #[error("{action}: {}", store::message_of(error))]
    Database {
        /// What was done.
        action: String,
        /// What the driver said.
        error: sqlx::Error,
    },
    /// The database does not answer, or refuses weir.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A pool's table or its key is not there.
    #[error("table {table} with column {key} does not exist: run `weir migrate`, or set the pipeline's table and key")]
    NoKey {
        /// The table.
        table: String,
        /// The column that should hold the ids.
        key: String,
    },
    /// The pool's conditions cannot be asked.
    #[error(transparent)]
    Wants(#[from] WantsError),
    /// The configuration has no store.
    #[error("there is nothing to compare with: set store.url")]
    NoStore,
    /// No such pool.
    #[error("pool {0} is not configured")]
    NoPool(String),
    /// More partitions than places can be packed for.
    #[error("{0} partitions are more than an audit can hold: verify pools one by one with --pool")]
    TooManyPartitions(usize),
    /// More tables in one pool than there are bits for.
    #[error("{0} persist pipelines in one pool are more than an audit can hold")]
    TooManyTables(usize),
    /// What does not fit into memory does not fit onto the disk.
    #[error(
        "temporary files in {folder}, {written_mib} MiB so far: {source}; free space there, or set TMPDIR to a folder \
         with more: the audit needs about 100 bytes a record, 60 more for each counter that it adds to, and 40 a counter"
    )]
    Spill {
        /// Where they are.
        folder: String,
        /// What the audit has written.
        written_mib: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The audit's thread ended early.
    #[error("the audit was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
}

impl Error {
    fn kafka(action: impl Into<String>, source: KafkaError) -> Self {
        Self::Kafka { action: action.into(), source }
    }

    fn database(action: impl Into<String>, error: sqlx::Error) -> Self {
        Self::Database { action: action.into(), error }
    }
}

/// The database's name and version, as it says.
///
/// # Errors
/// It does not answer in time.
#[cfg(feature = "load")]
pub(crate) async fn database_version(
    store: &crate::config::Store,
    patience: std::time::Duration,
) -> Result<(&'static str, String), Error> {
    Database::connect(store, patience).await?.version().await
}

/// What was found, summed over the pools.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Different events in Kafka, by their id, or by their type and id in pools without a table.
    pub unique_ids: u64,
    /// Of these, ids whose effect is there.
    pub persisted: u64,
    /// Ids with a dead row.
    pub dead_lettered: u64,
    /// Ids that were passed and are in neither.
    pub lost: u64,
    /// Ids that have both an effect and a dead row.
    pub repeated: u64,
    /// Events that took effect after a later one of their key.
    pub out_of_order: u64,
    /// Counters that differ from a recount.
    pub counters_wrong: u64,
    /// Ids that the pools have not come to yet.
    pub pending: u64,
    /// The same by pool.
    pub pools: BTreeMap<String, PoolReport>,
}

impl Report {
    /// Whether anything is wrong.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        self.lost + self.repeated + self.out_of_order + self.counters_wrong > 0
    }

    fn add(&mut self, name: &str, pool: PoolReport) {
        self.unique_ids += pool.unique_ids;
        self.persisted += pool.persisted;
        self.dead_lettered += pool.dead_lettered;
        self.lost += pool.lost;
        self.repeated += pool.repeated;
        self.out_of_order += pool.out_of_order;
        self.counters_wrong += pool.counters_wrong;
        self.pending += pool.pending;
        self.pools.insert(name.to_owned(), pool);
    }
}

/// What was found in one pool.
#[derive(Debug, Default, Serialize)]
pub struct PoolReport {
    /// Records read, tombstones that the pool skips left out.
    pub records: u64,
    /// Different events in Kafka, by their id, or by their type and id in a pool without a table.
    pub unique_ids: u64,
    /// Ids whose effect is there.
    pub persisted: u64,
    /// Ids with a dead row.
    pub dead_lettered: u64,
    /// Ids that were passed and are in neither.
    pub lost: u64,
    /// Ids that have both.
    pub repeated: u64,
    /// Events that took effect after a later one of their key.
    pub out_of_order: u64,
    /// Events whose order was compared: those of which weir's own table `messages` says when they took effect.
    pub order_compared: u64,
    /// Counters that differ.
    pub counters_wrong: u64,
    /// Counters compared.
    pub counters_compared: u64,
    /// Ids that the pool has not come to yet.
    pub pending: u64,
    /// Ids from before the place where the pool started.
    pub before_start: u64,
    /// Ids that `weir seek` passed over on purpose.
    pub skipped: u64,
    /// Ids older than the pool remembers (`seen_horizon`, `store.messages_retention`), of which nothing can be said.
    pub forgotten: u64,
    /// Ids whose records disagree in what they add to counters.
    pub ambiguous: u64,
    /// The first lost ids, with their places.
    pub lost_ids: Vec<String>,
    /// The first repeated ids, with their places.
    pub repeated_ids: Vec<String>,
    /// The first of those out of order, with the events that overtook them.
    pub out_of_order_ids: Vec<String>,
    /// The first wrong counters.
    pub wrong_counters: Vec<String>,
    /// What the numbers do not say.
    pub notes: Vec<String>,
}

/// Audits pools. Runs on a thread of its own, since reading Kafka blocks.
///
/// # Errors
///
/// If Kafka or the database cannot be read, or the configuration lacks what is needed. Findings are no error.
pub async fn run(config: Config, scope: Scope, mut progress: Box<Progress>) -> Result<Report, Error> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut report = Report::default();
        for name in &scope.pools {
            let pool = Audit::of(&config, name, &scope, &runtime, &mut *progress)?.run()?;
            report.add(name, pool);
        }
        Ok(report)
    })
    .await?
}
