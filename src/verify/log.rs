//! Kafka's side: the records of a pool's topics, from the log's start to where it ended when the audit began.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

use super::{Error, Progress, Step};
use crate::config;
use crate::kafka::{Listener, Prefetch, Probe};
use crate::source::topic_id;

/// How long Kafka may send nothing before the audit gives up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PARTITIONS_MAX: usize = 1 << 16;

/// One partition and what of it is audited.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
    pub(super) number: i32,
    /// The oldest offset that Kafka still had.
    pub(super) low: i64,
    /// The first offset audited.
    pub(super) from: i64,
    /// One past the newest offset audited.
    pub(super) end: i64,
}

/// A record's place, packed: the index of its partition and its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn new(partition: usize, offset: i64) -> Self {
        Self((partition as u64) << 48 | offset.cast_unsigned())
    }

    pub(super) fn partition(self) -> usize {
        (self.0 >> 48) as usize
    }

    pub(super) fn packed(self) -> u64 {
        self.0
    }

    pub(super) fn unpacked(packed: u64) -> Self {
        Self(packed)
    }

    pub(super) fn offset(self) -> i64 {
        (self.0 & ((1 << 48) - 1)).cast_signed()
    }
}

/// Offsets of one partition that are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) partition: usize,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Readers that belong to no group and commit nothing.
pub(super) struct Log {
    client: ClientConfig,
    /// Asks for metadata.
    consumer: BaseConsumer<Listener>,
    pub(super) partitions: Vec<Partition>,
}

impl Log {
    /// Finds the partitions, where they end now, and where the records begin that are not older than `since_ms`.
    pub(super) fn open(
        kafka: &config::Kafka,
        topics: &[String],
        since_ms: Option<i64>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let mut topics = topics.to_vec();
        topics.sort();
        topics.dedup();
        let counts = Probe::new(kafka)
            .map_err(|source| Error::kafka("create a client", source))?
            .await_partitions(&topics, timeout)?;
        if let Some((topic, _)) = topics.iter().zip(counts).find(|(_, count)| *count == 0) {
            return Err(Error::NoTopic { topic: topic.clone(), brokers: kafka.brokers.join(",") });
        }
        let mut client = kafka.client();
        let settings = [
            ("group.id", "weir-verify"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
        ];
        settings.iter().for_each(|(name, value)| _ = client.set(*name, *value));
        let consumer = create(&client)?;
        let mut log = Self { client, consumer, partitions: Vec::new() };
        for topic in &topics {
            log.find(topic, timeout)?;
            if let Some(since_ms) = since_ms {
                log.begin_at(topic, since_ms, timeout)?;
            }
        }
        if log.partitions.len() > PARTITIONS_MAX {
            return Err(Error::TooManyPartitions(log.partitions.len()));
        }
        Ok(log)
    }

    fn find(&mut self, topic: &str, timeout: Duration) -> Result<(), Error> {
        let failed = |source| Error::kafka(format!("find the partitions of topic {topic}"), source);
        let metadata = self.consumer.fetch_metadata(Some(topic), timeout).map_err(failed)?;
        let numbers = metadata.topics().iter().flat_map(|found| found.partitions()).map(|partition| partition.id());
        let mut numbers: Vec<i32> = numbers.collect();
        numbers.sort_unstable();
        let topic_id = topic_id(self.consumer.client(), topic, timeout)?;
        for number in numbers {
            let (low, end) = self.consumer.fetch_watermarks(topic, number, timeout).map_err(failed)?;
            self.partitions.push(Partition { topic: topic.to_owned(), topic_id, number, low, from: low, end });
        }
        Ok(())
    }

    /// Asks Kafka where the records of a time begin; a partition without any is audited from its end.
    fn begin_at(&mut self, topic: &str, since_ms: i64, timeout: Duration) -> Result<(), Error> {
        let failed = |source| Error::kafka(format!("find a time in topic {topic}"), source);
        let mut partitions: Vec<_> = self.partitions.iter_mut().filter(|p| p.topic == topic).collect();
        let mut times = TopicPartitionList::new();
        for partition in &partitions {
            times.add_partition_offset(topic, partition.number, Offset::Offset(since_ms)).map_err(failed)?;
        }
        let found = self.consumer.offsets_for_times(times, timeout).map_err(failed)?;
        for partition in &mut partitions {
            partition.from = match found.find_partition(topic, partition.number).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset.clamp(partition.low, partition.end),
                _ => partition.end,
            };
        }
        Ok(())
    }

    /// Everything that is audited.
    pub(super) fn whole(&self) -> Vec<Range> {
        let range = |(partition, p): (usize, &Partition)| Range { partition, from: p.from, to: p.end };
        self.partitions.iter().enumerate().map(range).collect()
    }

    /// The place that an id names which was made of a record's position.
    pub(super) fn place(&self, id: &str) -> Option<Place> {
        let mut parts = id.splitn(3, ':');
        let topic_id: Uuid = parts.next()?.parse().ok()?;
        let (number, offset): (i32, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let index = self.partitions.iter().position(|p| (p.topic_id, p.number) == (topic_id, number))?;
        (0..1 << 48).contains(&offset).then(|| Place::new(index, offset))
    }

    /// One record.
    pub(super) fn one(&self, place: Place) -> Range {
        Range { partition: place.partition(), from: place.offset(), to: place.offset() + 1 }
    }

    /// Reads the ranges, at most one a partition, topic by topic, and shows each record with its place.
    pub(super) fn read(
        &self,
        ranges: &[Range],
        progress: &mut Progress,
        mut each: impl FnMut(Place, &BorrowedMessage<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let filled: Vec<Range> = ranges.iter().copied().filter(|range| range.from < range.to).collect();
        progress(Step::Ahead(filled.iter().map(|range| (range.to - range.from).cast_unsigned()).sum()));
        for ranges in filled.chunk_by(|a, b| self.partitions[a.partition].topic == self.partitions[b.partition].topic) {
            self.read_topic(ranges, progress, &mut each)?;
        }
        Ok(())
    }

    /// One topic at a time, since the end of a partition is reported by its number alone; and by a consumer of its own,
    /// since one that is assigned anew may still report the end that it reached before, and the record be missed.
    fn read_topic(
        &self,
        ranges: &[Range],
        progress: &mut Progress,
        each: &mut impl FnMut(Place, &BorrowedMessage<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let topic = &self.partitions[ranges[0].partition].topic;
        let failed = |source| Error::kafka(format!("read topic {topic}"), source);
        let mut assignment = TopicPartitionList::new();
        for range in ranges {
            let number = self.partitions[range.partition].number;
            assignment.add_partition_offset(topic, number, Offset::Offset(range.from)).map_err(failed)?;
        }
        let mut client = self.client.clone();
        Prefetch::OF_A_READER.share(ranges.len(), &mut client);
        let consumer = create(&client)?;
        consumer.assign(&assignment).map_err(failed)?;
        let mut open: Vec<Range> = ranges.to_vec();
        let mut heard = Instant::now();
        while !open.is_empty() {
            let ended = match consumer.poll(Duration::from_millis(200)) {
                None if heard.elapsed() > SILENCE_MAX => {
                    return Err(Error::Silence { topic: topic.clone(), partitions: open.len() });
                }
                None => continue,
                Some(Err(KafkaError::PartitionEOF(number))) => Some(number),
                Some(Err(source)) if is_passing(&source) => continue,
                Some(Err(source)) => return Err(failed(source)),
                Some(Ok(message)) => {
                    let number = message.partition();
                    let Some(range) = open.iter().find(|range| self.partitions[range.partition].number == number)
                    else {
                        continue;
                    };
                    if message.offset() < range.to {
                        each(Place::new(range.partition, message.offset()), &message)?;
                        progress(Step::Done(1));
                    }
                    (message.offset() + 1 >= range.to).then_some(number)
                }
            };
            heard = Instant::now();
            if let Some(number) = ended {
                open.retain(|range| self.partitions[range.partition].number != number);
                let mut finished = TopicPartitionList::new();
                finished.add_partition(topic, number);
                consumer.pause(&finished).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn create(client: &ClientConfig) -> Result<BaseConsumer<Listener>, Error> {
    client.create_with_context(Listener::default()).map_err(|source| Error::kafka("create a consumer", source))
}

/// Whether librdkafka goes on by itself: it tries brokers for ever, and silence has its own limit.
fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_partition_and_offset() {
        for (partition, offset) in [(0, 0), (7, 1), (PARTITIONS_MAX - 1, (1 << 48) - 1)] {
            let place = Place::new(partition, offset);
            assert_eq!((place.partition(), place.offset()), (partition, offset));
        }
    }
}
