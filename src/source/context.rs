//! librdkafka's callbacks. They run on the poll thread and may block it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::{Assigned, Member, Queue, SourceEvent, Watermarks};
use crate::breaker::{Breaker, Permit};
use crate::kafka::{Rarely, plain};
use crate::metrics::{Commit, PoolMetrics};

/// How long the poll thread waits for brokers that are asked only to wake the threads that fetch from them.
const WAKE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the poll thread waits for the group's offsets, which the ledger's may stand in for.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);
/// Later than any record, in milliseconds since 1970, so that a broker has nothing to search for.
const FAR_FUTURE_MS: i64 = 253_402_300_799_999;

/// Turns callbacks into [`SourceEvent`]s.
pub(crate) struct Context {
    sender: mpsc::Sender<SourceEvent>,
    watermarks: Arc<Watermarks>,
    metrics: PoolMetrics,
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
    member: Member,
    /// Everything was given back, and the pool is not told of rebalances any more.
    given_back: AtomicBool,
    noted: Rarely,
    /// Why the group does not take this worker.
    refused: Mutex<Option<String>>,
    /// Open while no broker answers. librdkafka tells when the last one goes, and not when one is back.
    pub(super) brokers: Breaker,
}

impl Context {
    pub(super) fn new(
        member: Member,
        sender: mpsc::Sender<SourceEvent>,
        watermarks: Arc<Watermarks>,
        metrics: PoolMetrics,
    ) -> Self {
        Self {
            sender,
            watermarks,
            metrics,
            consumer: OnceLock::new(),
            member,
            given_back: AtomicBool::new(false),
            noted: Rarely::default(),
            refused: Mutex::default(),
            brokers: Breaker::default(),
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
            // It follows on the errors of the single brokers, which are logged.
            RDKafkaErrorCode::AllBrokersDown => self.note_brokers(Permit::Regular, Some(reason.to_owned())),
            // Told twice; only once with the topic's name.
            RDKafkaErrorCode::UnknownTopicOrPartition => {
                if !reason.is_empty() {
                    self.tell(reason.to_owned(), || {
                        tracing::warn!(reason, "the topic does not exist; waiting for it to be made");
                    });
                }
            }
            code => match self.member.refusal(code) {
                Some(_) => self.note_refusal(code),
                None => self.tell(format!("{code:?}"), || {
                    tracing::warn!(%error, reason, "the Kafka client reports an error and goes on trying");
                }),
            },
        }
    }

    /// Whether any broker answered.
    pub(super) fn note_brokers(&self, permit: Permit, error: Option<String>) {
        match error {
            None => self.brokers.succeeded(permit),
            Some(error) => self.brokers.failed(permit, Instant::now(), &error),
        };
    }

    /// The group does not take this worker, which tries on.
    pub(super) fn note_refusal(&self, code: RDKafkaErrorCode) {
        let Some(why) = self.member.refusal(code) else { return };
        *lock(&self.refused) = Some(why.clone());
        self.tell(format!("{code:?}"), || tracing::error!("{why}; trying on"));
    }

    /// The group takes this worker.
    pub(super) fn taken(&self) {
        self.noted.clear();
        *lock(&self.refused) = None;
    }

    /// Why the client cannot go on.
    pub(super) fn fatal(&self, code: RDKafkaErrorCode, why: &str) -> String {
        self.member.end(code, plain(why))
    }

    /// Gives all partitions back, without leaving the group: a static member's partitions wait for its return. Closing
    /// revokes them again, which is answered without the pool.
    pub(super) fn give_back(&self, consumer: &BaseConsumer<Self>) {
        match consumer.assignment() {
            Ok(assigned) => self.revoke(consumer, &assigned),
            Err(error) => {
                tracing::error!(%error, "cannot tell the assignment; its partitions are given back by closing");
            }
        }
        self.given_back.store(true, Ordering::Release);
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
        if let Err(error) = begin_at_committed(consumer, tpl) {
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

/// Where the fetchers begin. The position is the ledger's, which the partitions' tasks read meanwhile; mostly it is the group's in
/// Kafka, or the log's beginning before it has one. librdkafka is not left to ask for it (`Offset::Stored`): without an answer
/// it forgets that it has asked, and reads none of the partitions, nor any that is assigned later (its issue 5586).
fn begin_at_committed(consumer: &BaseConsumer<Context>, tpl: &mut TopicPartitionList) -> Result<(), KafkaError> {
    let committed = match consumer.committed_offsets(tpl.clone(), COMMITTED_TIMEOUT) {
        Ok(committed) => committed,
        Err(error) => {
            tracing::debug!(%error, "the group's offsets are not told; the ledger's are sought");
            return tpl.set_all_offsets(Offset::End);
        }
    };
    tpl.set_all_offsets(Offset::Beginning)?;
    for element in committed.elements() {
        let offset = match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Offset::Offset(offset),
            (Ok(()), _) => continue,
            (Err(_), _) => Offset::End,
        };
        tpl.set_partition_offset(element.topic(), element.partition(), offset)?;
    }
    Ok(())
}

/// Has the partitions that stay fetched on. librdkafka pauses all of them while it asks for a change of the assignment, and
/// lets them go on when it is made, but does not wake the threads that fetch (`rd_kafka_assignment_resume`): with nothing
/// else to do they sleep for up to a second. A request to the partitions' leaders wakes them, and so does its answer.
fn wake_fetchers(consumer: &BaseConsumer<Context>) {
    let Ok(mut assigned) = consumer.assignment() else { return };
    if assigned.count() > 0 && assigned.set_all_offsets(Offset::Offset(FAR_FUTURE_MS)).is_ok() {
        // What is answered does not matter.
        consumer.offsets_for_times(assigned, WAKE_TIMEOUT).ok();
    }
}

fn names(tpl: &TopicPartitionList) -> Vec<(String, i32)> {
    tpl.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    /// librdkafka's own log lines, which quote no payloads. Its warnings repeat while a broker is away, so they are
    /// for whoever asks for them.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // It is told with the reason that the pool ends for.
            _ if facility == "FATAL" => tracing::debug!(target: "librdkafka", facility, message),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, message);
            }
            _ => tracing::debug!(target: "librdkafka", facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // One that the client cannot go on from is told by the poll loop, which ends the pool with it.
        let consumer = self.consumer.get().and_then(Weak::upgrade);
        if consumer.is_some_and(|consumer| consumer.client().fatal_error().is_some()) {
            return;
        }
        self.note_error(&error, plain(reason));
    }
}

impl ConsumerContext for Context {
    /// Replaces the default, which discards the errors of incremental assignments.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        self.metrics.rebalanced();
        self.taken();
        if self.given_back.load(Ordering::Acquire) {
            return self.give_up(consumer, tpl);
        }
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, tpl),
            _ => self.revoke(consumer, tpl),
        }
        wake_fetchers(consumer);
    }
}
