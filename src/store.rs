//! The database contract: what a pool needs of a store to leave one effect per event.
//!
//! Promised by every implementation: a [`Tx`] is all or nothing; [`Tx::fence`] succeeds for at most one owner
//! of a partition and only from the offset that owner holds; an id claimed in a committed transaction is
//! never fresh again. What breaks it: a database that loses committed transactions without the ledger going
//! back with them.

mod claim;
mod connection;
mod control;
#[cfg_attr(not(any(feature = "postgres", feature = "mysql")), expect(dead_code, reason = "SQLite has no partitions"))]
mod days;
mod dead;
mod driver;
mod fault;
mod find;
mod held;
mod migrations;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod scratch;
mod seek;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod socket;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;
mod unstored;
mod verdict;
mod wait;

pub use claim::{Claim, Claimant};
pub use control::{Change, Control, Controls, Pause, RateSet};
pub(crate) use days::made_ms;
pub use days::{ByDay, Converted, Day, Effort, Partitioned, Upkeep};
pub use dead::{Asked, DeadFilter, DeadRows, KeptDead, Rejected, Release, ReplayTx, RequestStanding};
pub(crate) use driver::Audit;
pub use driver::{check_days, problems};
pub(crate) use fault::message as message_of;
pub use find::{Finds, FoundVerdict};
pub use held::{Held, RowHint};
#[cfg(feature = "mysql")]
pub use mysql::Mysql;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
pub use scratch::Scratch;
pub use seek::{Move, Seeks};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub use table::{Column, ColumnData, ColumnType, IdKey, KeyType, OnDuplicate, Table};
pub(crate) use unstored::Unstored;
pub use verdict::{StoredVerdict, UnpublishedVerdict, VerdictTx, Verdicts};
pub(crate) use wait::await_answer;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::config;
use crate::event::Origin;

/// What an error asks of whoever meets it. Every store's and handler's error is put into one of these, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service does not answer: wait until it does.
    Outage,
    /// In each other's way (deadlock, lock time-out): try again soon.
    Busy,
    /// The work did not fit its time: try again with less.
    TooSlow,
    /// These data can never be taken: find the event and set it aside.
    Reject,
    /// A schema or a permission is missing: no event is at fault; wait and alert.
    Hold,
    /// Going on would do harm: stop.
    Fatal,
}

impl Fault {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::Busy => "busy",
            Self::TooSlow => "too_slow",
            Self::Reject => "reject",
            Self::Hold => "hold",
            Self::Fatal => "fatal",
        }
    }
}

/// A failed store operation.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {message}")]
pub struct Error {
    /// What to do about it.
    pub fault: Fault,
    /// What was being done, as a verb and its object.
    pub action: &'static str,
    /// What the database said.
    pub message: String,
}

/// A store's result.
pub type Result<T> = std::result::Result<T, Error>;

/// One group's place on one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The consumer group.
    pub group: Arc<str>,
    /// Topic and partition.
    pub origin: Arc<Origin>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.origin, self.group)
    }
}

/// A ledger row as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRow {
    /// Who may write; nobody before the first claim.
    pub owner: Option<Uuid>,
    /// Counts the claims.
    pub epoch: i64,
    /// The first offset that is not settled.
    pub next_offset: i64,
    /// When it last changed, by the database's clock: milliseconds since 1970.
    pub updated_ms: i64,
}

/// What the ledger says to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// The batch may be written.
    Passed {
        /// Whether the pool may have dead rows, which new events could settle.
        has_dead_rows: bool,
    },
    /// Somebody else owns the partition, or the ledger has moved.
    Fenced,
}

/// Why an event was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It could not be decoded.
    Malformed,
    /// The database cannot hold it.
    Refused,
    /// A pipeline's filter failed on it.
    WhenError,
    /// It is larger than may be kept.
    TooLarge,
    /// A handler turned it down, or panicked on it.
    Handler,
    /// An earlier event of its key was rejected, and it waits behind that one.
    Parked,
}

impl Reason {
    /// The word kept in the dead row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::WhenError => "when_error",
            Self::TooLarge => "too_large",
            Self::Handler => "handler",
            Self::Parked => "parked",
        }
    }
}

/// A rejected event, kept with its reason.
#[derive(Debug, Clone)]
pub struct DeadRow {
    /// The event's type where ids are claimed by type, else empty.
    pub kind: String,
    /// The event's id.
    pub event_id: String,
    /// The first pipeline that rejected it, or `decode`.
    pub pipeline: String,
    /// Why.
    pub reason: Reason,
    /// Why, in words, without the payload.
    pub message: String,
    /// Where it was met.
    pub origin: Arc<Origin>,
    /// At which offset.
    pub offset: i64,
    /// The record's own time stamp, in milliseconds since 1970.
    pub record_ms: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers as JSON text.
    pub headers: Option<Vec<u8>>,
    /// How often it was tried.
    pub attempts: i32,
    /// Whether later events of its key wait behind it.
    pub holds_key: bool,
}

/// A dead row that the dead-letter topic does not have yet.
#[derive(Debug, Clone)]
pub struct UnpublishedLetter {
    /// The type that is part of its identity, or empty.
    pub kind: String,
    /// The event's id.
    pub event_id: String,
    /// The pipeline that rejected it.
    pub pipeline: String,
    /// The reason's word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// The topic it came from.
    pub topic: String,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers as JSON text.
    pub headers: Option<Vec<u8>>,
}

/// One counter's increase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Minutes since 1970, UTC.
    pub minute: i64,
    /// The dimension's name.
    pub dimension: &'static str,
    /// The member of the dimension.
    pub member: String,
    /// The shard, so that tasks do not wait for each other's rows.
    pub shard: i32,
    /// By how much; `None` only notes that the member was there.
    pub by: Option<i64>,
}

/// Every database of this build.
const DRIVERS: &[&dyn driver::Driver] = &[
    #[cfg(feature = "postgres")]
    &postgres::PostgresDriver,
    #[cfg(feature = "mysql")]
    &mysql::MysqlDriver,
    #[cfg(feature = "sqlite")]
    &sqlite::SqliteDriver,
];

const _: () = assert!(!DRIVERS.is_empty(), "weir needs a database: enable feature postgres, mysql or sqlite");

/// The database at `store.url`, as its scheme says. Connects to nothing yet.
///
/// # Errors
/// The address is none, or is of a database that this build does not know.
pub fn open(store: &config::Store) -> Result<Arc<dyn Store>> {
    driver::of_store(store)?.open(store)
}

/// How the auditor reads the database at `store.url`.
///
/// # Errors
/// The same as of [`open`].
pub(crate) fn audit(store: &config::Store) -> Result<Audit> {
    driver::of_store(store)?.audit(store)
}

/// A database that pools can leave their effects in.
#[async_trait]
pub trait Store: DeadRows + Seeks + Controls + Finds + Verdicts + 'static {
    /// Brings the schema up to this release, all or nothing by step. Steps of a newer release are left alone.
    async fn migrate(&self) -> Result<()>;

    /// What keeps `messages` by days, where the database has partitions.
    fn by_day(&self) -> Option<&dyn ByDay> {
        None
    }

    /// Makes `messages` partitioned by day (see [`Upkeep`]), rows kept, workers running; where it is already, brings its days up to
    /// date.
    async fn partition_messages(&self) -> Result<Partitioned> {
        let by_day = self.by_day().ok_or_else(days::none)?;
        let converted = by_day.divide().await?;
        let upkeep = by_day.keep(Effort::ASKED).await?.unwrap_or_default();
        Ok(Partitioned { converted, upkeep })
    }

    /// Makes the days of `messages` that are due, and drops those that are older than the retention; one worker at a time, and
    /// never in the writers' way for long. `None`: it is not partitioned.
    async fn keep_days(&self) -> Result<Option<Upkeep>> {
        let Some(by_day) = self.by_day() else { return Ok(None) };
        by_day.keep(by_day.background()).await
    }

    /// How they stand, without a change. `None`: it is not partitioned.
    async fn days(&self) -> Result<Option<Upkeep>> {
        let Some(by_day) = self.by_day() else { return Ok(None) };
        by_day.look().await
    }

    /// How long the days of `messages` are kept, by configuration.
    fn messages_retention(&self) -> Option<std::time::Duration> {
        self.by_day()?.retention()
    }

    /// Whether the database can be reached at all. Asks by a connection of its own, so that the answer comes soon and
    /// says why not. A database that can be made, but is not there yet, is reached.
    async fn reach(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the database answers and has weir's tables.
    async fn check(&self) -> Result<()>;

    /// A table's columns and types, for handlers that write to it.
    async fn describe(&self, table: &str) -> Result<Vec<Column>>;

    /// Some columns of a table's rows, at most `limit`, each row as a JSON object. The names have to be the database's own.
    async fn rows_as_json(&self, table: &str, columns: &[&str], limit: i64) -> Result<Vec<String>>;

    /// A partition's ledger row.
    async fn ledger(&self, place: &Place) -> Result<Option<LedgerRow>>;

    /// All of a group's ledger rows, by topic id and partition.
    async fn ledger_of_group(&self, group: &str) -> Result<HashMap<(Uuid, i32), LedgerRow>>;

    /// The size of the ledger's table in bytes, where the database tells it.
    async fn ledger_bytes(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Whether the group has any row for a topic of this name.
    async fn knows_topic(&self, group: &str, topic: &str) -> Result<bool>;

    /// Adds rows that are not there yet, all or none; rows that are there stay as they are.
    async fn begin_ledger(&self, rows: &[(Place, i64)]) -> Result<()>;

    /// Takes a partition over: sets the token if the row is still as it was read, and if the claimant has every pipeline
    /// that has begun there and is not retired. What it has beyond them begins.
    async fn claim(&self, place: &Place, read: LedgerRow, claimant: Claimant<'_>, token: Uuid) -> Result<Claim>;

    /// The pipelines of a group that have begun and are not retired.
    async fn pipelines(&self, group: &str) -> Result<Vec<String>>;

    /// Retires a pipeline on all partitions of a group; says on how many.
    async fn retire(&self, group: &str, pipeline: &str) -> Result<u64>;

    /// Ends transactions of workers that stand still where the database applies no time-out; says how many.
    async fn end_silent(&self) -> Result<u64> {
        Ok(0)
    }

    /// Begins the one transaction of a batch.
    async fn begin(&self) -> Result<Box<dyn Tx>>;

    /// Begins it and passes the [fence](Tx::fence).
    async fn begin_fenced(&self, held: &Held, next: i64, pool: &str) -> Result<(Box<dyn Tx>, Fence)> {
        fence(self.begin().await?, held, next, pool).await
    }

    /// Dead rows of these partitions that the dead-letter topic lacks, oldest first, at most `limit`. Rows whose
    /// id has become live meanwhile are removed first.
    async fn unpublished(
        &self,
        pool: &str,
        key: Option<&IdKey>,
        partitions: &[(Uuid, i32)],
        limit: i64,
    ) -> Result<Vec<UnpublishedLetter>>;

    /// Notes that the dead-letter topic has them.
    async fn published(&self, pool: &str, ids: &[(&str, &str)]) -> Result<()>;

    /// Forgets claimed ids older than the horizon, at most `limit` at once; says how many.
    async fn forget_seen(&self, pool: &str, horizon: std::time::Duration, limit: i64) -> Result<u64>;
}

/// The fence of a transaction that has begun.
async fn fence(mut tx: Box<dyn Tx>, held: &Held, next: i64, pool: &str) -> Result<(Box<dyn Tx>, Fence)> {
    match tx.fence(held, next, pool).await {
        Ok(fence) => Ok((tx, fence)),
        Err(error) => {
            leave(tx, error.fault).await;
            Err(error)
        }
    }
}

/// Leaves a transaction that failed. Its connection goes back to the pool only if it answers, and if another could do no
/// better: one whose statements were prepared before a table was changed would fail again for ever.
pub(crate) async fn leave(tx: Box<dyn Tx>, fault: Fault) {
    match fault {
        Fault::Outage | Fault::Busy => drop(tx),
        // A database that has ended the transaction by itself refuses this: what it was ended for is the failure.
        _ => drop(tx.rollback().await.ok()),
    }
}

/// The one transaction of a batch. Dropped without [`commit`](Tx::commit), it leaves nothing.
#[async_trait]
pub trait Tx: ReplayTx + VerdictTx {
    /// Moves the ledger from the held offset to `next`, if the token still owns it.
    async fn fence(&mut self, held: &Held, next: i64, pool: &str) -> Result<Fence>;

    /// Those of the ids that a table holds.
    async fn existing(&mut self, key: &IdKey, ids: &[&str]) -> Result<HashSet<String>>;

    /// From now on so many ids are claimed of which none is expected to be there already: where there is a cheaper way to
    /// write them that fails as a whole if one is, it may be taken. Says whether it is; then an error other than an outage,
    /// a busy or a slow database says nothing of the events, and the batch is begun anew without.
    fn assume_new(&mut self, _rows: usize) -> bool {
        false
    }

    /// Claims ids in weir's own table, per pool and event type: which of them are new.
    async fn claim_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<Vec<bool>>;

    /// Those of the types and ids that weir's own table holds; an empty type stands for any.
    async fn existing_seen(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<HashSet<(String, String)>>;

    /// Inserts rows by columns, in the order of their ids: which of them are new.
    async fn insert(&mut self, table: &Table, ids: &[&str], columns: &[ColumnData<'_>]) -> Result<Vec<bool>>;

    /// Adds to counters.
    async fn count(&mut self, counts: &[Count]) -> Result<()>;

    /// Keeps rejected events. One whose row is there already stays as it is; but one that only waits behind its key takes
    /// the place of one that was rejected, since it may be the good copy of the two. A row of a key that is being
    /// released is asked for like those before it.
    async fn bury(&mut self, pool: &str, rows: &[DeadRow]) -> Result<()>;

    /// Removes the dead rows of types and ids that have become live.
    async fn unbury(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()>;

    /// Makes it all durable. After an error nobody knows whether it is: the ledger tells.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Undoes it all.
    async fn rollback(self: Box<Self>) -> Result<()>;

    /// The driver's own connection inside this transaction, for handlers with SQL of their own: see
    /// `connection_of`.
    fn any_connection(&mut self) -> Option<&mut (dyn Any + Send)> {
        None
    }
}

impl dyn Tx + '_ {
    /// The driver's own connection inside this transaction, where it is of this type; `None`: the store is another database.
    pub fn connection_of<C: Any>(&mut self) -> Option<&mut C> {
        self.any_connection()?.downcast_mut()
    }

    /// PostgreSQL's.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Option<&mut sqlx::PgConnection> {
        self.connection_of()
    }

    /// MariaDB's or MySQL's.
    #[cfg(feature = "mysql")]
    pub fn mysql(&mut self) -> Option<&mut sqlx::MySqlConnection> {
        self.connection_of()
    }

    /// SQLite's.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut sqlx::SqliteConnection> {
        self.connection_of()
    }
}
