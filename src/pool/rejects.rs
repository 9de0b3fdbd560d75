//! Whether rejects look like one sender's fault or like everybody's. A missing table, a wrong decoder or a changed
//! format must hold the partition, not turn a whole topic into dead rows.

use std::collections::HashSet;

/// Fewer rejects than this never hold a partition. A pool's first batch has more events, so that where all are rejected
/// none is set aside.
const REJECTS_MIN: usize = 50;
/// Rejects of fewer keys than this are some senders' own fault.
const KEYS_MIN: usize = 10;
/// Judged over at least this many events.
const WINDOW_EVENTS: usize = 1_000;

/// Counts a partition's rejects over a window of events.
#[derive(Debug, Default)]
pub(super) struct Rejects {
    events: usize,
    rejects: usize,
    keys: HashSet<u64>,
}

impl Rejects {
    /// Whether a batch with these rejects should wait for a person; `keys` are hashes of the rejected events' keys.
    pub(super) fn would_hold(&self, ratio: f64, events: usize, keys: &[u64]) -> bool {
        let (events, rejects) = (self.events + events, self.rejects + keys.len());
        let distinct = self.keys.union(&keys.iter().copied().collect()).count();
        #[expect(clippy::cast_precision_loss, reason = "counts of a window are far below 2^52")]
        let over = rejects as f64 > ratio * events as f64;
        rejects >= REJECTS_MIN && distinct >= KEYS_MIN && over
    }

    /// Takes a settled batch into account.
    pub(super) fn note(&mut self, events: usize, keys: &[u64]) {
        if self.events >= WINDOW_EVENTS {
            *self = Self::default();
        }
        self.events += events;
        self.rejects += keys.len();
        self.keys.extend(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_of_many_keys_hold_and_those_of_few_do_not() {
        let many: Vec<u64> = (0..300).collect();
        let few: Vec<u64> = (0..300).map(|n| n % 9).collect();
        let rejects = Rejects::default();
        assert!(rejects.would_hold(0.5, 500, &many));
        assert!(!rejects.would_hold(0.5, 500, &few));
        assert!(!rejects.would_hold(0.5, 700, &many), "below the ratio");
        assert!(!rejects.would_hold(1.0, 300, &many), "a ratio of 1 never holds");
    }

    #[test]
    fn small_batches_add_up_and_a_window_ends() {
        let mut rejects = Rejects::default();
        for n in 0..49u64 {
            assert!(!rejects.would_hold(0.5, 1, &[n]), "{n}");
            rejects.note(1, &[n]);
        }
        assert!(rejects.would_hold(0.5, 1, &[49]));
        rejects.note(1_000, &[]);
        rejects.note(1, &[]);
        assert!(!rejects.would_hold(0.5, 49, &(0..49).collect::<Vec<_>>()));
    }
}
