//! One partition's task: the only thing that touches its events, one batch after the other.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use rdkafka::error::KafkaError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::ahead::{Decoded, Next, Reading};
use super::batch_size::BatchSize;
use super::pace::Portion;
use super::position::{is_position, unsettled};
use super::progress::{Phase, Progress};
use super::rejects::Rejects;
use super::turns::Turn;
use crate::event::{Origin, Payload, Record};
use crate::metrics;
use crate::pipeline::{Novelty, ParkedKeys};
use crate::source::{Fetched, Limits, Queue};
use crate::store::{Fault, Held};

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often something is looked at again that only a person can change.
const HOLD_PROBE: Duration = Duration::from_secs(5);

/// Why a task leaves what it is doing.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was told to stop.
    Stop,
    /// It must read the ledger and claim again.
    Retake,
    /// The process must end.
    Fatal(String),
}

/// How a task ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was told.
    Stopped,
    /// It cannot go on; says why.
    Fatal(String),
}

/// A partition's task.
pub(super) struct Task<T> {
    pub(super) shared: Arc<Shared<T>>,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) queue: Queue,
    pub(super) stop: CancellationToken,
    /// Makes the task read the ledger, claim and seek again.
    pub(super) nudge: Arc<Notify>,
    pub(super) progress: Arc<Progress>,
    pub(super) batch_size: BatchSize,
    /// How large the rate lets its batches be.
    pub(super) portion: Portion,
    pub(super) rejects: Rejects,
    /// Whether its next batch is taken to have no repeats.
    pub(super) novelty: Novelty,
    pub(super) backoff: ExponentialBackoff,
    /// The last batch's ids on their way into the processed set.
    pub(super) marking: Option<tokio::task::JoinHandle<()>>,
    /// What it is held for, so that it is said once.
    pub(super) held_for: Option<String>,
    /// Whether the fetcher has found where it was assigned.
    pub(super) has_begun_fetching: bool,
    /// The topic as it was first met; none while it was missing. What is fetched meanwhile may be that one's.
    pub(super) first_met: Option<Option<Uuid>>,
    /// Whether it replayed dead rows last: then records that are there come first.
    pub(super) replayed_last: bool,
    /// The keys that are held back.
    pub(super) parked: ParkedKeys,
    /// Of the batch in hand, where partitions take turns at having one.
    pub(super) place: Option<Turn>,
}

pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_MIN)
        .with_max_delay(RETRY_MAX)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

impl<T: Payload> Task<T> {
    pub(super) async fn run(mut self) -> End {
        loop {
            self.progress.enter(Phase::TakingOver);
            let halt = match self.take_over().await {
                Ok(held) => self.own(held).await,
                Err(halt) => halt,
            };
            match halt {
                Halt::Stop => {
                    self.shared.gate.left(&self.topic, self.partition);
                    return End::Stopped;
                }
                Halt::Retake => {}
                Halt::Fatal(why) => return End::Fatal(why),
            }
        }
    }

    /// Handles batches for as long as the partition is held.
    async fn own(&mut self, mut held: Held) -> Halt {
        self.progress.claimed(&held);
        self.shared.source.watermarks.own(&self.topic, self.partition, held.next_offset);
        tracing::debug!(place = %held.place, owner = %held.token, offset = held.next_offset, "claimed");
        if let Err(halt) = self.read_parked().await {
            return halt;
        }
        let mut reading = Reading::default();
        match self.start_at(&held, &mut reading).await {
            Ok(first) => match self.handle(first, &mut held, &mut reading).await {
                Ok(()) => {}
                Err(halt) => return halt,
            },
            Err(halt) => return halt,
        }
        loop {
            if let Err(halt) = self.step(&mut held, &mut reading).await {
                return halt;
            }
        }
    }

    async fn step(&mut self, held: &mut Held, reading: &mut Reading<T>) -> Result<(), Halt> {
        let begun = Instant::now();
        self.progress.enter(Phase::Polling);
        let next = self.next_or_replay(reading, held).await?;
        let waited = std::mem::take(&mut reading.waited);
        self.shared.metrics.spent(metrics::Phase::Poll, begun.elapsed().saturating_sub(waited));
        match next {
            Next::Decoded(decoded) => self.handle_decoded(decoded, held, reading).await,
            Next::Fetched(Fetched::Records(records)) => self.handle(records, held, reading).await,
            Next::Fetched(Fetched::End) => self.caught_up(),
            Next::Fetched(Fetched::Error(error)) => self.recover(&error, held).await,
        }
    }

    /// How much is one batch.
    pub(super) fn limits(&self) -> Limits {
        let config = &self.shared.config;
        let paced = self.shared.steering.pacing.batch_max(self.portion);
        let records = self.batch_size.now().min(paced);
        Limits { records, bytes: config.batch_bytes, linger: config.batch_linger }
    }

    /// Notes that there is nothing to read below the log's present end.
    pub(super) fn caught_up(&self) -> Result<(), Halt> {
        if let Some(high) = self.log_end() {
            self.progress.lock().caught_up_to = high;
        }
        Ok(())
    }

    /// Where the log ended when the fetcher was answered last.
    pub(super) fn log_end(&self) -> Option<i64> {
        self.shared.source.client.cached_log_end(&self.topic, self.partition)
    }

    /// A partition's own error. Positions outside the log are never jumped over: either the topic is another one by
    /// now, or retention has taken events that were not settled, and then a person decides.
    pub(super) async fn recover(&mut self, error: &KafkaError, held: &Held) -> Result<(), Halt> {
        if !is_position(error) {
            self.wait_for(&format!("the partition to be fetched: {error}")).await?;
            return Err(Halt::Retake);
        }
        let topic_id = self.shared.source.client.topic_id(&self.topic).await;
        if topic_id.is_ok_and(|id| id != held.place.origin.topic_id) {
            return Err(Halt::Retake);
        }
        let asked = self.shared.source.client.log_ends(&self.topic, self.partition);
        match self.unless_stopped(asked).await? {
            Ok((low, high)) if (low..=high).contains(&held.next_offset) => {
                self.wait_for("the partition to be fetched").await?;
            }
            Ok((low, high)) => {
                let why = self.missing(held, low, high);
                self.hold(&why).await?;
            }
            Err(error) => self.wait_for(&format!("the broker to tell the log's ends: {error}")).await?,
        }
        Err(Halt::Retake)
    }

    /// What to say where the log does not have the position any more, or not yet.
    fn missing(&self, held: &Held, low: i64, high: i64) -> String {
        let (offset, pool, group, origin) =
            (held.next_offset, &self.shared.name, &self.shared.group, &held.place.origin);
        let to = if offset < low { "beginning" } else { "end" };
        let Origin { topic, partition, .. } = &**origin;
        let (stands, go_on) = match self.shared.letters {
            None => {
                ("the ledger stands", format!("`weir seek {pool} --topic {topic} --partition {partition} --to {to}`"))
            }
            Some(_) => (
                "the group has committed",
                format!("stop its workers, and reset the offsets of group {group} on {topic} by Kafka's own tool"),
            ),
        };
        format!(
            "{stands} at offset {offset}, and the log of {origin} has {low} to {high}: events are missing; nothing is passed \
             over. Restore the log, or accept the loss and go on with what there is: {go_on}"
        )
    }

    /// Handles records in order, in as many batches as their size limit makes of them. They take of the rate once, here:
    /// in portions, since they may have been fetched under another one.
    async fn handle(&mut self, records: Vec<Record>, held: &mut Held, reading: &mut Reading<T>) -> Result<(), Halt> {
        let fetched = records.len();
        let mut rest = unsettled(records, held.next_offset);
        self.note_consumed(fetched - rest.len());
        self.progress.lock().oldest_in_hand_ms = rest.first().map(|record| record.timestamp_ms);
        while !rest.is_empty() {
            let later = rest.split_off(self.shared.steering.pacing.batch_max(self.portion).min(rest.len()));
            if !self.await_rate(rest.len()).await? {
                rest.extend(later);
                continue;
            }
            self.await_resumed().await?;
            self.note_consumed(rest.len());
            self.work_off(rest, held, reading).await?;
            rest = later;
        }
        Ok(())
    }

    /// Under the name that the topic has in the metrics now.
    fn note_consumed(&self, records: usize) {
        if records > 0 {
            self.shared.topic_metrics(&self.topic).consumed.inc_by(records as u64);
        }
    }

    async fn work_off(&mut self, mut rest: Vec<Record>, held: &mut Held, reading: &mut Reading<T>) -> Result<(), Halt> {
        self.progress.enter(Phase::Working);
        while !rest.is_empty() {
            self.progress.lock().oldest_in_hand_ms = rest.first().map(|record| record.timestamp_ms);
            let later = rest.split_off(self.batch_size.now().min(rest.len()));
            let shared = Arc::clone(&self.shared);
            let decoded = shared.decode(&held.place.origin, std::mem::take(&mut rest)).await;
            rest = match self.settle(decoded, held, reading).await? {
                Some(mut smaller) => {
                    smaller.extend(later);
                    smaller
                }
                None => later,
            };
        }
        Ok(())
    }

    /// Handles a batch that was decoded while the one before it was written, as long as it is one: batches may be smaller by
    /// now.
    async fn handle_decoded(
        &mut self,
        decoded: Decoded<T>,
        held: &mut Held,
        reading: &mut Reading<T>,
    ) -> Result<(), Halt> {
        let is_none = decoded.batch.fetched() > self.batch_size.now() || decoded.batch.first_offset < held.next_offset;
        // A rate that was set meanwhile is kept to by what was read ahead too.
        if is_none || self.shared.steering.pacing.now().is_some() {
            return self.handle(decoded.batch.into_records(), held, reading).await;
        }
        self.progress.lock().oldest_in_hand_ms = decoded.batch.timestamps_ms().next();
        self.await_resumed().await?;
        self.note_consumed(decoded.batch.fetched());
        self.progress.enter(Phase::Working);
        match self.settle(decoded, held, reading).await? {
            Some(smaller) => self.work_off(smaller, held, reading).await,
            None => Ok(()),
        }
    }

    /// Waits as a fault asks. It is an error only when there is nothing to try again for.
    pub(super) async fn after(&mut self, fault: Fault, why: &str) -> Result<(), Halt> {
        self.shared.metrics.retried(fault.as_str());
        self.place = None;
        match fault {
            Fault::Outage => {
                self.shared.gate.close(why, &self.topic, self.partition);
                self.progress.enter(Phase::Waiting(why.to_owned()));
                let gate = Arc::clone(&self.shared.gate);
                self.unless_stopped(gate.pass()).await
            }
            Fault::Busy | Fault::TooSlow | Fault::Reject => {
                tracing::debug!(topic = &*self.topic, partition = self.partition, why, "trying again");
                // Whoever waits for something named is not stuck, however long it takes.
                self.progress.enter(Phase::Waiting(why.to_owned()));
                let delay = self.backoff.next().unwrap_or(RETRY_MAX);
                self.sleep(delay).await
            }
            Fault::Hold => self.hold(why).await,
            Fault::Fatal => Err(Halt::Fatal(why.to_owned())),
        }
    }

    /// Waits before something that only a person can change is looked at again; said once.
    pub(super) async fn hold(&mut self, why: &str) -> Result<(), Halt> {
        self.place = None;
        if self.held_for.as_deref() != Some(why) {
            self.held_for = Some(why.to_owned());
            let (topic, partition) = (&*self.topic, self.partition);
            tracing::error!(
                pool = &*self.shared.name,
                topic,
                partition,
                why,
                "partition held; it goes on by itself once this is mended"
            );
        }
        self.progress.enter(Phase::Held(why.to_owned()));
        self.sleep(HOLD_PROBE).await
    }

    /// Waits a little for something that comes by itself.
    pub(super) async fn wait_for(&mut self, what: &str) -> Result<(), Halt> {
        self.place = None;
        self.progress.enter(Phase::Waiting(what.to_owned()));
        let delay = self.backoff.next().unwrap_or(RETRY_MAX).min(Duration::from_secs(1));
        self.sleep(delay).await
    }

    pub(super) async fn sleep(&self, delay: Duration) -> Result<(), Halt> {
        let begun = Instant::now();
        let slept = self.unless_stopped(tokio::time::sleep(delay)).await;
        self.shared.metrics.spent(metrics::Phase::Wait, begun.elapsed());
        slept
    }

    /// A future's value, unless the task is told to stop first.
    pub(super) async fn unless_stopped<V>(&self, future: impl Future<Output = V>) -> Result<V, Halt> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Halt::Stop),
            value = future => Ok(value),
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_to_a_bound_for_ever() {
        let delays: Vec<Duration> = backoff().take(100).collect();
        assert_eq!(delays.len(), 100);
        assert!(delays[0] >= RETRY_MIN && delays[0] < RETRY_MIN * 2);
        assert!(delays.iter().all(|delay| *delay < RETRY_MAX * 2));
    }
}
