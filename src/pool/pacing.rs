//! Which rate a pool keeps to: the configured one, or the one that an operator has set in its place.
//!
//! A rate that was set has a bucket of its own, named by when it was set: reservations under the rate before, which may
//! reach far ahead, are none under this one. Workers notice it within a look at the database of each other; until all
//! have, the group may do as much as both rates together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;

use super::pace::{Pace, Portion};
use crate::config::{self, Rate};
use crate::metrics::PoolMetrics;
use crate::once::{Bucket, Link};
use crate::store::RateSet;

/// The rate of one pool in this process, as it applies now.
pub(super) struct Pacing {
    pool: Arc<str>,
    group: Arc<str>,
    configured: Option<Rate>,
    /// Where there is a Redis: its connections, if its address can be used.
    redis: Option<(Option<Link>, config::Redis)>,
    now: watch::Sender<Option<Arc<Pace>>>,
    set: watch::Sender<Option<RateSet>>,
    /// The partitions of this worker, and those of the topics.
    partitions: AtomicUsize,
    partitions_of_topics: AtomicUsize,
    metrics: PoolMetrics,
}

impl Pacing {
    pub(super) fn new(
        (pool, group): (Arc<str>, Arc<str>),
        configured: Option<Rate>,
        redis: Option<(Option<Link>, config::Redis)>,
        metrics: PoolMetrics,
    ) -> Self {
        let pacing = Self {
            pool,
            group,
            configured,
            redis,
            now: watch::Sender::new(None),
            set: watch::Sender::new(None),
            partitions: AtomicUsize::new(0),
            partitions_of_topics: AtomicUsize::new(0),
            metrics,
        };
        pacing.begin(configured, None);
        pacing
    }

    /// What applies now; nothing where there is no rate.
    pub(super) fn now(&self) -> Option<Arc<Pace>> {
        self.now.borrow().clone()
    }

    /// Tells of another rate.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Arc<Pace>>> {
        self.now.subscribe()
    }

    /// The most events of a batch.
    pub(super) fn batch_max(&self, portion: Portion) -> usize {
        self.now().map_or(usize::MAX, |pace| pace.batch_max(portion))
    }

    /// Keeps to what was set from now on, or to what is configured.
    pub(super) fn apply(&self, set: Option<RateSet>) {
        if !self.set.send_if_modified(|before| std::mem::replace(before, set) != set) {
            return;
        }
        let pool = &*self.pool;
        let configured = self.configured.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        match set {
            Some(rate) => tracing::info!(pool, %rate, configured, "the rate was set by `weir rate`"),
            None => tracing::info!(pool, configured, "the configured rate applies again"),
        }
        match set {
            Some(set) => self.begin(set.rate, Some(set.at_ms)),
            None => self.begin(self.configured, None),
        }
        self.tell();
    }

    fn begin(&self, rate: Option<Rate>, set_ms: Option<i64>) {
        let pace = rate.map(|rate| {
            let bucket = self.redis.as_ref().map(|(link, redis)| {
                let key = Bucket::key_of(&self.group, set_ms);
                Bucket::over(link.clone(), redis, key)
            });
            let pace = Pace::new(Arc::clone(&self.pool), rate, bucket);
            pace.set_partitions(self.partitions.load(Ordering::Relaxed));
            pace.set_partitions_of_topics(self.partitions_of_topics.load(Ordering::Relaxed));
            Arc::new(pace)
        });
        self.metrics.set_rate(rate.map(Rate::events_per_s));
        self.now.send_replace(pace);
    }

    /// Tells how the workers share the rate.
    pub(super) fn tell(&self) {
        if let Some(pace) = self.now() {
            pace.tell();
        }
    }

    pub(super) fn set_partitions(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
        if let Some(pace) = self.now() {
            pace.set_partitions(partitions);
        }
    }

    pub(super) fn set_partitions_of_topics(&self, partitions: usize) {
        self.partitions_of_topics.store(partitions, Ordering::Relaxed);
        if let Some(pace) = self.now() {
            pace.set_partitions_of_topics(partitions);
        }
    }

    pub(super) fn partitions_of_topics(&self) -> usize {
        self.partitions_of_topics.load(Ordering::Relaxed)
    }

    /// Since when the bucket's Redis is left alone, and its last error.
    pub(super) fn outage(&self) -> Option<(SystemTime, String)> {
        self.now().and_then(|pace| pace.outage())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Metrics;

    fn set(rate: &str, at_ms: i64) -> Option<RateSet> {
        Some(RateSet { rate: rate.parse().ok(), at_ms })
    }

    fn shown(metrics: &Metrics) -> Option<String> {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("weir_rate_events_per_second{"))?;
        line.rsplit_once(' ').map(|(_, value)| value.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_is_set_replaces_the_configured_one_until_it_is_taken_back() {
        let metrics = Metrics::new();
        let names = || (Arc::from("p"), Arc::from("g"));
        let pacing = Pacing::new(names(), "10/s".parse().ok(), None, metrics.pool("p"));
        pacing.set_partitions(2);
        pacing.set_partitions_of_topics(2);
        let rate = |pacing: &Pacing| pacing.now().map(|pace| pace.events_per_s());
        let mut changes = pacing.changes();
        pacing.apply(set("2000/s", 1));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!((rate(&pacing), pacing.batch_max(Portion::Small)), (Some(2_000.0), 100), "all partitions are its");
        assert_eq!(shown(&metrics).as_deref(), Some("2000"));
        pacing.apply(set("2000/s", 1));
        assert!(!changes.has_changed().unwrap(), "the same again is no change");
        pacing.apply(set("none", 2));
        assert_eq!((rate(&pacing), pacing.batch_max(Portion::Small)), (None, usize::MAX));
        assert_eq!(shown(&metrics), None);
        pacing.apply(None);
        assert_eq!((rate(&pacing), shown(&metrics).as_deref()), (Some(10.0), Some("10")));
    }

    #[tokio::test(start_paused = true)]
    async fn reservations_under_the_rate_before_are_not_waited_for() {
        let pacing = Pacing::new((Arc::from("p"), Arc::from("g")), "1/m".parse().ok(), None, Metrics::new().pool("p"));
        for _ in 0..4 {
            pacing.now().unwrap().reserve(1).await;
        }
        assert!(pacing.now().unwrap().reserve(1).await.wait > Duration::from_secs(100));
        pacing.apply(set("1000/s", 1));
        assert_eq!(pacing.now().unwrap().reserve(50).await.wait, Duration::ZERO);
    }
}
