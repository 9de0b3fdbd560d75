//! The mirror of dead rows in Kafka: an outbox. The row is the truth; its letter goes to `<topic>.<pool>.dead` by the
//! partition's owner, later and possibly more than once, under an id that is the same each time.
//!
//! Promised: every dead row gets its letter while the topic takes it. A mirror that fails is tried again and said,
//! and holds no event up.

mod letters;

pub(crate) use letters::Letters;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config;
use crate::event::{Record, headers_from_json};
use crate::kafka::Listener;
use crate::metrics::PoolMetrics;
use crate::store::{IdKey, Store, UnpublishedLetter};
use crate::telemetry::traces::{Headers, Origin, PoolTracer, Sending, TRACEPARENT, TRACESTATE};

/// How often dead rows are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a mirror that failed is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// Letters read and sent at once; a letter can be as large as a record.
const LETTERS_MAX: i64 = 50;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of the topic that mirrors a pool's dead rows of a topic.
pub fn mirror_topic(topic: &str, pool: &str) -> String {
    format!("{topic}.{pool}.dead")
}

/// A letter's id: the same however often it is sent.
pub fn letter_id(pool: &str, kind: &str, event_id: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("weir/{pool}/{kind}/{event_id}").as_bytes())
}

/// The partitions that this process has claimed: topic id and number.
pub(crate) type Owned = Arc<dyn Fn() -> Vec<(Uuid, i32)> + Send + Sync>;

/// Sends a pool's letters for the partitions that this process owns.
pub(crate) struct Mirror {
    client: ClientConfig,
    pool: Arc<str>,
    store: Arc<dyn Store>,
    metrics: PoolMetrics,
    tracer: PoolTracer,
}

impl Mirror {
    pub(crate) fn new(kafka: &config::Kafka, pool: &Arc<str>, store: Arc<dyn Store>, metrics: PoolMetrics) -> Self {
        let client = producer_settings(kafka);
        Self { client, pool: Arc::clone(pool), store, metrics, tracer: PoolTracer::default() }
    }

    /// The letters of traced events have a span, and tell of it.
    pub(crate) fn tracing(mut self, tracer: PoolTracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Runs until it is told to stop. What was not sent by then is sent by the partition's next owner.
    pub(crate) async fn run(self, key: Option<IdKey>, topics: Vec<String>, owned: Owned, stop: CancellationToken) {
        let mut told: Option<String> = None;
        let mut producer = None;
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.send_some(key.as_ref(), &topics, &owned, &mut producer) => sent,
            };
            wait = match sent {
                Ok(sent) => {
                    if told.take().is_some() {
                        tracing::info!(pool = &*self.pool, "dead letters are mirrored again");
                    }
                    if sent == LETTERS_MAX { Duration::ZERO } else { INTERVAL }
                }
                Err(why) => {
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(
                            pool = &*self.pool,
                            why,
                            "dead letters wait in weir_dead; events go on, and their mirror is tried again"
                        );
                    }
                    told = Some(why);
                    RETRY
                }
            };
        }
    }

    async fn send_some(
        &self,
        key: Option<&IdKey>,
        topics: &[String],
        owned: &Owned,
        producer: &mut Option<FutureProducer<Listener>>,
    ) -> Result<i64, String> {
        let producer = match producer {
            Some(producer) => producer,
            None => {
                // Somebody else may have made them, and weir may not be allowed to: sending tells.
                let names = topics.iter().map(|topic| mirror_topic(topic, &self.pool)).collect();
                if let Err(why) = make_topics(&self.client, names).await {
                    tracing::warn!(pool = &*self.pool, why, "the topics of dead letters could not be made");
                }
                producer.insert(
                    self.client
                        .create_with_context(Listener::default())
                        .map_err(|error| format!("cannot start the producer: {error}"))?,
                )
            }
        };
        let partitions = owned();
        if partitions.is_empty() {
            // What waits is counted by whoever owns it now.
            self.metrics.set_dead_unpublished(0);
            return Ok(0);
        }
        let letters = self.store.unpublished(&self.pool, key, &partitions, LETTERS_MAX).await;
        let letters = letters.map_err(|error| error.to_string())?;
        self.metrics.set_dead_unpublished(i64::try_from(letters.len()).unwrap_or(i64::MAX));
        let sent = futures_util::future::join_all(letters.iter().map(|letter| self.send(producer, letter))).await;
        let (mut published, mut failure) = (Vec::new(), None);
        for (letter, result) in letters.iter().zip(sent) {
            match result {
                Ok(()) => published.push((letter.kind.as_str(), letter.event_id.as_str())),
                Err(why) => failure = Some(why),
            }
        }
        if !published.is_empty() {
            self.store.published(&self.pool, &published).await.map_err(|error| error.to_string())?;
            let left = letters.len() - published.len();
            self.metrics.set_dead_unpublished(i64::try_from(left).unwrap_or(i64::MAX));
        }
        match failure {
            Some(why) => Err(why),
            None => Ok(i64::try_from(published.len()).unwrap_or(i64::MAX)),
        }
    }

    async fn send(&self, producer: &FutureProducer<Listener>, letter: &UnpublishedLetter) -> Result<(), String> {
        let topic = mirror_topic(&letter.topic, &self.pool);
        let (sending, context) = self.context(&topic, letter);
        let context = context.iter().map(|(key, value)| (*key, value.to_vec()));
        let headers = letter_headers(&self.pool, letter)
            .into_iter()
            .chain(context)
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(KafkaHeader { key, value: Some(&value) })
            });
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&topic).headers(headers.clone());
        record.key = letter.key.as_deref();
        record.payload = letter.value.as_deref();
        let sent = match producer.send(record, REQUEST_TIMEOUT).await {
            // A record that fitted the topic may not fit with its reason: then the letter points to its source, and
            // the row has it all.
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let pointer: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&topic).headers(headers);
                producer.send(pointer, REQUEST_TIMEOUT).await
            }
            sent => sent,
        };
        match sent {
            Ok(delivery) => {
                if let Some(sending) = sending {
                    sending.stored(delivery.partition, delivery.offset);
                }
                Ok(())
            }
            Err((error, _)) => {
                if let Some(sending) = sending {
                    sending.failed(
                        error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}")),
                    );
                }
                Err(format!("topic {topic}: {error}"))
            }
        }
    }

    /// The span of a letter and the headers that go on with its event's trace. What is not traced here is passed on as it
    /// came.
    fn context(&self, topic: &str, letter: &UnpublishedLetter) -> (Option<Box<Sending>>, Vec<(&'static str, Bytes)>) {
        let original = Record {
            headers: letter.headers.as_deref().map(headers_from_json).unwrap_or_default(),
            ..Record::default()
        };
        let origin = Origin::of(original.header(TRACEPARENT), || original.header(TRACESTATE));
        if let Some(sending) = self.tracer.mirroring(topic, origin) {
            let headers = sending.headers().map(Headers::into_named).unwrap_or_default();
            return (Some(sending), headers);
        }
        let kept = |name| Some((name, Bytes::copy_from_slice(original.header(name)?)));
        (None, [TRACEPARENT, TRACESTATE].into_iter().filter_map(kept).collect())
    }
}

/// What a letter says beside the record's key and value.
fn letter_headers(pool: &str, letter: &UnpublishedLetter) -> Vec<(&'static str, Vec<u8>)> {
    let id = letter_id(pool, &letter.kind, &letter.event_id).to_string();
    let position = format!("{}/{}@{}", letter.topic, letter.partition, letter.offset);
    let mut headers: Vec<(&'static str, Vec<u8>)> = [
        ("weir-letter-id", id.as_str()),
        ("weir-event-id", &letter.event_id),
        ("weir-pool", pool),
        ("weir-pipeline", &letter.pipeline),
        ("weir-reason", &letter.reason),
        ("weir-message", &letter.message),
        ("weir-source", &position),
    ]
    .map(|(name, value)| (name, value.as_bytes().to_vec()))
    .into();
    headers.extend(letter.headers.clone().map(|original| ("weir-headers", original)));
    headers
}

/// How outboxes produce.
pub(crate) fn producer_settings(kafka: &config::Kafka) -> ClientConfig {
    let mut client = kafka.client();
    client.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("message.timeout.ms", "10000");
    client
}

/// Makes the topics that are not there; the broker's defaults decide on replicas and partitions.
pub(crate) async fn make_topics(client: &ClientConfig, names: HashSet<String>) -> Result<(), String> {
    let admin: AdminClient<Listener> = client
        .create_with_context(Listener::default())
        .map_err(|error| format!("cannot start the admin client: {error}"))?;
    let (admin, names) = tokio::task::spawn_blocking(move || {
        let missing = names.into_iter().filter(|name| !exists(&admin, name)).collect::<HashSet<_>>();
        (admin, missing)
    })
    .await
    .map_err(|error| format!("cannot look for topics: {error}"))?;
    if names.is_empty() {
        return Ok(());
    }
    let new: Vec<NewTopic<'_>> =
        names.iter().map(|name| NewTopic::new(name, -1, TopicReplication::Fixed(-1))).collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let made = admin.create_topics(&new, &options).await.map_err(|error| format!("cannot make topics: {error}"))?;
    let failed: Vec<String> = made
        .into_iter()
        .filter_map(Result::err)
        .filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
        .map(|(topic, code)| format!("{topic}: {code}"))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Whether a broker knows the topic. Blocks.
fn exists(admin: &AdminClient<Listener>, topic: &str) -> bool {
    let metadata = admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT);
    metadata
        .is_ok_and(|metadata| metadata.topics().iter().any(|known| known.name() == topic && known.error().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::store::Unstored;

    #[tokio::test]
    async fn a_worker_that_has_lost_its_partitions_shows_no_letters_of_theirs() {
        let (metrics, pool): (_, Arc<str>) = (Metrics::new(), Arc::from("p"));
        let mirror = Mirror::new(&config::Kafka::default(), &pool, Arc::new(Unstored), metrics.pool("p"));
        let producer: FutureProducer<Listener> = mirror.client.create_with_context(Listener::default()).unwrap();
        mirror.metrics.set_dead_unpublished(3);
        let owned: Owned = Arc::new(Vec::<(Uuid, i32)>::new);
        assert_eq!(mirror.send_some(None, &[], &owned, &mut Some(producer)).await, Ok(0));
        let text = metrics.render();
        assert!(text.contains("weir_dead_unpublished{pool=\"p\"} 0"), "{text}");
    }

    #[test]
    fn a_letters_id_is_the_same_each_time_and_of_its_pool() {
        assert_eq!(letter_id("p", "t", "e"), letter_id("p", "t", "e"));
        assert_ne!(letter_id("p", "t", "e"), letter_id("q", "t", "e"));
        assert_ne!(letter_id("p", "t", "e"), letter_id("p", "u", "e"));
    }
}
