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

impl Fetched {
    fn of(error: KafkaError) -> Self {
        match error {
            KafkaError::PartitionEOF(_) => Self::End,
            error => Self::Error(error),
        }
    }
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

    fn take(&self, limits: Limits, buffer: &mut Fetching) -> Option<Fetched> {
        loop {
            if buffer.records.len() >= limits.records || buffer.records.bytes() >= limits.bytes {
                return Some(buffer.finish());
            }
            match self.records.next(&mut buffer.records) {
                Some(Ok(())) => {}
                Some(Err(error)) if buffer.records.is_empty() => return Some(Fetched::of(error)),
                Some(Err(error)) => {
                    buffer.error = Some(error);
                    return Some(buffer.finish());
                }
                None => break,
            }
        }
        if let Some(error) = buffer.error.take() {
            return Some(Fetched::of(error));
        }
        if buffer.records.is_empty() {
            return None;
        }
        let until = *buffer.linger_until.get_or_insert_with(|| Instant::now() + limits.linger);
        (Instant::now() >= until).then(|| buffer.finish())
    }
}

/// Records taken so far. It belongs to the caller, so that a wait that is cut off loses none.
#[derive(Default)]
pub(crate) struct Fetching {
    records: RecordBuffer,
    linger_until: Option<Instant>,
    error: Option<KafkaError>,
}

impl Fetching {
    fn finish(&mut self) -> Fetched {
        self.linger_until = None;
        let next = RecordBuffer::with_capacity(self.records.len(), self.records.bytes());
        Fetched::Records(std::mem::replace(&mut self.records, next).finish())
    }
}
