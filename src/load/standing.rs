//! Where the pool stands: the log's ends against the ledger, and partitions that stand still though they have work.
//!
//! It is asked of Kafka and of the database, and not of the workers, so that one that is killed or frozen leaves no gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::generator::Shared;
use crate::config::{self, Config};
use crate::source::LogReader;
use crate::store::Store;

/// How often the ledger is looked at for partitions that stand still.
const SAMPLE: Duration = Duration::from_millis(200);
/// Shorter ones are none: a batch takes its time.
const STANDSTILL_MIN: Duration = Duration::from_millis(400);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// Past ends that are kept to tell how old what is not settled is.
const PAST_MAX: usize = 100_000;

/// Looks at one topic of one group.
pub(super) struct Standing {
    reader: Arc<LogReader>,
    store: Arc<dyn Store>,
    group: String,
    topic: String,
    topic_id: Uuid,
    pub(super) partitions: usize,
    tracked: Mutex<Tracked>,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Tracked {
    /// The log's ends as Kafka told them last.
    ends: Vec<i64>,
    /// The ledger as it was read last.
    next: Vec<i64>,
    /// Ends with the time at which they were seen, the oldest that matters first.
    past: VecDeque<(Instant, Vec<i64>)>,
    /// Since when each partition has had work and not moved.
    still_since: Vec<Option<Instant>>,
    /// The longest standstill that ended since this was asked last.
    longest: Option<Standstill>,
}

/// A partition that had work and did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standstill {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl Standstill {
    pub(super) fn length(&self) -> Duration {
        self.end - self.begin
    }
}

/// Where everything stands at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stand {
    /// Offsets that the ledger has passed, over all partitions.
    pub(super) settled: u64,
    pub(super) lag_events: u64,
    /// The age of the oldest event that is not settled, at least: as exact as looks follow each other.
    pub(super) lag_s: f64,
}

impl Standing {
    /// Blocks on Kafka in a thread of its own.
    pub(super) async fn open(config: &Config, store: Arc<dyn Store>, group: &str, topic: &str) -> Result<Self> {
        let (kafka, patience, name) = (config.kafka.clone(), config.startup_timeout, topic.to_owned());
        let opened = tokio::task::spawn_blocking(move || open_reader(&kafka, &name, patience)).await;
        let (reader, topic_id, ends) = opened.context("look at the topic")??;
        let partitions = ends.len();
        if partitions == 0 {
            bail!("topic {topic} has no partitions: create it, or correct the plan's topic");
        }
        let tracked = Tracked { ends, still_since: vec![None; partitions], ..Tracked::default() };
        Ok(Self {
            reader: Arc::new(reader),
            store,
            group: group.to_owned(),
            topic: topic.to_owned(),
            topic_id,
            partitions,
            tracked: Mutex::new(tracked),
        })
    }

    /// The log's ends now.
    pub(super) async fn ends(&self) -> Result<Vec<i64>> {
        let (reader, topic) = (Arc::clone(&self.reader), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || reader.partitions(&topic));
        let logs = tokio::time::timeout(LOOK_WITHIN, asked).await.context("Kafka does not tell the log's ends")??;
        let mut ends = vec![0; self.partitions];
        for log in logs? {
            if let Some(end) = usize::try_from(log.partition).ok().and_then(|partition| ends.get_mut(partition)) {
                *end = log.high;
            }
        }
        self.lock().ends.clone_from(&ends);
        Ok(ends)
    }

    /// The ledger's offsets now; `None` where the group has not begun.
    pub(super) async fn ledger(&self) -> Result<Vec<Option<i64>>> {
        let asked = tokio::time::timeout(LOOK_WITHIN, self.store.ledger_of_group(&self.group)).await;
        let rows = asked.context("the database does not tell the ledger")??;
        let of = |partition: usize| Some(rows.get(&(self.topic_id, i32::try_from(partition).ok()?))?.next_offset);
        Ok((0..self.partitions).map(of).collect())
    }

    /// Where everything stands. Where the database does not answer, as of the last time that it did.
    pub(super) async fn look(&self, shared: &Shared) -> Stand {
        let ledger = self.ledger().await.ok();
        let mut tracked = self.lock();
        tracked.take(ledger.as_deref(), &shared.flow.ends(), Instant::now());
        tracked.stand(Instant::now())
    }

    /// The longest standstill that ended since this was asked last.
    pub(super) fn take_longest(&self) -> Option<Standstill> {
        self.lock().longest.take()
    }

    /// Looks often, until it is told to stop; at Kafka's own ends as often as everything is looked at.
    pub(super) async fn watch(self: Arc<Self>, shared: Arc<Shared>, interval: Duration, stop: CancellationToken) {
        let ends = async {
            loop {
                // Without an answer, acknowledgements say where the ends are at least.
                self.ends().await.ok();
                tokio::time::sleep(interval).await;
            }
        };
        let ledger = async {
            loop {
                self.look(&shared).await;
                tokio::time::sleep(SAMPLE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { tokio::join!(ends, ledger); } => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_reader(kafka: &config::Kafka, topic: &str, patience: Duration) -> Result<(LogReader, Uuid, Vec<i64>)> {
    let reader = LogReader::open(kafka, &[topic.to_owned()], patience)?;
    let ends = reader.partitions(topic)?.iter().map(|log| log.high).collect();
    let topic_id = reader.topic_id(topic)?;
    Ok((reader, topic_id, ends))
}

impl Tracked {
    /// Takes in a look: the ledger, and the ends that acknowledgements tell.
    fn take(&mut self, ledger: Option<&[Option<i64>]>, acknowledged: &[i64], now: Instant) {
        for (end, acknowledged) in self.ends.iter_mut().zip(acknowledged) {
            *end = (*end).max(*acknowledged);
        }
        if let Some(ledger) = ledger {
            self.next.resize(self.ends.len(), 0);
            for (partition, next) in ledger.iter().enumerate().take(self.ends.len()) {
                // Of two looks at a time, the older may come in last.
                let next = next.unwrap_or(0).max(self.next[partition]);
                let moved = std::mem::replace(&mut self.next[partition], next) != next;
                self.note_move(partition, moved, self.ends[partition] > next, now);
            }
        }
        if self.past.back().is_none_or(|(_, ends)| *ends != self.ends) {
            self.past.push_back((now, self.ends.clone()));
        }
        while self.past.len() > PAST_MAX
            || self.past.front().is_some_and(|(_, ends)| ends.iter().zip(&self.next).all(|(end, next)| end <= next))
        {
            self.past.pop_front();
        }
    }

    fn note_move(&mut self, partition: usize, moved: bool, has_work: bool, now: Instant) {
        let since = &mut self.still_since[partition];
        if let Some(begin) = *since
            && (moved || !has_work)
        {
            let still = Standstill { begin, end: now };
            let is_longest = self.longest.is_none_or(|longest| longest.length() < still.length());
            if still.length() >= STANDSTILL_MIN && is_longest {
                self.longest = Some(still);
            }
            *since = None;
        }
        if has_work {
            since.get_or_insert(now);
        }
    }

    fn stand(&self, now: Instant) -> Stand {
        let lag = self.ends.iter().zip(&self.next).map(|(end, next)| (end - next).max(0).unsigned_abs()).sum();
        // The first ends that went beyond what is settled were seen when the oldest such event was there.
        let oldest = self.past.front().filter(|_| lag > 0).map_or(now, |(seen, _)| *seen);
        Stand {
            settled: self.next.iter().map(|next| next.unsigned_abs()).sum(),
            lag_events: lag,
            lag_s: (now - oldest).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(partitions: usize) -> Tracked {
        Tracked { ends: vec![0; partitions], still_since: vec![None; partitions], ..Tracked::default() }
    }

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn lag_is_what_the_ledger_has_not_passed_and_as_old_as_its_first_sight() {
        let (mut tracked, begun) = (tracked(2), Instant::now());
        tracked.take(Some(&[Some(0), None]), &[5, 0], at(begun, 0));
        tracked.take(Some(&[Some(5), None]), &[5, 7], at(begun, 1_000));
        tracked.take(Some(&[Some(5), Some(2)]), &[9, 7], at(begun, 3_000));
        let stand = tracked.stand(at(begun, 4_000));
        assert_eq!((stand.settled, stand.lag_events), (7, 9));
        assert!((stand.lag_s - 3.0).abs() < 1e-9, "{stand:?}");
        tracked.take(Some(&[Some(9), Some(7)]), &[9, 7], at(begun, 5_000));
        assert_eq!(tracked.stand(at(begun, 5_000)), Stand { settled: 16, lag_events: 0, lag_s: 0.0 });
    }

    #[test]
    fn an_older_look_that_comes_in_last_takes_nothing_back() {
        let (mut tracked, begun) = (tracked(1), Instant::now());
        tracked.take(Some(&[Some(8)]), &[9], at(begun, 0));
        tracked.take(Some(&[Some(5)]), &[9], at(begun, 1));
        assert_eq!(tracked.stand(at(begun, 1)).settled, 8);
    }

    #[test]
    fn a_partition_with_work_that_does_not_move_stands_still() {
        let (mut tracked, begun) = (tracked(1), Instant::now());
        for (ms, next, end) in [(0, 0, 0), (1_000, 0, 9), (1_200, 0, 9), (3_000, 4, 9), (3_200, 9, 9), (9_000, 9, 9)] {
            tracked.take(Some(&[Some(next)]), &[end], at(begun, ms));
        }
        let longest = tracked.longest.unwrap();
        assert_eq!((longest.begin, longest.length()), (at(begun, 1_000), Duration::from_secs(2)));
    }

    #[test]
    fn no_answer_of_the_database_is_no_standstills_end() {
        let (mut tracked, begun) = (tracked(1), Instant::now());
        tracked.take(Some(&[Some(0)]), &[9], at(begun, 0));
        tracked.take(None, &[12], at(begun, 1_000));
        assert_eq!((tracked.longest, tracked.stand(at(begun, 1_000)).lag_events), (None, 12));
    }
}
