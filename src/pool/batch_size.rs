//! How many events the next batch of a partition may have, so that a batch takes less than the pool's time budget
//! however slow handling becomes.
//!
//! A batch's time has a part that each event adds and a part that every batch costs, such as the round trips of its
//! transaction. Only the first part says how large a batch may be. It is told from those of the last batches that took a
//! good part of the budget, and the slowest of them counts: of so few that is the 99th percentile. Shorter ones say nothing,
//! since what the machine adds to a few events is not what many would take; but no batch is more than twice as large as the
//! largest of them, so that the one after a short batch cannot take long either. The first batches are small, since nothing
//! is known yet. A slow batch shrinks the next at once; it is worth a word only when a second one shows the same.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Budget;

/// How many events are tried where nothing is known of what they take.
const FIRST: usize = 64;
/// How many batches are remembered: so many fast ones after a slow one, and the batch may grow again.
const REMEMBERED: usize = 16;
/// The part of the budget that every batch may cost, as long as batches of one size do not tell.
const FIXED_SHARE: f64 = 0.05;
/// The part of the budget from which on a single batch tells what an event takes.
const TELLING_SHARE: f64 = 0.25;

/// The size of one partition's batches.
#[derive(Debug)]
pub(super) struct BatchSize {
    max: usize,
    /// What a batch may take, in milliseconds.
    budget_ms: f64,
    now: usize,
    /// How many events a batch may have whatever the last ones had.
    first: usize,
    /// The last batches, the newest last.
    settled: VecDeque<Sample>,
    /// After a batch that the database gave up: what may be tried, and for how many more batches.
    ceiling: Option<(usize, usize)>,
    /// It was told that full batches do not fit.
    is_told: bool,
}

/// A settled batch.
#[derive(Debug, Clone, Copy)]
struct Sample {
    events: f64,
    ms: f64,
}

/// What became of the size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// Batches are as large as configured, or on their way there, or as small as before.
    None,
    /// Not half of a full batch fits the budget any more, by more than one batch: an event takes so many milliseconds.
    Limited {
        /// The 99th percentile of what an event takes.
        event_ms: f64,
    },
    /// Full batches fit again.
    Free,
}

impl BatchSize {
    pub(super) fn new(budget: &Budget) -> Self {
        let max = budget.max_poll_records.max(1);
        let first = if budget.handle_ms.is_some() { max } else { FIRST.min(max) };
        let budget_ms = budget.batch_ms_max();
        Self { max, budget_ms, now: first, first, settled: VecDeque::new(), ceiling: None, is_told: false }
    }

    /// The most events of the next batch.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Whether batches are as large as configured.
    pub(super) fn is_full(&self) -> bool {
        self.now == self.max
    }

    /// A batch was settled after so much work.
    pub(super) fn settled(&mut self, events: usize, worked: Duration) -> Change {
        if events == 0 {
            return Change::None;
        }
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "records of a batch are far fewer than 2^52")]
        self.settled.push_back(Sample { events: events as f64, ms: worked.as_secs_f64() * 1_000.0 });
        self.ceiling = self.ceiling.and_then(|(most, left)| Some((most, left.checked_sub(1)?)));
        let fixed_ms = self.fixed_ms();
        let (slowest_ms, next_ms) = self.event_ms(fixed_ms);
        let fit = self.fit(fixed_ms, slowest_ms);
        let most = self.ceiling.map_or(self.max, |(most, _)| most);
        self.now = (self.now * 2).min(self.tried().max(self.first)).min(fit).min(most);
        if !self.is_told && self.fit(fixed_ms, next_ms) <= self.max / 2 {
            self.is_told = true;
            return Change::Limited { event_ms: slowest_ms };
        }
        if self.is_told && fit == self.max {
            self.is_told = false;
            return Change::Free;
        }
        Change::None
    }

    /// A batch of so many events did not fit a limit of the database's: half of it may, and for a while no more than
    /// three quarters are tried.
    pub(super) fn halve(&mut self, events: usize) {
        self.now = (events / 2).max(1);
        self.ceiling = Some(((events * 3 / 4).max(1), REMEMBERED));
    }

    /// The largest batch that fits the budget where every batch and each event cost so much. Where every batch costs more
    /// than the budget, no size helps, and the events alone must fit.
    fn fit(&self, fixed_ms: f64, event_ms: f64) -> usize {
        let left = match self.budget_ms - fixed_ms {
            left if left > 0.0 => left,
            _ => self.budget_ms,
        };
        let records = (left / event_ms).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; it saturates")]
        (records as usize).clamp(1, self.max)
    }

    /// Twice the largest of the last batches.
    fn tried(&self) -> usize {
        let largest = self.settled.iter().map(|batch| batch.events).fold(0.0, f64::max);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number, and never negative"
        )]
        (largest as usize).saturating_mul(2)
    }

    /// What an event took in the slowest of the batches that tell, and in the one next to it.
    fn event_ms(&self, fixed_ms: f64) -> (f64, f64) {
        let telling = self.settled.iter().filter(|batch| batch.ms >= self.budget_ms * TELLING_SHARE);
        telling
            .map(|batch| (batch.ms - fixed_ms).max(0.0) / batch.events)
            .fold((0.0, 0.0), |(slowest, next), ms| (f64::max(slowest, ms), f64::max(next, slowest.min(ms))))
    }

    /// What every batch costs, whatever its size: where the line of least squares through the batches meets the axis,
    /// if their sizes differ enough to tell; never more than the fastest batch took.
    fn fixed_ms(&self) -> f64 {
        let of = |value: fn(&Sample) -> f64| self.settled.iter().map(value);
        let (least, most) =
            (of(|batch| batch.events).fold(f64::MAX, f64::min), of(|batch| batch.events).fold(0.0, f64::max));
        let fixed_ms = if most < least * 2.0 {
            self.budget_ms * FIXED_SHARE
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a handful of batches")]
            let count = self.settled.len() as f64;
            let (events, ms) =
                (of(|batch| batch.events).sum::<f64>() / count, of(|batch| batch.ms).sum::<f64>() / count);
            let covariance: f64 = self.settled.iter().map(|batch| (batch.events - events) * (batch.ms - ms)).sum();
            let variance: f64 = self.settled.iter().map(|batch| (batch.events - events).powi(2)).sum();
            (ms - events * (covariance / variance).max(0.0)).max(0.0)
        };
        fixed_ms.min(of(|batch| batch.ms).fold(f64::MAX, f64::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kafka, Pool};

    /// A budget of 3 s.
    fn size(max_poll_records: usize, handle_ms: Option<f64>) -> BatchSize {
        let kafka = Kafka { session_timeout_ms: Some(6_000), ..Kafka::default() };
        BatchSize::new(&Budget::of(&kafka, &Pool { max_poll_records, handle_ms, ..Pool::default() }))
    }

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1_000.0)
    }

    /// Settles full batches of events that take so long each, beside what every batch costs.
    fn settle(size: &mut BatchSize, batches: usize, batch_ms: f64, event_ms: f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..batches {
            size.settled(size.now(), ms(batch_ms + size.now() as f64 * event_ms));
            sizes.push(size.now());
        }
        sizes
    }

    #[test]
    fn batches_begin_small_and_grow_while_they_fit() {
        assert_eq!(settle(&mut size(500, None), 4, 10.0, 1.0), [128, 256, 500, 500]);
        assert_eq!(size(500, Some(1.0)).now(), 500, "what is configured need not be tried out");
        assert_eq!(size(10, None).now(), 10);
    }

    #[test]
    fn a_tenfold_slowdown_shrinks_the_next_batch_into_the_budget_and_it_grows_back() {
        for batch_ms in [0.0, 20.0, 100.0] {
            let mut size = size(500, None);
            settle(&mut size, 8, batch_ms, 2.0);
            assert_eq!(size.now(), 500);
            for now in settle(&mut size, 3, batch_ms, 20.0) {
                let took = batch_ms + now as f64 * 20.0;
                assert!((2_000.0..3_300.0).contains(&took), "{now} events take {took} ms of 3000");
            }
            settle(&mut size, REMEMBERED + 2, batch_ms, 2.0);
            assert_eq!(size.now(), 500);
        }
    }

    #[test]
    fn short_batches_shrink_nothing_and_are_no_ground_for_large_ones() {
        let mut size = size(500, None);
        settle(&mut size, 8, 10.0, 1.0);
        assert_eq!(size.now(), 500);
        for at in 0..200_usize {
            let noise = if at % 5 == 0 { 60.0 } else { (at % 7) as f64 };
            assert_eq!(size.settled(1 + at % 4, ms(5.0 + noise)), Change::None, "after {at}");
            assert_eq!(size.now(), if at < REMEMBERED - 1 { 500 } else { FIRST }, "after {at}");
        }
        assert_eq!(settle(&mut size, 3, 10.0, 1.0), [128, 256, 500]);
    }

    #[test]
    fn events_that_are_slow_one_by_one_exceed_the_budget_once_at_most() {
        let mut size = size(500, None);
        settle(&mut size, 8, 10.0, 1.0);
        for at in 0..20 {
            let events = 1 + at % 3;
            size.settled(events, ms(5.0 + 100.0 * events as f64));
        }
        assert_eq!(size.now(), FIRST);
        for now in settle(&mut size, 5, 5.0, 100.0) {
            assert!((25..=35).contains(&now), "{now} events of 100 ms");
        }
    }

    #[test]
    fn where_every_batch_takes_long_small_ones_do_not_help_and_large_ones_come_back() {
        let mut size = size(500, Some(1.0));
        let sizes = settle(&mut size, 12, 4_000.0, 0.01);
        assert!(sizes.iter().all(|now| *now >= 100), "{sizes:?}");
        assert!(sizes[6..].contains(&500), "{sizes:?}");
    }

    #[test]
    fn few_slow_events_shrink_batches_before_a_backlog_comes() {
        let mut size = size(500, Some(1.0));
        size.settled(10, ms(1_000.0));
        assert!((30..=40).contains(&size.now()), "{} events of 100 ms", size.now());
    }

    #[test]
    fn the_change_is_told_once() {
        let mut size = size(500, Some(2.0));
        let mut after = |event_ms: f64| size.settled(100, ms(event_ms * 100.0));
        assert_eq!(after(2.0), Change::None);
        assert_eq!(after(20.0), Change::None, "one slow batch may be the machine's");
        assert!(matches!(after(19.0), Change::Limited { event_ms } if (18.0..=20.0).contains(&event_ms)));
        assert_eq!(after(20.0), Change::None);
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
    fn a_batch_that_was_too_slow_for_the_database_is_halved_and_grows_again_without_meeting_the_limit_each_time() {
        let mut size = size(500, Some(1.0));
        size.halve(500);
        assert_eq!(size.now(), 250);
        assert_eq!(settle(&mut size, REMEMBERED, 0.0, 1.0), [375; REMEMBERED]);
        assert_eq!(settle(&mut size, 1, 0.0, 1.0), [500]);
        size.halve(1);
        assert_eq!(size.now(), 1);
        settle(&mut size, REMEMBERED, 0.0, 1.0);
        assert_eq!(settle(&mut size, 3, 0.0, 1.0), [2, 4, 8]);
    }
}
