//! What is read of a topic, and how far behind its reader is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::PoolMetrics;
use super::family::{families, set};

families! {
    /// Events read from Kafka, redeliveries included.
    consumed: IntCounterVec = "weir_events_consumed_total" ["pool", "topic"];
    /// High watermark less the ledger's offset, summed over this worker's partitions.
    lag_events: IntGaugeVec = "weir_lag_events" ["pool", "topic"];
    /// Age of the oldest event of this worker's partitions that is not settled, 0 when there is none.
    lag_seconds: GaugeVec = "weir_lag_seconds" ["pool", "topic"];
    /// Time until Kafka may delete events of this worker's partitions that are not settled, the whole
    /// retention when there is none; no series where it keeps them for ever or does not tell.
    retention_left: GaugeVec = "weir_retention_left_seconds" ["pool", "topic"];
}

/// What was read, by the topics that have series.
#[derive(Debug, Default)]
pub(super) struct Series(Mutex<HashMap<String, IntCounter>>);

/// A topic's series in one pool.
#[derive(Clone, Debug)]
pub struct TopicMetrics {
    /// Events read.
    pub consumed: IntCounter,
    pool: PoolMetrics,
    topic: Arc<str>,
}

impl TopicMetrics {
    /// How far behind this worker is. `None` is unknown: the series goes away, since a wrong 0 would say
    /// that all is well.
    pub fn set_lag(&self, events: Option<u64>, seconds: Option<f64>) {
        let (families, labels) = (&self.pool.families().topics, [self.pool.name(), &*self.topic]);
        set(&families.lag_events, &labels, events.map(|events| i64::try_from(events).unwrap_or(i64::MAX)));
        set(&families.lag_seconds, &labels, seconds);
    }

    /// Until Kafka's retention reaches what is not settled. `None`: never, or it is not known; then there is no series.
    pub fn set_retention_left(&self, seconds: Option<f64>) {
        set(&self.pool.families().topics.retention_left, &[self.pool.name(), &*self.topic], seconds);
    }
}

impl PoolMetrics {
    /// The series of one of the pool's topics. Whoever holds it while [`keep_topics`](Self::keep_topics) removes it counts
    /// what nobody sees: ask for each batch.
    #[must_use]
    pub fn topic(&self, topic: &str) -> TopicMetrics {
        let mut known = self.series().topics.0.lock().unwrap_or_else(PoisonError::into_inner);
        let consumed = known.get(topic).cloned().unwrap_or_else(|| {
            let counter = self.families().topics.consumed.with_label_values(&[self.name(), topic]);
            known.insert(topic.to_owned(), counter.clone());
            counter
        });
        drop(known);
        TopicMetrics { consumed, pool: self.clone(), topic: topic.into() }
    }

    /// Removes the series of all topics but these: nothing else would ever do so.
    pub fn keep_topics(&self, is_kept: impl Fn(&str) -> bool) {
        let mut known = self.series().topics.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> = known.keys().filter(|topic| !is_kept(topic)).cloned().collect();
        for topic in gone {
            known.remove(&topic);
            let (f, labels) = (&self.families().topics, [self.name(), topic.as_str()]);
            // One that it has none of is removed already.
            f.consumed.remove_label_values(&labels).ok();
            f.lag_events.remove_label_values(&labels).ok();
            f.lag_seconds.remove_label_values(&labels).ok();
            f.retention_left.remove_label_values(&labels).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn two_handles_of_a_pool_count_in_the_same_series() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            metrics.clone().pool("storage").topic("message-events").consumed.inc_by(3);
        }
        let line = "weir_events_consumed_total{pool=\"storage\",topic=\"message-events\"} 6";
        assert!(metrics.render().lines().any(|found| found == line), "{}", metrics.render());
    }

    #[test]
    fn an_unknown_lag_is_not_exported() {
        let metrics = Metrics::new();
        let topic = metrics.pool("storage").topic("message-events");
        topic.set_lag(Some(7), Some(0.5));
        assert!(metrics.render().contains("weir_lag_events{"));
        topic.set_lag(None, None);
        assert!(!metrics.render().contains("weir_lag_"), "{}", metrics.render());
        topic.set_lag(Some(8), None);
        let text = metrics.render();
        assert!(text.contains("} 8") && !text.contains("weir_lag_seconds{"), "{text}");
    }

    #[test]
    fn a_retention_that_never_comes_is_not_exported() {
        let metrics = Metrics::new();
        let topic = metrics.pool("storage").topic("message-events");
        topic.set_retention_left(Some(90.5));
        let line = "weir_retention_left_seconds{pool=\"storage\",topic=\"message-events\"} 90.5";
        assert!(metrics.render().contains(line), "{}", metrics.render());
        topic.set_retention_left(None);
        assert!(!metrics.render().contains("weir_retention"), "{}", metrics.render());
    }
}
