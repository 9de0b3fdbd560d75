//! librdkafka's callbacks. They run on the poll thread and may block it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::{Assigned, Queue, SourceEvent, Watermarks};
use crate::metrics::{Commit, PoolMetrics};

/// Turns callbacks into [`SourceEvent`]s.
pub(crate) struct Context {
    sender: mpsc::Sender<SourceEvent>,
    watermarks: Arc<Watermarks>,
    metrics: PoolMetrics,
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    /// Errors that last are logged once, until a rebalance.
    noted: Mutex<HashSet<String>>,
}

impl Context {
    pub(super) fn new(sender: mpsc::Sender<SourceEvent>, watermarks: Arc<Watermarks>, metrics: PoolMetrics) -> Self {
        Self { sender, watermarks, metrics, consumer: OnceLock::new(), noted: Mutex::default() }
    }

    /// Queues can only be split off an `Arc` of the consumer, which callbacks are not given.
    pub(super) fn attach(&self, consumer: &Arc<BaseConsumer<Self>>) {
        self.consumer.get_or_init(|| Arc::downgrade(consumer));
    }

    pub(super) fn note_error(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PollExceeded) => {
                tracing::warn!(
                    "the poll loop was held up beyond max.poll.interval; the group goes on without this worker until it polls again"
                );
            }
            // The partition's task meets the same in its own queue, and knows what to do about it.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::PartitionEOF) => {}
            _ => {
                let text = error.to_string();
                let mut noted = self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if noted.len() < 64 && noted.insert(text) {
                    tracing::warn!(%error, "the Kafka client reports an error and goes on trying");
                }
            }
        }
    }

    pub(super) fn note_commit(&self, result: Result<(), &KafkaError>) {
        match result {
            Ok(()) => self.metrics.committed(Commit::Ok),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
            Err(error) => {
                self.metrics.committed(Commit::Error);
                tracing::debug!(%error, "an offset commit was refused; the ledger has the truth");
            }
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, tpl: &mut TopicPartitionList) {
        let Some(shared) = self.consumer.get().and_then(Weak::upgrade) else {
            // The consumer is being closed; nobody would read the partitions.
            return self.give_up(consumer, &TopicPartitionList::new());
        };
        let mut assigned = Vec::with_capacity(tpl.count());
        for (topic, partition) in names(tpl) {
            // Split before the assignment takes effect, or the first messages go to the main queue.
            match Queue::split(&shared, &topic, partition) {
                Some(queue) => assigned.push(Assigned { topic, partition, queue }),
                None => tracing::error!(topic, partition, "librdkafka has no queue for an assigned partition"),
            }
        }
        // The position is the ledger's, which the partition's task reads; until it seeks, the log's end keeps the
        // fetcher running and idle.
        if let Err(error) = tpl.set_all_offsets(Offset::End) {
            tracing::error!(%error, "cannot set the start of an assignment");
        }
        if let Err(error) = consumer.incremental_assign(tpl) {
            tracing::error!(%error, "librdkafka refused an assignment");
        }
        drop(self.sender.blocking_send(SourceEvent::Assigned(assigned)));
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) {
        let partitions = names(tpl);
        let lost = consumer.assignment_lost();
        if !partitions.is_empty() {
            let (answer, answered) = oneshot::channel();
            let event = match lost {
                true => SourceEvent::Lost(partitions.clone(), answer),
                false => SourceEvent::Revoked(partitions.clone(), answer),
            };
            // A pool that is gone has dropped its tasks, and they their right to claim.
            if self.sender.blocking_send(event).is_ok() {
                drop(answered.blocking_recv());
            }
        }
        let offsets = self.watermarks.give_up(&partitions);
        if !lost && offsets.count() > 0 {
            self.note_commit(consumer.commit(&offsets, CommitMode::Sync).as_ref().map(drop));
        }
        self.give_up(consumer, tpl);
    }

    fn give_up(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) {
        if let Err(error) = consumer.incremental_unassign(tpl) {
            tracing::debug!(%error, "librdkafka refused to unassign");
        }
    }
}

fn names(tpl: &TopicPartitionList) -> Vec<(String, i32)> {
    tpl.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl ClientContext for Context {
    /// librdkafka's own log lines, which quote no payloads. Its warnings repeat while a broker is away, so they are
    /// for whoever asks for them.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, message);
            }
            _ => tracing::debug!(target: "librdkafka", facility, message),
        }
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        self.note_error(&error);
    }
}

impl ConsumerContext for Context {
    /// Replaces the default, which discards the errors of incremental assignments.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        self.metrics.rebalanced();
        self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, tpl),
            _ => self.revoke(consumer, tpl),
        }
    }
}
