//! The offsets to commit: for each partition the first one that is not settled, so that a commit never passes a gap.
//!
//! Three threads send them: the one that commits now and then, the callback of a revocation, and a takeover's probe. Each
//! takes its offsets and sends them in one turn: else one that was taken before could be sent after a newer one, or after
//! the probe of a ledger that has gone back. `tests/interleavings.rs` tries all orders.

use std::collections::HashMap;
use std::sync::PoisonError;

use rdkafka::{Offset, TopicPartitionList};

use super::sync::{Mutex, MutexGuard};

/// Watermarks of the partitions that this process owns.
#[derive(Debug, Default)]
pub struct Watermarks {
    owned: Mutex<HashMap<(String, i32), Watermark>>,
    /// Held from the moment when offsets are taken until Kafka has answered.
    turn: Mutex<()>,
}

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

    /// Tells Kafka what it was not told yet; `None`: there is nothing.
    pub(crate) fn tell<E>(&self, send: impl FnOnce(&TopicPartitionList) -> Result<(), E>) -> Option<Result<(), E>> {
        let _turn = wait(&self.turn);
        let offsets = self.untold();
        if offsets.count() == 0 {
            return None;
        }
        let sent = send(&offsets);
        if sent.is_err() {
            self.refused(&offsets);
        }
        Some(sent)
    }

    /// Gives partitions up, and tells Kafka what it was not told of them; `None`: there is nothing.
    pub(crate) fn tell_last<E>(
        &self,
        partitions: &[(String, i32)],
        send: impl FnOnce(&TopicPartitionList) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let _turn = wait(&self.turn);
        let offsets = self.give_up(partitions);
        (offsets.count() > 0).then(|| send(&offsets))
    }

    /// Tells Kafka something else of a partition that was given up before.
    pub(crate) fn in_turn<R>(&self, send: impl FnOnce() -> R) -> R {
        let _turn = wait(&self.turn);
        send()
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
    pub(crate) fn refused(&self, offsets: &TopicPartitionList) {
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
        wait(&self.owned)
    }
}

fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn list(offsets: impl Iterator<Item = ((String, i32), Watermark)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), watermark) in offsets {
        let added = list.add_partition_offset(&topic, partition, Offset::Offset(watermark.next_offset));
        debug_assert!(added.is_ok(), "an offset from the ledger is never negative");
    }
    list
}
