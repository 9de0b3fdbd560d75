//! One pool's series, resolved once. What sets them is with their families, by concern.

use std::sync::Arc;

use super::processed_set::Lookups;
use super::{Families, batches, dead, faults, flow, ownership, pipelines, topics};

/// A pool's series. Clones share them.
#[derive(Clone, Debug)]
pub struct PoolMetrics(Arc<Series>);

/// Those that there are from the beginning. Others come with what they are about, such as a rate.
#[derive(Debug)]
pub(super) struct Series {
    families: Arc<Families>,
    pool: String,
    pub(super) topics: topics::Series,
    pub(super) pipelines: pipelines::Series,
    pub(super) batches: batches::Series,
    pub(super) lookups: Lookups,
    pub(super) dead: dead::Series,
    pub(super) flow: flow::Series,
    pub(super) faults: faults::Series,
    pub(super) ownership: ownership::Series,
    #[cfg(feature = "load")]
    latency: super::latency::Latency,
}

impl PoolMetrics {
    pub(super) fn new(families: Arc<Families>, pool: &str) -> Self {
        let series = Series {
            topics: topics::Series::default(),
            pipelines: pipelines::Series::new(&families.pipelines, pool),
            batches: batches::Series::new(&families.batches, pool),
            lookups: Lookups::new(&families.processed_set, pool),
            dead: dead::Series::new(&families.dead, pool),
            flow: flow::Series::new(&families.flow, pool),
            faults: faults::Series::new(&families.faults, pool),
            ownership: ownership::Series::new(&families.ownership, pool),
            #[cfg(feature = "load")]
            latency: families.latencies.pool(pool),
            pool: pool.to_owned(),
            families,
        };
        Self(Arc::new(series))
    }

    pub(super) fn families(&self) -> &Families {
        &self.0.families
    }

    pub(super) fn series(&self) -> &Series {
        &self.0
    }

    pub(super) fn name(&self) -> &str {
        &self.0.pool
    }

    /// Effects are there now of events that were meant to be sent at these times; both in microseconds since 1970.
    #[cfg_attr(not(feature = "load"), expect(unused_variables, reason = "told by /latency only"))]
    pub fn settled_since(&self, intended_us: &[i64], now_us: i64) {
        #[cfg(feature = "load")]
        self.0.latency.note(intended_us, now_us);
    }
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
