//! How many events the next batch of a partition may have, so that a batch takes less than the pool's time budget
//! however slow handling becomes.
//!
//! The measure is the 99th percentile of the time an event took, over the last batches; of so few that is the
//! slowest one's. It shrinks a batch at once and lets it grow by doubling. The first batches are small, since nothing
//! is known yet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Budget;

/// The first batch's size where the handling time is not configured.
const FIRST: usize = 64;
/// How many batches are remembered: so many fast ones after a slow one, and the batch may grow again.
const REMEMBERED: usize = 16;

/// The size of one partition's batches.
#[derive(Debug)]
pub(super) struct BatchSize {
    max: usize,
    /// What a batch may take, in milliseconds.
    budget_ms: f64,
    now: usize,
    /// What an event took in each of the last batches, in milliseconds, the newest last.
    event_ms: VecDeque<f64>,
}

/// What became of the size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// Batches are as large as configured, or on their way there, or as small as before.
    None,
    /// Full batches no longer fit the budget: an event takes so many milliseconds.
    Limited {
        /// The 99th percentile of what an event takes.
        event_ms: f64,
    },
    /// Full batches fit again.
    Free,
}

impl BatchSize {
    pub(super) fn new(budget: &Budget) -> Self {
        let first = match budget.handle_ms {
            Some(_) => budget.max_poll_records,
            None => FIRST.min(budget.max_poll_records),
        };
        let budget_ms = budget.batch_ms_max();
        Self { max: budget.max_poll_records, budget_ms, now: first.max(1), event_ms: VecDeque::new() }
    }

    /// The most events of the next batch.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// A batch was settled after so much work.
    pub(super) fn settled(&mut self, events: usize, worked: Duration) -> Change {
        if events == 0 {
            return Change::None;
        }
        let was_limited = self.fit() < self.max;
        if self.event_ms.len() == REMEMBERED {
            self.event_ms.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "records of a batch are far fewer than 2^52")]
        self.event_ms.push_back(worked.as_secs_f64() * 1_000.0 / events as f64);
        let fit = self.fit();
        self.now = (self.now * 2).min(fit);
        match (was_limited, fit < self.max) {
            (false, true) => Change::Limited { event_ms: self.slowest_ms() },
            (true, false) => Change::Free,
            _ => Change::None,
        }
    }

    /// A batch of so many events did not fit a limit of the database's: half of it may.
    pub(super) fn halve(&mut self, events: usize) {
        self.now = (events / 2).max(1);
    }

    /// The largest batch that fits the budget by what was measured.
    fn fit(&self) -> usize {
        let records = (self.budget_ms / self.slowest_ms()).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; it saturates")]
        (records as usize).clamp(1, self.max)
    }

    fn slowest_ms(&self) -> f64 {
        self.event_ms.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kafka, Pool};

    /// A budget of 3 s.
    fn size(max_poll_records: usize, handle_ms: Option<f64>) -> BatchSize {
        let kafka = Kafka { session_timeout_ms: 6_000, ..Kafka::default() };
        BatchSize::new(&Budget::of(&kafka, &Pool { max_poll_records, handle_ms, ..Pool::default() }))
    }

    /// Settles full batches of events that take so long each.
    fn settle(size: &mut BatchSize, batches: usize, event_ms: f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..batches {
            size.settled(size.now(), Duration::from_secs_f64(size.now() as f64 * event_ms / 1_000.0));
            sizes.push(size.now());
        }
        sizes
    }

    #[test]
    fn batches_begin_small_and_grow_while_they_fit() {
        assert_eq!(settle(&mut size(500, None), 4, 1.0), [128, 256, 500, 500]);
        assert_eq!(size(500, Some(1.0)).now(), 500, "what is configured need not be tried out");
        assert_eq!(size(10, None).now(), 10);
    }

    #[test]
    fn a_tenfold_slowdown_shrinks_the_next_batch_into_the_budget_and_it_grows_back() {
        let mut size = size(500, None);
        settle(&mut size, 8, 2.0);
        assert_eq!(size.now(), 500);
        let slow = settle(&mut size, 3, 20.0);
        assert_eq!(slow, [150, 150, 150], "150 x 20 ms are 3 s");
        let fast = settle(&mut size, REMEMBERED, 2.0);
        assert_eq!(fast[..REMEMBERED - 1], [150; REMEMBERED - 1], "the slow batches are remembered");
        assert_eq!(settle(&mut size, 2, 2.0), [500, 500]);
    }

    #[test]
    fn the_change_is_told_once() {
        let mut size = size(500, Some(2.0));
        let mut after = |event_ms: f64| size.settled(100, Duration::from_secs_f64(event_ms / 10.0));
        assert_eq!(after(2.0), Change::None);
        assert_eq!(after(20.0), Change::Limited { event_ms: 20.0 });
        assert_eq!(after(21.0), Change::None);
        for _ in 0..REMEMBERED - 1 {
            assert_eq!(after(2.0), Change::None);
        }
        assert_eq!(after(2.0), Change::Free);
    }

    #[test]
    fn one_event_that_takes_longer_than_the_budget_is_a_batch_of_its_own() {
        let mut size = size(500, None);
        size.settled(1, Duration::from_secs(60));
        assert_eq!(size.now(), 1);
    }

    #[test]
    fn a_batch_that_was_too_slow_for_the_database_is_halved_and_grows_again() {
        let mut size = size(500, Some(1.0));
        size.halve(500);
        assert_eq!(size.now(), 250);
        size.halve(1);
        assert_eq!(size.now(), 1);
        assert_eq!(settle(&mut size, 3, 1.0), [2, 4, 8]);
    }
}
