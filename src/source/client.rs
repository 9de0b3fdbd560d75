//! What partition tasks and the pool ask of the consumer. There are two of it: librdkafka's, and the simulation that
//! looks for schedules of faults that break a promise (`pool/simulation.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::answers::Answers;
use super::native::{self, TopicIdError, cached_watermarks};
use super::probes::Probes;
use super::{Context, REQUEST_TIMEOUT, Watermarks};
use crate::breaker;
use crate::config::Start;
use crate::kafka::names_of;

/// A member of the group, as its tasks see it.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    /// Commits one offset and waits for the broker's word: it refuses whoever is not a member of the present
    /// generation.
    async fn probe(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError>;

    /// Moves the fetch position. Fails with `_STATE` until the partition's fetcher runs: try again.
    async fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError>;

    /// Takes a partition out of the fetcher and puts it back at an offset. After a position outside the log, librdkafka
    /// stops fetching the partition and refuses to seek; only this starts it anew. The split queue stays. It must be
    /// awaited to its end while the partition is still assigned: cut off, it could put back what was revoked meanwhile.
    async fn restart(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError>;

    /// Asks a broker for a topic's id.
    async fn topic_id(&self, topic: &str) -> Result<Uuid, TopicIdError>;

    /// Asks a broker for the first offset of a partition's log, and the one after its last.
    async fn log_ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError>;

    /// The end of a partition's log as its last fetch saw it.
    fn cached_log_end(&self, topic: &str, partition: i32) -> Option<i64>;

    /// How many partitions a topic has; 0: there is no such topic.
    async fn partitions(&self, topic: &str) -> Result<usize, KafkaError>;

    /// Asks a broker for the names of all topics.
    async fn topic_names(&self) -> Result<Vec<String>, KafkaError>;

    /// Reads these topics from now on, and no others. What stays is not interrupted.
    async fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError>;

    /// The offsets at which a group begins, of all partitions or of one. `None`: nothing was committed to adopt.
    async fn start_offsets(
        &self,
        topic: &str,
        start: &Start,
        only: Option<i32>,
    ) -> Result<Option<Vec<(i32, i64)>>, KafkaError>;

    /// Why the group does not take this worker, where it does not.
    fn refused(&self) -> Option<String>;

    /// Since when no broker answers, and why. Has one asked once a second meanwhile.
    fn outage(&self) -> Option<(SystemTime, String)>;
}

/// librdkafka's consumer.
pub(super) struct Kafka {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) watermarks: Arc<Watermarks>,
    /// Which broker is asked for topic ids; `None`: the controller.
    pub(super) topic_id_broker: Option<i32>,
    pub(super) probes: Arc<Probes>,
    pub(super) topic_ids: Answers<Result<Uuid, TopicIdError>>,
}

impl Kafka {
    /// Runs a call that asks the broker something.
    async fn ask<R: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseConsumer<Context>) -> Result<R, KafkaError> + Send + 'static,
    ) -> Result<R, KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        // The runtime is going down: as if the client were closed.
        tokio::task::spawn_blocking(move || call(&consumer)).await.unwrap_or(Err(KafkaError::Canceled))
    }
}

#[async_trait]
impl Client for Kafka {
    async fn probe(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let (must_send, answered) = self.probes.leave(topic, partition, offset);
        if must_send {
            let (probes, watermarks) = (Arc::clone(&self.probes), Arc::clone(&self.watermarks));
            // Whoever is told to stop meanwhile leaves it to the others.
            self.ask(move |consumer| {
                watermarks.in_turn(|| probes.send(|offsets| consumer.commit(offsets, CommitMode::Sync)));
                Ok(())
            })
            .await?;
        }
        // Not answered: the process is going down.
        answered.await.unwrap_or(Err(KafkaError::Canceled))
    }

    async fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let topic = topic.to_owned();
        self.ask(move |consumer| consumer.seek(&topic, partition, Offset::Offset(offset), REQUEST_TIMEOUT)).await
    }

    async fn restart(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let position = one(topic, partition, offset)?;
        self.ask(move |consumer| {
            consumer.incremental_unassign(&position)?;
            consumer.incremental_assign(&position)
        })
        .await
    }

    async fn topic_id(&self, topic: &str) -> Result<Uuid, TopicIdError> {
        let (consumer, broker, name) = (Arc::clone(&self.consumer), self.topic_id_broker, topic.to_owned());
        let ask = move || native::topic_id_from(consumer.client(), broker, &name, REQUEST_TIMEOUT);
        let asked = async {
            tokio::task::spawn_blocking(ask).await.unwrap_or_else(|_| {
                let message = "the process is ending".to_owned();
                Err(TopicIdError::Unanswered { topic: topic.to_owned(), message })
            })
        };
        self.topic_ids.of(topic, asked).await
    }

    async fn log_ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        let topic = topic.to_owned();
        self.ask(move |consumer| consumer.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)).await
    }

    fn cached_log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        cached_watermarks(self.consumer.client(), topic, partition).map(|(_, high)| high)
    }

    async fn partitions(&self, topic: &str) -> Result<usize, KafkaError> {
        let topic = topic.to_owned();
        self.ask(move |consumer| Ok(partitions(consumer, &topic, REQUEST_TIMEOUT)?.len())).await
    }

    async fn topic_names(&self) -> Result<Vec<String>, KafkaError> {
        self.ask(|consumer| Ok(names_of(&consumer.fetch_metadata(None, REQUEST_TIMEOUT)?))).await
    }

    async fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError> {
        let topics = topics.to_vec();
        self.ask(move |consumer| consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())).await
    }

    async fn start_offsets(
        &self,
        topic: &str,
        start: &Start,
        only: Option<i32>,
    ) -> Result<Option<Vec<(i32, i64)>>, KafkaError> {
        let (topic, start) = (topic.to_owned(), start.clone());
        self.ask(move |consumer| start_offsets(consumer, &topic, &start, only)).await
    }

    fn refused(&self) -> Option<String> {
        self.consumer.context().refused()
    }

    fn outage(&self) -> Option<(SystemTime, String)> {
        let since = self.consumer.context().brokers.open()?;
        if let Some(permit) = self.consumer.context().brokers.permit(Instant::now()) {
            let consumer = Arc::clone(&self.consumer);
            // A topic that every cluster with groups has; an answer that refuses it is an answer.
            tokio::task::spawn_blocking(move || {
                let asked = consumer.fetch_metadata(Some("__consumer_offsets"), breaker::PAUSE);
                consumer.context().note_brokers(permit, asked.err().map(|error| error.to_string()));
            });
        }
        Some(since)
    }
}

fn one(topic: &str, partition: i32, offset: i64) -> Result<TopicPartitionList, KafkaError> {
    list(topic, &[partition], Offset::Offset(offset))
}

fn list(topic: &str, partitions: &[i32], offset: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

fn partitions(consumer: &BaseConsumer<Context>, topic: &str, patience: Duration) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), patience)?;
    let of_topic = metadata.topics().iter().find(|known| known.name() == topic);
    Ok(of_topic.map(|topic| topic.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default())
}

fn start_offsets(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    start: &Start,
    only: Option<i32>,
) -> Result<Option<Vec<(i32, i64)>>, KafkaError> {
    let partitions = match only {
        Some(partition) => vec![partition],
        None => partitions(consumer, topic, REQUEST_TIMEOUT)?,
    };
    let explicit = match start {
        Start::Beginning | Start::End => TopicPartitionList::new(),
        Start::Committed => {
            let committed = consumer.committed_offsets(list(topic, &partitions, Offset::Invalid)?, REQUEST_TIMEOUT)?;
            if committed.elements().iter().all(|element| !matches!(element.offset(), Offset::Offset(_))) {
                return Ok(None);
            }
            committed
        }
        Start::Time(time) => {
            let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            consumer.offsets_for_times(list(topic, &partitions, Offset::Offset(ms))?, REQUEST_TIMEOUT)?
        }
    };
    // Where nothing explicit is found: no record is as young as the time given, or there is nothing to adopt on this
    // partition alone. The two ends are special time stamps of the same request.
    let otherwise = match start {
        Start::End | Start::Time(_) => Offset::End,
        Start::Beginning | Start::Committed => Offset::Beginning,
    };
    let ends = consumer.offsets_for_times(list(topic, &partitions, otherwise)?, REQUEST_TIMEOUT)?;
    let offset_in = |list: &TopicPartitionList, partition| match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    let offsets = partitions.iter().map(|partition| {
        let offset = offset_in(&explicit, *partition).or_else(|| offset_in(&ends, *partition));
        let unknown = KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition);
        offset.map(|offset| (*partition, offset)).ok_or(unknown)
    });
    offsets.collect::<Result<_, _>>().map(Some)
}
