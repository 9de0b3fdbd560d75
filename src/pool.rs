//! A pool: a consumer group, its topics, its store and its pipelines, and in this process a task for each partition
//! that the group assigns.
//!
//! Promised: events of a partition are handled one batch after the other by one task; a partition is given up only
//! when its task is joined; one partition's trouble does not keep another waiting, and one pool's no other pool.
//! What breaks it: a handler that blocks its thread.

mod ahead;
mod batch_size;
mod bloat;
mod build;
pub mod control;
mod forget;
mod gate;
pub mod lag;
mod pace;
mod pacing;
mod park;
mod partition;
mod position;
mod progress;
mod rejects;
mod replay;
mod retention;
mod room;
mod scaling;
pub mod seek;
mod settle;
mod silent;
#[cfg(test)]
mod simulation;
mod takeover;
mod tasks;
mod told;
mod topics;
mod transactions;
mod turns;
mod unstored;
mod watch;

pub use build::{BuildError, PoolBuilder, Process};
pub use progress::{Behind, PartitionStanding, Phase, Standings};

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use self::control::Steering;
use self::gate::Gate;
use self::tasks::Tasks;
use self::transactions::Transactions;
use self::turns::Turns;
use crate::admin::PoolHealth;
use crate::config;
use crate::dead_letter::{Letters, Mirror, Owned};
use crate::event::Payload;
use crate::handler::Beside;
use crate::kafka::{Probe, Unanswered, session_timeout};
use crate::metrics::{PipelineMetrics, PoolMetrics};
use crate::once::ProcessedSet;
use crate::pipeline::{Batch, Counts, Decoding, Pipelines};
use crate::source::{Source, SourceEvent, SourceHandle, Subscription};
use crate::status_events::StatusEvents;
use crate::store::{self, Fault};
use crate::telemetry::traces::Tracer;

/// How often lag, holds and standstill are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the ids of the topics and the ledger are looked at, for what no event would tell.
const OUTSIDE_CHECK: Duration = Duration::from_secs(5);
/// The prefetch budget is divided over at least so many partitions: a topic that is yet to be made may have them.
const PARTITIONS_MIN: usize = 8;
/// How long closing the consumer may take once its partitions are given up.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Why a pool ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database answers and cannot be used.
    #[error("pool {pool:?}: {error}")]
    Store {
        /// The pool.
        pool: Arc<str>,
        /// What is wrong and what to do.
        error: store::Error,
    },
    /// The Kafka client cannot start or go on.
    #[error("pool {pool:?}: {message}")]
    Kafka {
        /// The pool.
        pool: Arc<str>,
        /// What is wrong.
        message: String,
    },
    /// A partition cannot go on.
    #[error("pool {pool:?}: {topic}/{partition}: {message}")]
    Partition {
        /// The pool.
        pool: Arc<str>,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong.
        message: String,
    },
    /// A stop took longer than the drain deadline, so a batch was abandoned; it is redelivered.
    #[error(
        "pool {pool:?}: {partitions} partitions did not finish their batch within the drain deadline; their events come again"
    )]
    DrainOverran {
        /// The pool.
        pool: Arc<str>,
        /// How many.
        partitions: usize,
    },
}

/// A pool, ready to run.
pub struct Pool<T> {
    name: Arc<str>,
    group: Arc<str>,
    kafka: config::Kafka,
    config: config::Pool,
    pipelines: Pipelines<T>,
    decoding: Decoding<T>,
    /// Of a pool without a store.
    letters: Option<Letters>,
    processed: Option<ProcessedSet>,
    steering: Steering,
    transactions: Option<Transactions>,
    connections: usize,
    metrics: PoolMetrics,
    health: PoolHealth,
    standings: Standings,
    beside: Vec<Beside>,
}

/// What all tasks of a pool share.
struct Shared<T> {
    name: Arc<str>,
    group: Arc<str>,
    config: config::Pool,
    budget: config::Budget,
    pipelines: Pipelines<T>,
    pipeline_metrics: Vec<PipelineMetrics>,
    decoding: Decoding<T>,
    /// Where there is no store: Kafka's committed offset is the position, and letters go straight to their topic.
    letters: Option<Letters>,
    processed: Option<ProcessedSet>,
    /// What operators have asked of it.
    steering: Steering,
    /// Where transactions at a time are limited.
    transactions: Option<Transactions>,
    source: SourceHandle,
    /// One task at a time gives the group its first place on a topic.
    begin: tokio::sync::Mutex<()>,
    gate: Arc<Gate>,
    /// The topics that were there at the start, or are named.
    first_topics: Arc<[String]>,
    /// The topics that it reads now.
    topics: Mutex<Arc<[String]>>,
    /// How the metrics name them.
    told: told::Names,
    /// Topics that were not there at the start and are still waited for.
    missing: Mutex<Vec<String>>,
    /// It was said that the ledger's table is too large.
    ledger_is_large: AtomicBool,
    /// To the database, of this pool.
    connections: usize,
    room: Arc<Turns>,
    /// Partitions that it has now.
    assigned: AtomicUsize,
    retention: retention::Kept,
    metrics: PoolMetrics,
}

impl<T: Payload> Pool<T> {
    /// Starts to make a pool by code. Settings not given by code come from the configuration's pool of this name.
    pub fn builder(name: &str) -> PoolBuilder<T> {
        PoolBuilder::new(name)
    }

    /// Shows where the pool's partitions stand, for as long as anybody holds it.
    #[must_use]
    pub fn standings(&self) -> Standings {
        self.standings.clone()
    }

    /// Traces the events that have a trace, and some of the others by `traces.sample_ratio`.
    #[must_use]
    pub fn traced(mut self, tracer: &Tracer) -> Self {
        self.pipelines = self.pipelines.tracing(tracer.of_pool(&self.group, &self.name));
        self
    }

    /// Runs until it is told to stop: then stops fetching, finishes the batches in hand, commits and leaves the group.
    ///
    /// # Errors
    /// The database's schema or the Kafka client's configuration is wrong, a partition cannot go on, or the stop took
    /// longer than the drain deadline.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        if !self.store_answers(&shutdown).await? {
            return Ok(());
        }
        let name = Arc::clone(&self.name);
        let kafka = self.kafka.clone();
        let drain_deadline = self.config.drain_deadline;
        let stall_after = Duration::from_millis(kafka.max_poll_interval_ms);
        let (health, standings) = (self.health.clone(), self.standings.clone());
        let Some(found) = self.broker_answers(&shutdown).await? else { return Ok(()) };
        let budget = self.budget().await?;
        let beside = std::mem::take(&mut self.beside);
        let (mut source, shared) = self.start(found, budget)?;
        let background = CancellationToken::new();
        let mut tasks = Tasks::new(Arc::clone(&shared), standings, drain_deadline);
        let appearing = tokio::spawn(topics::await_missing(Arc::clone(&shared), background.clone()));
        let settled = CancellationToken::new();
        let following = tokio::spawn(topics::follow(Arc::clone(&shared), kafka.clone(), settled.clone()));
        let letters = tokio::spawn(mirror(Arc::clone(&shared), kafka.clone(), tasks.owned(), background.clone()));
        let told = StatusEvents::of(
            &kafka,
            &shared.name,
            &shared.config,
            Arc::clone(&shared.pipelines.store),
            shared.metrics.clone(),
        );
        let telling = told.map(|told| tokio::spawn(told.run(tasks.owned(), background.clone())));
        let forgetting = tokio::spawn(forget::run(Arc::clone(&shared), background.clone()));
        let replaying = tokio::spawn(replay::watch(Arc::clone(&shared), tasks.standings(), background.clone()));
        let ending = tokio::spawn(silent::watch(Arc::clone(&shared), background.clone()));
        let keeping =
            tokio::spawn(retention::watch(Arc::clone(&shared), tasks.standings(), kafka.clone(), background.clone()));
        let mut watching = tokio::task::JoinSet::new();
        beside.into_iter().for_each(|task| drop(watching.spawn(task(background.clone()))));
        let steering = tokio::spawn(control::watch(Arc::clone(&shared), background.clone()));
        let done = drive(&mut source, &mut tasks, &health, &shutdown, stall_after).await;
        // What is subscribed to after the group is left would join it again.
        settled.cancel();
        following.await.ok();
        shared.source.close();
        let overran = leave(&mut source, &mut tasks).await;
        background.cancel();
        // None of these leaves anything half done, and a database that is away must not hold up the stop.
        let cut_off = [forgetting, replaying, ending, keeping, steering, appearing];
        cut_off.iter().for_each(tokio::task::JoinHandle::abort);
        letters.await.ok();
        if let Some(telling) = telling {
            telling.await.ok();
        }
        for task in cut_off {
            task.await.ok();
        }
        watching.shutdown().await;
        drop((tasks, shared));
        close(source).await;
        done?;
        match overran {
            0 => Ok(()),
            partitions => Err(Error::DrainOverran { pool: name, partitions }),
        }
    }

    /// Waits for the database's first answer. `false`: told to stop before it came.
    async fn store_answers(&self, shutdown: &CancellationToken) -> Result<bool, Error> {
        let mut told = false;
        loop {
            match self.schema_is_there().await {
                Ok(()) => break,
                Err(error) if matches!(error.fault, Fault::Outage | Fault::Busy | Fault::TooSlow) => {
                    self.health.waiting_for(Some(error.to_string()));
                    if !told {
                        tracing::warn!(
                            pool = &*self.name,
                            "waiting for the database before joining the group: {error}"
                        );
                        told = true;
                    }
                }
                Err(error) => return Err(Error::Store { pool: Arc::clone(&self.name), error }),
            }
            self.health.polled_now();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(TICK) => {}
            }
        }
        self.health.waiting_for(None);
        Ok(true)
    }

    async fn schema_is_there(&self) -> store::Result<()> {
        self.pipelines.store.reach().await?;
        self.pipelines.store.check().await?;
        // Before it joins: a pool that is paused must not begin with a batch.
        self.steering.look(&*self.pipelines.store).await
    }

    /// Waits for a broker's first answer: the topics, and how many partitions each has. `None`: told to stop before it came.
    async fn broker_answers(&self, shutdown: &CancellationToken) -> Result<Option<Vec<(String, usize)>>, Error> {
        let failed = |message| Error::Kafka { pool: Arc::clone(&self.name), message };
        let probe = Arc::new(Probe::new(&self.kafka).map_err(|error| failed(error.to_string()))?);
        let mut told = false;
        loop {
            let (asking, config) = (Arc::clone(&probe), self.config.clone());
            let asked = tokio::task::spawn_blocking(move || topics::find(&asking, &config));
            let answer = tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                answer = asked => answer,
            };
            match answer {
                Ok(Ok(topics)) => {
                    self.health.waiting_for(None);
                    return Ok(Some(topics));
                }
                Ok(Err(error @ Unanswered::Login { .. })) => return Err(failed(error.to_string())),
                Ok(Err(error)) => {
                    self.health.waiting_for(Some(format!("Kafka: {error}")));
                    if !told {
                        tracing::warn!(pool = &*self.name, "waiting for Kafka: {error}");
                        told = true;
                    }
                }
                Err(_) => return Ok(None),
            }
            self.health.polled_now();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// What a batch may take. Under the consumer protocol the brokers have a say, who have just answered.
    async fn budget(&self) -> Result<config::Budget, Error> {
        let configured = config::Budget::of(&self.kafka, &self.config);
        if self.kafka.group_protocol == config::GroupProtocol::Classic {
            return Ok(configured);
        }
        let budget = match session_timeout(&self.kafka, &self.group).await {
            Ok(told) => config::Budget::with_session_timeout(&self.kafka, &self.config, told),
            Err(error) => {
                let assumed_ms = self.kafka.session_timeout().0.as_millis();
                tracing::warn!(
                    pool = &*self.name, %error, assumed_ms,
                    "the brokers do not tell the group's consumer.session.timeout.ms, so it is taken for their default; \
                     grant weir's user DESCRIBE_CONFIGS on the group"
                );
                configured
            }
        };
        match budget.fits() {
            true => Ok(budget),
            false => Err(Error::Kafka {
                pool: Arc::clone(&self.name),
                message: format!("a full batch takes too long: {budget}"),
            }),
        }
    }

    fn start(self, found: Vec<(String, usize)>, budget: config::Budget) -> Result<(Source, Arc<Shared<T>>), Error> {
        let partitions = found.iter().map(|(_, count)| count).sum::<usize>();
        let is_missing = |(topic, count): &&(String, usize)| *count == 0 && !self.config.finds(topic);
        let missing = found.iter().filter(is_missing).map(|(topic, _)| topic.clone()).collect();
        let topics: Arc<[String]> = found.into_iter().map(|(topic, _)| topic).collect();
        let health = self.health.clone();
        let subscription = Subscription {
            pool: &self.name,
            group: &self.group,
            kafka: &self.kafka,
            config: &self.config,
            topics: &topics,
            metrics: self.metrics.clone(),
            on_poll: Box::new(move || health.polled_now()),
        };
        let source = Source::start(subscription, partitions.max(PARTITIONS_MIN))
            .map_err(|error| Error::Kafka { pool: Arc::clone(&self.name), message: error.to_string() })?;
        tracing::info!(pool = &*self.name, "{budget}");
        self.steering.pacing.set_partitions_of_topics(partitions);
        self.steering.pacing.tell();
        let gate = Arc::new(Gate::new(Arc::clone(&self.name), Arc::clone(&self.pipelines.store)));
        let pipeline_metrics = self.pipelines.names().map(|name| self.metrics.pipeline(name)).collect();
        let shared = Shared {
            told: told::Names::new(&self.config),
            name: self.name,
            group: self.group,
            budget,
            config: self.config,
            pipelines: self.pipelines,
            pipeline_metrics,
            decoding: self.decoding,
            letters: self.letters,
            processed: self.processed,
            steering: self.steering,
            transactions: self.transactions,
            source: source.handle.clone(),
            begin: tokio::sync::Mutex::new(()),
            gate,
            first_topics: Arc::clone(&topics),
            topics: Mutex::new(topics),
            missing: Mutex::new(missing),
            ledger_is_large: AtomicBool::new(false),
            connections: self.connections,
            room: room::room(self.connections),
            assigned: AtomicUsize::new(0),
            retention: retention::Kept::default(),
            metrics: self.metrics,
        };
        Ok((source, Arc::new(shared)))
    }
}

/// Mirrors dead rows until it is told to stop. A pool without a store has none; its letters only need their topics.
async fn mirror<T: Payload>(shared: Arc<Shared<T>>, kafka: config::Kafka, owned: Owned, stop: CancellationToken) {
    let topics = shared.topics();
    if let Some(letters) = &shared.letters {
        tokio::select! {
            () = stop.cancelled() => {}
            () = letters.make_topics(&topics) => {}
        }
        return;
    }
    let mirror = Mirror::new(&kafka, &shared.name, Arc::clone(&shared.pipelines.store), shared.metrics.clone())
        .tracing(shared.pipelines.tracer().clone());
    mirror.run(shared.pipelines.id_key().cloned(), topics.to_vec(), owned, stop).await;
}

/// Handles what happens to the consumer until the pool is told to stop or cannot go on.
async fn drive<T: Payload>(
    source: &mut Source,
    tasks: &mut Tasks<T>,
    health: &PoolHealth,
    shutdown: &CancellationToken,
    stall_after: Duration,
) -> Result<(), Error> {
    let mut tick = tokio::time::interval(TICK);
    let mut checked_at = Instant::now();
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            event = source.events.recv() => match event {
                Some(SourceEvent::Fatal(message)) => return Err(tasks.kafka_error(message)),
                None | Some(SourceEvent::Closed) => {
                    return Err(tasks.kafka_error("the Kafka client ended by itself".to_owned()));
                }
                Some(event) => {
                    process(event, tasks).await;
                    health.joined();
                }
            },
            ended = tasks.ended() => return Err(ended),
            _ = tick.tick() => {
                tasks.watch(stall_after)?;
                tasks.note_desired();
                if checked_at.elapsed() >= OUTSIDE_CHECK {
                    checked_at = Instant::now();
                    tasks.check_topic_ids();
                    tasks.check_ledger();
                    tasks.check_partitions();
                }
                tasks.tell(health);
            }
        }
    }
}

/// Handles one event but the last; says how many tasks overran the drain deadline.
async fn process<T: Payload>(event: SourceEvent, tasks: &mut Tasks<T>) -> usize {
    match event {
        SourceEvent::Assigned(partitions) => {
            tasks.spawn(partitions).await;
            0
        }
        SourceEvent::Revoked(partitions, answer) | SourceEvent::Lost(partitions, answer) => {
            let overran = tasks.join(&partitions).await;
            // The poll thread waits for this; it is there for as long as the source is.
            answer.send(()).ok();
            overran
        }
        SourceEvent::Fatal(_) | SourceEvent::Closed => 0,
    }
}

/// Gives all partitions back and waits until the group is left.
async fn leave<T: Payload>(source: &mut Source, tasks: &mut Tasks<T>) -> usize {
    let mut overran = 0;
    tasks.stop_all();
    while let Some(event) = source.events.recv().await {
        match event {
            SourceEvent::Closed => break,
            event => overran += process(event, tasks).await,
        }
    }
    overran + tasks.join_all().await
}

/// Closing the consumer blocks, so it happens on a plain thread, and is not waited for longer than a bound.
async fn close(source: Source) {
    let closing = tokio::task::spawn_blocking(move || drop(source));
    if tokio::time::timeout(CLOSE_DEADLINE, closing).await.is_err() {
        tracing::warn!("the Kafka client did not close in time; the group notices by its session time-out");
    }
}

impl<T: Payload> Shared<T> {
    /// The processed set, unless a repeated id can still change something.
    fn processed_set(&self) -> Option<&ProcessedSet> {
        self.processed.as_ref().filter(|_| !self.pipelines.takes_repeats())
    }

    fn note_prepare_times(&self, times: &[Duration]) {
        for (metrics, time) in self.pipeline_metrics.iter().zip(times) {
            metrics.prepare_seconds.observe(time.as_secs_f64());
        }
    }

    fn note_settled(&self, batch: &Batch<T>, counts: &Counts, now_ms: i64) {
        // First: whoever sees the batch counted finds its latencies there.
        if !counts.intended_us.is_empty() {
            self.metrics.settled_since(&counts.intended_us, partition::now_us());
        }
        self.metrics.batch(batch.len());
        self.metrics.tombstones(batch.tombstones);
        self.metrics.unknown_types(batch.unknown_types);
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^52")]
        self.metrics.settled_after(batch.timestamps_ms().map(|at| (now_ms - at).max(0) as f64 / 1_000.0));
        self.note_outcomes(counts);
    }

    fn note_outcomes(&self, counts: &Counts) {
        for (at, metrics) in self.pipeline_metrics.iter().enumerate() {
            let of = |counts: &[u64]| counts.get(at).copied().unwrap_or(0);
            metrics.applied.inc_by(of(&counts.applied));
            metrics.duplicate.inc_by(of(&counts.duplicate));
            metrics.filtered.inc_by(of(&counts.filtered));
            metrics.dead.inc_by(of(&counts.dead));
        }
        for reason in &counts.reasons {
            self.metrics.dead(reason.as_str(), 1);
        }
    }
}
