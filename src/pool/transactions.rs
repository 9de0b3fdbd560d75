//! How many batches of a pool may be in a transaction at a time, in this worker: as many as the database takes without
//! queueing them.
//!
//! A database that is given more than it can do at once answers every one of them later and does no more of them. Then it
//! is better that batches wait here, in turn, than there, with a connection and its locks each. What tells is how long a
//! commit takes against the least that it took lately: of `limit` transactions about `limit × (1 − least / now)` wait
//! (L. Brakmo, L. Peterson, "TCP Vegas", 1995), a quarter above the least being as good as it. While few do, the limit grows by one; while many do, it shrinks.
//!
//! Commits are taken by windows, by their median, so that one slow one says nothing. A window in which the limit was not reached
//! says nothing either. Once a minute the least is measured anew, with a quarter of the limit for one window: a database that
//! has become slower for good is not taken for a busy one for longer than that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::partition::{Halt, Task};
use super::progress::Phase;
use super::turns::{Turn, Turns};
use crate::event::Payload;
use crate::metrics::{self, PoolMetrics};

/// Where the limit begins, so that the least is measured before anything queues.
const FIRST: usize = 1;
/// A window has so many commits and takes so long, at least; with the most that are kept it ends sooner.
const COMMITS_MIN: usize = 16;
const COMMITS_MAX: usize = 1_024;
const WINDOW_MIN: Duration = Duration::from_millis(250);
/// A window that takes longer than this is of different times.
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// How often the least is measured anew.
const LEAST_AGE: Duration = Duration::from_secs(60);
/// How much a new window counts beside those before it.
const SMOOTHING: f64 = 0.5;
/// Commits vary for other reasons too: what is up to so much above the least is as good as it.
const TOLERANCE: f64 = 1.25;

/// The rule, without the turns.
#[derive(Debug)]
struct Limit {
    max: usize,
    now: usize,
    /// Commits of the window, in seconds.
    window: Vec<f64>,
    window_began: Option<Instant>,
    /// The limit was reached within the window.
    is_reached: bool,
    /// So many commits are still of transactions that began under another limit.
    skip: usize,
    typical: Option<f64>,
    least: Option<f64>,
    measured_at: Option<Instant>,
    /// The limit from before, while the least is measured anew.
    measuring: Option<usize>,
}

impl Limit {
    fn new(max: usize) -> Self {
        Self {
            max,
            now: FIRST.min(max),
            window: Vec::new(),
            window_began: None,
            is_reached: false,
            skip: 0,
            typical: None,
            least: None,
            measured_at: None,
            measuring: None,
        }
    }

    fn is_slowed(&self) -> bool {
        let now = self.measuring.unwrap_or(self.now);
        let slowed = self.typical.zip(self.least).is_some_and(|(typical, least)| typical > TOLERANCE * least);
        now < self.max && slowed
    }

    /// With fewer than so many that wait, the limit grows; with three times as many, it shrinks.
    #[expect(clippy::cast_precision_loss, reason = "connections are few")]
    fn few(&self) -> f64 {
        (self.now as f64 / 20.0).max(1.0)
    }

    /// A commit took so long; whether as many transactions were open as may be.
    fn note(&mut self, commit: Duration, is_reached: bool, at: Instant) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let began = *self.window_began.get_or_insert(at);
        if at.duration_since(began) > WINDOW_MAX {
            self.begin_window(0);
            self.window_began = Some(at);
        }
        self.is_reached |= is_reached;
        self.window.push(commit.as_secs_f64());
        let is_long = at.duration_since(began) >= WINDOW_MIN;
        let commits = self.window.len();
        if commits >= COMMITS_MAX || (is_long && commits >= COMMITS_MIN.max(2 * self.now)) {
            self.close_window(at);
        }
    }

    fn close_window(&mut self, at: Instant) {
        let median = median(&mut self.window);
        let before = self.now;
        if let Some(limit) = self.measuring.take() {
            self.least = Some(median);
            self.typical = Some(median);
            self.measured_at = Some(at);
            self.now = limit;
        } else {
            let typical = self.typical.map_or(median, |typical| typical + (median - typical) * SMOOTHING);
            let least = self.least.map_or(typical, |least| least.min(typical));
            (self.typical, self.least) = (Some(typical), Some(least));
            if at.duration_since(*self.measured_at.get_or_insert(at)) >= LEAST_AGE {
                self.measuring = Some(self.now);
                self.now = (self.now / 4).max(1);
            } else if self.is_reached {
                self.now = self.next(least, typical);
            }
        }
        self.begin_window(if self.now == before { 0 } else { before });
    }

    fn next(&self, least: f64, typical: f64) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "connections are few")]
        let waiting = if typical > 0.0 { self.now as f64 * (1.0 - TOLERANCE * least / typical) } else { 0.0 };
        let many = 3.0 * self.few();
        if waiting < self.few() {
            (self.now + 1).min(self.max)
        } else if waiting > many {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
            let excess = ((waiting - many) / 2.0) as usize;
            self.now.saturating_sub(excess.max(1)).max(1)
        } else {
            self.now
        }
    }

    fn begin_window(&mut self, skip: usize) {
        self.window.clear();
        self.window_began = None;
        self.is_reached = false;
        self.skip = skip;
    }
}

/// The upper one of the two in the middle; there is at least one.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The turns of one pool.
pub(super) struct Transactions {
    turns: Arc<Turns>,
    limit: Mutex<Limit>,
    metrics: PoolMetrics,
}

impl Transactions {
    pub(super) fn new(max: usize, metrics: PoolMetrics) -> Self {
        let limit = Limit::new(max.max(1));
        metrics.set_transactions_limit(limit.now);
        Self { turns: Turns::new(limit.now), limit: Mutex::new(limit), metrics }
    }

    /// Whether the database is what limits: as many transactions are open as may be, fewer than were allowed for, and commits
    /// take longer than the least.
    pub(super) fn is_saturated(&self) -> bool {
        let limit = self.limit();
        self.turns.taken() >= limit.now && limit.is_slowed()
    }

    /// The transaction of a turn was committed, which took so long.
    pub(super) fn committed(&self, turn: Turn, commit: Duration) {
        let mut limit = self.limit();
        let before = limit.now;
        limit.note(commit, self.turns.taken() >= before, Instant::now());
        if limit.now != before {
            // Under the lock: the last one to be set is the one that holds.
            self.turns.set_max(limit.now);
            self.metrics.set_transactions_limit(limit.now);
        }
        drop(limit);
        drop(turn);
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Payload> Task<T> {
    /// Waits for the turn of the batch in hand at a transaction; nothing where there is no limit. Told to stop, it still
    /// waits, so that the batch is finished and not handled again: whoever is before it ends by a deadline.
    pub(super) async fn turn(&self) -> Result<Option<Turn>, Halt> {
        let Some(transactions) = &self.shared.transactions else { return Ok(None) };
        let begun = Instant::now();
        loop {
            self.progress.enter(Phase::Queued("a turn at the database"));
            let oldest_ms = self.progress.lock().oldest_in_hand_ms;
            let turn = transactions.turns.turn(oldest_ms).await;
            // One after the other would find out by its own deadline that the database is away.
            if self.shared.gate.closed().is_none() {
                self.progress.enter(Phase::Working);
                self.shared.metrics.spent(metrics::Phase::Queue, begun.elapsed());
                return Ok(Some(turn));
            }
            drop(turn);
            self.progress.enter(Phase::Waiting("the database".to_owned()));
            self.unless_stopped(self.shared.gate.pass()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// A database that does so many commits at once, each in so many milliseconds, and takes longer where there are more.
    struct Database {
        capacity: f64,
        commit_ms: f64,
        noise: f64,
        rng: fastrand::Rng,
        now: Instant,
    }

    impl Database {
        fn new(capacity: f64, noise: f64) -> Self {
            Self { capacity, commit_ms: 4.0, noise, rng: fastrand::Rng::with_seed(7), now: Instant::now() }
        }

        /// Commits for a time, always as many at once as may be; the limits that there were.
        fn commit_for(&mut self, limit: &mut Limit, time: Duration) -> Vec<usize> {
            let (until, mut limits) = (self.now + time, Vec::new());
            while self.now < until {
                let open = limit.now as f64;
                let noise = 1.0 + self.noise * (self.rng.f64() * 2.0 - 1.0);
                let took = Duration::from_secs_f64(self.commit_ms * (open / self.capacity).max(1.0) * noise / 1_000.0);
                self.now += took.div_f64(open);
                limit.note(took, true, self.now);
                if limit.measuring.is_none() {
                    limits.push(limit.now);
                }
            }
            limits
        }
    }

    const SETTLING: Duration = Duration::from_secs(30);

    fn assert_within(limits: &[usize], least: usize, most: usize) {
        let (low, high) = (limits.iter().min().unwrap(), limits.iter().max().unwrap());
        assert!(*low >= least && *high <= most, "between {low} and {high}, expected {least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_settles_a_little_above_what_the_database_does_at_once_and_stays() {
        for (capacity, noise) in [(1.0, 0.0), (4.0, 0.0), (4.0, 0.3), (8.0, 0.3), (16.0, 0.3)] {
            let (mut limit, mut database) = (Limit::new(40), Database::new(capacity, noise));
            database.commit_for(&mut limit, SETTLING);
            let limits = database.commit_for(&mut limit, Duration::from_secs(600));
            let k = capacity as usize;
            assert_within(&limits, k, k + 4 + k / 2);
            let changes = limits.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let slowed = (0..20).filter(|_| {
                database.commit_for(&mut limit, Duration::from_secs(1));
                limit.is_slowed()
            });
            let slowed = slowed.count();
            assert!(slowed >= 12, "capacity {capacity}, noise {noise}: slowed in {slowed} of 20 s");
            assert!(changes <= 120, "capacity {k}, noise {noise}: {changes} changes in 600 s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_never_busy_is_not_held_back() {
        for noise in [0.0, 0.5] {
            let (mut limit, mut database) = (Limit::new(8), Database::new(100.0, noise));
            database.commit_for(&mut limit, SETTLING);
            assert_within(&database.commit_for(&mut limit, Duration::from_secs(300)), 8, 8);
            assert!(!limit.is_slowed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_follows_what_the_database_can_do() {
        let (mut limit, mut database) = (Limit::new(40), Database::new(12.0, 0.2));
        database.commit_for(&mut limit, SETTLING);
        for capacity in [3.0, 12.0, 6.0] {
            database.capacity = capacity;
            database.commit_for(&mut limit, SETTLING * 4);
            let k = capacity as usize;
            assert_within(&database.commit_for(&mut limit, SETTLING), k, k + 4 + k / 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_became_slower_for_good_is_accepted_after_a_minute() {
        let (mut limit, mut database) = (Limit::new(8), Database::new(100.0, 0.2));
        database.commit_for(&mut limit, SETTLING);
        assert_eq!(limit.now, 8);
        database.commit_ms *= 5.0;
        database.commit_for(&mut limit, Duration::from_secs(10));
        assert!(limit.now < 8, "slower is busy, at first");
        database.commit_for(&mut limit, LEAST_AGE + Duration::from_secs(10));
        assert_within(&database.commit_for(&mut limit, Duration::from_secs(40)), 8, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn few_commits_and_those_of_quiet_times_change_nothing() {
        let mut limit = Limit::new(8);
        let at = Instant::now();
        for n in 0..COMMITS_MIN as u32 - 1 {
            limit.note(Duration::from_millis(4), true, at + Duration::from_millis(1) * n);
        }
        assert_eq!(limit.now, FIRST);
        for n in 0..100 {
            limit.note(Duration::from_millis(4), true, at + WINDOW_MAX * (n + 2));
        }
        assert_eq!(limit.now, FIRST, "one in ten seconds");
        let at = at + WINDOW_MAX * 200;
        for n in 0..1_000 {
            limit.note(Duration::from_millis(4 + n), false, at + Duration::from_millis(1) * u32::try_from(n).unwrap());
        }
        assert_eq!(limit.now, FIRST, "the limit was not reached");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_open_as_the_limit_says() {
        let transactions = Transactions::new(4, Metrics::new().pool("p"));
        let began = Instant::now();
        for limit in 1..=4 {
            while transactions.limit().now == limit && limit < 4 {
                let mut open = Vec::new();
                for _ in 0..limit {
                    open.push(transactions.turns.turn(None).await);
                }
                let more = tokio::time::timeout(Duration::from_millis(1), transactions.turns.turn(None)).await;
                assert!(more.is_err(), "{limit} are open");
                tokio::time::sleep(Duration::from_millis(9)).await;
                for turn in open {
                    transactions.committed(turn, Duration::from_millis(9));
                }
            }
        }
        assert!(began.elapsed() < SETTLING);
        assert_eq!((transactions.limit().now, transactions.turns.taken()), (4, 0));
    }
}
