//! Status events: what readers and caches are told of messages that are flagged or hidden. An outbox: the verdict's row is
//! written with the message's other effects, and the partition's owner sends its event later, possibly more than once, under an
//! id that is the same each time.
//!
//! Promised: every verdict gets its event while the topic takes it. A topic that does not is tried again and said, and holds no
//! message up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config;
use crate::dead_letter::{Owned, make_topics, producer_settings};
use crate::kafka::Listener;
use crate::metrics::PoolMetrics;
use crate::store::{Store, UnpublishedVerdict};

/// How often verdicts are looked for: readers wait for it.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a topic that failed is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// Events read and sent at once.
const EVENTS_MAX: i64 = 500;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A status event's id: the same however often it is sent.
pub fn status_event_id(pool: &str, pipeline: &str, event_id: &str, verdict: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("weir/status/{pool}/{pipeline}/{event_id}/{verdict}").as_bytes())
}

#[derive(Serialize)]
struct StatusEvent<'a> {
    r#type: &'static str,
    message_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<&'a str>,
    status: &'a str,
    reason: &'a str,
    pool: &'a str,
    decided_at_ms: i64,
}

/// Sends a pool's status events for the partitions that this process owns.
pub(crate) struct StatusEvents {
    client: ClientConfig,
    pool: Arc<str>,
    /// By pipeline.
    topics: Vec<(String, String)>,
    store: Arc<dyn Store>,
    metrics: PoolMetrics,
}

impl StatusEvents {
    /// `None` if no pipeline of the pool reaches verdicts.
    pub(crate) fn of(
        kafka: &config::Kafka,
        pool: &Arc<str>,
        settings: &config::Pool,
        store: Arc<dyn Store>,
        metrics: PoolMetrics,
    ) -> Option<Self> {
        let moderating = settings.pipelines.iter().filter(|pipeline| pipeline.handler == "moderate");
        let topics: Vec<(String, String)> = moderating
            .map(|pipeline| (pipeline.name.clone(), pipeline.moderate.clone().unwrap_or_default().status_topic))
            .collect();
        let client = producer_settings(kafka);
        (!topics.is_empty()).then(|| Self { client, pool: Arc::clone(pool), topics, store, metrics })
    }

    /// Runs until it is told to stop. What was not sent by then is sent by the partition's next owner.
    pub(crate) async fn run(self, owned: Owned, stop: CancellationToken) {
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
                sent = self.send_some(&owned, &mut producer) => sent,
            };
            wait = match sent {
                Ok(sent) => {
                    if told.take().is_some() {
                        tracing::info!(pool = &*self.pool, "status events are sent again");
                    }
                    if sent == EVENTS_MAX { Duration::ZERO } else { INTERVAL }
                }
                Err(why) => {
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(
                            pool = &*self.pool,
                            why,
                            "status events wait in weir_verdicts; messages go on, and their events are tried again"
                        );
                    }
                    told = Some(why);
                    RETRY
                }
            };
        }
    }

    async fn send_some(&self, owned: &Owned, producer: &mut Option<FutureProducer<Listener>>) -> Result<i64, String> {
        let producer = match producer {
            Some(producer) => producer,
            None => {
                // Somebody else may have made them, and weir may not be allowed to: sending tells.
                let names: HashSet<String> = self.topics.iter().map(|(_, topic)| topic.clone()).collect();
                if let Err(why) = make_topics(&self.client, names).await {
                    tracing::warn!(pool = &*self.pool, why, "the topic of status events could not be made");
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
            self.metrics.set_status_unpublished(0);
            return Ok(0);
        }
        let verdicts = self.store.unpublished_verdicts(&self.pool, &partitions, EVENTS_MAX).await;
        let verdicts = verdicts.map_err(|error| error.to_string())?;
        self.metrics.set_status_unpublished(verdicts.len());
        let sent = futures_util::future::join_all(verdicts.iter().map(|verdict| self.send(producer, verdict))).await;
        let (mut published, mut failure) = (Vec::new(), None);
        for (verdict, result) in verdicts.into_iter().zip(sent) {
            match result {
                Ok(()) => published.push(verdict),
                Err(why) => failure = Some(why),
            }
        }
        if !published.is_empty() {
            self.store.published_verdicts(&self.pool, &published).await.map_err(|error| error.to_string())?;
        }
        match failure {
            Some(why) => Err(why),
            None => {
                self.metrics.set_status_unpublished(0);
                Ok(i64::try_from(published.len()).unwrap_or(i64::MAX))
            }
        }
    }

    async fn send(&self, producer: &FutureProducer<Listener>, verdict: &UnpublishedVerdict) -> Result<(), String> {
        let UnpublishedVerdict { pipeline, stored, decided_ms } = verdict;
        // A pipeline that is not configured any more leaves its last verdicts to the others' topic.
        let topic = self.topics.iter().find(|(name, _)| name == pipeline).or(self.topics.first());
        let Some((_, topic)) = topic else { return Err("no topic is configured".to_owned()) };
        let event = StatusEvent {
            r#type: "message_status",
            message_id: &stored.event_id,
            conversation: stored.conversation.as_deref(),
            status: &stored.verdict,
            reason: &stored.reason,
            pool: &self.pool,
            decided_at_ms: *decided_ms,
        };
        let value = serde_json::to_vec(&event).map_err(|error| error.to_string())?;
        let id = status_event_id(&self.pool, pipeline, &stored.event_id, &stored.verdict).to_string();
        let headers = OwnedHeaders::new().insert(Header { key: "weir-id", value: Some(&id) });
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers).payload(&value);
        record.key = stored.key.as_deref();
        let sent = producer.send(record, REQUEST_TIMEOUT).await;
        sent.map(drop).map_err(|(error, _)| format!("topic {topic}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::store::Unstored;

    #[tokio::test]
    async fn a_worker_that_has_lost_its_partitions_shows_no_verdicts_of_theirs() {
        let (kafka, metrics, pool): (_, _, Arc<str>) = (config::Kafka::default(), Metrics::new(), Arc::from("p"));
        let pipelines = vec![config::Pipeline { handler: "moderate".to_owned(), ..config::Pipeline::default() }];
        let settings = config::Pool { pipelines, ..config::Pool::default() };
        let told = StatusEvents::of(&kafka, &pool, &settings, Arc::new(Unstored), metrics.pool("p")).unwrap();
        let producer: FutureProducer<Listener> = told.client.create_with_context(Listener::default()).unwrap();
        told.metrics.set_status_unpublished(3);
        let owned: Owned = Arc::new(Vec::<(Uuid, i32)>::new);
        assert_eq!(told.send_some(&owned, &mut Some(producer)).await, Ok(0));
        let text = metrics.render();
        assert!(text.contains("weir_status_unpublished{pool=\"p\"} 0"), "{text}");
    }

    #[test]
    fn a_status_events_id_is_the_same_each_time_and_of_its_verdict() {
        assert_eq!(status_event_id("p", "m", "e", "hide"), status_event_id("p", "m", "e", "hide"));
        assert_ne!(status_event_id("p", "m", "e", "hide"), status_event_id("p", "m", "e", "flag"));
    }
}
