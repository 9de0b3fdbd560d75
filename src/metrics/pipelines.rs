//! What pipelines do with events, and what reaches none.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::PoolMetrics;
use super::family::families;

families! {
    /// Events settled, by what became of them in the pipeline: applied, duplicate, filtered or dead.
    settled: IntCounterVec = "weir_events_settled_total" ["pool", "pipeline", "outcome"];
    /// Time a pipeline took to prepare a batch, outside the transaction.
    prepare_seconds: HistogramVec = "weir_prepare_duration_seconds" ["pool", "pipeline"] WORK_BUCKETS;
    /// Events that a pipeline did not want since they lack what its `when` asks for.
    when_missing: IntCounterVec = "weir_when_missing_total" ["pool", "pipeline"];
    /// Lookup tables and lists of moderation read again, by result: ok, or error (the one before stays in use).
    reloads: IntCounterVec = "weir_reloads_total" ["pool", "result"];
    /// Records without a value.
    tombstones: IntCounterVec = "weir_tombstones_total" ["pool"];
    /// Events of types that the pool does not know, passed or set aside.
    unknown_types: IntCounterVec = "weir_unknown_types_total" ["pool"];
}

#[derive(Debug)]
pub(super) struct Series {
    tombstones: IntCounter,
    unknown_types: IntCounter,
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        Self {
            tombstones: families.tombstones.with_label_values(&[pool]),
            unknown_types: families.unknown_types.with_label_values(&[pool]),
        }
    }
}

/// A pipeline's series in one pool.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    /// Events whose effect was committed.
    pub applied: IntCounter,
    /// Events whose effect was there already.
    pub duplicate: IntCounter,
    /// Events that the pipeline did not want.
    pub filtered: IntCounter,
    /// Events that ended as dead rows.
    pub dead: IntCounter,
    /// Time taken to prepare a batch, in seconds.
    pub prepare_seconds: Histogram,
}

impl PoolMetrics {
    /// The series of one of the pool's pipelines: ask once, keep it.
    #[must_use]
    pub fn pipeline(&self, pipeline: &str) -> PipelineMetrics {
        let (families, pool) = (&self.families().pipelines, self.name());
        let settled = |outcome| families.settled.with_label_values(&[pool, pipeline, outcome]);
        PipelineMetrics {
            applied: settled("applied"),
            duplicate: settled("duplicate"),
            filtered: settled("filtered"),
            dead: settled("dead"),
            prepare_seconds: families.prepare_seconds.with_label_values(&[pool, pipeline]),
        }
    }

    /// Counts the events that a pipeline does not want since they lack what its condition asks for.
    #[must_use]
    pub fn when_missing(&self, pipeline: &str) -> IntCounter {
        self.families().pipelines.when_missing.with_label_values(&[self.name(), pipeline])
    }

    /// A lookup table or a list was read again, or could not be.
    pub fn reloaded(&self, is_ok: bool) {
        let result = if is_ok { "ok" } else { "error" };
        self.families().pipelines.reloads.with_label_values(&[self.name(), result]).inc();
    }

    /// Records without a value were met.
    pub fn tombstones(&self, records: u64) {
        self.series().pipelines.tombstones.inc_by(records);
    }

    /// Events of types were met that the pool does not know.
    pub fn unknown_types(&self, events: u64) {
        self.series().pipelines.unknown_types.inc_by(events);
    }
}
