//! A pool's figures as they stand, for views that show them without Prometheus.

use prometheus::core::Collector;

use super::PoolMetrics;
use super::batches::PHASES;

/// A pool's figures in this process. Those that only grow are since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolFigures {
    /// Batches settled.
    pub batches: u64,
    /// Events of these batches.
    pub events: f64,
    /// Events that ended as dead rows.
    pub dead: u64,
    /// Seconds of the partition tasks, by phase in the order of [`Phase::labels`](super::Phase::labels).
    pub loop_s: [f64; PHASES.len()],
    /// The events that the next batch may have, where that is least.
    pub batch_limit: i64,
    /// The rate of the whole group; none: there is none.
    pub rate_per_s: Option<f64>,
    /// Batches that may be in a transaction; none: as many as there are.
    pub transactions_limit: Option<f64>,
    /// This worker's share of the wanted number of workers.
    pub desired_replicas: f64,
    /// Dead rows that the dead-letter topic lacks.
    pub dead_unpublished: i64,
    /// Keys of this worker's partitions that wait behind a rejected event.
    pub parked_keys: i64,
    /// Rebalances that this worker took part in.
    pub rebalances: u64,
    /// Batches that the ledger refused.
    pub fences: u64,
    /// Ids that the processed set had seen.
    pub hits: u64,
    /// Ids that it had not.
    pub misses: u64,
    /// Ids of which it did not answer in time.
    pub unknown: u64,
}

impl PoolMetrics {
    /// The pool's figures as they stand.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let series = self.series();
        PoolFigures {
            batches: series.batches.events.get_sample_count(),
            events: series.batches.events.get_sample_sum(),
            dead: series.dead.events.iter().map(|reason| reason.get()).sum(),
            loop_s: std::array::from_fn(|phase| series.batches.loop_seconds[phase].get()),
            batch_limit: series.batches.limit.get(),
            rate_per_s: self.where_there_is(&self.families().flow.rate),
            transactions_limit: self.where_there_is(&self.families().flow.transactions_limit),
            desired_replicas: series.flow.desired_replicas.get(),
            dead_unpublished: series.dead.unpublished.get(),
            parked_keys: series.dead.parked_keys.get(),
            rebalances: series.ownership.rebalances.get(),
            fences: series.ownership.fences.get(),
            hits: series.lookups.hit.get(),
            misses: series.lookups.miss.get(),
            unknown: series.lookups.unknown.get(),
        }
    }

    /// The value of a gauge that has no series for some pools: asked for by its label, it would get one.
    fn where_there_is(&self, gauges: &impl Collector) -> Option<f64> {
        let families = gauges.collect();
        let mut series = families.iter().flat_map(|family| family.get_metric());
        let of_pool = series.find(|series| series.get_label().iter().any(|label| label.value() == self.name()))?;
        Some(of_pool.get_gauge().get_value())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::{Metrics, Phase};

    #[test]
    fn figures_are_those_of_the_pool_and_looking_makes_no_series() {
        let metrics = Metrics::new();
        let (pool, other) = (metrics.pool("storage"), metrics.pool("other"));
        pool.batch(30);
        pool.batch(12);
        pool.dead("refused", 2);
        pool.dead("malformed", 1);
        pool.spent(Phase::Apply, Duration::from_millis(1_500));
        pool.set_rate(Some(250.0));
        other.batch(7);
        let figures = pool.figures();
        assert_eq!((figures.batches, figures.events, figures.dead), (2, 42.0, 3));
        assert_eq!((figures.rate_per_s, figures.transactions_limit), (Some(250.0), None));
        let apply = Phase::labels().iter().position(|label| *label == "apply").unwrap();
        assert_eq!(figures.loop_s[apply], 1.5);
        assert_eq!((other.figures().events, other.figures().rate_per_s), (7.0, None));
        assert!(!metrics.render().contains("weir_rate_events_per_second{pool=\"other\"}"));
    }
}
