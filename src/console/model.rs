//! What the console tells, as the page, `weir top` and other programs read it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admin::{BreakerReport, PausedReport};

/// The body of `/api/state`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Tells a process from the one that had its address before.
    pub instance: Uuid,
    /// Of weir.
    pub version: String,
    /// The machine, or the pod.
    pub host: String,
    /// When the process was started: milliseconds since 1970, as all times here.
    pub started_ms: i64,
    /// When this was told.
    pub now_ms: i64,
    /// Whether every pool has joined its group.
    pub ready: bool,
    /// Whether every poll loop moves.
    pub healthy: bool,
    /// What the numbers of [`Point::loop_share`] are of.
    pub phases: Vec<String>,
    /// The pools of this process.
    pub pools: Vec<PoolState>,
}

/// A pool as this process sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PoolState {
    /// Its name.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Topics and patterns that it reads.
    pub topics: Vec<String>,
    /// Whether it has a store, and with it a ledger and dead rows.
    pub has_store: bool,
    /// Whether it has joined its group once.
    pub joined: bool,
    /// Whether its poll loop stands still.
    pub stalled: bool,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// The pause by an operator, while there is one.
    pub paused: Option<PausedReport>,
    /// Dependencies that are left alone, since they do not answer.
    #[serde(default)]
    pub(crate) breakers: Vec<BreakerReport>,
    /// Partitions that this worker has.
    pub assigned: usize,
    /// Of these, held until a person does something.
    pub held: usize,
    /// Events not settled, over this worker's partitions.
    pub lag: i64,
    /// The age of the oldest of them.
    pub lag_ms: i64,
    /// The rate of the whole group, where there is one.
    pub rate_per_s: Option<f64>,
    /// Batches that may be in a transaction, where that is limited.
    pub transactions_limit: Option<f64>,
    /// The events that the next batch may have, where that is least.
    pub batch_limit: i64,
    /// This worker's share of the wanted number of workers.
    pub desired_replicas: f64,
    /// Events that ended as dead rows, since the process started.
    pub dead: u64,
    /// Dead rows that the dead-letter topic lacks.
    pub dead_unpublished: i64,
    /// Keys of this worker's partitions that wait behind a rejected event.
    pub parked_keys: i64,
    /// Rebalances since the process started.
    pub rebalances: u64,
    /// Batches that the ledger refused, since the process started.
    pub fences: u64,
    /// Ids that the processed set had seen, had not, and did not tell, since the process started.
    pub processed_set: [u64; 3],
    /// All partitions of the group, those of other workers too where the ledger tells them.
    pub partitions: Vec<Partition>,
    /// What Kafka and the ledger told of the whole group.
    pub fleet: Fleet,
    /// A point a second, the oldest first.
    pub points: Vec<Point>,
}

/// The look at the whole group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Fleet {
    /// When it was taken; none yet.
    pub at_ms: Option<i64>,
    /// Why there is no newer one.
    pub error: Option<String>,
    /// Events not settled, over all partitions.
    pub lag: Option<i64>,
    /// Dead rows, those that are parked included.
    pub dead_rows: Option<i64>,
}

/// Whose a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// This process'.
    Here,
    /// Another's, which claimed it last; whether that still runs, the ledger does not tell.
    Elsewhere,
    /// Nobody's: the group has not begun there.
    Nobody,
}

/// A partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Whose it is.
    pub place: Place,
    /// The token that its owner claimed it with, and logged.
    pub owner: Option<Uuid>,
    /// How often it was claimed.
    pub epoch: Option<i64>,
    /// What its task does; of others' partitions nothing is known.
    pub state: Option<String>,
    /// What it waits for, or is held for.
    pub why: Option<String>,
    /// Since when it does that.
    pub since_ms: Option<i64>,
    /// The first offset that is not settled.
    pub next_offset: Option<i64>,
    /// The log's end.
    pub end: Option<i64>,
    /// Events not settled.
    pub lag: Option<i64>,
    /// The age of the oldest of them; of others' partitions not known while there are any.
    pub lag_ms: Option<i64>,
    /// The most events of the next batch.
    pub batch: Option<usize>,
    /// When something was settled last.
    pub progress_ms: Option<i64>,
}

/// A second of a pool in this process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it ended.
    pub at_ms: i64,
    /// Records that came into this worker's partitions, a second.
    pub in_per_s: f64,
    /// Events settled a second.
    pub out_per_s: f64,
    /// Of these, as dead rows.
    pub dead_per_s: f64,
    /// Events not settled.
    pub lag: i64,
    /// The age of the oldest of them.
    pub lag_ms: i64,
    /// Events of a batch, on the average; 0: there was none.
    pub batch: f64,
    /// What part of the partition tasks' time went where, in the order of [`State::phases`].
    pub loop_share: Vec<f64>,
}

/// The body of `/api/dead`: dead rows of a pool, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadPage {
    /// The pool.
    pub pool: String,
    /// How many newer ones are left out.
    pub skip: i64,
    /// Whether there are older ones.
    pub more: bool,
    /// The rows.
    pub rows: Vec<DeadSummary>,
}

/// A dead row without what the record brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadSummary {
    /// The event's id.
    pub id: String,
    /// Its type, where ids are claimed by type.
    pub kind: String,
    /// Why it was set aside.
    pub reason: String,
    /// By which pipeline.
    pub pipeline: String,
    /// Why, in words.
    pub message: String,
    /// The topic it came from.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's key, cut where it is long.
    pub key: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was set aside.
    pub created_ms: i64,
    /// When its letter was sent.
    pub published_ms: Option<i64>,
    /// When it is to be replayed, if that was asked for.
    pub replay_ms: Option<i64>,
    /// Whether later events of its key wait behind it.
    pub holds_key: bool,
}

/// The body of `/api/dead/row`: one dead row with what the record brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadBody {
    /// The row.
    #[serde(flatten)]
    pub row: DeadSummary,
    /// The record's own time stamp.
    pub record_ms: Option<i64>,
    /// Its headers, as text; cut where they are long.
    pub headers: Option<String>,
    /// Its value, as text or hexadecimal; cut where it is long.
    pub value: Option<String>,
    /// The bytes of the value.
    pub value_bytes: usize,
    /// Whether the value is cut.
    pub is_cut: bool,
}
