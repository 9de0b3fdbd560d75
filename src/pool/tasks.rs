//! The tasks of the partitions assigned to this process: spawned, watched, joined.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch_size::BatchSize;
use super::pace::Portion;
use super::partition::{End, Task, backoff};
use super::progress::{Phase, Progress, Standings};
use super::rejects::Rejects;
use super::scaling::Scaling;
use super::{Error, Shared};
use crate::admin::{OpenBreaker, PoolHealth};
use crate::dead_letter::Owned;
use crate::event::Payload;
use crate::metrics::Dependency;
use crate::once::ProcessedSet;
use crate::pipeline::{Novelty, ParkedKeys};
use crate::sabotage::{self, Bug};
use crate::source::Assigned;

pub(super) type Name = (String, i32);

/// A running task as its pool sees it.
pub(super) struct Running {
    stop: CancellationToken,
    pub(super) nudge: Arc<Notify>,
    pub(super) progress: Arc<Progress>,
    done: JoinHandle<()>,
}

/// All tasks of a pool.
pub(super) struct Tasks<T> {
    pub(super) shared: Arc<Shared<T>>,
    pub(super) running: HashMap<Name, Running>,
    standings: Standings,
    pub(super) scaling: Scaling,
    pub(super) begun: Instant,
    drain_deadline: Duration,
    failures: mpsc::Sender<(Name, String)>,
    failed: mpsc::Receiver<(Name, String)>,
}

/// A pool whose future is dropped must not leave tasks behind that go on claiming.
impl<T> Drop for Tasks<T> {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.stop.cancel();
            task.done.abort();
        }
        self.shared.source.close();
    }
}

impl<T: Payload> Tasks<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, standings: Standings, drain_deadline: Duration) -> Self {
        let (failures, failed) = mpsc::channel(1);
        let scaling = Scaling::new(shared.config.scaling.clone());
        let (running, begun) = (HashMap::new(), Instant::now());
        Self { shared, running, standings, scaling, begun, drain_deadline, failures, failed }
    }

    pub(super) fn standings(&self) -> Standings {
        self.standings.clone()
    }

    /// Whose dead rows this process mirrors.
    pub(super) fn owned(&self) -> Owned {
        let standings = self.standings.clone();
        Arc::new(move || {
            let standings = standings.lock();
            let owned = standings.iter().filter_map(|((_, partition), progress)| {
                let topic_id = progress.lock().owned?;
                Some((topic_id, *partition))
            });
            owned.collect()
        })
    }

    /// Starts a task for each partition. An older task of the same partition was joined when it was revoked; should
    /// one be left, it is joined first: two queues of one partition share a wake-up, and the older takes it along.
    pub(super) async fn spawn(&mut self, assigned: Vec<Assigned>) {
        for Assigned { topic, partition, queue } in assigned {
            let name = (topic.clone(), partition);
            if self.running.contains_key(&name) {
                tracing::error!(topic, partition, "a partition was assigned twice; joining its older task first");
                self.join(std::slice::from_ref(&name)).await;
            }
            let (stop, nudge, progress) =
                (CancellationToken::new(), Arc::new(Notify::new()), Arc::new(Progress::new()));
            let task = Task {
                shared: Arc::clone(&self.shared),
                topic: Arc::from(topic),
                partition,
                queue,
                stop: stop.clone(),
                nudge: Arc::clone(&nudge),
                progress: Arc::clone(&progress),
                batch_size: BatchSize::new(&self.shared.budget),
                portion: Portion::Small,
                rejects: Rejects::default(),
                novelty: Novelty::default(),
                backoff: backoff(),
                marking: None,
                held_for: None,
                has_begun_fetching: false,
                first_met: None,
                replayed_last: false,
                parked: ParkedKeys::new(),
                place: None,
            };
            let (failures, of) = (self.failures.clone(), name.clone());
            let done = tokio::spawn(async move {
                // Handlers' panics are caught where they are called; one that gets here is weir's own fault, and a
                // partition without a task would stand still for ever.
                let end = AssertUnwindSafe(Box::pin(task.run())).catch_unwind().await;
                if let End::Fatal(why) = end.unwrap_or_else(|_| End::Fatal("the partition's task panicked".to_owned()))
                {
                    // The first failure ends the process; later ones need not be told.
                    failures.try_send((of, why)).ok();
                }
            });
            self.standings.lock().insert(name.clone(), Arc::clone(&progress));
            self.running.insert(name, Running { stop, nudge, progress, done });
        }
        self.note_assigned();
    }

    /// Stops tasks and waits for their end: until the drain deadline for the batch in hand, then by cutting it off.
    /// Says how many were cut off.
    pub(super) async fn join(&mut self, names: &[Name]) -> usize {
        let mut running: Vec<(Name, Running)> =
            names.iter().filter_map(|name| self.running.remove_entry(name)).collect();
        if sabotage::has(Bug::UnjoinedSplit) {
            return 0;
        }
        for (_, task) in &running {
            task.stop.cancel();
        }
        let deadline = tokio::time::Instant::now() + self.drain_deadline;
        let mut overran = 0;
        for ((topic, partition), task) in &mut running {
            if tokio::time::timeout_at(deadline, &mut task.done).await.is_err() {
                overran += 1;
                tracing::warn!(
                    topic,
                    partition,
                    "the batch in hand did not finish within the drain deadline; its events come again"
                );
                task.done.abort();
                // Ends at the task's next await. Only then has it lost its right to claim, so this has no deadline.
                (&mut task.done).await.ok();
            }
        }
        {
            let mut standings = self.standings.lock();
            for (name, _) in &running {
                standings.remove(name);
            }
        }
        self.note_assigned();
        self.note_lag();
        overran
    }

    fn note_assigned(&self) {
        self.shared.metrics.set_partitions_assigned(self.running.len());
        self.shared.assigned.store(self.running.len(), Ordering::Relaxed);
        self.shared.steering.pacing.set_partitions(self.running.len());
    }

    pub(super) fn stop_all(&self) {
        for task in self.running.values() {
            task.stop.cancel();
        }
    }

    pub(super) async fn join_all(&mut self) -> usize {
        let names: Vec<Name> = self.running.keys().cloned().collect();
        self.join(&names).await
    }

    /// Waits for a task that cannot go on.
    pub(super) async fn ended(&mut self) -> Error {
        // The pool holds a sender itself, so the channel is never closed.
        let Some(((topic, partition), message)) = self.failed.recv().await else {
            return std::future::pending().await;
        };
        Error::Partition { pool: Arc::clone(&self.shared.name), topic, partition, message }
    }

    pub(super) fn kafka_error(&self, message: String) -> Error {
        Error::Kafka { pool: Arc::clone(&self.shared.name), message }
    }

    /// Tells what is held, what the pool waits for, and which dependencies are away.
    pub(super) fn tell(&self, health: &PoolHealth) {
        let (mut held, mut waiting) = (Vec::new(), None);
        for ((topic, partition), task) in &self.running {
            match &task.progress.lock().phase {
                Phase::Held(why) => held.push((topic.to_string(), *partition, why.clone())),
                Phase::Waiting(what) => waiting = Some(what.clone()),
                Phase::TakingOver | Phase::Polling | Phase::Queued(_) | Phase::Paused | Phase::Working => {}
            }
        }
        let database = self.shared.gate.closed();
        let of_bucket = self.shared.steering.pacing.outage();
        let redis = self.shared.processed_set().and_then(ProcessedSet::outage).or(of_bucket);
        if waiting.is_none() && database.is_some() {
            waiting = Some("the database".to_owned());
        }
        let missing = || self.shared.waits_for();
        let waiting = waiting.or_else(|| self.shared.source.client.refused()).or_else(missing);
        self.shared.metrics.set_holds(held.len());
        health.partitions(self.running.len());
        health.held(held);
        health.waiting_for(waiting);
        let kafka = self.shared.source.client.outage();
        let outages = [(Dependency::Database, database), (Dependency::Redis, redis), (Dependency::Kafka, kafka)];
        let mut breakers = Vec::new();
        for (dependency, outage) in outages.into_iter().chain(self.shared.pipelines.outages()) {
            self.shared.metrics.set_breaker(&dependency, outage.is_some());
            breakers.extend(outage.map(|(since, error)| OpenBreaker { dependency, since, error }));
        }
        health.breakers(breakers);
    }
}
