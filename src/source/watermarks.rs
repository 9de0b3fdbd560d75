//! The offsets to commit: for each partition the first one that is not settled, so that a commit never passes a gap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::{Offset, TopicPartitionList};

/// Watermarks of the partitions that this process owns.
#[derive(Debug, Default)]
pub struct Watermarks(Mutex<HashMap<(String, i32), Watermark>>);

#[derive(Debug, Clone, Copy)]
struct Watermark {
    next_offset: i64,
    /// Whether Kafka was, or is being, told.
    told: bool,
}

impl Watermarks {
    /// The partition is owned, and Kafka has this offset.
    pub fn own(&self, topic: &str, partition: i32, next_offset: i64) {
        self.lock().insert((topic.to_owned(), partition), Watermark { next_offset, told: true });
    }

    /// Everything below this offset is settled.
    pub fn advance(&self, topic: &str, partition: i32, next_offset: i64) {
        if let Some(watermark) = self.lock().get_mut(&(topic.to_owned(), partition)) {
            *watermark = Watermark { next_offset, told: false };
        }
    }

    /// Gives partitions up; says what Kafka was not told of them.
    pub(crate) fn give_up(&self, partitions: &[(String, i32)]) -> TopicPartitionList {
        let mut owned = self.lock();
        let given_up = partitions.iter().filter_map(|name| owned.remove_entry(name));
        list(given_up.filter(|(_, watermark)| !watermark.told))
    }

    /// What Kafka was not told yet; from then on it counts as told.
    pub fn untold(&self) -> TopicPartitionList {
        let mut owned = self.lock();
        let untold: Vec<_> = owned
            .iter()
            .filter(|(_, watermark)| !watermark.told)
            .map(|(name, watermark)| (name.clone(), *watermark))
            .collect();
        for watermark in owned.values_mut() {
            watermark.told = true;
        }
        list(untold.into_iter())
    }

    /// A commit was refused, as is routine in a rebalance: what is still owned and still newest is told again.
    pub(super) fn refused(&self, offsets: &TopicPartitionList) {
        let mut owned = self.lock();
        for element in offsets.elements() {
            if let Some(watermark) = owned.get_mut(&(element.topic().to_owned(), element.partition()))
                && element.offset() == Offset::Offset(watermark.next_offset)
            {
                watermark.told = false;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, i32), Watermark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(offsets: impl Iterator<Item = ((String, i32), Watermark)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), watermark) in offsets {
        let added = list.add_partition_offset(&topic, partition, Offset::Offset(watermark.next_offset));
        debug_assert!(added.is_ok(), "an offset from the ledger is never negative");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(list: &TopicPartitionList) -> Vec<(i32, Offset)> {
        let mut offsets: Vec<_> =
            list.elements().iter().map(|element| (element.partition(), element.offset())).collect();
        offsets.sort_by_key(|(partition, _)| *partition);
        offsets
    }

    #[test]
    fn only_the_newest_watermark_is_told_and_only_once() {
        let watermarks = Watermarks::default();
        watermarks.own("t", 0, 0);
        watermarks.own("t", 1, 0);
        watermarks.advance("t", 0, 5);
        watermarks.advance("t", 0, 9);
        assert_eq!(offsets(&watermarks.untold()), [(0, Offset::Offset(9))]);
        assert_eq!(offsets(&watermarks.untold()), []);
        watermarks.advance("t", 1, 3);
        let given_up = watermarks.give_up(&[("t".to_owned(), 0), ("t".to_owned(), 1), ("u".to_owned(), 7)]);
        assert_eq!(offsets(&given_up), [(1, Offset::Offset(3))]);
    }

    #[test]
    fn a_refused_commit_is_told_again_unless_it_was_overtaken_or_given_up() {
        let watermarks = Watermarks::default();
        for partition in 0..3 {
            watermarks.own("t", partition, 0);
            watermarks.advance("t", partition, 5);
        }
        let refused = watermarks.untold();
        watermarks.advance("t", 1, 8);
        assert_eq!(offsets(&watermarks.untold()), [(1, Offset::Offset(8))]);
        watermarks.give_up(&[("t".to_owned(), 2)]);
        watermarks.refused(&refused);
        assert_eq!(offsets(&watermarks.untold()), [(0, Offset::Offset(5))]);
    }

    #[test]
    fn what_is_not_owned_is_never_told() {
        let watermarks = Watermarks::default();
        watermarks.advance("t", 0, 5);
        assert_eq!(offsets(&watermarks.untold()), []);
    }
}
