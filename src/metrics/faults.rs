//! What is tried again, held or left alone.

use std::fmt;
use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::families;
use super::pool::count;

families! {
    /// Attempts repeated after a transient failure, or because a batch taken to be new was refused (assumed), by reason.
    retries: IntCounterVec = "weir_retries_total" ["pool", "reason"];
    /// Partitions held now, waiting for somebody to act.
    holds: IntGaugeVec = "weir_holds" ["pool"];
    /// 1 while a dependency does not answer and is asked once a second: database, redis, kafka, or pipeline/NAME for a service of a pipeline's own.
    breaker_open: IntGaugeVec = "weir_breaker_open" ["pool", "dependency"];
}

/// What a pool can be without for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The store.
    Database,
    /// The processed set.
    Redis,
    /// The brokers.
    Kafka,
    /// What a pipeline of this name needs besides.
    Pipeline(Arc<str>),
}

impl fmt::Display for Dependency {
    /// Its label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("database"),
            Self::Redis => f.write_str("redis"),
            Self::Kafka => f.write_str("kafka"),
            Self::Pipeline(name) => write!(f, "pipeline/{name}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Series {
    holds: IntGauge,
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        for of in [Dependency::Database, Dependency::Redis, Dependency::Kafka] {
            families.breaker_open.with_label_values(&[pool, &of.to_string()]);
        }
        Self { holds: families.holds.with_label_values(&[pool]) }
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

    /// Whether a dependency does not answer now.
    pub fn set_breaker(&self, dependency: &Dependency, is_open: bool) {
        let of = dependency.to_string();
        self.families().faults.breaker_open.with_label_values(&[self.name(), &of]).set(i64::from(is_open));
    }
}
