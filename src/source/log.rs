//! Looking at topics from outside any group: their partitions, where their logs begin and end, where a time lies.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use uuid::Uuid;

use super::{REQUEST_TIMEOUT, TopicIdError, topic_id};
use crate::config;
use crate::event::{Record, RecordBuffer};
#[cfg(feature = "console")]
use crate::kafka::names_of;
use crate::kafka::{Listener, Prefetch, Probe, Unanswered, Unresolved};

/// Why a topic cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// No broker answers, or the login is refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// It is not known which topics a pool reads.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
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
    client: ClientConfig,
    pub(crate) consumer: BaseConsumer<Listener>,
}

impl LogReader {
    /// Connects; waits for a broker that does not answer yet.
    pub(crate) fn open(kafka: &config::Kafka, topics: &[String], patience: Duration) -> Result<Self, LogError> {
        let failed = |error| LogError::Kafka { action: "create a Kafka client".to_owned(), error };
        Probe::new(kafka).map_err(failed)?.await_partitions(topics, patience)?;
        Self::connect(kafka)
    }

    /// The same without waiting: whether a broker answers is seen when it is asked something.
    pub(crate) fn connect(kafka: &config::Kafka) -> Result<Self, LogError> {
        let failed = |error| LogError::Kafka { action: "create a Kafka client".to_owned(), error };
        let mut client = kafka.client();
        client
            .set("group.id", "weir-look")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        Prefetch::OF_A_READER.share(1, &mut client);
        let consumer = client.create_with_context(Listener::default()).map_err(failed)?;
        Ok(Self { client, consumer })
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

    /// The names of all topics.
    #[cfg(feature = "console")]
    pub(crate) fn topic_names(&self) -> Result<Vec<String>, LogError> {
        let failed = |error| LogError::Kafka { action: "ask for the topics".to_owned(), error };
        Ok(names_of(&self.consumer.fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed)?))
    }

    /// The same by two requests a broker, however many partitions there are.
    #[cfg(feature = "console")]
    pub(crate) fn ends(&self, topic: &str) -> Result<Vec<PartitionLog>, LogError> {
        let failed = |error| LogError::Kafka { action: format!("ask for the ends of topic {topic}"), error };
        // Nobody else polls this consumer, and what its client has to say would pile up.
        drop(self.consumer.poll(Duration::ZERO));
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(failed)?;
        let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
        let mut numbers: Vec<i32> = partitions.map(|partition| partition.id()).collect();
        numbers.sort_unstable();
        let of = |end: Offset| {
            let mut asked = TopicPartitionList::new();
            for number in &numbers {
                asked.add_partition_offset(topic, *number, end).map_err(failed)?;
            }
            self.consumer.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(failed)
        };
        let (lows, highs) = (of(Offset::Beginning)?, of(Offset::End)?);
        let offset_in = |list: &TopicPartitionList, number| match list.find_partition(topic, number)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let log = |number: &i32| {
            let (low, high) = (offset_in(&lows, *number)?, offset_in(&highs, *number)?);
            Some(PartitionLog { partition: *number, low, high })
        };
        Ok(numbers.iter().filter_map(log).collect())
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

/// What a group has committed to Kafka on each partition of a topic, which need not be running. Blocks.
pub(crate) fn committed(
    kafka: &config::Kafka,
    group: &str,
    topic: &str,
    logs: &[PartitionLog],
) -> Result<Vec<Option<i64>>, LogError> {
    let failed = |error| LogError::Kafka { action: format!("ask what group {group} has committed on {topic}"), error };
    let mut asked = TopicPartitionList::new();
    for log in logs {
        asked.add_partition(topic, log.partition);
    }
    let mut client = kafka.client();
    client.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Listener> = client.create_with_context(Listener::default()).map_err(failed)?;
    let found = consumer.committed_offsets(asked, REQUEST_TIMEOUT).map_err(failed)?;
    let offset = |log: &PartitionLog| match found.find_partition(topic, log.partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    };
    Ok(logs.iter().map(offset).collect())
}

/// What of a partition is to be read: from an offset to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// How long Kafka may send nothing before reading is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

impl LogReader {
    /// Shows the records of one topic's spans, one span a partition at most, until one is answered with `false`. By a
    /// consumer of its own: one that is assigned anew may still report the end that it reached before.
    pub(crate) fn read(
        &self,
        topic: &str,
        spans: &[Span],
        mut each: impl FnMut(i32, Record) -> bool,
    ) -> Result<(), LogError> {
        let failed = |error| LogError::Kafka { action: format!("read topic {topic}"), error };
        let mut open: Vec<Span> = spans.iter().copied().filter(|span| span.from < span.to).collect();
        let mut assignment = TopicPartitionList::new();
        for span in &open {
            assignment.add_partition_offset(topic, span.partition, Offset::Offset(span.from)).map_err(failed)?;
        }
        let mut client = self.client.clone();
        Prefetch::OF_A_READER.share(open.len(), &mut client);
        let consumer: BaseConsumer<Listener> = client.create_with_context(Listener::default()).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            let ended = match consumer.poll(Duration::from_millis(200)) {
                None if heard.elapsed() > SILENCE_MAX => return Err(failed(KafkaError::Canceled)),
                // librdkafka tries its brokers for ever; silence has its own limit.
                None | Some(Err(KafkaError::Global(_))) => continue,
                Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
                Some(Err(error)) if heard.elapsed() > SILENCE_MAX => return Err(failed(error)),
                Some(Err(_)) => continue,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(span) = open.iter().find(|span| span.partition == partition) else { continue };
                    let is_last = offset + 1 >= span.to;
                    if offset < span.to {
                        let mut buffer = RecordBuffer::default();
                        buffer.push(&message);
                        let mut records = buffer.finish().into_iter();
                        if records.any(|record| !each(partition, record)) {
                            break;
                        }
                    }
                    is_last.then_some(partition)
                }
            };
            heard = Instant::now();
            open.retain(|span| Some(span.partition) != ended);
        }
        Ok(())
    }
}

/// The first record at or behind an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// It has this time stamp, in milliseconds since 1970.
    At(i64),
    /// Kafka has deleted what was at the offset.
    Gone,
    /// There is none, such as behind the markers of a transaction; or it has no time stamp.
    Nothing,
}

impl LogReader {
    /// Looks at the first record at or behind an offset.
    pub(crate) fn first(&self, topic: &str, partition: i32, offset: i64) -> Result<First, LogError> {
        let failed = |error| LogError::Kafka { action: format!("look at {topic}/{partition}"), error };
        let (low, _) = self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(failed)?;
        if low > offset {
            return Ok(First::Gone);
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        self.consumer.assign(&assignment).map_err(failed)?;
        let begun = Instant::now();
        let first = loop {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) if message.partition() != partition || message.offset() < offset => {}
                Some(Ok(message)) => match message.timestamp().to_millis() {
                    Some(ms) if ms > 0 => break First::At(ms),
                    _ => break First::Nothing,
                },
                Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => break First::Nothing,
                Some(Err(error)) if begun.elapsed() > REQUEST_TIMEOUT => return Err(failed(error)),
                None if begun.elapsed() > REQUEST_TIMEOUT => return Err(failed(KafkaError::Canceled)),
                None | Some(Err(_)) => {}
            }
        };
        self.consumer.unassign().map_err(failed)?;
        Ok(first)
    }
}
