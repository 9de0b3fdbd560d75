//! Dead rows as operators meet them: found, asked for, replayed.
//!
//! A replay is asked for in the row itself and carried out by the partition's owner. Promised: a row leaves with the
//! effects of its event in one transaction, or stays; one that is not asked for any more is left alone.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Reason, Result};

/// A dead row as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDead {
    /// The type that is part of its identity, or empty.
    pub kind: String,
    /// The event's id.
    pub event_id: String,
    /// The pipeline that rejected it, or `decode`.
    pub pipeline: String,
    /// The reason's word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// The topic it came from.
    pub topic: String,
    /// That topic's id.
    pub topic_id: Uuid,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The record's own time stamp, where it was kept: milliseconds since 1970.
    pub record_ms: Option<i64>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers as JSON text.
    pub headers: Option<Vec<u8>>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was set aside: milliseconds since 1970.
    pub created_ms: i64,
    /// When its letter was sent.
    pub published_ms: Option<i64>,
    /// Whether later events of its key wait behind it.
    pub holds_key: bool,
    /// When it is to be replayed, if it was asked for.
    pub replay_ms: Option<i64>,
}

/// Which dead rows of a pool; what is not given matches all.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    /// The pool.
    pub pool: String,
    /// Any of these event ids.
    pub ids: Option<Vec<String>>,
    /// The pipeline that rejected.
    pub pipeline: Option<String>,
    /// The reason's word.
    pub reason: Option<String>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Set aside at this time or later: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Set aside before this time.
    pub until_ms: Option<i64>,
    /// At most so many, the oldest first.
    pub limit: i64,
    /// The newest first in place of them. A replay keeps to the oldest.
    pub newest_first: bool,
    /// Leaves so many of them out, for pages.
    pub skip: i64,
    /// Leaves values and headers out.
    pub without_bodies: bool,
}

impl DeadFilter {
    /// What rows are sorted by, of the columns that put the oldest first.
    pub(super) fn order(&self, oldest_first: &str) -> String {
        match self.newest_first {
            false => oldest_first.to_owned(),
            true => oldest_first.replace(',', " DESC,") + " DESC",
        }
    }
}

/// What became of asking for a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Rows asked for now.
    pub asked: u64,
    /// Rows that match and were asked for before.
    pub before: u64,
    /// Rows that match and hold their key back: they go by release, with their key.
    pub holding: u64,
}

/// How far a request has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestStanding {
    /// Rows that still wait, by topic and partition.
    pub waiting: Vec<(String, i32, i64)>,
    /// Rows that were rejected again.
    pub rejected: i64,
    /// Rows that stopped behind one of their key that was rejected again.
    pub stopped: i64,
}

/// Which keys are released.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// The pool.
    pub pool: String,
    /// Keys, or ids of events that hold theirs back; `None` is all that are held back.
    pub keys_or_ids: Option<Vec<String>>,
}

/// Why a replayed event was rejected again, and under which identity it is kept from now on.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The type that is part of its identity, or empty.
    pub kind: String,
    /// The event's id.
    pub event_id: String,
    /// The pipeline, or `decode`.
    pub pipeline: String,
    /// Why.
    pub reason: Reason,
    /// Why, in words, without the payload.
    pub message: String,
}

/// What operators and owners ask of the dead rows.
#[async_trait]
pub trait DeadRows: Send + Sync {
    /// The rows that match.
    async fn dead_rows(&self, filter: &DeadFilter) -> Result<Vec<KeptDead>>;

    /// How many match, whatever the filter's limit.
    async fn count_dead(&self, filter: &DeadFilter) -> Result<i64>;

    /// Asks the owners to replay the rows that match, the oldest first, at most the filter's limit of them and so many
    /// a second. Rows that hold their key back are left out.
    async fn request_replay(&self, filter: &DeadFilter, request: Uuid, per_second: Option<f64>) -> Result<Asked>;

    /// Asks the owners to replay all rows of keys that are held back, in order. What arrives of such a key from now on
    /// is asked for as well, until the key is empty or one of its rows is rejected again.
    async fn request_release(&self, release: &Release, request: Uuid, per_second: Option<f64>) -> Result<Asked>;

    /// The keys that are held back on a partition, and how many rows each has.
    async fn parked_keys(&self, pool: &str, topic: &str, partition: i32) -> Result<Vec<(Vec<u8>, i64)>>;

    /// What has become of a request.
    async fn request_standing(&self, request: Uuid) -> Result<RequestStanding>;

    /// Those of the partitions, by topic and number, that have rows whose time to be replayed has come.
    async fn due_replays(&self, pool: &str, partitions: &[(String, i32)]) -> Result<Vec<(String, i32)>>;

    /// The next rows of a partition to be replayed, in order.
    async fn next_replays(&self, pool: &str, topic: &str, partition: i32, limit: i64) -> Result<Vec<KeptDead>>;
}

/// A dead row's way out of the table, inside the transaction of its event's effects.
#[async_trait]
pub trait ReplayTx: Send {
    /// Removes a row that is asked for. `false`: it is not there, nobody asks for it any more, or an earlier row of the
    /// key that it holds back is still there.
    async fn exhume(&mut self, pool: &str, row: &KeptDead) -> Result<bool>;

    /// Keeps on record that these ids, with their types, take effect out of their turn: an audit of order leaves them out.
    async fn note_replayed(&mut self, pool: &str, ids: &[(&str, &str)]) -> Result<()>;

    /// Keeps a row that is asked for, with one more attempt and the new reason; it is asked for no more. `false`: it is
    /// not there, or nobody asked for it any more.
    async fn rebury(&mut self, pool: &str, row: &KeptDead, rejected: &Rejected) -> Result<bool>;

    /// Asks no more for the rows of the key that a row holds back.
    async fn stop_key(&mut self, pool: &str, row: &KeptDead) -> Result<()>;
}
