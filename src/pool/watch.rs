//! Lag, and the watchdog. Polling any queue of a client keeps Kafka content, so a partition that stands still while it
//! has lag is noticed here: it is made to claim and fetch again, and when that does not help three times in a row, the
//! process ends, so that its supervisor starts it anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::pace::RATE;
use super::partition::now_ms;
use super::progress::{Behind, Phase, Standing};
use super::scaling::{Place, Places, Sample};
use super::tasks::{Running, Tasks};
use crate::event::Payload;
use crate::source::First;

/// How often in a row a partition is nudged before the process ends.
const NUDGES_MAX: u32 = 3;

/// What the watchdog makes of a partition.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Nudge,
    GiveUp,
}

/// A partition that waits for something named is not stuck; one that has lag and neither waits nor moves is.
fn judge(standing: &Standing, lag: Option<i64>, stall_after: Duration) -> Verdict {
    let waits = matches!(standing.phase, Phase::Queued(_) | Phase::Paused | Phase::Waiting(_) | Phase::Held(_));
    let behind = lag.is_some_and(|lag| lag > 0) || standing.phase == Phase::Working;
    if waits || !behind || standing.moved_at.elapsed() < stall_after {
        Verdict::Fine
    } else if standing.nudges < NUDGES_MAX {
        Verdict::Nudge
    } else {
        Verdict::GiveUp
    }
}

impl<T: Payload> Tasks<T> {
    /// Looks at every partition once.
    ///
    /// # Errors
    /// One stands still and nudging has not helped.
    pub(super) fn watch(&self, stall_after: Duration) -> Result<(), Error> {
        self.note_lag();
        let limits = self.running.values().map(|task| task.progress.lock().batch_events_max);
        if let Some(least) = limits.filter(|events| *events > 0).min() {
            self.shared.metrics.set_batch_limit(least);
        }
        for ((topic, partition), task) in &self.running {
            let lag = self.lag(topic, *partition, task);
            let mut standing = task.progress.lock();
            match judge(&standing, lag, stall_after) {
                Verdict::Fine => {}
                Verdict::Nudge => {
                    standing.nudges += 1;
                    standing.moved_at = std::time::Instant::now();
                    task.nudge.notify_one();
                    let (nudges, next_offset) = (standing.nudges, standing.next_offset);
                    tracing::warn!(
                        topic,
                        partition,
                        nudges,
                        next_offset,
                        "no progress in spite of lag; fetching again"
                    );
                }
                Verdict::GiveUp => {
                    return Err(Error::Partition {
                        pool: Arc::clone(&self.shared.name),
                        topic: topic.clone(),
                        partition: *partition,
                        message: format!(
                            "no progress in spite of lag, and fetching again {NUDGES_MAX} times did not help"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes idle partitions claim anew whose ledger row is not as they left it: without new events no fence would tell.
    pub(super) fn check_ledger(&self) {
        if self.shared.letters.is_some() {
            return;
        }
        let tasks: Vec<_> = self
            .running
            .iter()
            .filter_map(|((_, partition), task)| {
                let expected = task.progress.expected_row()?;
                Some((*partition, expected, Arc::clone(&task.progress), Arc::clone(&task.nudge)))
            })
            .collect();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            // A database that is away is told by the tasks.
            let Ok(rows) = shared.pipelines.store.ledger_of_group(&shared.group).await else { return };
            if let Ok(Some(bytes)) = shared.pipelines.store.ledger_bytes().await {
                shared.note_ledger_bytes(bytes, rows.len());
            }
            for (partition, expected, progress, nudge) in tasks {
                let Some(topic_id) = progress.lock().owned else { continue };
                let row = rows.get(&(topic_id, partition)).and_then(|row| Some((row.owner?, row.next_offset)));
                // One that moved while the rows were read is not idle, and its next fence tells.
                if row != Some(expected) && progress.expected_row() == Some(expected) {
                    tracing::warn!(pool = &*shared.name, partition, "the ledger is not as it was left; claiming anew");
                    nudge.notify_one();
                }
            }
        });
    }

    /// Takes a sample for the wanted number of workers.
    pub(super) fn note_desired(&mut self) {
        let (mut places, mut waits_for_rate) = (Places::new(), false);
        for ((topic, partition), task) in &self.running {
            let end = self.shared.source.client.cached_log_end(topic, *partition);
            let standing = task.progress.lock();
            waits_for_rate |= standing.phase == Phase::Queued(RATE);
            if let (Some(end), Some(next)) = (end, standing.next_offset) {
                places.insert((topic.clone(), *partition), Place { next, end });
            }
        }
        let share = self.scaling.note(&Sample {
            at: self.begun.elapsed(),
            clock: Duration::from_millis(now_ms().unsigned_abs()),
            places: &places,
            of_topics: self.shared.steering.pacing.partitions_of_topics(),
            is_limited: waits_for_rate || self.shared.transactions.as_ref().is_some_and(|turns| turns.is_saturated()),
            is_paused: self.shared.steering.is_paused(),
        });
        self.shared.metrics.set_desired_replicas(share);
    }

    fn lag(&self, topic: &str, partition: i32, task: &Running) -> Option<i64> {
        let high = self.shared.source.client.cached_log_end(topic, partition)?;
        task.progress.lag(high)
    }

    /// Sums lag by topic, as topics are named in the metrics. One whose every partition is unknown or gone has no series.
    pub(super) fn note_lag(&self) {
        let topics = self.shared.topics();
        let name = |topic| self.shared.told.of(topic, topics.len());
        let read: HashSet<&str> = topics.iter().map(String::as_str).collect();
        let mut by_name: HashMap<&str, Option<Sum>> = read.iter().map(|topic| (name(topic), None)).collect();
        let now_ms = now_ms();
        // Tasks of a topic that is read no more end at the rebalance.
        for (of, task) in self.running.iter().filter(|((topic, _), _)| read.contains(topic.as_str())) {
            let Some(end) = self.shared.source.client.cached_log_end(&of.0, of.1) else { continue };
            let Some(lag) = task.progress.lag(end) else { continue };
            let mut standing = task.progress.lock();
            if lag == 0 {
                standing.since_ms = Some(now_ms);
            }
            let left_s = self.shared.retention.left_s(of, &standing, lag, now_ms);
            let behind = Behind { end, events: lag, age_ms: age_ms(&standing, lag, now_ms) };
            standing.behind = Some(behind);
            let part = Sum { events: lag, age_ms: behind.age_ms, left_s };
            let told = by_name.entry(name(&of.0)).or_default();
            *told = Some(told.map_or(part, |sum| sum.and(part)));
        }
        self.shared.metrics.keep_topics(|topic| by_name.contains_key(topic));
        for (topic, sum) in by_name {
            #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^52")]
            let seconds = sum.map(|sum| sum.age_ms as f64 / 1_000.0);
            let events = sum.map(|sum| sum.events.unsigned_abs());
            let metrics = self.shared.metrics.topic(topic);
            metrics.set_lag(events, seconds);
            metrics.set_retention_left(sum.and_then(|sum| sum.left_s));
        }
    }
}

/// How far the partitions of a topic are behind.
#[derive(Debug, Clone, Copy)]
struct Sum {
    events: i64,
    age_ms: i64,
    /// Until Kafka's retention reaches it, where that is known and ever happens.
    left_s: Option<f64>,
}

impl Sum {
    fn and(self, other: Self) -> Self {
        let left_s = self.left_s.into_iter().chain(other.left_s).reduce(f64::min);
        Self { events: self.events + other.events, age_ms: self.age_ms.max(other.age_ms), left_s }
    }
}

/// The age of a partition's oldest event that is not settled.
fn age_ms(standing: &Standing, lag: i64, now_ms: i64) -> i64 {
    match (lag, standing.oldest_in_hand_ms, standing.looked_at()) {
        (0, ..) => 0,
        (_, Some(oldest_ms), _) | (_, None, Some(First::At(oldest_ms))) => (now_ms - oldest_ms).max(0),
        // Known to be behind, and nothing to tell the age by: at least as long as it stands.
        (_, None, _) => i64::try_from(standing.moved_at.elapsed().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::pool::progress::{Front, Progress};

    const STALL: Duration = Duration::from_secs(60);

    fn judged(phase: Phase, idle: Duration, lag: Option<i64>, nudges: u32) -> Verdict {
        let progress = Progress::new();
        let mut standing = progress.lock();
        standing.phase = phase;
        standing.nudges = nudges;
        standing.moved_at = std::time::Instant::now().checked_sub(idle).unwrap();
        judge(&standing, lag, STALL)
    }

    #[test]
    fn a_partition_that_stands_still_behind_its_log_is_nudged_thrice_and_then_given_up() {
        let long = STALL * 2;
        assert_eq!(judged(Phase::Polling, long, Some(1), 0), Verdict::Nudge);
        assert_eq!(judged(Phase::Polling, long, Some(1), 2), Verdict::Nudge);
        assert_eq!(judged(Phase::Polling, long, Some(1), 3), Verdict::GiveUp);
        assert_eq!(judged(Phase::Working, long, None, 0), Verdict::Nudge);
    }

    #[test]
    fn a_partition_that_is_idle_moving_or_waiting_is_fine() {
        let long = STALL * 2;
        assert_eq!(judged(Phase::Polling, long, Some(0), 0), Verdict::Fine);
        assert_eq!(judged(Phase::Polling, long, None, 0), Verdict::Fine);
        assert_eq!(judged(Phase::Polling, STALL / 2, Some(9), 0), Verdict::Fine);
        assert_eq!(judged(Phase::Waiting("x".to_owned()), long, Some(9), 0), Verdict::Fine);
        assert_eq!(judged(Phase::Held("x".to_owned()), long, Some(9), 0), Verdict::Fine);
        assert_eq!(judged(Phase::Queued("x"), long, Some(9), 0), Verdict::Fine);
        assert_eq!(judged(Phase::Paused, long, Some(9), 0), Verdict::Fine);
    }

    #[test]
    fn the_age_is_that_of_the_record_in_hand_or_of_the_one_looked_at_for_the_present_place() {
        let progress = Progress::new();
        let mut standing = progress.lock();
        standing.next_offset = Some(7);
        let front = |offset, record| Some(Front { offset, seen_at: Instant::now(), record });
        standing.front = front(7, First::At(4_000));
        assert_eq!(age_ms(&standing, 3, 10_000), 6_000);
        assert_eq!(age_ms(&standing, 0, 10_000), 0);
        standing.front = front(6, First::At(4_000));
        assert!(age_ms(&standing, 3, 10_000) < 6_000, "it has moved since");
        standing.oldest_in_hand_ms = Some(9_000);
        assert_eq!(age_ms(&standing, 3, 10_000), 1_000);
    }

    #[test]
    fn the_soonest_of_a_topics_partitions_counts_and_those_not_known_do_not() {
        let of = |left_s| Sum { events: 2, age_ms: 5, left_s };
        assert_eq!(of(Some(9.0)).and(of(Some(3.0))).left_s, Some(3.0));
        assert_eq!(of(None).and(of(Some(3.0))).left_s, Some(3.0));
        assert_eq!(of(None).and(of(None)).left_s, None);
    }
}
