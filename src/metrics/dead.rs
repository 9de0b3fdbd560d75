//! Rejected events: dead rows, their letters, replays, and the keys that they hold back.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Events rejected into dead rows, by reason.
    events: IntCounterVec = "weir_dead_events_total" ["pool", "reason"];
    /// Dead rows not yet mirrored to the dead-letter topic.
    unpublished: IntGaugeVec = "weir_dead_unpublished" ["pool"];
    /// Dead rows replayed, by outcome: applied, settled (gone without an effect, its id was live) or rejected.
    replayed: IntCounterVec = "weir_dead_replayed_total" ["pool", "outcome"];
    /// Keys of this worker's partitions that wait behind a rejected event.
    parked_keys: IntGaugeVec = "weir_parked_keys" ["pool"];
}

/// The reasons of dead rows, as the database's check on `weir_dead.reason` has them.
pub const DEAD_REASONS: [&str; 6] = ["malformed", "refused", "when_error", "too_large", "handler", "parked"];

#[derive(Debug)]
pub(super) struct Series {
    pub(super) events: [IntCounter; DEAD_REASONS.len()],
    pub(super) unpublished: IntGauge,
    replayed: Replayed,
    pub(super) parked_keys: IntGauge,
}

/// What became of replayed dead rows.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Their effects are there.
    pub applied: IntCounter,
    /// They are gone without an effect.
    pub settled: IntCounter,
    /// They were rejected again.
    pub rejected: IntCounter,
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        let replayed = |outcome| families.replayed.with_label_values(&[pool, outcome]);
        Self {
            events: DEAD_REASONS.map(|reason| families.events.with_label_values(&[pool, reason])),
            unpublished: families.unpublished.with_label_values(&[pool]),
            replayed: Replayed {
                applied: replayed("applied"),
                settled: replayed("settled"),
                rejected: replayed("rejected"),
            },
            parked_keys: families.parked_keys.with_label_values(&[pool]),
        }
    }
}

impl PoolMetrics {
    /// Dead rows were written for this reason, one of [`DEAD_REASONS`].
    pub fn dead(&self, reason: &str, events: u64) {
        match DEAD_REASONS.iter().position(|known| *known == reason) {
            Some(index) => self.series().dead.events[index].inc_by(events),
            None => self.families().dead.events.with_label_values(&[self.name(), reason]).inc_by(events),
        }
    }

    /// Dead rows that still wait for their letter in Kafka.
    pub fn set_dead_unpublished(&self, rows: i64) {
        self.series().dead.unpublished.set(rows);
    }

    /// What became of replayed dead rows.
    #[must_use]
    pub fn replayed(&self) -> &Replayed {
        &self.series().dead.replayed
    }

    /// Keys held back now, since an event of theirs was rejected.
    pub fn set_parked_keys(&self, keys: usize) {
        self.series().dead.parked_keys.set(count(keys));
    }
}
