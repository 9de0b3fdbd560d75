//! librdkafka's callbacks. They run on the poll thread and may block it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::{Assigned, Queue, SourceEvent, Watermarks};
use crate::kafka::{Rarely, plain};
use crate::metrics::{Commit, PoolMetrics};

/// Turns callbacks into [`SourceEvent`]s.
pub(crate) struct Context {
    sender: mpsc::Sender<SourceEvent>,
    watermarks: Arc<Watermarks>,
    metrics: PoolMetrics,
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    group: String,
    noted: Rarely,
    /// Why the group does not take this worker.
    refused: Mutex<Option<String>>,
}

impl Context {
    pub(super) fn new(
        group: &str,
        sender: mpsc::Sender<SourceEvent>,
        watermarks: Arc<Watermarks>,
        metrics: PoolMetrics,
    ) -> Self {
        Self {
            sender,
            watermarks,
            metrics,
            consumer: OnceLock::new(),
            group: group.to_owned(),
            noted: Rarely::default(),
            refused: Mutex::default(),
        }
    }

    /// Queues can only be split off an `Arc` of the consumer, which callbacks are not given.
    pub(super) fn attach(&self, consumer: &Arc<BaseConsumer<Self>>) {
        self.consumer.get_or_init(|| Arc::downgrade(consumer));
    }

    /// Why the group does not take this worker, where it does not.
    pub(super) fn refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    /// Logs an error of the client, which goes on trying: once, and again only when it lasts.
    pub(super) fn note_error(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return self.tell(error.to_string(), || tracing::warn!(%error, "the Kafka client reports an error"));
        };
        match code {
            RDKafkaErrorCode::PollExceeded => {
                tracing::warn!(
                    "the poll loop was held up beyond max.poll.interval; the group goes on without this worker until it polls again"
                );
            }
            // The partition's task meets the same in its own queue, and knows what to do about it.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::PartitionEOF => {}
            // It follows on the errors of the single brokers.
            RDKafkaErrorCode::AllBrokersDown => {}
            // Told twice; only once with the topic's name.
            RDKafkaErrorCode::UnknownTopicOrPartition => {
                if !reason.is_empty() {
                    self.tell(reason.to_owned(), || {
                        tracing::warn!(reason, "the topic does not exist; waiting for it to be made");
                    });
                }
            }
            code => match refusal(code, &self.group) {
                Some(why) => {
                    *lock(&self.refused) = Some(why.clone());
                    self.tell(format!("{code:?}"), || tracing::error!("{why}; trying on"));
                }
                None => self.tell(format!("{code:?}"), || {
                    tracing::warn!(%error, reason, "the Kafka client reports an error and goes on trying");
                }),
            },
        }
    }

    fn tell(&self, what: String, log: impl FnOnce()) {
        if self.noted.is_due(what) {
            log();
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
        if lost {
            self.watermarks.give_up(&partitions);
        } else if let Some(committed) =
            self.watermarks.tell_last(&partitions, |offsets| consumer.commit(offsets, CommitMode::Sync))
        {
            self.note_commit(committed.as_ref().map(drop));
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an operator must do before the group takes this worker.
fn refusal(code: RDKafkaErrorCode, group: &str) -> Option<String> {
    let what = match code {
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            "has members with another protocol or assignor than weir's (classic, cooperative-sticky): \
             stop them, or give the pool another `group`"
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => "is not allowed to weir's user: grant it READ on the group",
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "cannot read a topic: grant weir's user READ and DESCRIBE on the pool's topics"
        }
        RDKafkaErrorCode::InvalidSessionTimeout => {
            "cannot have this kafka.session_timeout_ms: the brokers' limits are group.min.session.timeout.ms \
             and group.max.session.timeout.ms"
        }
        RDKafkaErrorCode::GroupMaxSizeReached => "is full: run fewer workers, or raise the brokers' group.max.size",
        _ => return None,
    };
    Some(format!("group {group:?} {what}"))
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

    fn error(&self, error: KafkaError, reason: &str) {
        self.note_error(&error, plain(reason));
    }
}

impl ConsumerContext for Context {
    /// Replaces the default, which discards the errors of incremental assignments.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        self.metrics.rebalanced();
        self.noted.clear();
        *lock(&self.refused) = None;
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, tpl),
            _ => self.revoke(consumer, tpl),
        }
    }
}
