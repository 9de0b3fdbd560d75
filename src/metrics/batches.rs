//! Batches: how many events they have, and how long they take.

use std::time::Duration;

use prometheus::{Counter, CounterVec, Histogram, HistogramVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Events in a batch.
    events: HistogramVec = "weir_batch_events" ["pool"] BATCH_BUCKETS;
    /// The most events that the next batch may have, on the partition where it is least.
    limit: IntGaugeVec = "weir_batch_limit_events" ["pool"];
    /// Time a batch's transaction took, from begin to commit.
    apply_seconds: HistogramVec = "weir_apply_duration_seconds" ["pool"] WORK_BUCKETS;
    /// Time from a record's timestamp in Kafka until its event was settled.
    end_to_end_seconds: HistogramVec = "weir_end_to_end_seconds" ["pool"] AGE_BUCKETS;
    /// Time partition tasks spent, by phase: poll, rate (waiting for it), decode, dedupe,
    /// prepare, queue (waiting for a turn at a transaction), apply, commit or wait. Decode and dedupe may
    /// be the next batch's, beside apply.
    loop_seconds: CounterVec = "weir_loop_seconds_total" ["pool", "phase"];
}

/// What a partition task spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading from the partition's queue.
    Poll,
    /// Waiting for the group's rate.
    Rate,
    /// Turning records into events.
    Decode,
    /// Asking and telling the processed set.
    Dedupe,
    /// Preparing, outside the transaction.
    Prepare,
    /// Waiting for a turn at a transaction.
    Queue,
    /// The transaction.
    Apply,
    /// Storing and committing Kafka offsets.
    Commit,
    /// Waiting: for a dependency, a retry or a hold.
    Wait,
}

/// The phases in the order of their declaration, with their labels.
pub(super) const PHASES: [&str; 9] =
    ["poll", "rate", "decode", "dedupe", "prepare", "queue", "apply", "commit", "wait"];

impl Phase {
    /// The labels of all phases, in their order.
    #[must_use]
    pub fn labels() -> &'static [&'static str] {
        &PHASES
    }
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) events: Histogram,
    pub(super) limit: IntGauge,
    apply_seconds: Histogram,
    end_to_end_seconds: Histogram,
    pub(super) loop_seconds: [Counter; PHASES.len()],
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        Self {
            events: families.events.with_label_values(&[pool]),
            limit: families.limit.with_label_values(&[pool]),
            apply_seconds: families.apply_seconds.with_label_values(&[pool]),
            end_to_end_seconds: families.end_to_end_seconds.with_label_values(&[pool]),
            loop_seconds: PHASES.map(|phase| families.loop_seconds.with_label_values(&[pool, phase])),
        }
    }
}

impl PoolMetrics {
    /// A batch of this many events was put together.
    pub fn batch(&self, events: usize) {
        self.series().batches.events.observe(events as f64);
    }

    /// The most events of the next batch, on the partition where it is least.
    pub fn set_batch_limit(&self, events: usize) {
        self.series().batches.limit.set(count(events));
    }

    /// A batch's transaction took this long.
    pub fn applied_in(&self, took: Duration) {
        self.series().batches.apply_seconds.observe(took.as_secs_f64());
    }

    /// The ages, in seconds, of a batch's events as they were settled: gathered aside and added in one go.
    pub fn settled_after(&self, ages_s: impl IntoIterator<Item = f64>) {
        let batch = self.series().batches.end_to_end_seconds.local();
        for age_s in ages_s {
            batch.observe(age_s);
        }
        batch.flush();
    }

    /// A partition task spent this long in a phase.
    pub fn spent(&self, phase: Phase, took: Duration) {
        self.series().batches.loop_seconds[phase as usize].inc_by(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn ages_of_a_batch_are_observed_one_by_one() {
        let metrics = Metrics::new();
        metrics.pool("storage").settled_after([0.001, 0.02, 7_200.0]);
        let text = metrics.render();
        assert!(text.contains("weir_end_to_end_seconds_bucket{pool=\"storage\",le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("weir_end_to_end_seconds_bucket{pool=\"storage\",le=\"0.025\"} 2"), "{text}");
        assert!(text.contains("weir_end_to_end_seconds_count{pool=\"storage\"} 3"), "{text}");
    }
}
