//! Why a group does not take a worker of the consumer protocol that has no partitions. The brokers refuse it for as long
//! as classic members are there whom they cannot translate; librdkafka tries on and says nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use super::{Context, REQUEST_TIMEOUT};
use crate::config::{GroupProtocol, Kafka};

/// How often the group is asked about.
const INTERVAL: Duration = Duration::from_secs(3);

/// Looks at the group while this worker has nothing of it.
pub(super) struct Joining {
    group: String,
    is_needed: bool,
    asked_at: Instant,
    is_refused: bool,
}

impl Joining {
    pub(super) fn new(group: &str, kafka: &Kafka) -> Self {
        let is_needed = kafka.group_protocol == GroupProtocol::Consumer;
        Self { group: group.to_owned(), is_needed, asked_at: Instant::now(), is_refused: false }
    }

    /// Says so when the group is one of classic members, and takes it back when it is no more.
    pub(super) fn look(&mut self, consumer: &BaseConsumer<Context>) {
        let has_partitions = || consumer.assignment().is_ok_and(|assigned| assigned.count() > 0);
        if !self.is_needed || self.asked_at.elapsed() < INTERVAL || has_partitions() {
            return;
        }
        self.asked_at = Instant::now();
        // This question knows classic groups alone: any other has no members by it. No answer tells nothing.
        let Ok(answer) = consumer.fetch_group_list(Some(&self.group), REQUEST_TIMEOUT) else { return };
        let is_classic = answer.groups().iter().any(|group| !group.members().is_empty());
        match is_classic {
            true => consumer.context().note_refusal(RDKafkaErrorCode::GroupIdNotFound),
            false if self.is_refused => consumer.context().taken(),
            false => {}
        }
        self.is_refused = is_classic;
    }
}
