//! How fast a pool may go, and how many workers it wants.

use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};

use super::PoolMetrics;
use super::family::{families, set};
use super::pool::count;

families! {
    /// The rate of the whole group, as configured or set by weir rate; no series where there is none.
    pub(super) rate: GaugeVec = "weir_rate_events_per_second" ["pool"];
    /// 1 while the pool is paused by weir pause.
    paused: IntGaugeVec = "weir_paused" ["pool"];
    /// This worker's share of the number of workers that the pool wants: the sum over all workers is the number.
    desired_replicas: GaugeVec = "weir_desired_replicas" ["pool"];
    /// Batches that may be in a transaction now, in this worker; no series without transactions_max.
    pub(super) transactions_limit: IntGaugeVec = "weir_transactions_limit" ["pool"];
}

#[derive(Debug)]
pub(super) struct Series {
    paused: IntGauge,
    pub(super) desired_replicas: Gauge,
}

impl Series {
    pub(super) fn new(families: &Families, pool: &str) -> Self {
        Self {
            paused: families.paused.with_label_values(&[pool]),
            desired_replicas: families.desired_replicas.with_label_values(&[pool]),
        }
    }
}

impl PoolMetrics {
    /// The rate of the whole group; `None`: there is none.
    pub fn set_rate(&self, events_per_s: Option<f64>) {
        set(&self.families().flow.rate, &[self.name()], events_per_s);
    }

    /// Whether an operator has paused the pool.
    pub fn set_paused(&self, is_paused: bool) {
        self.series().flow.paused.set(i64::from(is_paused));
    }

    /// This worker's share of the wanted number of workers.
    pub fn set_desired_replicas(&self, share: f64) {
        self.series().flow.desired_replicas.set(share);
    }

    /// How many batches may be in a transaction now.
    pub fn set_transactions_limit(&self, transactions: usize) {
        self.families().flow.transactions_limit.with_label_values(&[self.name()]).set(count(transactions));
    }
}
