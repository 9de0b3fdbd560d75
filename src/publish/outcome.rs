//! What became of an event: its handle, and who hears the broker's answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::PublishError;
use crate::kafka::{Rarely, Reasons, Unanswered, plain};
use crate::telemetry::traces::Sending;

/// What is known of an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// The broker has stored it there.
    Acknowledged {
        /// The partition it was put on.
        partition: i32,
        /// Its offset there.
        offset: i64,
    },
    /// It waits in the client's queue ([`Delivery::Buffered`]); its fate shows in [`Publisher::flush`].
    Buffered,
}

/// The outcome of one event, in time. Dropping it does not take the event back.
#[derive(Debug)]
#[must_use = "an unacknowledged event is noticed only by who awaits its handle or flushes"]
pub struct Handle(pub(super) Option<oneshot::Receiver<Result<Receipt, PublishError>>>);

impl Handle {
    /// The outcome if it is known by now, without waiting; to be asked no more once it was given. Polling
    /// the handle instead may answer "not yet" wrongly, when the runtime wants the task to yield.
    pub fn try_outcome(&mut self) -> Option<Result<Receipt, PublishError>> {
        use oneshot::error::TryRecvError;
        let Some(reply) = &mut self.0 else {
            return Some(Ok(Receipt::Buffered));
        };
        match reply.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(PublishError::Interrupted)),
        }
    }
}

impl Future for Handle {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(Receipt::Buffered)),
            Some(reply) => Pin::new(reply).poll(cx).map(|reply| reply.unwrap_or(Err(PublishError::Interrupted))),
        }
    }
}

/// What a flush could not bring to the broker.
#[derive(Debug, Clone, Default)]
pub struct Undelivered {
    /// Events that failed since the last flush.
    pub failed: u64,
    /// Events still in flight at the deadline: neither known to be stored nor to have failed.
    pub pending: u64,
    /// Why the first of the failed ones failed.
    pub first_error: Option<PublishError>,
}

impl Undelivered {
    /// How many events are not known to be stored.
    pub fn total(&self) -> u64 {
        self.failed + self.pending
    }
}

/// An event in flight: gives its place in the queue back when it is dropped, whatever became of it.
pub(super) struct Pending {
    pub(super) _place: OwnedSemaphorePermit,
    pub(super) reply: Option<oneshot::Sender<Result<Receipt, PublishError>>>,
    /// Its span, where it is traced.
    pub(super) sending: Option<Box<Sending>>,
}

/// Hears what became of each event, on the producer's own thread.
pub(super) struct Deliveries {
    brokers: Arc<str>,
    failed: AtomicU64,
    first_error: Mutex<Option<PublishError>>,
    reasons: Reasons,
    noted: Rarely,
    in_flight: Arc<Semaphore>,
    in_flight_events_max: u32,
}

impl Deliveries {
    pub(super) fn new(brokers: Arc<str>, in_flight: Arc<Semaphore>, in_flight_events_max: u32) -> Self {
        Self {
            brokers,
            failed: AtomicU64::new(0),
            first_error: Mutex::new(None),
            reasons: Reasons::default(),
            noted: Rarely::default(),
            in_flight,
            in_flight_events_max,
        }
    }

    pub(super) fn unanswered(&self) -> Unanswered {
        self.reasons.unanswered(&self.brokers)
    }

    fn count_failure(&self, error: &PublishError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.clone());
    }

    pub(super) fn take_failures(&self) -> (u64, Option<PublishError>) {
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        (self.failed.swap(0, Ordering::Relaxed), first.take())
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reasons.note(&error, reason);
        let code = code_of(&error);
        // Before anything is sent, whoever waits for the cluster says so.
        let is_idle = self.in_flight.available_permits() >= self.in_flight_events_max as usize;
        if !is_idle && code != RDKafkaErrorCode::AllBrokersDown && self.noted.is_due(format!("{code:?}")) {
            tracing::warn!("the producer has trouble and goes on trying: {}", plain(reason));
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        let Pending { reply, sending, .. } = *pending;
        match (sending, result) {
            (Some(sending), Ok(message)) => sending.stored(message.partition(), message.offset()),
            (Some(sending), Err((error, _))) => sending.failed(format!("{:?}", code_of(error))),
            (None, _) => {}
        }
        let outcome = match result {
            Ok(message) => Ok(Receipt::Acknowledged { partition: message.partition(), offset: message.offset() }),
            Err((error, message)) => Err(PublishError::of_delivery(
                code_of(error),
                message.topic(),
                message.payload_len() + message.key_len(),
                &self.brokers,
            )),
        };
        if let Err(error) = &outcome {
            self.count_failure(error);
        }
        if let Some(reply) = reply {
            // A dropped handle is the caller's choice; failures are counted above all the same.
            drop(reply.send(outcome));
        }
    }
}

pub(super) fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}
