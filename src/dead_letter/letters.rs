//! The dead letters of pools without a store: nothing else keeps what was set aside, so they are acknowledged by the topic
//! before the offset moves on. Sent again after a failure, a letter has the same id.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{letter_headers, make_topics, mirror_topic};
use crate::config;
use crate::publish::{Outgoing, PublishError, PublishOptions, Publisher};
use crate::store::{DeadRow, Fault, UnpublishedLetter};

/// How long a letter is tried before the partition tells what it waits for.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a pool's letters.
pub(crate) struct Letters {
    publisher: Publisher,
    kafka: config::Kafka,
    pool: Arc<str>,
}

impl Letters {
    pub(crate) fn new(kafka: &config::Kafka, pool: &Arc<str>) -> Result<Self, PublishError> {
        let options = PublishOptions { delivery_timeout: DELIVERY_TIMEOUT, ..PublishOptions::default() };
        let publisher = Publisher::new(kafka.client(), options)?;
        Ok(Self { publisher, kafka: kafka.clone(), pool: Arc::clone(pool) })
    }

    /// Makes the topics that are not there.
    pub(crate) async fn make_topics(&self, topics: &[String]) {
        let names = topics.iter().map(|topic| mirror_topic(topic, &self.pool)).collect();
        if let Err(why) = make_topics(&self.kafka.client(), names).await {
            tracing::warn!(pool = &*self.pool, why, "the topics of dead letters could not be made");
        }
    }

    /// Sends letters and waits until the topic has all of them.
    ///
    /// # Errors
    /// What it waits for: a person, where the topic is missing or forbidden. Some of the letters may be there.
    pub(crate) async fn send(&self, rows: &[DeadRow]) -> Result<(), (Fault, String)> {
        let mut sent = Vec::with_capacity(rows.len());
        for row in rows {
            sent.push(self.send_one(row));
        }
        join_all(sent).await.into_iter().collect()
    }

    async fn send_one(&self, row: &DeadRow) -> Result<(), (Fault, String)> {
        let topic = mirror_topic(&row.origin.topic, &self.pool);
        match self.deliver(row, &topic, row.value.as_deref()).await {
            // A record that fitted its topic may not fit with its reason: then the letter points to its source.
            Err(PublishError::TooLarge { .. } | PublishError::BatchTooLarge { .. }) => {
                self.deliver(row, &topic, None).await
            }
            delivered => delivered,
        }
        .map_err(|error| {
            let fault = if error.needs_a_person() { Fault::Hold } else { Fault::Busy };
            (fault, format!("send a dead letter to {topic}: {error}"))
        })
    }

    async fn deliver(&self, row: &DeadRow, topic: &str, value: Option<&[u8]>) -> Result<(), PublishError> {
        let headers = letter_headers(&self.pool, &letter_of(row));
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let letter = match value {
            Some(value) => Outgoing::new(topic, value),
            None => Outgoing::tombstone(topic),
        };
        let letter = letter.headers(&headers);
        let handle = match &row.key {
            Some(key) => self.publisher.send(letter.key(key)).await?,
            None => self.publisher.send(letter).await?,
        };
        handle.await.map(drop)
    }
}

/// What the letter says beside the record's value.
fn letter_of(row: &DeadRow) -> UnpublishedLetter {
    UnpublishedLetter {
        kind: row.kind.clone(),
        event_id: row.event_id.clone(),
        pipeline: row.pipeline.clone(),
        reason: row.reason.as_str().to_owned(),
        message: row.message.clone(),
        topic: row.origin.topic.to_string(),
        partition: row.origin.partition,
        offset: row.offset,
        key: None,
        value: None,
        headers: row.headers.clone(),
    }
}
