//! What the producers have done so far, as they note it and the observer reads it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use super::events::Kind;
use super::latency;

/// A bit an event.
#[derive(Debug)]
pub(super) struct Bits(Vec<AtomicU64>);

impl Bits {
    pub(super) fn new(bits: u64) -> Self {
        let words = usize::try_from(bits.div_ceil(64)).unwrap_or(usize::MAX);
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn set(&self, bit: u64) {
        if let Some(word) = self.word(bit) {
            word.fetch_or(1 << (bit % 64), Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self, bit: u64) {
        if let Some(word) = self.word(bit) {
            word.fetch_and(!(1 << (bit % 64)), Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    fn word(&self, bit: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(bit / 64).ok()?)
    }
}

/// Counts since the run's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Handed to a producer.
    pub(super) sent: u64,
    /// Refused when they were to be handed over.
    pub(super) refused: u64,
    pub(super) acknowledged: u64,
    /// Given up later.
    pub(super) failed: u64,
    /// Of the acknowledged.
    pub(super) duplicates: u64,
    pub(super) poison: u64,
}

/// Shared by the producers and the observer.
#[derive(Debug)]
pub(super) struct Flow {
    sent: AtomicU64,
    refused: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    duplicates: AtomicU64,
    poison: AtomicU64,
    /// Events that were acknowledged at least once, by the number of the original.
    pub(super) stored: Bits,
    /// One past the newest acknowledged offset, by partition.
    ends: Vec<AtomicI64>,
    /// How late events were handed over since the last look, by producer, so that none waits for another.
    slips: Vec<Mutex<Histogram<u64>>>,
    first_error: Mutex<Option<String>>,
}

impl Flow {
    pub(super) fn new(events: u64, partitions: usize, producers: usize) -> Self {
        let count = || AtomicU64::new(0);
        Self {
            sent: count(),
            refused: count(),
            acknowledged: count(),
            failed: count(),
            duplicates: count(),
            poison: count(),
            stored: Bits::new(events),
            ends: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            slips: (0..producers).map(|_| Mutex::new(latency::histogram())).collect(),
            first_error: Mutex::default(),
        }
    }

    pub(super) fn handed_over(&self, producer: usize, slip_us: u64) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.slips[producer].lock().unwrap_or_else(PoisonError::into_inner).saturating_record(slip_us);
    }

    pub(super) fn refused(&self, error: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.note_error(error);
    }

    pub(super) fn failed(&self, error: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.note_error(error);
    }

    fn note_error(&self, error: &str) {
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_owned());
    }

    pub(super) fn first_error(&self) -> Option<String> {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn acknowledged(&self, original: u64, kind: Kind, partition: i32, offset: i64) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.duplicates.fetch_add(u64::from(matches!(kind, Kind::Repeat(_))), Ordering::Relaxed);
        self.poison.fetch_add(u64::from(kind.is_poison()), Ordering::Relaxed);
        self.stored.set(original);
        if let Some(end) = usize::try_from(partition).ok().and_then(|partition| self.ends.get(partition)) {
            end.fetch_max(offset + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn look(&self) -> Sent {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sent {
            sent: of(&self.sent),
            refused: of(&self.refused),
            acknowledged: of(&self.acknowledged),
            failed: of(&self.failed),
            duplicates: of(&self.duplicates),
            poison: of(&self.poison),
        }
    }

    /// One past the newest acknowledged offset of each partition.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.ends.iter().map(|end| end.load(Ordering::Relaxed)).collect()
    }

    /// How late events were handed over since this was asked last.
    pub(super) fn take_slips(&self) -> Histogram<u64> {
        let mut whole = latency::histogram();
        for slips in &self.slips {
            let mut slips = slips.lock().unwrap_or_else(PoisonError::into_inner);
            latency::add(&mut whole, &slips);
            slips.reset();
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_acknowledged_and_stores_nothing_more() {
        let flow = Flow::new(200, 2, 1);
        flow.acknowledged(7, Kind::Good, 1, 40);
        flow.acknowledged(7, Kind::Repeat(7), 1, 30);
        flow.acknowledged(199, Kind::Malformed, 0, 0);
        let look = flow.look();
        assert_eq!((look.acknowledged, look.duplicates, look.poison), (3, 1, 1));
        assert_eq!((flow.stored.count(), flow.ends()), (2, vec![1, 41]));
        flow.stored.clear(7);
        assert_eq!(flow.stored.count(), 1);
    }

    #[test]
    fn slips_are_told_once() {
        let flow = Flow::new(1, 1, 2);
        flow.handed_over(0, 10);
        flow.handed_over(1, 20);
        assert_eq!(flow.take_slips().len(), 2);
        assert_eq!((flow.take_slips().len(), flow.look().sent), (0, 2));
    }
}
