//! One partition's own queue.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Context;
use crate::event::{Record, RecordBuffer};

/// Split queues can miss a wake-up, so an idle queue is looked into this often whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A partition's queue. Not polling it is the back-pressure; dropping it strands the partition until it is split
/// again, so it lives exactly as long as the partition's task.
pub(crate) struct Queue {
    records: Records,
    nonempty: Arc<Notify>,
}

/// Where a queue's records come from.
enum Records {
    Split(PartitionQueue<Context>),
    #[cfg(test)]
    Simulated(Box<dyn Fn() -> Option<Result<Record, KafkaError>> + Send + Sync>),
}

impl Records {
    /// Puts the next record into the buffer. `None`: there is none.
    fn next(&self, buffer: &mut RecordBuffer) -> Option<Result<(), KafkaError>> {
        match self {
            Self::Split(queue) => Some(queue.poll(Duration::ZERO)?.map(|message| buffer.push(&message))),
            #[cfg(test)]
            Self::Simulated(next) => Some(next()?.map(|record| buffer.push_record(&record))),
        }
    }
}

/// What a queue gave.
pub(crate) enum Fetched {
    /// Consecutive records, at least one.
    Records(Vec<Record>),
    /// The log's end is reached: there is nothing to read until more is written.
    End,
    /// An error of this partition alone, such as a position outside its log.
    Error(KafkaError),
}

/// How much to take at once, and how long to wait for more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
}

impl Queue {
    pub(super) fn split(consumer: &Arc<BaseConsumer<Context>>, topic: &str, partition: i32) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(topic, partition)?;
        let nonempty = Arc::new(Notify::new());
        let wake = Arc::clone(&nonempty);
        queue.set_nonempty_callback(move || wake.notify_one());
        Some(Self { records: Records::Split(queue), nonempty })
    }

    #[cfg(test)]
    pub(crate) fn simulated(next: impl Fn() -> Option<Result<Record, KafkaError>> + Send + Sync + 'static) -> Self {
        Self { records: Records::Simulated(Box::new(next)), nonempty: Arc::default() }
    }

    /// Waits for records, then takes what is there within the limits. Safe to drop while it waits: nothing is taken
    /// from the queue before the last wait ends.
    pub(crate) async fn fetch(&self, limits: Limits, buffer: &mut Fetching) -> Fetched {
        buffer.reserve();
        loop {
            if let Some(fetched) = self.take(limits, buffer) {
                return fetched;
            }
            let wait = match buffer.linger_until {
                Some(until) => until.saturating_duration_since(Instant::now()),
                None => LOOK_AGAIN,
            };
            // Whether woken or timed out, the queue is looked into again.
            tokio::time::timeout(wait, self.nonempty.notified()).await.ok();
        }
    }

    /// Waits until there is a record, and says so, or else the log's end or an error. Safe to drop while it waits.
    pub(crate) async fn await_first(&self, limits: Limits, buffer: &mut Fetching) -> bool {
        loop {
            self.fill(Limits { records: 1, ..limits }, buffer);
            if !buffer.records.is_empty() {
                return true;
            }
            if buffer.is_at_end || buffer.error.is_some() {
                return false;
            }
            tokio::time::timeout(LOOK_AGAIN, self.nonempty.notified()).await.ok();
        }
    }

    /// Takes as many records as the limits allow if so many are there now; else they stay in the buffer.
    pub(crate) fn fetch_full(&self, limits: Limits, buffer: &mut Fetching) -> Option<Vec<Record>> {
        buffer.reserve();
        self.fill(limits, buffer);
        buffer.is_full(limits).then(|| buffer.finish())
    }

    fn take(&self, limits: Limits, buffer: &mut Fetching) -> Option<Fetched> {
        self.fill(limits, buffer);
        if buffer.records.is_empty() {
            return match buffer.error.take() {
                Some(error) => Some(Fetched::Error(error)),
                None => std::mem::take(&mut buffer.is_at_end).then_some(Fetched::End),
            };
        }
        let until = *buffer.linger_until.get_or_insert_with(|| Instant::now() + limits.linger);
        let is_done = buffer.is_at_end || buffer.error.is_some() || buffer.is_full(limits) || Instant::now() >= until;
        is_done.then(|| Fetched::Records(buffer.finish()))
    }

    fn fill(&self, limits: Limits, buffer: &mut Fetching) {
        while buffer.error.is_none() && !buffer.is_full(limits) {
            match self.records.next(&mut buffer.records) {
                Some(Ok(())) => buffer.is_at_end = false,
                // Said each time that the fetcher meets the end, so a queue that was left alone at the end holds one behind
                // every few records.
                Some(Err(KafkaError::PartitionEOF(_))) => buffer.is_at_end = true,
                Some(Err(error)) => buffer.error = Some(error),
                None => return,
            }
        }
    }
}

/// Records taken so far. It belongs to the caller, so that a wait that is cut off loses none.
#[derive(Default)]
pub(crate) struct Fetching {
    records: RecordBuffer,
    linger_until: Option<Instant>,
    /// The log's end comes after them.
    is_at_end: bool,
    /// This error comes after them.
    error: Option<KafkaError>,
    /// How many records and bytes were taken last.
    last: (usize, usize),
}

impl Fetching {
    fn is_full(&self, limits: Limits) -> bool {
        self.records.len() >= limits.records || self.records.bytes() >= limits.bytes
    }

    /// Counts the time that is lingered from now on: what its queue has room for may be less than a batch.
    pub(crate) fn linger_anew(&mut self, limits: Limits) {
        self.linger_until = Some(Instant::now() + limits.linger);
    }

    /// The time stamp of the first record, in milliseconds since 1970.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.records.first_timestamp_ms()
    }

    fn finish(&mut self) -> Vec<Record> {
        self.linger_until = None;
        self.last = (self.records.len(), self.records.bytes());
        std::mem::take(&mut self.records).finish()
    }

    /// Makes room for as much as was taken last.
    fn reserve(&mut self) {
        let (records, bytes) = self.last;
        self.records.reserve(records, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use rdkafka::types::RDKafkaErrorCode;

    use super::*;

    const LIMITS: Limits = Limits { records: 4, bytes: 1 << 20, linger: Duration::from_millis(5) };

    fn queue(of: impl IntoIterator<Item = Result<i64, KafkaError>>) -> Queue {
        let items: Mutex<VecDeque<_>> = Mutex::new(of.into_iter().collect());
        Queue::simulated(move || Some(items.lock().unwrap().pop_front()?.map(|offset| Record::new(offset, "{}"))))
    }

    fn end() -> Result<i64, KafkaError> {
        Err(KafkaError::PartitionEOF(0))
    }

    async fn fetched(queue: &Queue, fetching: &mut Fetching) -> String {
        match queue.fetch(LIMITS, fetching).await {
            Fetched::Records(records) => {
                format!("{:?}", records.iter().map(|record| record.offset).collect::<Vec<_>>())
            }
            Fetched::End => "end".to_owned(),
            Fetched::Error(_) => "error".to_owned(),
        }
    }

    async fn all(of: impl IntoIterator<Item = Result<i64, KafkaError>>, fetches: usize) -> Vec<String> {
        let (queue, mut fetching, mut all) = (queue(of), Fetching::default(), Vec::new());
        for _ in 0..fetches {
            all.push(fetched(&queue, &mut fetching).await);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_records_follow_cuts_no_batch() {
        let items = [Ok(0), end(), Ok(1), end(), end(), Ok(2), Ok(3), end(), Ok(4), end()];
        assert_eq!(all(items, 3).await, ["[0, 1, 2, 3]", "[4]", "end"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_comes_behind_the_records_before_it_and_before_those_after_it() {
        let error = Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange));
        assert_eq!(all([Ok(0), error, Ok(1), end()], 4).await, ["[0]", "error", "[1]", "end"]);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_nobody_lingers_and_elsewhere_as_long_as_configured() {
        for (items, waited) in [(vec![Ok(0), end()], Duration::ZERO), (vec![Ok(0)], LIMITS.linger)] {
            let begun = Instant::now();
            assert_eq!(all(items, 1).await, ["[0]"]);
            assert_eq!(begun.elapsed(), waited);
        }
    }
}
