//! Every metric: its name, its labels and its help, declared once, with what sets it: a file a concern.
//!
//! Names start with `weir_` and are in base units; counters end in `_total`; every metric carries `pool`, but for what
//! the pools of a process have in common: its spans.
//! Nothing is labelled by partition or key: their number has no bound, a scrape's size must have one.
//!
//! [`Metrics`] owns the registry. [`Metrics::pool`] resolves a pool's series once, so that counting an event
//! is an atomic addition and never a look-up by label.

mod batches;
mod days;
mod dead;
mod family;
mod faults;
mod figures;
mod flow;
#[cfg(feature = "load")]
mod latency;
mod moderation;
mod ownership;
mod pipelines;
mod pool;
mod process;
mod processed_set;
mod spans;
mod topics;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use prometheus::{Registry, TextEncoder};

pub use batches::Phase;
pub use dead::DEAD_REASONS;
pub use faults::Dependency;
pub use figures::PoolFigures;
#[cfg(feature = "load")]
pub use latency::{Percentiles, latency_histogram};
pub use moderation::{ClassifierMetrics, ModerationMetrics};
pub use ownership::Commit;
pub use pipelines::PipelineMetrics;
pub use pool::PoolMetrics;
pub use processed_set::Lookups;
pub use spans::SpanMetrics;
pub use topics::TopicMetrics;

use family::Declared;

/// All metrics of a process. Clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>);

impl Metrics {
    /// An empty set of metrics with a registry of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Families::declare()))
    }

    /// The series of one pool.
    #[must_use]
    pub fn pool(&self, name: &str) -> PoolMetrics {
        PoolMetrics::new(Arc::clone(&self.0), name)
    }

    /// What became of the spans of traces.
    #[must_use]
    pub fn spans(&self) -> SpanMetrics {
        SpanMetrics::new(&self.0.spans)
    }

    /// Everything measured so far, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.0.registry.gather(), &mut text)
            .expect("writing to a String cannot fail, and gathered families are never empty");
        text + &process::render()
    }

    /// Every metric that there can be, by name: those of this build, whether or not they have a series yet.
    #[must_use]
    pub fn list() -> Vec<Described> {
        let mut list = Families::declare().described;
        list.extend(process::DESCRIBED);
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// How long events took from the time they were meant to be sent, of every pool, as JSON with the histograms.
    #[cfg(feature = "load")]
    #[must_use]
    pub fn render_latency(&self) -> String {
        self.0.latencies.render()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A metric as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type, as Prometheus calls it.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it tells.
    pub help: Cow<'static, str>,
}

/// The declared families, a field a concern.
#[derive(Debug)]
struct Families {
    registry: Registry,
    described: Vec<Described>,
    topics: topics::Families,
    pipelines: pipelines::Families,
    batches: batches::Families,
    processed_set: processed_set::Families,
    dead: dead::Families,
    flow: flow::Families,
    faults: faults::Families,
    ownership: ownership::Families,
    moderation: moderation::Families,
    days: days::Families,
    spans: spans::Families,
    #[cfg(feature = "load")]
    latencies: latency::Latencies,
}

impl Families {
    fn declare() -> Self {
        let declared = Declared { registry: Registry::new(), list: RefCell::default() };
        Self {
            topics: topics::Families::declare(&declared),
            pipelines: pipelines::Families::declare(&declared),
            batches: batches::Families::declare(&declared),
            processed_set: processed_set::Families::declare(&declared),
            dead: dead::Families::declare(&declared),
            flow: flow::Families::declare(&declared),
            faults: faults::Families::declare(&declared),
            ownership: ownership::Families::declare(&declared),
            moderation: moderation::Families::declare(&declared),
            days: days::Families::declare(&declared),
            spans: spans::Families::declare(&declared),
            #[cfg(feature = "load")]
            latencies: latency::Latencies::new(),
            registry: declared.registry,
            described: declared.list.into_inner(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the pools of a process have in common.
    const OF_THE_PROCESS: [&str; 1] = ["weir_spans_total"];

    /// A registry in which every family has at least one series.
    fn filled() -> Metrics {
        let metrics = Metrics::new();
        let pool = metrics.pool("storage");
        pool.pipeline("persist").prepare_seconds.observe(0.1);
        pool.topic("message-events").set_lag(Some(1), Some(1.0));
        pool.topic("message-events").set_retention_left(Some(1.0));
        pool.retried("store_away");
        pool.set_rate(Some(1.0));
        pool.when_missing("persist").inc();
        pool.reloaded(true);
        pool.moderation("moderation").judged(0);
        pool.classifier("moderation").duration.observe(0.1);
        pool.set_status_unpublished(1);
        pool.set_message_days(7, 0);
        pool.set_transactions_limit(1);
        drop(metrics.spans());
        metrics
    }

    #[test]
    fn every_metric_follows_the_conventions() {
        let base_units = [
            "_seconds",
            "_bytes",
            "_events",
            "_unpublished",
            "_holds",
            "_assigned",
            "_keys",
            "_open",
            "_per_second",
            "_limit",
            "_paused",
            "_replicas",
            "_ahead",
            "_overdue",
        ];
        for Described { name, kind, labels, help } in Families::declare().described {
            assert!(name.starts_with("weir_"), "{name}");
            assert!(help.ends_with('.') && !help.contains("  "), "{name}: help {help:?}");
            if kind == "counter" {
                assert!(name.ends_with("_total"), "{name}: a counter");
            } else {
                assert!(base_units.iter().any(|unit| name.ends_with(unit)), "{name}: unit");
            }
            let is_of_a_pool = labels.first().is_some_and(|label| label == "pool");
            assert_eq!(is_of_a_pool, !OF_THE_PROCESS.contains(&&*name), "{name}: pool");
            let known = ["pool", "pipeline", "topic", "outcome", "phase", "result", "reason", "dependency"];
            assert!(labels.iter().all(|label| known.contains(&label.as_str())), "{name}: {labels:?}");
        }
    }

    #[test]
    fn every_family_can_be_given_series_with_the_labels_that_it_is_declared_with() {
        let metrics = filled();
        let gathered = metrics.0.registry.gather();
        let with_series: BTreeSet<&str> = gathered.iter().map(|family| family.name()).collect();
        for Described { name, .. } in &metrics.0.described {
            assert!(with_series.contains(&**name), "nothing gives {name} a series: set it in `filled`");
        }
    }
}
