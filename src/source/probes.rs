//! Probes of one group that wait at the same time are one commit: 512 partitions that are taken over together would else
//! ask one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

/// Whether the group takes a member for a partition's owner.
type Answer = Result<(), KafkaError>;

/// Probes that nobody has sent yet.
#[derive(Default)]
pub(super) struct Probes(Mutex<Vec<Probe>>);

struct Probe {
    topic: String,
    partition: i32,
    offset: i64,
    answer: oneshot::Sender<Answer>,
}

impl Probes {
    /// Leaves a probe to the next who sends. `true`: nobody is on the way to do so, and the caller must.
    pub(super) fn leave(&self, topic: &str, partition: i32, offset: i64) -> (bool, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.push(Probe { topic: topic.to_owned(), partition, offset, answer });
        (waiting.len() == 1, answered)
    }

    /// Sends all that wait, in one commit, and tells each its answer. What the broker says of one partition alone is told to
    /// no other: then each is sent for itself.
    pub(super) fn send(&self, commit: impl Fn(&TopicPartitionList) -> Answer) {
        let mut waiting = std::mem::take(&mut *self.lock());
        // A task that gave up may not own its partition any more.
        waiting.retain(|probe| !probe.answer.is_closed());
        if waiting.is_empty() {
            return;
        }
        let together = offsets(&waiting).and_then(|offsets| commit(&offsets));
        let is_shared = waiting.len() == 1 || !together.as_ref().is_err_and(is_of_a_partition);
        for probe in waiting {
            let answer = match is_shared {
                true => together.clone(),
                false => offsets(std::slice::from_ref(&probe)).and_then(|offsets| commit(&offsets)),
            };
            // Whoever asked may have been told to stop meanwhile.
            probe.answer.send(answer).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Probe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offsets(probes: &[Probe]) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::with_capacity(probes.len());
    for Probe { topic, partition, offset, .. } in probes {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(offsets)
}

/// What a broker says of one partition in its answer to a commit; anything else concerns the member or the group. One such
/// word is the result of the whole commit (`rd_kafka_handle_OffsetCommit`), though the other offsets are committed.
fn is_of_a_partition(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::OffsetMetadataTooLarge
                | RDKafkaErrorCode::InvalidCommitOffsetSize
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: KafkaError = KafkaError::ConsumerCommit(RDKafkaErrorCode::IllegalGeneration);
    const UNKNOWN: KafkaError = KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownTopicOrPartition);

    /// What was committed, commit by commit.
    #[derive(Default)]
    struct Broker(Mutex<Vec<Vec<(String, i64)>>>);

    impl Broker {
        fn note(&self, offsets: &TopicPartitionList) {
            let one = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                (format!("{}/{}", element.topic(), element.partition()), element.offset().to_raw().unwrap())
            };
            self.0.lock().unwrap().push(offsets.elements().iter().map(one).collect());
        }

        fn commits(&self) -> Vec<Vec<(String, i64)>> {
            self.0.lock().unwrap().clone()
        }
    }

    fn at(offsets: &[(&str, i64)]) -> Vec<(String, i64)> {
        offsets.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect()
    }

    #[test]
    fn those_that_wait_are_one_commit_and_the_first_has_it_sent() {
        let (probes, broker) = (Probes::default(), Broker::default());
        let (must_send, mut first) = probes.leave("a", 0, 7);
        assert!(must_send);
        let (must_send, mut second) = probes.leave("b", 3, 9);
        assert!(!must_send, "the first has it sent");
        probes.send(|offsets| {
            broker.note(offsets);
            // What comes while a commit is under way is not in it, and needs one of its own.
            assert!(probes.leave("c", 0, 1).0);
            Ok(())
        });
        assert_eq!(broker.commits(), [at(&[("a/0", 7), ("b/3", 9)])]);
        assert_eq!([first.try_recv().unwrap(), second.try_recv().unwrap()], [Ok(()), Ok(())]);
    }

    #[test]
    fn whom_the_group_refuses_it_refuses_altogether() {
        let (probes, broker) = (Probes::default(), Broker::default());
        let answers = [0, 1, 2].map(|partition| probes.leave("a", partition, 1).1);
        probes.send(|offsets| {
            broker.note(offsets);
            Err(REFUSED)
        });
        assert_eq!(broker.commits().len(), 1);
        assert_eq!(answers.map(|mut answer| answer.try_recv().unwrap()), [Err(REFUSED), Err(REFUSED), Err(REFUSED)]);
    }

    #[test]
    fn a_topic_that_is_gone_refuses_its_own_partition_alone() {
        let (probes, broker) = (Probes::default(), Broker::default());
        let answers = ["a", "gone", "b"].map(|topic| probes.leave(topic, 0, 1).1);
        probes.send(|offsets| {
            broker.note(offsets);
            match offsets.find_partition("gone", 0) {
                Some(_) => Err(UNKNOWN),
                None => Ok(()),
            }
        });
        assert_eq!(answers.map(|mut answer| answer.try_recv().unwrap()), [Ok(()), Err(UNKNOWN), Ok(())]);
    }

    #[test]
    fn what_was_given_up_is_not_committed() {
        let (probes, broker) = (Probes::default(), Broker::default());
        drop(probes.leave("a", 0, 1));
        let (_, mut kept) = probes.leave("a", 1, 2);
        probes.send(|offsets| {
            broker.note(offsets);
            Ok(())
        });
        assert_eq!(broker.commits(), [at(&[("a/1", 2)])]);
        assert_eq!(kept.try_recv().unwrap(), Ok(()));
        drop(probes.leave("a", 2, 3));
        probes.send(|_| panic!("nobody waits"));
        assert!(probes.leave("a", 2, 3).0);
    }
}
