//! Every metric: its name, its labels and its help, declared here and nowhere else.
//!
//! Names start with `weir_` and are in base units; counters end in `_total`; every metric carries `pool`, but for what
//! the pools of a process have in common: its spans.
//! Nothing is labelled by partition or key: their number has no bound, a scrape's size must have one.
//!
//! [`Metrics`] owns the registry. [`Metrics::pool`] resolves a pool's series once, so that counting an event
//! is an atomic addition and never a look-up by label.

mod figures;
#[cfg(feature = "load")]
mod latency;
mod moderation;
mod pool;
mod process;
mod spans;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use figures::PoolFigures;
#[cfg(feature = "load")]
pub use latency::{Percentiles, latency_histogram};
pub use moderation::{ClassifierMetrics, ModerationMetrics};
pub use pool::{Commit, DEAD_REASONS, Dependency, Lookups, Phase, PipelineMetrics, PoolMetrics, TopicMetrics};
pub use spans::SpanMetrics;

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
        SpanMetrics::new(&self.0)
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

/// Where families are declared, with a list of them: a registry tells only those that have series.
struct Declared {
    registry: Registry,
    list: RefCell<Vec<Described>>,
}

/// The declared families, one field a metric.
#[derive(Debug)]
struct Families {
    registry: Registry,
    described: Vec<Described>,
    events_consumed: IntCounterVec,
    events_settled: IntCounterVec,
    lag_events: IntGaugeVec,
    lag_seconds: GaugeVec,
    retention_left: GaugeVec,
    batch_events: HistogramVec,
    prepare_duration: HistogramVec,
    apply_duration: HistogramVec,
    end_to_end: HistogramVec,
    loop_seconds: CounterVec,
    processed_set_lookups: IntCounterVec,
    processed_set_unmarked: IntCounterVec,
    dead_events: IntCounterVec,
    dead_unpublished: IntGaugeVec,
    dead_replayed: IntCounterVec,
    parked_keys: IntGaugeVec,
    retries: IntCounterVec,
    batch_limit: IntGaugeVec,
    rate: GaugeVec,
    paused: IntGaugeVec,
    desired_replicas: GaugeVec,
    transactions_limit: IntGaugeVec,
    holds: IntGaugeVec,
    breaker_open: IntGaugeVec,
    fences: IntCounterVec,
    ledger_bytes: IntGaugeVec,
    claims: IntCounterVec,
    rebalances: IntCounterVec,
    partitions_assigned: IntGaugeVec,
    offset_commits: IntCounterVec,
    tombstones: IntCounterVec,
    when_missing: IntCounterVec,
    reloads: IntCounterVec,
    verdicts: IntCounterVec,
    classifier_requests: IntCounterVec,
    classifier_duration: HistogramVec,
    status_unpublished: IntGaugeVec,
    message_days_ahead: IntGaugeVec,
    message_days_overdue: IntGaugeVec,
    spans: IntCounterVec,
    unknown_types: IntCounterVec,
    #[cfg(feature = "load")]
    latencies: latency::Latencies,
}

impl Families {
    fn declare() -> Self {
        let declared = Declared { registry: Registry::new(), list: RefCell::default() };
        let r = &declared;
        let families = Self {
            events_consumed: counters(
                r,
                "weir_events_consumed_total",
                "Events read from Kafka, redeliveries included.",
                &["pool", "topic"],
            ),
            events_settled: counters(
                r,
                "weir_events_settled_total",
                "Events settled, by what became of them in the pipeline: applied, duplicate, filtered or dead.",
                &["pool", "pipeline", "outcome"],
            ),
            lag_events: gauges(
                r,
                "weir_lag_events",
                "High watermark less the ledger's offset, summed over this worker's partitions.",
                &["pool", "topic"],
            ),
            lag_seconds: registered(
                r,
                GaugeVec::new(
                    Opts::new(
                        "weir_lag_seconds",
                        "Age of the oldest event of this worker's partitions that is not settled, 0 when there is none.",
                    ),
                    &["pool", "topic"],
                ),
            ),
            retention_left: registered(
                r,
                GaugeVec::new(
                    Opts::new(
                        "weir_retention_left_seconds",
                        "Time until Kafka may delete events of this worker's partitions that are not settled, the whole \
                         retention when there is none; no series where it keeps them for ever or does not tell.",
                    ),
                    &["pool", "topic"],
                ),
            ),
            batch_events: histograms(r, "weir_batch_events", "Events in a batch.", &["pool"], BATCH_BUCKETS),
            prepare_duration: histograms(
                r,
                "weir_prepare_duration_seconds",
                "Time a pipeline took to prepare a batch, outside the transaction.",
                &["pool", "pipeline"],
                WORK_BUCKETS,
            ),
            apply_duration: histograms(
                r,
                "weir_apply_duration_seconds",
                "Time a batch's transaction took, from begin to commit.",
                &["pool"],
                WORK_BUCKETS,
            ),
            end_to_end: histograms(
                r,
                "weir_end_to_end_seconds",
                "Time from a record's timestamp in Kafka until its event was settled.",
                &["pool"],
                AGE_BUCKETS,
            ),
            loop_seconds: registered(
                r,
                CounterVec::new(
                    Opts::new(
                        "weir_loop_seconds_total",
                        "Time partition tasks spent, by phase: poll, rate (waiting for it), decode, dedupe, \
                         prepare, queue (waiting for a turn at a transaction), apply, commit or wait. Decode and dedupe may \
                         be the next batch's, beside apply.",
                    ),
                    &["pool", "phase"],
                ),
            ),
            processed_set_lookups: counters(
                r,
                "weir_processed_set_lookups_total",
                "Ids asked of the processed set, by result: hit, miss, unknown (no answer in time) or unverified \
                 (a hit that the database did not confirm).",
                &["pool", "result"],
            ),
            processed_set_unmarked: counters(
                r,
                "weir_processed_set_unmarked_total",
                "Ids of settled events that the processed set did not take: Redis was away, slow or full.",
                &["pool"],
            ),
            dead_events: counters(
                r,
                "weir_dead_events_total",
                "Events rejected into dead rows, by reason.",
                &["pool", "reason"],
            ),
            dead_unpublished: gauges(
                r,
                "weir_dead_unpublished",
                "Dead rows not yet mirrored to the dead-letter topic.",
                &["pool"],
            ),
            dead_replayed: counters(
                r,
                "weir_dead_replayed_total",
                "Dead rows replayed, by outcome: applied, settled (gone without an effect, its id was live) or rejected.",
                &["pool", "outcome"],
            ),
            parked_keys: gauges(
                r,
                "weir_parked_keys",
                "Keys of this worker's partitions that wait behind a rejected event.",
                &["pool"],
            ),
            retries: counters(
                r,
                "weir_retries_total",
                "Attempts repeated after a transient failure, or because a batch taken to be new was refused (assumed), by reason.",
                &["pool", "reason"],
            ),
            batch_limit: gauges(
                r,
                "weir_batch_limit_events",
                "The most events that the next batch may have, on the partition where it is least.",
                &["pool"],
            ),
            rate: registered(
                r,
                GaugeVec::new(
                    Opts::new(
                        "weir_rate_events_per_second",
                        "The rate of the whole group, as configured or set by weir rate; no series where there is none.",
                    ),
                    &["pool"],
                ),
            ),
            paused: gauges(r, "weir_paused", "1 while the pool is paused by weir pause.", &["pool"]),
            desired_replicas: registered(
                r,
                GaugeVec::new(
                    Opts::new(
                        "weir_desired_replicas",
                        "This worker's share of the number of workers that the pool wants: the sum over all workers is the number.",
                    ),
                    &["pool"],
                ),
            ),
            transactions_limit: gauges(
                r,
                "weir_transactions_limit",
                "Batches that may be in a transaction now, in this worker; no series without transactions_max.",
                &["pool"],
            ),
            holds: gauges(r, "weir_holds", "Partitions held now, waiting for somebody to act.", &["pool"]),
            breaker_open: gauges(
                r,
                "weir_breaker_open",
                "1 while a dependency, database or redis, is left alone and probed once a second, since it does not answer.",
                &["pool", "dependency"],
            ),
            fences: counters(
                r,
                "weir_fences_total",
                "Batches refused by the ledger since another owner had claimed the partition.",
                &["pool"],
            ),
            ledger_bytes: gauges(
                r,
                "weir_ledger_bytes",
                "Size of the ledger's table, where the database tells it; a transaction that stays open makes it grow.",
                &["pool"],
            ),
            claims: counters(r, "weir_claims_total", "Partitions claimed in the ledger.", &["pool"]),
            rebalances: counters(
                r,
                "weir_rebalances_total",
                "Rebalances of the consumer group that this worker took part in.",
                &["pool"],
            ),
            partitions_assigned: gauges(
                r,
                "weir_partitions_assigned",
                "Partitions assigned to this worker now.",
                &["pool"],
            ),
            offset_commits: counters(
                r,
                "weir_offset_commits_total",
                "Offset commits to Kafka, by result: ok or error.",
                &["pool", "result"],
            ),
            tombstones: counters(r, "weir_tombstones_total", "Records without a value.", &["pool"]),
            when_missing: counters(
                r,
                "weir_when_missing_total",
                "Events that a pipeline did not want since they lack what its `when` asks for.",
                &["pool", "pipeline"],
            ),
            reloads: counters(
                r,
                "weir_reloads_total",
                "Lookup tables and lists of moderation read again, by result: ok, or error (the one before stays in use).",
                &["pool", "result"],
            ),
            verdicts: counters(
                r,
                "weir_verdicts_total",
                "Verdicts that a pipeline reached, by outcome: allow, flag or hide; those of repeated attempts included.",
                &["pool", "pipeline", "outcome"],
            ),
            classifier_requests: counters(
                r,
                "weir_classifier_requests_total",
                "Requests to a classifier, by outcome: ok, error, timeout, or skipped (not sent: it is left alone).",
                &["pool", "pipeline", "outcome"],
            ),
            classifier_duration: histograms(
                r,
                "weir_classifier_duration_seconds",
                "Time a classifier took to answer a request, or not to.",
                &["pool", "pipeline"],
                WORK_BUCKETS,
            ),
            status_unpublished: gauges(
                r,
                "weir_status_unpublished",
                "Verdicts of which no status event was sent yet.",
                &["pool"],
            ),
            message_days_ahead: gauges(
                r,
                "weir_message_days_ahead",
                "Days from tomorrow on that a partitioned messages has a partition for; 7 when all is well.",
                &["pool"],
            ),
            message_days_overdue: gauges(
                r,
                "weir_message_days_overdue",
                "Partitions of messages that are older than store.messages_retention and could not be dropped.",
                &["pool"],
            ),
            spans: counters(
                r,
                "weir_spans_total",
                "Spans of traces, by result: exported, failed (the receiver did not take them) or dropped (too many waited).",
                &["result"],
            ),
            unknown_types: counters(
                r,
                "weir_unknown_types_total",
                "Events of types that the pool does not know, passed or set aside.",
                &["pool"],
            ),
            #[cfg(feature = "load")]
            latencies: latency::Latencies::new(),
            registry: r.registry.clone(),
            described: Vec::new(),
        };
        Self { described: declared.list.into_inner(), ..families }
    }
}

const BATCH_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
const WORK_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const AGE_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

fn counters(declared: &Declared, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(declared, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(declared: &Declared, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(declared, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histograms(declared: &Declared, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(declared, HistogramVec::new(options, labels))
}

fn described(family: &impl Collector) -> Vec<Described> {
    let kind = match family.collect().first().map(prometheus::proto::MetricFamily::get_field_type) {
        Some(MetricType::COUNTER) => "counter",
        Some(MetricType::HISTOGRAM) => "histogram",
        _ => "gauge",
    };
    let of = |desc: &&prometheus::core::Desc| Described {
        name: desc.fq_name.clone().into(),
        kind,
        labels: desc.variable_labels.clone(),
        help: desc.help.clone().into(),
    };
    family.desc().iter().map(of).collect()
}

fn registered<F: Collector + Clone + 'static>(declared: &Declared, family: prometheus::Result<F>) -> F {
    let family = family.expect("names, labels and buckets are constants that the unit tests check");
    declared
        .registry
        .register(Box::new(family.clone()))
        .expect("each name is declared once: the unit tests create the whole set");
    declared.list.borrow_mut().extend(described(&family));
    family
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
        for family in filled().0.registry.gather() {
            let name = family.name();
            assert!(name.starts_with("weir_"), "{name}");
            assert!(!family.help().is_empty() && family.help().ends_with('.'), "{name}: help");
            if family.get_field_type() == MetricType::COUNTER {
                assert!(name.ends_with("_total"), "{name}: a counter");
            } else {
                assert!(base_units.iter().any(|unit| name.ends_with(unit)), "{name}: unit");
            }
            for series in family.get_metric() {
                let labels: BTreeSet<&str> = series.get_label().iter().map(|label| label.name()).collect();
                assert_eq!(labels.contains("pool"), !OF_THE_PROCESS.contains(&name), "{name}: pool");
                let known = ["pool", "pipeline", "topic", "outcome", "phase", "result", "reason", "dependency"];
                assert!(labels.iter().all(|label| known.contains(label)), "{name}: {labels:?}");
            }
        }
    }

    #[test]
    fn the_names_that_dashboards_lean_on_are_all_there() {
        let gathered = filled().0.registry.gather();
        let names: BTreeSet<&str> = gathered.iter().map(|family| family.name()).collect();
        let expected = BTreeSet::from([
            "weir_events_consumed_total",
            "weir_events_settled_total",
            "weir_lag_events",
            "weir_lag_seconds",
            "weir_retention_left_seconds",
            "weir_batch_events",
            "weir_prepare_duration_seconds",
            "weir_apply_duration_seconds",
            "weir_end_to_end_seconds",
            "weir_loop_seconds_total",
            "weir_processed_set_lookups_total",
            "weir_processed_set_unmarked_total",
            "weir_dead_events_total",
            "weir_dead_unpublished",
            "weir_dead_replayed_total",
            "weir_parked_keys",
            "weir_retries_total",
            "weir_batch_limit_events",
            "weir_rate_events_per_second",
            "weir_paused",
            "weir_desired_replicas",
            "weir_transactions_limit",
            "weir_holds",
            "weir_breaker_open",
            "weir_fences_total",
            "weir_ledger_bytes",
            "weir_claims_total",
            "weir_rebalances_total",
            "weir_partitions_assigned",
            "weir_offset_commits_total",
            "weir_tombstones_total",
            "weir_when_missing_total",
            "weir_reloads_total",
            "weir_verdicts_total",
            "weir_classifier_requests_total",
            "weir_classifier_duration_seconds",
            "weir_status_unpublished",
            "weir_message_days_ahead",
            "weir_message_days_overdue",
            "weir_spans_total",
            "weir_unknown_types_total",
        ]);
        assert_eq!(names, expected);
    }

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

    #[test]
    fn ages_of_a_batch_are_observed_one_by_one() {
        let metrics = Metrics::new();
        metrics.pool("storage").settled_after([0.001, 0.02, 7_200.0]);
        let text = metrics.render();
        assert!(text.contains("weir_end_to_end_seconds_bucket{pool=\"storage\",le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("weir_end_to_end_seconds_bucket{pool=\"storage\",le=\"0.025\"} 2"), "{text}");
        assert!(text.contains("weir_end_to_end_seconds_count{pool=\"storage\"} 3"), "{text}");
    }
}
