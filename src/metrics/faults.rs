//! What is tried again, held or left alone.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Attempts repeated after a transient failure, or because a batch taken to be new was refused (assumed), by reason.
    retries: IntCounterVec = "weir_retries_total" ["pool", "reason"];
    /// Partitions held now, waiting for somebody to act.
    holds: IntGaugeVec = "weir_holds" ["pool"];
    /// 1 while a dependency, database or redis, is left alone and probed once a second, since it does not answer.
    breaker_open: IntGaugeVec = "weir_breaker_open" ["pool", "dependency"];
}

/// What a pool can be without for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The store.
    Database,
    /// The processed set.
    Redis,
}

impl Dependency {
    const ALL: [Self; 2] = [Self::Database, Self::Redis];

    /// Its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Redis => "redis",
        }
    }
}

#[derive(Debug)]
pub(super) struct Series {
    holds: IntGauge,
    breakers: [IntGauge; Dependency::ALL.len()],
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        let breaker = |of: Dependency| families.breaker_open.with_label_values(&[pool, of.as_str()]);
        Self { holds: families.holds.with_label_values(&[pool]), breakers: Dependency::ALL.map(breaker) }
    }
}

impl PoolMetrics {
    /// Something is tried again. The reason is a fixed word, such as `store_away`: never an error's text.
    pub fn retried(&self, reason: &'static str) {
        self.families().faults.retries.with_label_values(&[self.name(), reason]).inc();
    }

    /// Partitions held now.
    pub fn set_holds(&self, partitions: usize) {
        self.series().faults.holds.set(count(partitions));
    }

    /// Whether a dependency is left alone now, since it does not answer.
    pub fn set_breaker(&self, dependency: Dependency, is_open: bool) {
        self.series().faults.breakers[dependency as usize].set(i64::from(is_open));
    }
}
