//! Looking at topics from outside any group: their partitions, where their logs begin and end, where a time lies.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{REQUEST_TIMEOUT, TopicIdError, topic_id};
use crate::config;
use crate::kafka::{Listener, Probe, Unanswered};

/// Why a topic cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// No broker answers, or the login is refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The topic is not there, or its id is not told.
    #[error(transparent)]
    TopicId(#[from] TopicIdError),
    /// Kafka did not give what was asked for.
    #[error("{action}: {error}")]
    Kafka {
        /// What was done.
        action: String,
        /// What the client said.
        error: KafkaError,
    },
}

/// One partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionLog {
    pub(crate) partition: i32,
    /// The oldest offset that Kafka still has.
    pub(crate) low: i64,
    /// The offset of the record that is written next.
    pub(crate) high: i64,
}

/// A client that is of no group and commits nothing. All its calls block.
pub(crate) struct LogReader {
    pub(crate) consumer: BaseConsumer<Listener>,
}

impl LogReader {
    /// Connects; waits for a broker that does not answer yet.
    pub(crate) fn open(kafka: &config::Kafka, topics: &[String], patience: Duration) -> Result<Self, LogError> {
        let failed = |error| LogError::Kafka { action: "create a Kafka client".to_owned(), error };
        Probe::new(kafka).map_err(failed)?.await_partitions(topics, patience)?;
        let mut client = kafka.client();
        client
            .set("group.id", "weir-look")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "16384");
        Ok(Self { consumer: client.create_with_context(Listener::default()).map_err(failed)? })
    }

    /// The topic's present id.
    pub(crate) fn topic_id(&self, topic: &str) -> Result<Uuid, LogError> {
        Ok(topic_id(self.consumer.client(), topic, REQUEST_TIMEOUT)?)
    }

    /// A topic's partitions with their logs, by number.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<PartitionLog>, LogError> {
        let failed = |error| LogError::Kafka { action: format!("find the partitions of topic {topic}"), error };
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(failed)?;
        let mut numbers: Vec<i32> =
            metadata.topics().iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
        numbers.sort_unstable();
        let log = |partition| {
            let (low, high) = self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
            Ok(PartitionLog { partition, low, high })
        };
        numbers.into_iter().map(log).collect::<Result<_, _>>().map_err(failed)
    }

    /// The first offset of each partition whose record is not older than a time; the log's end where none is.
    pub(crate) fn offsets_at(&self, topic: &str, logs: &[PartitionLog], ms: i64) -> Result<Vec<i64>, LogError> {
        let failed = |error| LogError::Kafka { action: format!("find a time in topic {topic}"), error };
        let mut times = TopicPartitionList::new();
        for log in logs {
            times.add_partition_offset(topic, log.partition, Offset::Offset(ms)).map_err(failed)?;
        }
        let found = self.consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
        let offset = |log: &PartitionLog| match found.find_partition(topic, log.partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => log.high,
        };
        Ok(logs.iter().map(offset).collect())
    }
}
