//! The pace of a pool: `rate` for its whole group, whatever the number of workers and partitions.
//!
//! A task that has fetched a batch reserves its events in the group's bucket, waits for its turn, and works. Turns come in
//! the order of the reservations. Batches are small, so that the rate is kept within a second too: a twentieth of a
//! second's worth, or a tenth where a task comes too late for its turns and so needs larger ones to reach the rate.
//!
//! Without Redis, or while it does not answer, a worker keeps to a static share, its partitions over all partitions, by
//! the same arithmetic in the process. The shares of a group add up to its rate; but where some partitions have no
//! backlog, their part of it is not used.
//!
//! What is taken: each record that a task fetches, once, whatever becomes of it. A batch that is tried again or split takes
//! nothing more. Records that are fetched anew, after a takeover or a stop that came before their turn, are reserved anew, so the
//! rate is missed by what was not used, a batch a partition at most. Replayed dead rows take nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::partition::{Halt, Task};
use super::progress::Phase;
use super::tasks::Tasks;
use crate::config::Rate;
use crate::event::Payload;
use crate::metrics;
use crate::once::{Ask, Bucket};

/// What a task waits for that waits for its turn.
pub(super) const RATE: &str = "the group's rate";

/// How far ahead reservations may reach whatever the rate: a clock of Redis that goes back by less is waited for.
const HORIZON_MIN_US: i64 = 5_000_000;
/// How much may be saved while there is nothing to do, and the size of a batch: parts of a second.
const ALLOWANCE_US: i64 = 50_000;
const BATCH_US: i64 = 50_000;
const LARGE_BATCH_US: i64 = 100_000;

/// How large a task's batches are, as far as the rate has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Portion {
    /// It waits for its turns: the rate is what limits.
    Small,
    /// Its turns had come when it asked for them.
    Large,
}

impl Portion {
    /// The next batch's, after a wait for a batch that lasts so long at the rate.
    fn after(self, wait: Duration, cost: Duration) -> Self {
        match self {
            _ if wait.is_zero() => Self::Large,
            _ if wait >= cost / 2 => Self::Small,
            unchanged => unchanged,
        }
    }
}

/// A turn that was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) wait: Duration,
    /// How long the batch lasts at the rate.
    cost: Duration,
}

/// The pace of one pool in this process.
pub(super) struct Pace {
    pool: Arc<str>,
    rate: Rate,
    bucket: Option<Bucket>,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether this worker keeps to its share.
    is_alone: bool,
    /// When the next reservation of its share begins, in microseconds since `began`.
    share_begins_us: Option<i64>,
    /// When the last of its reservations ends, wherever it was made.
    reserved_until_us: i64,
    /// The partitions of this worker, and those of the topics.
    partitions: usize,
    partitions_of_topics: usize,
}

impl State {
    /// This worker's part of the rate, above 0.
    #[expect(clippy::cast_precision_loss, reason = "partitions are far fewer than 2^52")]
    fn share(&self) -> f64 {
        let own = self.partitions.max(1);
        own as f64 / self.partitions_of_topics.max(own) as f64
    }
}

impl Pace {
    pub(super) fn new(pool: Arc<str>, rate: Rate, bucket: Option<Bucket>) -> Self {
        let state = State {
            is_alone: bucket.is_none(),
            share_begins_us: None,
            reserved_until_us: 0,
            partitions: 0,
            partitions_of_topics: 0,
        };
        Self { pool, rate, bucket, began: Instant::now(), state: Mutex::new(state) }
    }

    #[cfg(test)]
    pub(super) fn events_per_s(&self) -> f64 {
        self.rate.events_per_s()
    }

    /// Tells how the workers share the rate.
    pub(super) fn tell(&self) {
        let (pool, rate) = (&*self.pool, self.rate);
        match self.bucket {
            Some(_) => tracing::info!(pool, %rate, "the group keeps to its rate by a bucket in redis"),
            None => tracing::info!(
                pool, %rate,
                "each worker keeps to its partitions' share of the group's rate; with [redis] they would share it by need"
            ),
        }
    }

    pub(super) fn set_partitions(&self, partitions: usize) {
        self.state().partitions = partitions;
    }

    pub(super) fn set_partitions_of_topics(&self, partitions: usize) {
        self.state().partitions_of_topics = partitions;
    }

    /// Since when Redis is left alone, and its last error.
    pub(super) fn outage(&self) -> Option<(SystemTime, String)> {
        self.bucket.as_ref().and_then(Bucket::outage)
    }

    /// The most events of a batch.
    pub(super) fn batch_max(&self, portion: Portion) -> usize {
        let us = match portion {
            Portion::Small => BATCH_US,
            Portion::Large => LARGE_BATCH_US,
        };
        let state = self.state();
        let share = if state.is_alone { state.share() } else { 1.0 };
        let events = self.rate.events_per_s() * share * seconds(us);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; it saturates")]
        (events as usize).max(1)
    }

    /// Reserves a batch's turn.
    pub(super) async fn reserve(&self, events: usize) -> Reserved {
        let asked_us = self.now_us();
        if let Some(bucket) = &self.bucket {
            let ask = self.ask(events, 1.0, asked_us);
            match bucket.reserve(&ask).await {
                Ok(wait) => {
                    self.shares_the_bucket();
                    // Counted from before Redis was asked: rather too early than too late, since the bucket begins no
                    // earlier than this.
                    self.reserved_until(asked_us + micros(wait) + ask.cost_us);
                    return Reserved { wait, cost: duration(ask.cost_us) };
                }
                Err(why) => self.keeps_to_its_share(&why),
            }
        }
        let now_us = self.now_us();
        let share = self.state().share();
        let ask = self.ask(events, share, now_us);
        let mut state = self.state();
        let (begins_us, after_us) = ask.slot(state.share_begins_us, now_us);
        state.share_begins_us = Some(after_us);
        drop(state);
        self.reserved_until(after_us);
        Reserved { wait: duration(begins_us - now_us), cost: duration(ask.cost_us) }
    }

    /// Every task has one reservation at most, so they reach no further than all partitions' largest ones; twice as far is
    /// for those that were given up and made anew.
    fn ask(&self, events: usize, share: f64, now_us: i64) -> Ask {
        let state = self.state();
        let all = state.partitions_of_topics.max(state.partitions).max(1);
        let all = i64::try_from(all).unwrap_or(i64::MAX);
        Ask {
            cost_us: self.cost_us(events, share),
            ahead_us: state.reserved_until_us - now_us,
            allowance_us: ALLOWANCE_US,
            horizon_us: self
                .cost_us(1, 1.0)
                .max(LARGE_BATCH_US)
                .saturating_mul(2)
                .saturating_mul(all)
                .max(HORIZON_MIN_US),
        }
    }

    fn cost_us(&self, events: usize, share: f64) -> i64 {
        #[expect(clippy::cast_precision_loss, reason = "events of a batch are far fewer than 2^52")]
        let us = events as f64 * 1_000_000.0 / (self.rate.events_per_s() * share);
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let us = us.ceil() as i64;
        us.max(1)
    }

    fn reserved_until(&self, end_us: i64) {
        let mut state = self.state();
        state.reserved_until_us = state.reserved_until_us.max(end_us);
    }

    fn keeps_to_its_share(&self, why: &str) {
        if !std::mem::replace(&mut self.state().is_alone, true) {
            tracing::warn!(
                pool = &*self.pool,
                why,
                "the rate's bucket in redis does not answer; this worker keeps to its partitions' share of the rate"
            );
        }
    }

    fn shares_the_bucket(&self) {
        if std::mem::take(&mut self.state().is_alone) {
            tracing::info!(pool = &*self.pool, "the rate's bucket in redis answers again; the group shares its rate");
        }
    }

    fn now_us(&self) -> i64 {
        micros(self.began.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Payload> Task<T> {
    /// Waits until the group's rate allows for these events. `false`: another rate applies by now, and batches may be of
    /// another size. Told to stop, it leaves at once.
    pub(super) async fn await_rate(&mut self, events: usize) -> Result<bool, Halt> {
        let shared = Arc::clone(&self.shared);
        let mut changes = shared.steering.pacing.changes();
        let Some(pace) = changes.borrow_and_update().clone() else { return Ok(true) };
        let begun = Instant::now();
        self.progress.enter(Phase::Queued(RATE));
        let reserved = self.unless_stopped(pace.reserve(events)).await?;
        self.portion = self.portion.after(reserved.wait, reserved.cost);
        let turn = async {
            tokio::select! {
                biased;
                () = tokio::time::sleep(reserved.wait) => true,
                _ = changes.changed() => false,
            }
        };
        let waited = self.unless_stopped(turn).await;
        shared.metrics.spent(metrics::Phase::Rate, begun.elapsed());
        waited
    }
}

impl<T: Payload> Tasks<T> {
    /// Counts the partitions anew: the share of the rate depends on them, and how far reservations may reach. Asks in the
    /// background.
    pub(super) fn check_partitions(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut sum = 0;
            for topic in shared.topics().iter() {
                // Brokers that do not answer are told by the tasks; what was counted before stays.
                let Ok(partitions) = shared.source.client.partitions(topic).await else { return };
                sum += partitions;
            }
            shared.steering.pacing.set_partitions_of_topics(sum);
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "parts of a second")]
fn seconds(us: i64) -> f64 {
    us as f64 / 1_000_000.0
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// What has passed is no time.
fn duration(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(rate: &str, partitions: usize, of_topics: usize) -> Arc<Pace> {
        let pace = Pace::new(Arc::from("p"), rate.parse().unwrap(), None);
        pace.set_partitions(partitions);
        pace.set_partitions_of_topics(of_topics);
        Arc::new(pace)
    }

    /// When each event was handled, by a task for each of these partitions, which all have a backlog; a batch takes so long.
    async fn handled(paces: &[Arc<Pace>], tasks: usize, took: Duration, time: Duration) -> Vec<(usize, Duration)> {
        let begun = Instant::now();
        let handled = Arc::new(Mutex::new(Vec::new()));
        let running: Vec<_> = paces
            .iter()
            .flat_map(|pace| (0..tasks).map(move |_| Arc::clone(pace)))
            .enumerate()
            .map(|(task, pace)| {
                let handled = Arc::clone(&handled);
                tokio::spawn(async move {
                    let mut portion = Portion::Small;
                    loop {
                        let events = pace.batch_max(portion);
                        let reserved = pace.reserve(events).await;
                        portion = portion.after(reserved.wait, reserved.cost);
                        tokio::time::sleep(reserved.wait).await;
                        let at = begun.elapsed();
                        handled.lock().unwrap().extend(std::iter::repeat_n((task, at), events));
                        tokio::time::sleep(took).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(time).await;
        running.iter().for_each(tokio::task::JoinHandle::abort);
        let handled = handled.lock().unwrap();
        handled.clone()
    }

    /// Events of each second.
    fn by_second(handled: &[(usize, Duration)], seconds: u64) -> Vec<usize> {
        (0..seconds).map(|s| handled.iter().filter(|(_, at)| at.as_secs() == s).count()).collect()
    }

    fn assert_near(counts: &[usize], expected: f64, tolerance: f64) {
        for count in counts {
            let off = (*count as f64 - expected).abs() / expected;
            assert!(off <= tolerance, "{counts:?}, expected {expected} each");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_second_sees_the_rate_whether_one_partition_has_the_backlog_or_all() {
        for tasks in [1, 8, 64] {
            let pace = pace("2000/s", tasks, tasks);
            let handled = handled(&[pace], tasks, Duration::from_millis(20), 10 * SECOND).await;
            let seconds = by_second(&handled, 10);
            assert_near(&seconds[1..9], 2_000.0, 0.05);
            assert!(seconds[0] <= 2_200, "no more than an allowance at the start: {seconds:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_late_takes_larger_batches_and_reaches_the_rate() {
        for took_ms in [45, 60, 80, 95] {
            let handled = handled(&[pace("2000/s", 1, 1)], 1, Duration::from_millis(took_ms), 10 * SECOND).await;
            assert!((18_000..=20_400).contains(&handled.len()), "{took_ms} ms: {}", handled.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_so_no_partition_starves_where_there_are_few() {
        let handled = handled(&[pace("10/s", 64, 64)], 64, Duration::from_millis(5), 64 * SECOND).await;
        assert!((638..=642).contains(&handled.len()), "{}", handled.len());
        for task in 0..64 {
            let turns = handled.iter().filter(|(of, _)| *of == task).count();
            assert!((9..=11).contains(&turns), "task {task} had {turns} turns");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_far_below_one_batch_a_second_is_kept_too() {
        let handled = handled(&[pace("2/m", 3, 3)], 3, Duration::from_millis(5), 600 * SECOND).await;
        assert!((20..=21).contains(&handled.len()), "{}", handled.len());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_pool_saves_an_allowance_and_no_more() {
        let pace = pace("1000/s", 4, 4);
        tokio::time::sleep(3_600 * SECOND).await;
        let handled = handled(&[pace], 4, Duration::ZERO, SECOND).await;
        assert!((1_000..=1_100).contains(&handled.len()), "{}", handled.len());
    }

    #[tokio::test(start_paused = true)]
    async fn static_shares_add_up_to_the_rate() {
        let paces = [pace("2000/s", 3, 8), pace("2000/s", 3, 8), pace("2000/s", 2, 8)];
        let one = handled(&paces[..1], 3, Duration::from_millis(5), 10 * SECOND).await;
        assert_near(&by_second(&one, 10)[1..9], 750.0, 0.05);
        let paces = [pace("2000/s", 3, 8), pace("2000/s", 3, 8), pace("2000/s", 2, 8)];
        let all = handled(&paces, 3, Duration::from_millis(5), 10 * SECOND).await;
        assert_near(&by_second(&all, 10)[1..9], 2_000.0, 0.05);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_that_grows_or_shrinks_counts_from_the_next_batch() {
        let pace = pace("1000/s", 1, 4);
        assert_eq!(pace.batch_max(Portion::Small), 12);
        assert_eq!(pace.reserve(12).await.cost, Duration::from_millis(48));
        pace.set_partitions(4);
        assert_eq!(pace.batch_max(Portion::Small), 50);
        assert_eq!(pace.reserve(50).await.cost, Duration::from_millis(50));
        pace.set_partitions_of_topics(8);
        assert_eq!(pace.batch_max(Portion::Large), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_on_its_own_begins_after_what_it_had_reserved_in_the_bucket() {
        let pace = pace("1000/s", 1, 1);
        pace.reserved_until(400_000);
        let reserved = pace.reserve(50).await;
        assert_eq!(reserved.wait, Duration::from_millis(350), "an allowance before the end");
    }

    #[test]
    fn batches_grow_where_turns_are_missed_and_shrink_once_they_are_waited_for() {
        let (small, large, cost) = (Portion::Small, Portion::Large, Duration::from_millis(50));
        assert_eq!(small.after(Duration::ZERO, cost), large);
        assert_eq!(large.after(cost / 4, cost), large);
        assert_eq!(small.after(cost / 4, cost), small);
        assert_eq!(large.after(cost / 2, cost), small);
    }
}
