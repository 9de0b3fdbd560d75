//! Looking for an event's records in Kafka.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::{Bounds, Error};
use crate::config::{self, Config};
use crate::event::{Document, Event, EventId, Fields, Origin, Record};
use crate::source::{LogReader, PartitionLog, Span};
use crate::store::KeyType;

/// Records of one id that are told: repeats beyond them are not looked for.
const FOUND_MAX: usize = 20;

/// A record of the event.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) record_ms: i64,
    pub(super) malformed: Option<String>,
}

/// What of a topic was searched.
#[derive(Debug, Serialize)]
pub struct Searched {
    /// The topic.
    pub topic: String,
    /// Records read.
    pub records: u64,
    /// Offsets that Kafka has and that were left out by the bounds.
    pub left_out: u64,
}

/// What to look for, and how far.
pub(super) struct Request {
    kafka: config::Kafka,
    patience: Duration,
    topics: Vec<String>,
    fields: Fields,
    id: String,
    key: Option<KeyType>,
    bounds: Bounds,
}

impl Request {
    pub(super) fn new(
        config: &Config,
        settings: &config::Pool,
        id: &str,
        key: Option<KeyType>,
        bounds: &Bounds,
    ) -> Result<Self, Error> {
        let topics = match &bounds.topic {
            None => settings.topics.clone(),
            Some(topic) if settings.topics.contains(topic) => vec![topic.clone()],
            // Another pool's, perhaps: this one has nothing to search.
            Some(_) => Vec::new(),
        };
        Ok(Self {
            kafka: config.kafka.clone(),
            patience: config.startup_timeout,
            topics,
            fields: Fields::new(&settings.event)?,
            id: id.to_owned(),
            key,
            bounds: bounds.clone(),
        })
    }

    /// Searches. Blocks.
    pub(super) fn search(self) -> Result<(Vec<Found>, Vec<Searched>), Error> {
        if self.topics.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let reader = LogReader::open(&self.kafka, &self.topics, self.patience)?;
        let (mut found, mut searched) = (Vec::new(), Vec::new());
        for topic in &self.topics {
            let topic_id = reader.topic_id(topic)?;
            let logs = reader.partitions(topic)?;
            let spans = match position_in(&self.id, topic_id) {
                Some((partition, offset)) => vec![Span { partition, from: offset, to: offset + 1 }],
                None => self.spans(&reader, topic, &logs)?,
            };
            let within = |span: &Span| {
                let log = logs.iter().find(|log| log.partition == span.partition)?;
                let (from, to) = (span.from.max(log.low), span.to.min(log.high));
                (from < to).then_some(Span { from, to, ..*span })
            };
            let spans: Vec<Span> = spans.iter().filter_map(within).collect();
            let mut records = 0;
            reader.read(topic, &spans, |partition, record| {
                records += 1;
                let origin = Arc::new(Origin { topic: Arc::from(topic.as_str()), topic_id, partition });
                found.extend(self.matched(&origin, record));
                found.len() < FOUND_MAX
            })?;
            let has: i64 = logs.iter().map(|log| log.high - log.low).sum();
            let chosen: i64 = spans.iter().map(|span| span.to - span.from).sum();
            let left_out = (has - chosen).max(0).cast_unsigned();
            searched.push(Searched { topic: topic.clone(), records, left_out });
        }
        Ok((found, searched))
    }

    /// The newest records of each partition, within the bounds.
    fn spans(&self, reader: &LogReader, topic: &str, logs: &[PartitionLog]) -> Result<Vec<Span>, Error> {
        let since = match self.bounds.since_ms {
            Some(ms) => reader.offsets_at(topic, logs, ms)?,
            None => logs.iter().map(|log| log.low).collect(),
        };
        let each = self.bounds.records_max / (logs.len() as u64).max(1);
        let each = i64::try_from(each.max(1)).unwrap_or(i64::MAX);
        let span = |(log, since): (&PartitionLog, i64)| {
            let from = since.max(log.high.saturating_sub(each));
            Span { partition: log.partition, from, to: log.high }
        };
        Ok(logs.iter().zip(since).map(span).collect())
    }

    /// The record, if it is the event's: by the id that the pool gives it, or by its own where it cannot be decoded.
    fn matched(&self, origin: &Arc<Origin>, record: Record) -> Option<Found> {
        let (offset, record_ms) = (record.offset, record.timestamp_ms);
        let of_record = EventId::of_record(origin, &record);
        let (id, malformed) = match Event::<Document>::decode(&self.fields, origin, record) {
            Ok(event) => (event.id, None),
            Err(undecoded) => (of_record, Some(undecoded.1.to_string())),
        };
        let is_it = id.as_str() == self.id
            || self.key.is_some_and(|key| key.spelt(id.as_str()).is_some_and(|id| id == self.id));
        is_it.then(|| Found {
            topic: origin.topic.to_string(),
            topic_id: origin.topic_id,
            partition: origin.partition,
            offset,
            record_ms,
            malformed,
        })
    }
}

/// The position that an id is made of, where the event has no other: topic id, partition and offset.
fn position_in(id: &str, topic_id: Uuid) -> Option<(i32, i64)> {
    let mut parts = id.split(':');
    let (topic, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && topic.parse::<Uuid>().ok()? == topic_id;
    is_whole.then_some((partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_of_a_position_tells_it() {
        let topic = Uuid::from_u128(7);
        assert_eq!(position_in(&format!("{topic}:3:99"), topic), Some((3, 99)));
        for other in ["m-1", "a:b:c", &format!("{topic}:3"), &format!("{topic}:3:9:9"), &format!("{}:3:9", Uuid::nil())]
        {
            assert_eq!(position_in(other, topic), None, "{other}");
        }
    }
}
