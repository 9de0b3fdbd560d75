//! A consumer group and its log in memory: members, generations, assignments, commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{Frozen, TOPIC_ID};
use crate::config::Start;
use crate::event::Record;
use crate::source::{Client, TopicIdError};

/// A worker process, new with every start.
pub(super) type Member = usize;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: BTreeMap<i32, Vec<Record>>,
    /// Whose each partition is, by the coordinator.
    pub(super) owners: BTreeMap<i32, Member>,
    pub(super) members: BTreeSet<Member>,
    pub(super) committed: BTreeMap<i32, i64>,
    fetchers: BTreeMap<(Member, i32), Fetcher>,
}

/// A member's fetcher, with librdkafka's ways: it asks where the group's offset is, and jumps there when the answer comes
/// after a seek; without one it says so and stands still.
#[derive(Debug)]
struct Fetcher {
    /// Until it has been told where to begin, how often it was polled.
    asked: Option<u32>,
    position: Option<i64>,
}

/// After how many polls the answer is there.
const ANSWERED_AFTER: u32 = 2;

#[derive(Debug, Clone, Default)]
pub(super) struct Group(Arc<Mutex<State>>);

impl Group {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A commit is taken of members of the present generation only: here, of those that the coordinator knows.
    pub(super) fn commit(&self, member: Member, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let mut state = self.lock();
        if !state.members.contains(&member) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId));
        }
        state.committed.insert(partition, offset);
        Ok(())
    }

    /// One request of several offsets.
    pub(super) fn commit_all(&self, member: Member, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        for element in offsets.elements() {
            if let Offset::Offset(offset) = element.offset() {
                self.commit(member, element.partition(), offset)?;
            }
        }
        Ok(())
    }

    /// A fetcher begins by asking for the group's offset.
    pub(super) fn split(&self, member: Member, partition: i32) {
        self.lock().fetchers.insert((member, partition), Fetcher { asked: Some(0), position: None });
    }

    /// The next record of a member's queue, or the word that the log's end is reached.
    pub(super) fn next(&self, member: Member, partition: i32) -> Option<Result<Record, KafkaError>> {
        let mut state = self.lock();
        let State { log, fetchers, committed, .. } = &mut *state;
        let (fetcher, log) = (fetchers.get_mut(&(member, partition))?, log.get(&partition)?);
        if let Some(polls) = &mut fetcher.asked {
            *polls += 1;
            if *polls > ANSWERED_AFTER {
                (fetcher.asked, fetcher.position) = (None, committed.get(&partition).copied());
                let Some(position) = fetcher.position else {
                    return Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)));
                };
                if position >= log.len() as i64 {
                    return Some(Err(KafkaError::PartitionEOF(partition)));
                }
            }
        }
        let position = fetcher.position.as_mut()?;
        let record = log.get(usize::try_from(*position).unwrap())?.clone();
        *position += 1;
        Some(Ok(record))
    }
}

/// A worker's consumer.
pub(super) struct Consumer {
    pub(super) group: Group,
    pub(super) member: Member,
    pub(super) frozen: Frozen,
}

impl Consumer {
    async fn exchange(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.frozen.pass().await;
    }
}

#[async_trait]
impl Client for Consumer {
    async fn probe(&self, _: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        self.exchange().await;
        let answer = self.group.commit(self.member, partition, offset);
        // The answer may take its time, and all may have changed meanwhile.
        self.exchange().await;
        answer
    }

    async fn seek(&self, _: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        self.exchange().await;
        if let Some(fetcher) = self.group.lock().fetchers.get_mut(&(self.member, partition)) {
            fetcher.position = Some(offset);
        }
        Ok(())
    }

    async fn restart(&self, topic: &str, partition: i32, offset: i64) -> Result<(), KafkaError> {
        if let Some(fetcher) = self.group.lock().fetchers.get_mut(&(self.member, partition)) {
            fetcher.asked = None;
        }
        self.seek(topic, partition, offset).await
    }

    async fn topic_id(&self, _: &str) -> Result<Uuid, TopicIdError> {
        self.exchange().await;
        Ok(TOPIC_ID)
    }

    async fn log_ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        Ok((0, self.cached_log_end(topic, partition).unwrap_or(0)))
    }

    fn cached_log_end(&self, _: &str, partition: i32) -> Option<i64> {
        Some(self.group.lock().log.get(&partition)?.len() as i64)
    }

    async fn partitions(&self, _: &str) -> Result<usize, KafkaError> {
        Ok(self.group.lock().log.len())
    }

    async fn topic_names(&self) -> Result<Vec<String>, KafkaError> {
        Ok(Vec::new())
    }

    async fn subscribe(&self, _: &[String]) -> Result<(), KafkaError> {
        Ok(())
    }

    async fn start_offsets(
        &self,
        _: &str,
        _: &Start,
        only: Option<i32>,
    ) -> Result<Option<Vec<(i32, i64)>>, KafkaError> {
        self.exchange().await;
        let all = self.group.lock().log.keys().copied().collect::<Vec<_>>();
        Ok(Some(
            all.into_iter().filter(|partition| only.is_none_or(|only| only == *partition)).map(|p| (p, 0)).collect(),
        ))
    }

    fn refused(&self) -> Option<String> {
        None
    }

    fn outage(&self) -> Option<(SystemTime, String)> {
        None
    }
}
