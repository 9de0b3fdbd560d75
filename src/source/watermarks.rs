//! The offsets to commit: for each partition the first one that is not settled, so that a commit never passes a gap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::{Offset, TopicPartitionList};

/// Watermarks that Kafka does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Watermarks(Mutex<HashMap<(String, i32), i64>>);

impl Watermarks {
    /// Everything below this offset is settled.
    pub(crate) fn advance(&self, topic: &str, partition: i32, next_offset: i64) {
        let mut pending = self.lock();
        match pending.get_mut(&(topic.to_owned(), partition)) {
            Some(offset) => *offset = next_offset,
            None => {
                pending.insert((topic.to_owned(), partition), next_offset);
            }
        }
    }

    /// Takes what there is of these partitions.
    pub(super) fn take(&self, partitions: &[(String, i32)]) -> TopicPartitionList {
        let mut pending = self.lock();
        list(partitions.iter().filter_map(|name| pending.remove_entry(name)))
    }

    /// Takes all.
    pub(super) fn take_all(&self) -> TopicPartitionList {
        list(self.lock().drain())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(offsets: impl Iterator<Item = ((String, i32), i64)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        let added = list.add_partition_offset(&topic, partition, Offset::Offset(offset));
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
        assert_eq!(watermarks.take_all().count(), 1);
        assert_eq!(watermarks.take_all().count(), 0);
    }
}
