//! The offsets to commit: for each partition the first one that is not settled, so that a commit never passes a gap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::{Offset, TopicPartitionList};

type Name = (String, i32);

/// The watermarks of the partitions at hand, and which of them Kafka does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Watermarks(Mutex<HashMap<Name, Watermark>>);

#[derive(Debug, Clone, Copy)]
struct Watermark {
    next_offset: i64,
    /// Neither on its way to Kafka nor there.
    is_due: bool,
}

impl Watermarks {
    /// Everything below this offset is settled.
    pub(crate) fn advance(&self, topic: &str, partition: i32, next_offset: i64) {
        self.lock().insert((topic.to_owned(), partition), Watermark { next_offset, is_due: true });
    }

    /// The partition is about to be claimed at the ledger's offset, which may lie below what was settled before: a
    /// database can go back in time.
    pub(crate) fn forget(&self, topic: &str, partition: i32) {
        self.lock().remove(&(topic.to_owned(), partition));
    }

    /// Takes what is due of these partitions, which are given up.
    pub(super) fn take(&self, partitions: &[Name]) -> TopicPartitionList {
        let mut known = self.lock();
        let given_up = partitions.iter().filter_map(|name| known.remove_entry(name));
        list(given_up.filter(|(_, watermark)| watermark.is_due))
    }

    /// Takes all that is due.
    pub(super) fn take_due(&self) -> TopicPartitionList {
        let mut known = self.lock();
        let due = known.iter_mut().filter(|(_, watermark)| watermark.is_due);
        list(due.map(|(name, watermark)| {
            watermark.is_due = false;
            (name.clone(), *watermark)
        }))
    }

    /// These were taken and refused, as happens in a rebalance. Where the partition is still at hand, its watermark is
    /// due again: no further event may come that would bring the next one.
    pub(super) fn refused(&self, offsets: &TopicPartitionList) {
        let mut known = self.lock();
        for element in offsets.elements() {
            if let Some(watermark) = known.get_mut(&(element.topic().to_owned(), element.partition())) {
                watermark.is_due = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Watermark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(watermarks: impl Iterator<Item = (Name, Watermark)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), watermark) in watermarks {
        let added = list.add_partition_offset(&topic, partition, Offset::Offset(watermark.next_offset));
        debug_assert!(added.is_ok(), "an offset from the ledger is never negative");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_watermark_is_committed_and_only_once() {
        let watermarks = Watermarks::default();
        watermarks.advance("t", 0, 5);
        watermarks.advance("t", 0, 9);
        watermarks.advance("t", 1, 3);
        let taken = watermarks.take(&[("t".to_owned(), 0), ("u".to_owned(), 7)]);
        assert_eq!(taken.elements().len(), 1);
        assert_eq!(taken.elements()[0].offset(), Offset::Offset(9));
        assert_eq!(watermarks.take_due().count(), 1);
        assert_eq!(watermarks.take_due().count(), 0);
    }

    #[test]
    fn what_was_refused_is_committed_again_at_its_newest_unless_it_was_given_up_or_claimed_anew() {
        let watermarks = Watermarks::default();
        for partition in 0..4 {
            watermarks.advance("t", partition, 5);
        }
        let taken = watermarks.take_due();
        watermarks.advance("t", 1, 6);
        watermarks.take(&[("t".to_owned(), 2)]);
        watermarks.forget("t", 3);
        watermarks.refused(&taken);
        let again = watermarks.take_due();
        let offset = |partition| again.find_partition("t", partition).map(|element| element.offset());
        assert_eq!([0, 1, 2, 3].map(offset), [Some(Offset::Offset(5)), Some(Offset::Offset(6)), None, None]);
    }
}
