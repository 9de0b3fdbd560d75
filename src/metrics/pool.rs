//! One pool's series, resolved once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, IntCounter, IntGauge};

use super::Families;

/// The reasons of dead rows, as the database's check on `weir_dead.reason` has them.
pub const DEAD_REASONS: [&str; 6] = ["malformed", "refused", "when_error", "too_large", "handler", "parked"];

/// What a partition task spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading from the partition's queue.
    Poll,
    /// Waiting for the group's rate.
    Rate,
    /// Turning records into events.
    Decode,
    /// Asking and telling the processed set.
    Dedupe,
    /// Preparing, outside the transaction.
    Prepare,
    /// Waiting for a turn at a transaction.
    Queue,
    /// The transaction.
    Apply,
    /// Storing and committing Kafka offsets.
    Commit,
    /// Waiting: for a dependency, a retry or a hold.
    Wait,
}

/// The phases in the order of their declaration, with their labels.
pub(super) const PHASES: [&str; 9] =
    ["poll", "rate", "decode", "dedupe", "prepare", "queue", "apply", "commit", "wait"];

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

/// How an offset commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The broker took it.
    Ok,
    /// It was refused or never answered.
    Error,
}

/// A pool's series. Clones share them.
#[derive(Clone, Debug)]
pub struct PoolMetrics(Arc<Series>);

#[derive(Debug)]
pub(super) struct Series {
    families: Arc<Families>,
    pool: String,
    /// What was read, by the topics that have series.
    consumed: Mutex<HashMap<String, IntCounter>>,
    pub(super) batch_events: Histogram,
    apply_seconds: Histogram,
    end_to_end_seconds: Histogram,
    pub(super) loop_seconds: [Counter; PHASES.len()],
    pub(super) lookups: Lookups,
    pub(super) dead: [IntCounter; DEAD_REASONS.len()],
    pub(super) dead_unpublished: IntGauge,
    replayed: Replayed,
    pub(super) parked_keys: IntGauge,
    pub(super) batch_limit: IntGauge,
    holds: IntGauge,
    paused: IntGauge,
    pub(super) desired_replicas: Gauge,
    breakers: [IntGauge; Dependency::ALL.len()],
    pub(super) fences: IntCounter,
    ledger_bytes: IntGauge,
    claims: IntCounter,
    pub(super) rebalances: IntCounter,
    partitions_assigned: IntGauge,
    commits_ok: IntCounter,
    commits_failed: IntCounter,
    tombstones: IntCounter,
    unknown_types: IntCounter,
    #[cfg(feature = "load")]
    latency: super::latency::Latency,
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

/// What became of replayed dead rows.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Their effects are there.
    pub applied: IntCounter,
    /// They are gone without an effect.
    pub settled: IntCounter,
    /// They were rejected again.
    pub rejected: IntCounter,
}

impl PoolMetrics {
    pub(super) fn new(families: Arc<Families>, pool: &str) -> Self {
        let f = &families;
        let by_pool = [pool];
        let replayed = |outcome| f.dead_replayed.with_label_values(&[pool, outcome]);
        let lookup = |result| f.processed_set_lookups.with_label_values(&[pool, result]);
        let series = Series {
            batch_events: f.batch_events.with_label_values(&by_pool),
            apply_seconds: f.apply_duration.with_label_values(&by_pool),
            end_to_end_seconds: f.end_to_end.with_label_values(&by_pool),
            loop_seconds: PHASES.map(|phase| f.loop_seconds.with_label_values(&[pool, phase])),
            lookups: Lookups {
                hit: lookup("hit"),
                miss: lookup("miss"),
                unknown: lookup("unknown"),
                unverified: lookup("unverified"),
                unmarked: f.processed_set_unmarked.with_label_values(&by_pool),
            },
            dead: DEAD_REASONS.map(|reason| f.dead_events.with_label_values(&[pool, reason])),
            dead_unpublished: f.dead_unpublished.with_label_values(&by_pool),
            replayed: Replayed {
                applied: replayed("applied"),
                settled: replayed("settled"),
                rejected: replayed("rejected"),
            },
            parked_keys: f.parked_keys.with_label_values(&by_pool),
            batch_limit: f.batch_limit.with_label_values(&by_pool),
            holds: f.holds.with_label_values(&by_pool),
            paused: f.paused.with_label_values(&by_pool),
            desired_replicas: f.desired_replicas.with_label_values(&by_pool),
            breakers: Dependency::ALL.map(|dependency| f.breaker_open.with_label_values(&[pool, dependency.as_str()])),
            fences: f.fences.with_label_values(&by_pool),
            ledger_bytes: f.ledger_bytes.with_label_values(&by_pool),
            claims: f.claims.with_label_values(&by_pool),
            rebalances: f.rebalances.with_label_values(&by_pool),
            partitions_assigned: f.partitions_assigned.with_label_values(&by_pool),
            commits_ok: f.offset_commits.with_label_values(&[pool, "ok"]),
            commits_failed: f.offset_commits.with_label_values(&[pool, "error"]),
            tombstones: f.tombstones.with_label_values(&by_pool),
            unknown_types: f.unknown_types.with_label_values(&by_pool),
            #[cfg(feature = "load")]
            latency: f.latencies.pool(pool),
            pool: pool.to_owned(),
            consumed: Mutex::default(),
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

    /// The series of one of the pool's topics. Whoever holds it while [`keep_topics`](Self::keep_topics) removes it counts
    /// what nobody sees: ask for each batch.
    #[must_use]
    pub fn topic(&self, topic: &str) -> TopicMetrics {
        let mut known = self.0.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        let consumed = known.get(topic).cloned().unwrap_or_else(|| {
            let counter = self.0.families.events_consumed.with_label_values(&[self.0.pool.as_str(), topic]);
            known.insert(topic.to_owned(), counter.clone());
            counter
        });
        drop(known);
        TopicMetrics { consumed, pool: Arc::clone(&self.0), topic: topic.to_owned() }
    }

    /// Removes the series of all topics but these: nothing else would ever do so.
    pub fn keep_topics(&self, is_kept: impl Fn(&str) -> bool) {
        let mut known = self.0.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> = known.keys().filter(|topic| !is_kept(topic)).cloned().collect();
        for topic in gone {
            known.remove(&topic);
            let (f, labels) = (&self.0.families, [self.0.pool.as_str(), topic.as_str()]);
            // One that it has none of is removed already.
            f.events_consumed.remove_label_values(&labels).ok();
            f.lag_events.remove_label_values(&labels).ok();
            f.lag_seconds.remove_label_values(&labels).ok();
            f.retention_left.remove_label_values(&labels).ok();
        }
    }

    /// The series of one of the pool's pipelines: ask once, keep it.
    #[must_use]
    pub fn pipeline(&self, pipeline: &str) -> PipelineMetrics {
        let pool = self.0.pool.as_str();
        let settled = |outcome| self.0.families.events_settled.with_label_values(&[pool, pipeline, outcome]);
        PipelineMetrics {
            applied: settled("applied"),
            duplicate: settled("duplicate"),
            filtered: settled("filtered"),
            dead: settled("dead"),
            prepare_seconds: self.0.families.prepare_duration.with_label_values(&[pool, pipeline]),
        }
    }

    /// Counts the events that a pipeline does not want since they lack what its condition asks for.
    #[must_use]
    pub fn when_missing(&self, pipeline: &str) -> IntCounter {
        self.0.families.when_missing.with_label_values(&[self.0.pool.as_str(), pipeline])
    }

    /// A lookup table or a list was read again, or could not be.
    pub fn reloaded(&self, is_ok: bool) {
        let result = if is_ok { "ok" } else { "error" };
        self.0.families.reloads.with_label_values(&[self.0.pool.as_str(), result]).inc();
    }

    /// A batch of this many events was put together.
    pub fn batch(&self, events: usize) {
        self.0.batch_events.observe(events as f64);
    }

    /// A batch's transaction took this long.
    pub fn applied_in(&self, took: Duration) {
        self.0.apply_seconds.observe(took.as_secs_f64());
    }

    /// The ages, in seconds, of a batch's events as they were settled: gathered aside and added in one go.
    pub fn settled_after(&self, ages_s: impl IntoIterator<Item = f64>) {
        let batch = self.0.end_to_end_seconds.local();
        for age_s in ages_s {
            batch.observe(age_s);
        }
        batch.flush();
    }

    /// Effects are there now of events that were meant to be sent at these times; both in microseconds since 1970.
    #[cfg_attr(not(feature = "load"), expect(unused_variables, reason = "told by /latency only"))]
    pub fn settled_since(&self, intended_us: &[i64], now_us: i64) {
        #[cfg(feature = "load")]
        self.0.latency.note(intended_us, now_us);
    }

    /// A partition task spent this long in a phase.
    pub fn spent(&self, phase: Phase, took: Duration) {
        self.0.loop_seconds[phase as usize].inc_by(took.as_secs_f64());
    }

    /// What the processed set answered.
    #[must_use]
    pub fn lookups(&self) -> &Lookups {
        &self.0.lookups
    }

    /// Dead rows were written for this reason, one of [`DEAD_REASONS`].
    pub fn dead(&self, reason: &str, events: u64) {
        match DEAD_REASONS.iter().position(|known| *known == reason) {
            Some(index) => self.0.dead[index].inc_by(events),
            None => self.0.families.dead_events.with_label_values(&[self.0.pool.as_str(), reason]).inc_by(events),
        }
    }

    /// Dead rows that still wait for their letter in Kafka.
    pub fn set_dead_unpublished(&self, rows: i64) {
        self.0.dead_unpublished.set(rows);
    }

    /// What became of replayed dead rows.
    #[must_use]
    pub fn replayed(&self) -> &Replayed {
        &self.0.replayed
    }

    /// Keys held back now, since an event of theirs was rejected.
    pub fn set_parked_keys(&self, keys: usize) {
        self.0.parked_keys.set(count(keys));
    }

    /// Something is tried again. The reason is a fixed word, such as `store_away`: never an error's text.
    pub fn retried(&self, reason: &'static str) {
        self.0.families.retries.with_label_values(&[self.0.pool.as_str(), reason]).inc();
    }

    /// The most events of the next batch, on the partition where it is least.
    pub fn set_batch_limit(&self, events: usize) {
        self.0.batch_limit.set(count(events));
    }

    /// The rate of the whole group; `None`: there is none.
    pub fn set_rate(&self, events_per_s: Option<f64>) {
        let (rate, labels) = (&self.0.families.rate, [self.0.pool.as_str()]);
        match events_per_s {
            Some(events_per_s) => rate.with_label_values(&labels).set(events_per_s),
            None => drop(rate.remove_label_values(&labels)),
        }
    }

    /// Whether an operator has paused the pool.
    pub fn set_paused(&self, is_paused: bool) {
        self.0.paused.set(i64::from(is_paused));
    }

    /// This worker's share of the wanted number of workers.
    pub fn set_desired_replicas(&self, share: f64) {
        self.0.desired_replicas.set(share);
    }

    /// How many batches may be in a transaction now.
    pub fn set_transactions_limit(&self, transactions: usize) {
        self.0.families.transactions_limit.with_label_values(&[self.0.pool.as_str()]).set(count(transactions));
    }

    /// Partitions held now.
    pub fn set_holds(&self, partitions: usize) {
        self.0.holds.set(count(partitions));
    }

    /// Whether a dependency is left alone now, since it does not answer.
    pub fn set_breaker(&self, dependency: Dependency, is_open: bool) {
        self.0.breakers[dependency as usize].set(i64::from(is_open));
    }

    /// A batch was refused by the ledger.
    pub fn fenced(&self) {
        self.0.fences.inc();
    }

    /// A partition was claimed.
    pub fn claimed(&self) {
        self.0.claims.inc();
    }

    /// The group was rebalanced.
    pub fn rebalanced(&self) {
        self.0.rebalances.inc();
    }

    /// Partitions assigned now.
    pub fn set_partitions_assigned(&self, partitions: usize) {
        self.0.partitions_assigned.set(count(partitions));
    }

    /// An offset commit ended.
    pub fn committed(&self, result: Commit) {
        match result {
            Commit::Ok => self.0.commits_ok.inc(),
            Commit::Error => self.0.commits_failed.inc(),
        }
    }

    /// How the days of a partitioned `messages` stand.
    pub fn set_message_days(&self, ahead: i64, overdue: usize) {
        let labels = [self.name()];
        self.families().message_days_ahead.with_label_values(&labels).set(ahead);
        self.families().message_days_overdue.with_label_values(&labels).set(count(overdue));
    }

    /// The size of the ledger's table.
    pub fn set_ledger_bytes(&self, bytes: i64) {
        self.0.ledger_bytes.set(bytes);
    }

    /// Events of types were met that the pool does not know.
    pub fn unknown_types(&self, events: u64) {
        self.0.unknown_types.inc_by(events);
    }

    /// Records without a value were met.
    pub fn tombstones(&self, records: u64) {
        self.0.tombstones.inc_by(records);
    }
}

/// A topic's series in one pool.
#[derive(Clone, Debug)]
pub struct TopicMetrics {
    /// Events read.
    pub consumed: IntCounter,
    pool: Arc<Series>,
    topic: String,
}

impl TopicMetrics {
    /// How far behind this worker is. `None` is unknown: the series goes away, since a wrong 0 would say
    /// that all is well.
    pub fn set_lag(&self, events: Option<u64>, seconds: Option<f64>) {
        let labels = [self.pool.pool.as_str(), self.topic.as_str()];
        let families = &self.pool.families;
        match events {
            Some(events) => {
                families.lag_events.with_label_values(&labels).set(i64::try_from(events).unwrap_or(i64::MAX));
            }
            None => drop(families.lag_events.remove_label_values(&labels)),
        }
        match seconds {
            Some(seconds) => families.lag_seconds.with_label_values(&labels).set(seconds),
            None => drop(families.lag_seconds.remove_label_values(&labels)),
        }
    }

    /// Until Kafka's retention reaches what is not settled. `None`: never, or it is not known; then there is no series.
    pub fn set_retention_left(&self, seconds: Option<f64>) {
        let labels = [self.pool.pool.as_str(), self.topic.as_str()];
        let family = &self.pool.families.retention_left;
        match seconds {
            Some(seconds) => family.with_label_values(&labels).set(seconds),
            None => drop(family.remove_label_values(&labels)),
        }
    }
}

/// A pipeline's series in one pool.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    /// Events whose effect was committed.
    pub applied: IntCounter,
    /// Events whose effect was there already.
    pub duplicate: IntCounter,
    /// Events that the pipeline did not want.
    pub filtered: IntCounter,
    /// Events that ended as dead rows.
    pub dead: IntCounter,
    /// Time taken to prepare a batch, in seconds.
    pub prepare_seconds: Histogram,
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
