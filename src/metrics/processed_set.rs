//! What the processed set answers.

use prometheus::{IntCounter, IntCounterVec};

use super::PoolMetrics;
use super::family::families;

families! {
    /// Ids asked of the processed set, by result: hit, miss, unknown (no answer in time) or unverified
    /// (a hit that the database did not confirm).
    lookups: IntCounterVec = "weir_processed_set_lookups_total" ["pool", "result"];
    /// Ids of settled events that the processed set did not take: Redis was away, slow or full.
    unmarked: IntCounterVec = "weir_processed_set_unmarked_total" ["pool"];
}

/// What the processed set answered, counted by id.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// Seen before.
    pub hit: IntCounter,
    /// Not seen before.
    pub miss: IntCounter,
    /// No answer in time.
    pub unknown: IntCounter,
    /// Hits that the database did not confirm.
    pub unverified: IntCounter,
    /// Settled and not remembered.
    pub unmarked: IntCounter,
}

impl Lookups {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        let lookup = |result| families.lookups.with_label_values(&[pool, result]);
        Self {
            hit: lookup("hit"),
            miss: lookup("miss"),
            unknown: lookup("unknown"),
            unverified: lookup("unverified"),
            unmarked: families.unmarked.with_label_values(&[pool]),
        }
    }
}

impl PoolMetrics {
    /// What the processed set answered.
    #[must_use]
    pub fn lookups(&self) -> &Lookups {
        &self.series().lookups
    }
}
