//! Producing to Kafka.
//!
//! What a [`Publisher`] promises, with [`Delivery::Acknowledged`]:
//!
//! - An event whose [`Handle`] resolves to a [`Receipt`] is stored by every in-sync replica, once, however
//!   often the producer had to send it (acks=all, idempotent).
//! - Events of one key that are sent one after the other stand in that order on their partition.
//! - An event whose handle resolves to an error was refused or given up. Where the error is
//!   [`PublishError::TimedOut`] or [`PublishError::Interrupted`] it may nevertheless be on its partition
//!   (the broker's answer is what was missing): send it again and rely on its id.
//! - Nothing is dropped because a queue is full: sending waits.
//!
//! What breaks it: dropping the publisher without [`Publisher::flush`] abandons what is in flight, and an
//! event sent again by the caller is a second event.
//!
//! With [`Delivery::Buffered`] sending returns as soon as the event is in the client's queue; the leader's
//! answer alone counts, a repeat after a lost answer can put an event there twice or behind a later one,
//! and failures show only as counts in [`Publisher::flush`].
//!
//! A key goes to the partition that the Java client would choose (murmur2); events without a key are
//! spread at random.

mod error;
pub mod key;
pub mod lines;
mod options;
mod outcome;
mod outgoing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use tokio::sync::{Semaphore, oneshot};

use crate::kafka::Unanswered;
use crate::telemetry::traces::Tracer;
use outcome::{Deliveries, Pending, code_of};
use outgoing::record;

pub use error::PublishError;
pub use options::{Compression, Delivery, PublishOptions};
pub use outcome::{Handle, Receipt, Undelivered};
pub use outgoing::Outgoing;

/// How long sending waits before it tries again when the client's queue is full of bytes.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);
/// How long one look at the cluster's metadata may take, and the pause before the next.
const METADATA_ATTEMPT: Duration = Duration::from_secs(2);
const METADATA_PAUSE: Duration = Duration::from_millis(250);

/// A Kafka producer. Cheap to clone: clones share one connection, queue and set of bounds. Dropping the
/// last clone blocks for about a tenth of a second, half a second at most more when events are in flight.
#[derive(Clone)]
pub struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    in_flight: Arc<Semaphore>,
    in_flight_events_max: u32,
    event_bytes_max: usize,
    delivery: Delivery,
    brokers: Arc<str>,
    tracer: Tracer,
}

impl Publisher {
    /// Makes a producer for the cluster that `client` names. What `client` sets itself wins over the
    /// options' defaults, but for the settings that `options.delivery` stands for. It does not connect
    /// yet: see [`Publisher::await_topic`].
    ///
    /// # Errors
    /// [`PublishError::Setup`] when librdkafka refuses a setting.
    pub fn new(client: ClientConfig, options: PublishOptions) -> Result<Self, PublishError> {
        let settings = options.settings(client);
        let event_bytes_max = settings
            .create_native_config()
            .and_then(|native| native.get("message.max.bytes"))
            .map_err(PublishError::Setup)?
            .parse()
            .unwrap_or(usize::MAX);
        let brokers: Arc<str> = settings.get("bootstrap.servers").unwrap_or_default().into();
        let in_flight_events_max = options.in_flight_events_max.max(1);
        let in_flight = Arc::new(Semaphore::new(in_flight_events_max as usize));
        let deliveries = Deliveries::new(Arc::clone(&brokers), Arc::clone(&in_flight), in_flight_events_max);
        Ok(Self {
            producer: settings.create_with_context(deliveries).map_err(PublishError::Setup)?,
            in_flight,
            in_flight_events_max,
            event_bytes_max,
            delivery: options.delivery,
            brokers,
            tracer: Tracer::default(),
        })
    }

    /// Events that a trace leads to have a span, and for a part of the others a trace is begun (`traces.sample_ratio`).
    /// Such an event gets a header `traceparent`, unless it has one: that one stays as it is.
    #[must_use]
    pub fn traced(self, tracer: &Tracer) -> Self {
        Self { tracer: tracer.clone(), ..self }
    }

    /// Sends an event: waits until it has a place in the queue, and returns the handle that tells what
    /// became of it. Calls made one after the other keep their order; the queue's bounds are
    /// `in_flight_events_max` and librdkafka's `queue.buffering.max.kbytes`.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::UnknownTopic`] or [`PublishError::Refused`]: the event
    /// was not queued. Later failures are the handle's.
    pub async fn send(&self, event: Outgoing<'_>) -> Result<Handle, PublishError> {
        let place = Arc::clone(&self.in_flight).acquire_owned().await.map_err(|_| PublishError::Interrupted)?;
        let (reply, handle) = match self.delivery {
            Delivery::Acknowledged => {
                let (reply, handle) = oneshot::channel();
                (Some(reply), Some(handle))
            }
            Delivery::Buffered => (None, None),
        };
        let sending = self.tracer.sending(event.topic, || event.origin());
        let context = sending.as_ref().map_or_else(Vec::new, |sending| event.context_of(sending));
        let pending = Box::new(Pending { _place: place, reply, sending });
        let mut record = record(&event, &context, pending);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(Handle(handle)),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, refused)) => {
                    if let Some(sending) = refused.delivery_opaque.sending {
                        sending.failed(format!("{:?}", code_of(&error)));
                    }
                    return Err(self.refusal(&event, &error));
                }
            }
        }
    }

    /// Waits until everything sent before is delivered or has failed, `deadline` at most, and returns
    /// what was not delivered since the last flush.
    pub async fn flush(&self, deadline: Duration) -> Undelivered {
        let all = self.in_flight.acquire_many(self.in_flight_events_max);
        let pending = match tokio::time::timeout(deadline, all).await {
            Ok(_) => 0,
            Err(_) => self.in_flight_events(),
        };
        let (failed, first_error) = self.producer.context().take_failures();
        Undelivered { failed, pending, first_error }
    }

    /// How many events are neither delivered nor failed at this moment.
    pub fn in_flight_events(&self) -> u64 {
        u64::from(self.in_flight_events_max).saturating_sub(self.in_flight.available_permits() as u64)
    }

    /// Waits until a broker answers, `deadline` at most, and returns the number of the topic's partitions.
    ///
    /// # Errors
    /// [`PublishError::UnknownTopic`] as soon as a broker says so, [`PublishError::Unanswered`] when none
    /// answered in time or the login is refused, [`PublishError::Refused`] for anything else, such as a missing permission.
    pub async fn await_topic(&self, topic: &str, deadline: Duration) -> Result<usize, PublishError> {
        let began = Instant::now();
        loop {
            let left = deadline.saturating_sub(began.elapsed());
            match self.look_up(topic, left.min(METADATA_ATTEMPT)).await {
                Ok(partitions) => return Ok(partitions),
                Err(code) if !is_passing(code) => {
                    return Err(PublishError::from_code(code, topic, &self.brokers));
                }
                Err(_) => match self.unanswered() {
                    error if began.elapsed() + METADATA_PAUSE >= deadline => return Err(error.into()),
                    error @ Unanswered::Login { .. } => return Err(error.into()),
                    Unanswered::Away { .. } => tokio::time::sleep(METADATA_PAUSE).await,
                },
            }
        }
    }

    /// Why no broker answers, as far as that is known.
    pub(crate) fn unanswered(&self) -> Unanswered {
        self.producer.context().unanswered()
    }

    async fn look_up(&self, topic: &str, timeout: Duration) -> Result<usize, RDKafkaErrorCode> {
        let producer = self.producer.clone();
        let topic = topic.to_owned();
        let look = move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), timeout).map_err(|error| code_of(&error))?;
            let found = metadata.topics().first();
            let found = found.ok_or(RDKafkaErrorCode::UnknownTopicOrPartition)?;
            match found.error() {
                Some(error) => Err(error.into()),
                None => Ok(found.partitions().len()),
            }
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(RDKafkaErrorCode::Fail))
    }

    fn refusal(&self, event: &Outgoing<'_>, error: &KafkaError) -> PublishError {
        match code_of(error) {
            RDKafkaErrorCode::MessageSizeTooLarge => PublishError::TooLarge {
                topic: event.topic.to_owned(),
                size_bytes: event.size_bytes(),
                limit_bytes: self.event_bytes_max,
            },
            code => PublishError::from_code(code, event.topic, &self.brokers),
        }
    }
}

/// Whether the cluster may answer otherwise in a moment.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::LeaderNotAvailable
            | Code::NetworkException
            | Code::BrokerNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(client: ClientConfig) -> Publisher {
        Publisher::new(client, PublishOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn an_event_that_is_too_large_is_refused_with_its_size_and_the_limit() {
        let mut client = ClientConfig::new();
        client.set("message.max.bytes", "2000");
        let value = [b'x'; 3000];
        let error = publisher(client).send(Outgoing::new("t", &value).key(b"key")).await.unwrap_err();
        let PublishError::TooLarge { size_bytes, limit_bytes, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((size_bytes, limit_bytes), (3003, 2000));
    }

    #[tokio::test]
    async fn sending_waits_when_the_queue_is_full_and_drops_nothing() {
        let options = PublishOptions { in_flight_events_max: 3, ..PublishOptions::default() };
        let publisher = Publisher::new(ClientConfig::new(), options).unwrap();
        let mut handles = Vec::new();
        for _ in 0..3 {
            handles.push(publisher.send(Outgoing::new("t", b"{}")).await.unwrap());
        }
        let fourth = publisher.send(Outgoing::new("t", b"{}"));
        let waited = tokio::time::timeout(Duration::from_millis(50), fourth).await;
        assert!(waited.is_err(), "the fourth event has no place");
        assert_eq!(publisher.in_flight_events(), 3);
        let left = publisher.flush(Duration::from_millis(20)).await;
        assert_eq!((left.pending, left.failed, left.total()), (3, 0, 3));
    }

    #[tokio::test]
    async fn sending_waits_when_the_queue_is_full_of_bytes() {
        let mut client = ClientConfig::new();
        client.set("queue.buffering.max.kbytes", "1");
        let publisher = publisher(client);
        let value = [b'x'; 800];
        let _first = publisher.send(Outgoing::new("t", &value)).await.unwrap();
        let second = publisher.send(Outgoing::new("t", &value));
        let waited = tokio::time::timeout(Duration::from_millis(50), second).await;
        assert!(waited.is_err(), "the second event has no place");
        assert_eq!(publisher.in_flight_events(), 1, "it gave its place back");
    }

    #[tokio::test]
    async fn an_event_is_given_up_after_the_delivery_timeout() {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", "127.0.0.1:1");
        let options = PublishOptions { delivery_timeout: Duration::from_millis(300), ..PublishOptions::default() };
        let publisher = Publisher::new(client, options).unwrap();
        let mut handle = publisher.send(Outgoing::new("t", b"{}")).await.unwrap();
        assert!(handle.try_outcome().is_none());
        let error = handle.await.unwrap_err();
        assert!(matches!(error, PublishError::TimedOut { .. }), "{error}");
        assert_eq!(publisher.flush(Duration::ZERO).await.failed, 1);
    }

    #[tokio::test]
    async fn a_dropped_publisher_says_so_to_who_still_waits() {
        let publisher = publisher(ClientConfig::new());
        let handle = publisher.send(Outgoing::new("t", b"{}")).await.unwrap();
        drop(publisher);
        let error = handle.await.unwrap_err();
        assert!(matches!(error, PublishError::Interrupted), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_named() {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", "127.0.0.1:1");
        let error = publisher(client).await_topic("t", Duration::from_millis(400)).await.unwrap_err();
        assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
