//! One run of one row: its world, workers and load, what is looked at all the while, and what is found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fastrand::Rng;

use super::audit::audit;
use super::lab::{Lab, SLOTS};
use super::load::{Book, Load, Mix};
use super::report::Outcome;
use super::rows::Row;
use super::setting::Setting;
use super::watch::Watch;
use super::worker::Worker;
use super::world::World;
use super::{SESSION_TIMEOUT, until};

/// Within what the lag is 0 after a fault has ended.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// How long the group may take to share its partitions.
const JOIN_MAX: Duration = Duration::from_secs(40);
/// How long the load goes on after a fault.
const TAIL: Duration = Duration::from_secs(3);

/// What a worker may need in all, with its queues full.
const MEMORY_MAX: u64 = 256 << 20;
/// Hits of the processed set that the database did not have.
const UNVERIFIED: (&str, &str) = ("weir_processed_set_lookups_total", "result=\"unverified\"");

pub(crate) struct Case<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) workers: Vec<Worker>,
    pub(crate) book: Arc<Mutex<Book>>,
    load: Option<Load>,
    watch: Option<Watch>,
    /// Lines in the sections of Kafka, of Redis and of the pool of every worker's configuration.
    pub(crate) kafka_lines: String,
    pub(crate) redis_lines: String,
    pub(crate) pool_lines: String,
    /// The database's user.
    pub(crate) user: String,
    pub(crate) worker_env: Vec<(String, String)>,
    /// Workers that are started have the release before: without the counting pipeline.
    pub(crate) is_old_release: bool,
    /// The processed set may know more than the database: that one went back.
    pub(crate) set_may_lead: bool,
    pub(crate) findings: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// The part of the usual length that waits have.
    pub(crate) scale: f64,
    /// Workers that the row has ended.
    past: Vec<Worker>,
    /// Hits of the processed set that the database did not have, of workers that were asked to stop.
    unverified: f64,
    pub(crate) recovery_max: Duration,
    fault_ended: Option<Instant>,
    recovery: Option<Duration>,
    peak_memory: Arc<Mutex<HashMap<u32, u64>>>,
}

impl<'a> Case<'a> {
    pub(crate) async fn new(lab: &'a Lab, row: &Row, setting: Setting, seed: u64, scale: f64) -> Result<Self> {
        let mut rng = Rng::with_seed(seed ^ (u64::from(row.number) << 48));
        let partitions = rng.i32(8..=12);
        let world = World::new(lab, &format!("row{}", row.number), partitions, setting).await?;
        Ok(Self {
            lab,
            world,
            rng,
            workers: Vec::new(),
            book: Arc::default(),
            load: None,
            watch: None,
            kafka_lines: String::new(),
            redis_lines: String::new(),
            pool_lines: String::new(),
            user: "weir".to_owned(),
            worker_env: Vec::new(),
            is_old_release: false,
            set_may_lead: false,
            findings: Vec::new(),
            notes: Vec::new(),
            scale,
            past: Vec::new(),
            unverified: 0.0,
            recovery_max: RECOVERY_MAX,
            fault_ended: None,
            recovery: None,
            peak_memory: Arc::default(),
        })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(crate) fn load(&self) -> Result<&Load> {
        self.load.as_ref().context("the row has no load")
    }

    pub(crate) fn watch(&self) -> Result<&Watch> {
        self.watch.as_ref().context("the row is not watched")
    }

    /// A finding unless something is so.
    pub(crate) fn check(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.findings.push(what());
        }
    }

    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    // ---- workers and load ----------------------------------------------------------------------------------------

    pub(crate) async fn start_worker(&mut self, slot: usize) -> Result<()> {
        let mut config =
            self.world.config(self.lab, slot, &self.user, [&self.kafka_lines[..], &self.redis_lines, &self.pool_lines]);
        if self.is_old_release {
            config.truncate(config.rfind("[[pools").context("the last pipeline")?);
        }
        let worker = Worker::start(slot, &self.world.dir, &config, &self.worker_env).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Starts workers and the load, and waits until all of them own partitions that move.
    pub(crate) async fn begin(&mut self, workers: usize, mix: Mix) -> Result<()> {
        self.begin_watch()?;
        for slot in 0..workers.min(SLOTS) {
            self.start_worker(slot).await?;
        }
        self.start_load(mix)?;
        self.shared().await?;
        self.moving().await?;
        self.sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    pub(crate) fn begin_watch(&mut self) -> Result<()> {
        self.watch = Some(Watch::start(&self.lab.kafka(), &self.world, Arc::clone(&self.book))?);
        Ok(())
    }

    /// Stops looking, keeping what was found.
    pub(crate) fn end_watch(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.findings.append(&mut watch.seen.lock().unwrap().findings);
        }
    }

    pub(crate) fn start_load(&mut self, mix: Mix) -> Result<()> {
        let World { topic, topic_id, partitions, .. } = &self.world;
        let rng = self.rng.fork();
        let book = Arc::clone(&self.book);
        self.load = Some(Load::start(&self.lab.kafka(), topic, *topic_id, *partitions, rng, mix, book)?);
        Ok(())
    }

    /// The load, to be stopped apart while another one goes on.
    pub(crate) fn take_load(&mut self) -> Result<Load> {
        self.load.take().context("the row has no load")
    }

    pub(crate) async fn stop_load(&mut self) -> Result<()> {
        match self.load.take() {
            Some(load) => load.stop().await,
            None => Ok(()),
        }
    }

    /// Waits until every worker owns partitions, and all of them are owned.
    pub(crate) async fn shared(&self) -> Result<()> {
        until("the group to share its partitions", JOIN_MAX, async || {
            let mut all = 0.0;
            for worker in &self.workers {
                let owned = worker.metric("weir_partitions_assigned", "")?;
                if owned == 0.0 {
                    return Ok(false);
                }
                all += owned;
            }
            Ok(all == f64::from(self.world.partitions))
        })
        .await
    }

    /// Waits until every partition's ledger has moved.
    pub(crate) async fn moving(&self) -> Result<()> {
        let mut then = HashMap::new();
        self.advanced(&mut then, JOIN_MAX).await
    }

    /// Waits until every partition that has lag has moved since `then`.
    pub(crate) async fn advanced(&self, then: &mut HashMap<i32, i64>, patience: Duration) -> Result<()> {
        if then.is_empty() {
            *then = self.watch()?.ledger();
        }
        until("every partition to move", patience, async || {
            let now = self.watch()?.ledger();
            let ends = self.book().ends.clone();
            Ok((0..self.world.partitions).all(|partition| {
                let at = |offsets: &HashMap<i32, i64>| offsets.get(&partition).copied().unwrap_or(0);
                at(&now) > at(then) || at(&now) >= at(&ends)
            }))
        })
        .await
    }

    /// A wait of the row, shorter in a short run; memory is looked at all the while.
    pub(crate) async fn sleep(&self, usual: Duration) {
        let end = Instant::now() + usual.mul_f64(self.scale);
        while Instant::now() < end {
            self.note_memory();
            tokio::time::sleep(Duration::from_millis(200).min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    fn note_memory(&self) {
        let mut peaks = self.peak_memory.lock().unwrap();
        for worker in &self.workers {
            if let Some(peak) = worker.peak_memory() {
                peaks.insert(worker.pid(), peak);
            }
        }
    }

    pub(crate) fn peak_memory(&self) -> u64 {
        self.note_memory();
        self.peak_memory.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// Ends a worker as an orchestrator does, which has to be clean; how long it took.
    pub(crate) async fn stop_worker(&mut self, at: usize) -> Result<Duration> {
        let mut worker = self.workers.remove(at);
        self.unverified += worker.metric(UNVERIFIED.0, UNVERIFIED.1)?;
        let (status, took) = worker.terminate().await?;
        self.check(status.success(), || {
            format!("a worker that was asked to stop ended with {status} after {took:.1?}")
        });
        self.past.push(worker);
        Ok(took)
    }

    /// Takes a worker that has ended out of the row; its slot.
    pub(crate) fn bury(&mut self, at: usize) -> usize {
        let mut worker = self.workers.remove(at);
        worker.may_be_over();
        let slot = worker.slot;
        self.past.push(worker);
        slot
    }

    /// What the worker that ended last has told.
    pub(crate) fn last_words(&self) -> String {
        self.past.last().map(Worker::log).unwrap_or_default()
    }

    /// The sum of a metric over the workers that answer.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        self.workers.iter().filter_map(|worker| worker.metric(name, labels).ok()).sum()
    }

    // ---- the fault -----------------------------------------------------------------------------------------------

    pub(crate) fn fault_begins(&self) -> Result<()> {
        self.watch()?.fault_begins();
        Ok(())
    }

    pub(crate) fn fault_ends(&mut self) -> Result<()> {
        self.watch()?.fault_ends();
        self.fault_ended = Some(Instant::now());
        Ok(())
    }

    /// The fault is over when the group can know of it: a dead member is missed after its session's time-out.
    pub(crate) async fn fault_ends_after_session(&mut self, since: Instant) -> Result<()> {
        tokio::time::sleep((since + SESSION_TIMEOUT).saturating_duration_since(Instant::now())).await;
        self.fault_ends()
    }

    /// Stops the load, and waits until all of it is settled.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        self.stop_load().await?;
        let ends = self.book().ends.clone();
        self.reach(&ends, "the lag to be 0").await
    }

    /// What follows every fault: it is caught up with, the load ends, and the lag is 0.
    pub(crate) async fn recover(&mut self) -> Result<()> {
        let ended = self.fault_ended.context("the row's fault never ended")?;
        let ends = self.book().ends.clone();
        let reached = self.reach(&ends, "the fault to be caught up with").await;
        self.recovery = Some(ended.elapsed());
        reached?;
        if self.load.is_some() {
            self.sleep(TAIL).await;
        }
        self.drain().await
    }

    async fn reach(&self, ends: &HashMap<i32, i64>, what: &str) -> Result<()> {
        until(what, self.recovery_max, async || {
            self.note_memory();
            let now = self.watch()?.ledger();
            Ok(ends.iter().all(|(partition, end)| now.get(partition).is_some_and(|at| at >= end)))
        })
        .await
        .with_context(|| format!("the ledger: {:?}, the log's ends: {ends:?}", self.watch().map(Watch::ledger)))
    }

    // ---- the end -------------------------------------------------------------------------------------------------

    /// Ends workers and load, audits, and says what came of it.
    pub(crate) async fn finish(mut self, row: &Row, seed: u64, ran: Result<()>, begun: Instant) -> Outcome {
        if let Err(error) = ran {
            self.findings.push(format!("{error:#}"));
        }
        self.lab.clear();
        // What a row that failed left over is no loss while a worker may still settle it.
        let drained = if self.findings.is_empty() { self.stop_load().await } else { self.drain().await };
        if let Err(error) = drained {
            self.findings.push(format!("{error:#}"));
        }
        let peak_memory = self.peak_memory();
        self.check(peak_memory <= MEMORY_MAX, || format!("a worker needed {} MiB", peak_memory >> 20));
        let unverified = self.unverified + self.metric(UNVERIFIED.0, UNVERIFIED.1);
        let may_lead = self.set_may_lead;
        self.check(may_lead || unverified == 0.0, || {
            format!("the processed set knew what the database did not have, {unverified} times")
        });
        self.end_workers();
        let (samples, longest_gap) = self.watch.as_ref().map_or((0, Duration::ZERO), |watch| {
            let seen = watch.seen.lock().unwrap();
            (seen.samples, seen.longest_gap)
        });
        self.check(self.watch.is_none() || samples > 0, || {
            "Kafka's offsets were never compared with the ledger".to_owned()
        });
        self.end_watch();
        let book = std::mem::take(&mut *self.book());
        let audited = audit(&self.world, &book).await.unwrap_or_else(|error| {
            self.findings.push(format!("the audit could not be made: {error:#}"));
            super::audit::Audit::default()
        });
        self.findings.extend(audited.findings);
        self.world.close(self.lab).await;
        let is_passed = self.findings.is_empty();
        if is_passed {
            std::fs::remove_dir_all(&self.world.dir).ok();
        }
        Outcome {
            row: row.number,
            setting: self.world.setting,
            fault: row.fault.to_owned(),
            seed,
            events: audited.events,
            lost: audited.lost,
            repeated: audited.repeated,
            out_of_order: audited.out_of_order,
            recovery: self.recovery,
            longest_gap,
            peak_memory_bytes: peak_memory,
            took: begun.elapsed(),
            samples,
            findings: self.findings,
            notes: self.notes,
            logs: (!is_passed).then(|| self.world.dir.clone()),
            not_run: None,
        }
    }

    fn end_workers(&mut self) {
        for mut worker in self.past.drain(..).chain(std::mem::take(&mut self.workers)) {
            let log = worker.log();
            if let Some(status) = worker.has_died() {
                let last = log.lines().last().unwrap_or_default();
                self.findings.push(format!("worker {} ended by itself, {status}: {last}", worker.pid()));
            }
            for (what, told) in [
                ("holes in the log were seen, and not believed at once", "records are missing; fetching again"),
                ("holes in the log were believed", "the log has no records between"),
            ] {
                let lines: Vec<&str> = log.lines().filter(|line| line.contains(told)).collect();
                if let Some(last) = lines.last() {
                    self.notes.push(format!("{} {what}: {last}", lines.len()));
                }
            }
            if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
                self.findings.push(format!("worker {} panicked: {line}", worker.pid()));
            }
        }
    }
}
