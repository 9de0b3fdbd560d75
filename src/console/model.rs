//! What the console tells, as the page, `weir top` and other programs read it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admin::{BreakerReport, PausedReport};

/// The body of `/api/state`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Tells a process from the one that had its address before.
    pub(crate) instance: Uuid,
    /// Of weir.
    pub(crate) version: String,
    /// The machine, or the pod.
    pub(crate) host: String,
    /// When the process was started: milliseconds since 1970, as all times here.
    pub(crate) started_ms: i64,
    /// When this was told.
    pub(crate) now_ms: i64,
    /// Whether every pool has joined its group.
    pub(crate) ready: bool,
    /// Whether every poll loop moves.
    pub(crate) healthy: bool,
    /// What the numbers of [`Point::loop_share`] are of.
    pub(crate) phases: Vec<String>,
    /// The pools of this process.
    pub(crate) pools: Vec<PoolState>,
}

/// A pool as this process sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PoolState {
    /// Its name.
    pub(crate) name: String,
    /// Its consumer group.
    pub(crate) group: String,
    /// Topics and patterns that it reads.
    pub(crate) topics: Vec<String>,
    /// Whether it has a store, and with it a ledger and dead rows.
    pub(crate) has_store: bool,
    /// Whether it has joined its group once.
    pub(crate) joined: bool,
    /// Whether its poll loop stands still.
    pub(crate) stalled: bool,
    /// What it waits for.
    pub(crate) waiting_for: Option<String>,
    /// The pause by an operator, while there is one.
    pub(crate) paused: Option<PausedReport>,
    /// Dependencies that are left alone, since they do not answer.
    #[serde(default)]
    pub(crate) breakers: Vec<BreakerReport>,
    /// Partitions that this worker has.
    pub(crate) assigned: usize,
    /// Of these, held until a person does something.
    pub(crate) held: usize,
    /// Events not settled, over this worker's partitions.
    pub(crate) lag: i64,
    /// The age of the oldest of them.
    pub(crate) lag_ms: i64,
    /// The rate of the whole group, where there is one.
    pub(crate) rate_per_s: Option<f64>,
    /// Batches that may be in a transaction, where that is limited.
    pub(crate) transactions_limit: Option<f64>,
    /// The events that the next batch may have, where that is least.
    pub(crate) batch_limit: i64,
    /// This worker's share of the wanted number of workers.
    pub(crate) desired_replicas: f64,
    /// Events that ended as dead rows, since the process started.
    pub(crate) dead: u64,
    /// Dead rows that the dead-letter topic lacks.
    pub(crate) dead_unpublished: i64,
    /// Keys of this worker's partitions that wait behind a rejected event.
    pub(crate) parked_keys: i64,
    /// Rebalances since the process started.
    pub(crate) rebalances: u64,
    /// Batches that the ledger refused, since the process started.
    pub(crate) fences: u64,
    /// Ids that the processed set had seen, had not, and did not tell, since the process started.
    pub(crate) processed_set: [u64; 3],
    /// All partitions of the group, those of other workers too where the ledger tells them.
    pub(crate) partitions: Vec<Partition>,
    /// What Kafka and the ledger told of the whole group.
    pub(crate) fleet: Fleet,
    /// A point a second, the oldest first.
    pub(crate) points: Vec<Point>,
}

/// The look at the whole group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Fleet {
    /// When it was taken; none yet.
    pub(crate) at_ms: Option<i64>,
    /// Why there is no newer one.
    pub(crate) error: Option<String>,
    /// Events not settled, over all partitions.
    pub(crate) lag: Option<i64>,
    /// Dead rows, those that are parked included.
    pub(crate) dead_rows: Option<i64>,
}

/// Whose a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// This process'.
    Here,
    /// Another's, which claimed it last; whether that still runs, the ledger does not tell.
    Elsewhere,
    /// Nobody's: the group has not begun there.
    Nobody,
}

/// A partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Partition {
    /// The topic.
    pub(crate) topic: String,
    /// Its number.
    pub(crate) partition: i32,
    /// Whose it is.
    pub(crate) place: Place,
    /// The token that its owner claimed it with, and logged.
    pub(crate) owner: Option<Uuid>,
    /// How often it was claimed.
    pub(crate) epoch: Option<i64>,
    /// What its task does; of others' partitions nothing is known.
    pub(crate) state: Option<String>,
    /// What it waits for, or is held for.
    pub(crate) why: Option<String>,
    /// Since when it does that.
    pub(crate) since_ms: Option<i64>,
    /// The first offset that is not settled.
    pub(crate) next_offset: Option<i64>,
    /// The log's end.
    pub(crate) end: Option<i64>,
    /// Events not settled.
    pub(crate) lag: Option<i64>,
    /// The age of the oldest of them; of others' partitions not known while there are any.
    pub(crate) lag_ms: Option<i64>,
    /// The most events of the next batch.
    pub(crate) batch: Option<usize>,
    /// When something was settled last.
    pub(crate) progress_ms: Option<i64>,
}

/// A second of a pool in this process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// When it ended.
    pub(crate) at_ms: i64,
    /// Records that came into this worker's partitions, a second.
    pub(crate) in_per_s: f64,
    /// Events settled a second.
    pub(crate) out_per_s: f64,
    /// Of these, as dead rows.
    pub(crate) dead_per_s: f64,
    /// Events not settled.
    pub(crate) lag: i64,
    /// The age of the oldest of them.
    pub(crate) lag_ms: i64,
    /// Events of a batch, on the average; 0: there was none.
    pub(crate) batch: f64,
    /// What part of the partition tasks' time went where, in the order of [`State::phases`].
    pub(crate) loop_share: Vec<f64>,
}

/// The body of `/api/dead`: dead rows of a pool, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadPage {
    /// The pool.
    pub(crate) pool: String,
    /// How many newer ones are left out.
    pub(crate) skip: i64,
    /// Whether there are older ones.
    pub(crate) more: bool,
    /// The rows.
    pub(crate) rows: Vec<DeadSummary>,
}

/// A dead row without what the record brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadSummary {
    /// The event's id.
    pub(crate) id: String,
    /// Its type, where ids are claimed by type.
    pub(crate) kind: String,
    /// Why it was set aside.
    pub(crate) reason: String,
    /// By which pipeline.
    pub(crate) pipeline: String,
    /// Why, in words.
    pub(crate) message: String,
    /// The topic it came from.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: i32,
    /// The offset.
    pub(crate) offset: i64,
    /// The record's key, cut where it is long.
    pub(crate) key: Option<String>,
    /// How often it was tried.
    pub(crate) attempts: i32,
    /// When it was set aside.
    pub(crate) created_ms: i64,
    /// When its letter was sent.
    pub(crate) published_ms: Option<i64>,
    /// When it is to be replayed, if that was asked for.
    pub(crate) replay_ms: Option<i64>,
    /// Whether later events of its key wait behind it.
    pub(crate) holds_key: bool,
}

/// The body of `/api/dead/row`: one dead row with what the record brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadBody {
    /// The row.
    #[serde(flatten)]
    pub(crate) row: DeadSummary,
    /// The record's own time stamp.
    pub(crate) record_ms: Option<i64>,
    /// Its headers, as text; cut where they are long.
    pub(crate) headers: Option<String>,
    /// Its value, as text or hexadecimal; cut where it is long.
    pub(crate) value: Option<String>,
    /// The bytes of the value.
    pub(crate) value_bytes: usize,
    /// Whether the value is cut.
    pub(crate) is_cut: bool,
}
