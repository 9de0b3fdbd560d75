//! A run from its plan to its result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use tokio_util::sync::CancellationToken;

use super::audit::{self, Audited};
use super::events::Events;
use super::flow::Flow;
use super::generator::{self, Clock, Generator, Shared};
use super::observer::{Baseline, Observer};
use super::plan::Plan;
use super::result::{Percentiles, RunResult, SCHEMA, Totals};
use super::schedule::Schedule;
use super::shown::Shown;
use super::standing::Standing;
use super::verdicts::{self, Found};
use super::workers::{self, Called, Worker};
use super::{latency, output, scrape, setting};
use crate::admin::ask;
use crate::config::Config;
use crate::store;

/// How long the producers have to get ready before the first event.
const READY: Duration = Duration::from_millis(300);
/// How often it is looked whether everything is settled.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether the workers have their partitions.
const JOIN_LOOK: Duration = Duration::from_millis(200);
/// How long workers have to answer that are waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// How long workers have to tell of what is settled, once it is.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What is run, and how.
pub struct Options {
    /// Where the plan was read from.
    pub path: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// What started workers are called with.
    pub called: Called,
    /// The folder for the results; without it, one of the run's name and time.
    pub out: Option<PathBuf>,
}

/// What came of it.
pub struct Done {
    /// The result, which is in the folder too.
    pub result: RunResult,
    /// The folder.
    pub folder: PathBuf,
}

/// Runs a plan to its end, or until it is told to stop; then everything that was sent is settled and looked at all the
/// same.
///
/// # Errors
/// The plan asks for what the configuration has not, or a service or a worker does not answer at the start. What goes
/// wrong later is in the result.
pub async fn run(config: Config, options: Options, stop: CancellationToken) -> Result<Done> {
    let Options { path, mut plan, called, out } = options;
    let (pool, topic) = plan.resolve(&path, &config)?;
    let settings = config.store.as_ref().context("`store.url` is not set")?;
    let store = store::open(settings)?;
    store::await_answer(&*store, config.startup_timeout).await?;
    store.check().await?;
    let folder = output::folder(out.as_deref(), &plan.name)?;
    let group = config.pools[&pool].group_of(&pool).to_owned();
    let standing = Arc::new(Standing::open(&config, store, &group, &topic).await?);
    let schedule = Schedule::new(&plan.phases);
    let whole = Duration::from_micros(schedule.end_us());
    let mut stage = Stage { shown: Shown::new(whole, plan.interval), config, plan, pool, topic, standing, stop };
    let mut workers = stage.start_workers(&called, &folder).await?;
    let addresses = stage.addresses(&workers);
    stage.await_joined(&addresses, &mut workers).await?;
    let setting = setting::look(&stage.config, stage.standing.partitions, addresses.len()).await;
    let played = stage.play(schedule, addresses, &mut workers).await?;
    stage.shown.says("ending the workers, auditing");
    let result = stage.close(played, workers, setting).await;
    stage.shown.close();
    output::write(&folder, &result.0, &result.1)?;
    Ok(Done { result: result.0, folder })
}

/// What a run works with.
struct Stage {
    config: Config,
    plan: Plan,
    pool: String,
    topic: String,
    standing: Arc<Standing>,
    stop: CancellationToken,
    shown: Shown,
}

/// What was seen until everything was settled, or time was up.
struct Played {
    shared: Arc<Shared>,
    observer: Observer,
    drained: Option<Duration>,
    problems: Vec<String>,
}

impl Stage {
    async fn start_workers(&self, called: &Called, folder: &std::path::Path) -> Result<Vec<Worker>> {
        let Some(count) = self.plan.workers.start else { return Ok(Vec::new()) };
        self.shown.says(&format!("starting {count} workers"));
        workers::start(count, called, &self.pool, folder, self.config.startup_timeout).await
    }

    fn addresses(&self, workers: &[Worker]) -> Vec<String> {
        match workers {
            [] => self.plan.workers.scrape.iter().filter_map(|url| ask::address_of(url)).map(str::to_owned).collect(),
            workers => workers.iter().map(|worker| worker.address.clone()).collect(),
        }
    }

    /// Waits until the workers have their partitions and what was there before is settled: the run measures its own load.
    async fn await_joined(&self, addresses: &[String], workers: &mut [Worker]) -> Result<()> {
        self.shown.says("waiting until the workers have their partitions and have settled what is there");
        let until = Instant::now() + self.config.startup_timeout.max(self.plan.drain_timeout);
        let ends = self.standing.ends().await?;
        loop {
            let waited_for = match self.look_joined(addresses, !workers.is_empty(), &ends).await {
                Ok(None) => return Ok(()),
                Ok(Some(waited_for)) => waited_for,
                Err(error) => format!("{error:#}"),
            };
            if let Some(ended) = workers.iter_mut().find_map(Worker::has_ended) {
                bail!(ended);
            }
            if Instant::now() > until {
                bail!("the workers are not ready: {waited_for}");
            }
            tokio::select! {
                () = self.stop.cancelled() => bail!("stopped before the first event was sent"),
                () = tokio::time::sleep(JOIN_LOOK) => {}
            }
        }
    }

    /// What is still waited for. Workers that run elsewhere need not all be listed.
    async fn look_joined(&self, addresses: &[String], are_ours: bool, ends: &[i64]) -> Result<Option<String>> {
        let mut assigned = Vec::new();
        for address in addresses {
            assigned.push(scrape::ask(address, &self.pool, ANSWER).await?.partitions);
        }
        let partitions = self.standing.partitions;
        #[expect(clippy::cast_precision_loss, reason = "a number of partitions is far below 2^52")]
        let has_all = assigned.iter().sum::<f64>() >= partitions as f64;
        let has_each = addresses.len() > partitions || assigned.iter().all(|assigned| *assigned > 0.0);
        if are_ours && !(has_all && has_each) {
            return Ok(Some(format!("they have {assigned:?} of {partitions} partitions")));
        }
        let ledger = self.standing.ledger().await?;
        let behind = ends.iter().zip(&ledger).filter(|(end, next)| next.is_none_or(|next| next < **end)).count();
        Ok((behind > 0).then(|| format!("{behind} partitions have not settled what was there before")))
    }

    /// Sends and looks until everything is settled or time is up.
    async fn play(&mut self, schedule: Schedule, addresses: Vec<String>, workers: &mut [Worker]) -> Result<Played> {
        let (plan, standing) = (&self.plan, Arc::clone(&self.standing));
        let events = Events::new(&plan.events, plan.seed);
        let flow = Flow::new(schedule.events(), standing.partitions, plan.producers);
        let clients = generator::connect(plan, &self.config.kafka, &self.topic, self.config.startup_timeout).await?;
        let baseline = Baseline::look(addresses, &self.pool, &standing).await?;
        let shared = Arc::new(Shared::new(schedule, events, flow, Clock::begin_in(READY)));
        let observer = Observer::new(Arc::clone(&shared), Arc::clone(&standing), &self.pool, baseline, plan.interval);
        let generator = Generator::start(plan, clients, &self.topic, &shared)?;
        let done = CancellationToken::new();
        let _ends_with_this = done.clone().drop_guard();
        tokio::spawn(standing.watch(Arc::clone(&shared), self.plan.interval, done));
        let mut play = Play { stage: self, shared, observer, generator, problems: Vec::new() };
        play.phases(workers).await;
        let drained = play.drain(workers).await;
        play.observer.finish(TOLD_WITHIN).await;
        let Play { shared, observer, generator, problems, .. } = play;
        generator.end().await;
        Ok(Played { shared, observer, drained, problems })
    }

    /// Ends the workers, audits, and puts the result together.
    async fn close(
        &self,
        played: Played,
        workers: Vec<Worker>,
        setting: super::result::Setting,
    ) -> (RunResult, hdrhistogram::Histogram<u64>) {
        let Played { shared, observer, drained, mut problems } = played;
        let drain_deadline = self.config.pools[&self.pool].drain_deadline;
        for ended in futures_util::future::join_all(workers.into_iter().map(|worker| worker.end(drain_deadline))).await
        {
            problems.extend(ended.err().map(|error| format!("{error:#}")));
        }
        problems.sort();
        problems.dedup();
        let audited = audit::run(&self.config, &self.pool, &shared).await;
        let known = audited.as_ref().ok();
        let totals = totals(&shared, &observer, drained, known);
        let found = Found {
            unsent: totals.intended.saturating_sub(totals.acknowledged + totals.failed),
            pending: known.map_or(0, |audited| audited.pending),
            counters_wrong: known.and_then(|audited| audited.counters_wrong),
            unaudited: audited.as_ref().err().map(|error| format!("{error:#}")),
            first_error: shared.flow.first_error(),
            workers: problems,
            was_interrupted: self.stop.is_cancelled(),
        };
        let started = shared.clock.begun_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let result = RunResult {
            schema: SCHEMA,
            name: self.plan.name.clone(),
            started_at_ms: i64::try_from(started.as_millis()).unwrap_or(i64::MAX),
            took_s: observer.intervals.last().map_or(0.0, |last| last.at_s),
            setting,
            plan: serde_json::to_value(&self.plan).unwrap_or_default(),
            verdicts: verdicts::of(&self.plan, &totals, &found),
            totals,
            phases: observer.phases(),
            intervals: observer.intervals,
        };
        (result, observer.latency)
    }
}

/// Sums the run up. What was not acknowledged was never sent, or has failed.
fn totals(shared: &Shared, observer: &Observer, drained: Option<Duration>, audited: Option<&Audited>) -> Totals {
    let sent = shared.flow.look();
    let intended = shared.intended_before(u64::MAX);
    let unsent = intended.saturating_sub(sent.sent + sent.refused);
    let of = |count: fn(&Audited) -> u64| audited.map(count);
    Totals {
        intended,
        acknowledged: sent.acknowledged,
        failed: intended.saturating_sub(sent.acknowledged + unsent),
        duplicates: sent.duplicates,
        poison: sent.poison,
        effects: of(|audited| audited.effects).unwrap_or(0),
        dead: of(|audited| audited.dead).unwrap_or(0),
        lost: of(|audited| audited.lost),
        repeated: of(|audited| audited.repeated),
        out_of_order: audited.and_then(|audited| audited.out_of_order),
        slip: Percentiles::of(&observer.slip),
        latency: Percentiles::of(&observer.latency),
        latency_by_percentile: latency::by_percentile(&observer.latency),
        drained_in_s: drained.map(|drained| drained.as_secs_f64()),
        rebalances: observer.intervals.iter().map(|interval| interval.rebalances).sum(),
        longest_pause_s: observer.longest_pause().as_secs_f64(),
    }
}

/// The run while it is under way.
struct Play<'a> {
    stage: &'a mut Stage,
    shared: Arc<Shared>,
    observer: Observer,
    generator: Generator,
    problems: Vec<String>,
}

impl Play<'_> {
    /// Looks until the last phase has ended.
    async fn phases(&mut self, workers: &mut [Worker]) {
        while self.shared.clock.now_us() < self.shared.end_us() {
            if self.next_look(self.shared.end_us()).await {
                self.shared.stop_now();
                self.generator.give_up_late();
            }
            if self.all_ended(workers) {
                self.shared.stop_now();
                self.generator.give_up_late();
            }
        }
    }

    /// Waits for the end of the interval, or until a time, and looks; `true`: told to stop meanwhile.
    async fn next_look(&mut self, until_us: u64) -> bool {
        let at_us = self.observer.next_look_us(self.stage.plan.interval).min(until_us);
        let at = self.shared.clock.begun + Duration::from_micros(at_us);
        let is_stopped = tokio::select! {
            () = tokio::time::sleep_until(at.into()) => false,
            () = self.stage.stop.cancelled() => true,
        };
        self.look().await;
        is_stopped
    }

    async fn look(&mut self) {
        let begun_us = self.observer.interval_begun_us();
        self.observer.look().await;
        let phase = self.shared.schedule.phases().iter().find(|phase| begun_us < phase.end_us);
        if let Some(interval) = self.observer.intervals.last() {
            self.stage.shown.interval(phase.map_or("drain", |phase| &phase.name), interval);
        }
    }

    /// Notes workers that have ended by themselves. `true`: there are none left.
    fn all_ended(&mut self, workers: &mut [Worker]) -> bool {
        let count = workers.len();
        let ended: Vec<String> = workers.iter_mut().filter_map(Worker::has_ended).collect();
        let is_last = count > 0 && ended.len() == count;
        for why in ended {
            if !self.problems.contains(&why) {
                self.problems.push(why);
            }
        }
        is_last
    }

    /// Waits until late events are sent and everything is settled; says how long that took since the last phase's end.
    async fn drain(&mut self, workers: &mut [Worker]) -> Option<Duration> {
        let end = self.shared.clock.begun + Duration::from_micros(self.shared.end_us());
        let until = end + self.stage.plan.drain_timeout;
        let mut ends: Option<Vec<i64>> = None;
        let mut look_at_us = self.observer.next_look_us(self.stage.plan.interval);
        while Instant::now() < until && !self.all_ended(workers) {
            if self.stage.stop.is_cancelled() {
                self.generator.give_up_late();
            }
            if ends.is_none() && self.generator.is_done() {
                // From here on nothing of this run is added.
                ends = self.stage.standing.ends().await.ok();
            }
            if let Some(ends) = &ends
                && let Ok(ledger) = self.stage.standing.ledger().await
                && ends.iter().zip(&ledger).all(|(end, next)| next.is_some_and(|next| next >= *end))
            {
                return Some(end.elapsed());
            }
            if self.shared.clock.now_us() >= look_at_us {
                self.look().await;
                look_at_us = self.observer.next_look_us(self.stage.plan.interval);
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        self.generator.give_up_late();
        None
    }
}
