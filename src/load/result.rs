//! What a run found, as `result.json` has it. Times are in seconds and milliseconds as the names say, those of intervals
//! and phases since the run's start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::metrics::Percentiles;

/// The version of this form; it grows when a reader of an older one would misread it.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The plan's name.
    pub name: String,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: i64,
    /// How long it took, draining included.
    pub took_s: f64,
    /// What ran it, where, and against what.
    pub setting: Setting,
    /// The plan as it was resolved.
    pub plan: serde_json::Value,
    /// What was sent and what came of it.
    pub totals: Totals,
    /// The phases, in their order.
    pub phases: Vec<Phase>,
    /// The same over time.
    pub intervals: Vec<Interval>,
    /// What the plan asked for, and what was found.
    pub verdicts: Vec<Verdict>,
}

impl RunResult {
    /// Whether everything that was asked for was found.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }
}

/// What ran, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// weir's version.
    pub weir: String,
    /// Of librdkafka, the database and Redis: what each says of itself. Kafka does not tell its brokers' version.
    pub versions: BTreeMap<String, String>,
    /// The machine's name.
    pub host: String,
    /// Its operating system and architecture.
    pub system: String,
    /// Its processor.
    pub processor: String,
    /// How many of them.
    pub cores: usize,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// The topic's partitions.
    pub partitions: usize,
    /// The workers.
    pub workers: usize,
}

/// Counts over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Events that the plan asked for.
    pub intended: u64,
    /// Acknowledged by the brokers.
    pub acknowledged: u64,
    /// Not acknowledged: refused or given up.
    pub failed: u64,
    /// Sent again on purpose, of the acknowledged.
    pub duplicates: u64,
    /// Sent to be refused, of the acknowledged.
    pub poison: u64,
    /// Ids with an effect.
    pub effects: u64,
    /// Ids with a dead row.
    pub dead: u64,
    /// Acknowledged ids with neither. `None`: nobody looked.
    pub lost: Option<u64>,
    /// Ids with more than one effect.
    pub repeated: Option<u64>,
    /// Effects that came before an earlier event's of the same key.
    pub out_of_order: Option<u64>,
    /// How much later than intended events were handed to the producer.
    pub slip: Percentiles,
    /// From the intended send time to the effect; the warm-up left out.
    pub latency: Percentiles,
    /// The same by percentile, for plotting: every point's share of values is at or below its value.
    pub latency_by_percentile: Vec<Point>,
    /// From the end of the last phase until the lag was 0.
    pub drained_in_s: Option<f64>,
    /// Rebalances, and the longest time without an effect of any partition while one was under way.
    pub rebalances: u64,
    /// The longest of these pauses.
    pub longest_pause_s: f64,
}

/// A point of the plot by percentile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// From 0 to 100.
    pub percentile: f64,
    /// The value there.
    pub value_ms: f64,
}

/// One phase of the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Whether it is left out of the totals' latency.
    pub warm_up: bool,
    /// Since the run's start.
    pub begin_s: f64,
    /// Since the run's start.
    pub end_s: f64,
    /// Events that the plan asked for.
    pub intended: u64,
    /// Handed to the producer before the phase's end.
    pub sent: u64,
    /// How much later than intended.
    pub slip: Percentiles,
    /// Of the effects that came while the phase lasted.
    pub latency: Percentiles,
}

/// What happened between two looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its end.
    pub at_s: f64,
    /// Its length.
    pub length_s: f64,
    /// Events that the plan asked for in it.
    pub intended: u64,
    /// Handed to the producer.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Settled by the workers.
    pub settled: u64,
    /// Published and not settled, over all partitions, at its end.
    pub lag_events: u64,
    /// The age of the oldest of these.
    pub lag_s: f64,
    /// How late events were sent.
    pub slip: Percentiles,
    /// Of the effects in it.
    pub latency: Percentiles,
    /// Batches.
    pub batches: u64,
    /// Events of a batch, on average.
    pub batch_events: f64,
    /// The share of the tasks' time by phase: poll, decode, …; together 1, or nothing where no task ran.
    pub loop_share: BTreeMap<String, f64>,
    /// Rebalances of any worker.
    pub rebalances: u64,
    /// The workers that answered.
    pub workers: Vec<Worker>,
}

/// What one worker used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its health address.
    pub address: String,
    /// Cores, on average over the interval.
    pub cpu_cores: f64,
    /// Resident, at its end.
    pub memory_bytes: u64,
    /// Partitions assigned.
    pub partitions: u64,
}

/// What became of something that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The threshold's key in the plan, or what a run always asks for.
    pub name: String,
    /// What was asked for, in words: `at most 250 ms`.
    pub asked: String,
    /// What was found, likewise.
    pub found: String,
    /// Whether that is enough.
    pub passed: bool,
}
