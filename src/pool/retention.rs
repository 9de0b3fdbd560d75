//! How long it takes until Kafka's retention overtakes a pool: what is deleted before it is settled is lost to the pool.
//!
//! By time: the oldest event that is not settled may be deleted when its time stamp and `retention.ms` are over. Kafka
//! deletes whole segments, so it may keep it longer, never shorter. By size (`retention.bytes`): the log's first offset is
//! looked at once a minute; at the speed with which it moved lately it reaches the pool's place. With both, what is sooner.
//!
//! A partition with nothing in hand, since the pool is paused or held, has its first record looked at in Kafka.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::progress::{Front, Standing, Standings};
use super::tasks::Name;
use super::{Shared, TICK};
use crate::config;
use crate::event::Payload;
use crate::kafka::{Retention, retention};
use crate::source::{First, LogError, LogReader};

/// How often it is seen what there is to look at.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often the topics' settings are asked for.
const SETTINGS_EVERY: Duration = Duration::from_secs(120);
/// How often the first offset is asked for, of partitions that are limited by size.
const LOWS_EVERY: Duration = Duration::from_secs(60);
/// How many of them are kept: half an hour's.
const LOWS_KEPT: usize = 31;
/// Brokers delete every five minutes (`log.retention.check.interval.ms`), so a speed is one of at least two such turns.
const SPEED_OVER: Duration = Duration::from_secs(600);
/// How often the first record of a partition that stands still is looked at again.
const FRONTS_EVERY: Duration = Duration::from_secs(30);
/// How many are looked at in one turn.
const FRONTS_MAX: usize = 64;

/// What is known of the retention of a pool's topics.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, Retention>,
    lows: HashMap<Name, Lows>,
    /// Topics of which it was said that their settings are not told.
    untold: HashSet<String>,
    /// Topics of which it was said that `messages` is kept for less.
    longer: HashSet<String>,
}

/// The first offset of a partition's log at several times.
#[derive(Debug, Default)]
struct Lows(VecDeque<(Instant, i64)>);

impl Lows {
    fn note(&mut self, at: Instant, low: i64) {
        if self.0.len() == LOWS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, low));
    }

    /// Until the log's first offset is at `next`; `None`: it does not move, or was not seen for long enough.
    #[expect(clippy::cast_precision_loss, reason = "offsets are far below 2^52")]
    fn left_s(&self, next: i64, now: Instant) -> Option<f64> {
        let ((first_at, first), (last_at, last)) = (self.0.front()?, self.0.back()?);
        let over = last_at.duration_since(*first_at);
        if over < SPEED_OVER || last <= first {
            return None;
        }
        let per_s = (last - first) as f64 / over.as_secs_f64();
        let since = now.saturating_duration_since(*last_at).as_secs_f64();
        Some(((next - last) as f64 / per_s - since).max(0.0))
    }
}

/// By time; `None`: there is no limit, or the oldest event is not known yet.
#[expect(clippy::cast_precision_loss, reason = "times in milliseconds are far below 2^52")]
fn left_by_time_s(retention_ms: Option<i64>, lag: i64, oldest: Option<First>, now_ms: i64) -> Option<f64> {
    let retention_ms = retention_ms?;
    let left_ms = match (lag, oldest) {
        (0, _) => retention_ms,
        (_, Some(First::At(ms))) => ms.saturating_add(retention_ms).saturating_sub(now_ms).clamp(0, retention_ms),
        (_, Some(First::Gone)) => 0,
        (_, Some(First::Nothing) | None) => return None,
    };
    Some(left_ms as f64 / 1_000.0)
}

impl Kept {
    /// Until retention reaches a partition's place; `None`: never, or it is not known.
    pub(super) fn left_s(&self, (topic, partition): &Name, standing: &Standing, lag: i64, now_ms: i64) -> Option<f64> {
        let state = self.lock();
        let limits = state.topics.get(topic)?;
        let by_time = left_by_time_s(limits.ms, lag, standing.oldest(), now_ms);
        let lows = limits.bytes.and_then(|_| state.lows.get(&(topic.clone(), *partition)));
        let by_size = lows.zip(standing.next_offset).and_then(|(lows, next)| lows.left_s(next, Instant::now()));
        match (by_time, by_size) {
            (Some(by_time), Some(by_size)) => Some(by_time.min(by_size)),
            (by_time, by_size) => by_time.or(by_size),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what Kafka told of these topics; gives those whose settings it does not tell, each once.
    fn note(&self, asked: &[String], told: HashMap<String, Retention>) -> Vec<String> {
        let mut state = self.lock();
        state.untold.retain(|topic| !told.contains_key(topic));
        state.topics = told;
        let untold: Vec<String> = asked.iter().filter(|topic| !state.topics.contains_key(*topic)).cloned().collect();
        untold.into_iter().filter(|topic| state.untold.insert(topic.clone())).collect()
    }

    /// Topics that are kept for longer than this, each once.
    fn longer_than(&self, kept: Duration) -> Vec<String> {
        let mut state = self.lock();
        let is_longer = |limits: &Retention| {
            limits.ms.is_none_or(|ms| ms.unsigned_abs() > u64::try_from(kept.as_millis()).unwrap_or(u64::MAX))
        };
        let longer = state.topics.iter().filter(|(_, limits)| is_longer(limits)).map(|(topic, _)| topic.clone());
        let mut longer: Vec<String> = longer.collect();
        longer.retain(|topic| state.longer.insert(topic.clone()));
        longer.sort_unstable();
        longer
    }

    /// Keeps nothing of partitions that are not owned any more; gives those that are limited by size.
    fn limited_by_size(&self, owned: &HashSet<Name>) -> Vec<Name> {
        let mut state = self.lock();
        state.lows.retain(|name, _| owned.contains(name));
        let is_limited = |topic: &str| state.topics.get(topic).is_some_and(|limits| limits.bytes.is_some());
        owned.iter().filter(|(topic, _)| is_limited(topic)).cloned().collect()
    }

    fn note_low(&self, name: &Name, low: i64) {
        self.lock().lows.entry(name.clone()).or_default().note(Instant::now(), low);
    }
}

/// What is looked at, and when it was last.
struct Watch<T> {
    shared: Arc<Shared<T>>,
    standings: Standings,
    kafka: config::Kafka,
    /// The topics asked for last, and when they are to be asked for again.
    asked: (Vec<String>, Instant),
    lows_at: Option<Instant>,
    /// Where each partition stood at the last look.
    stood: HashMap<Name, i64>,
}

/// Runs until it is dropped.
pub(super) async fn watch<T: Payload>(
    shared: Arc<Shared<T>>,
    standings: Standings,
    kafka: config::Kafka,
    stop: CancellationToken,
) {
    // The broker in memory knows no settings and deletes nothing.
    if kafka.in_memory {
        return;
    }
    let asked = (Vec::new(), Instant::now());
    let mut watch = Watch { shared, standings, kafka, asked, lows_at: None, stood: HashMap::new() };
    loop {
        // The first partitions are soon told of.
        let pause = if watch.asked.0.is_empty() { TICK } else { INTERVAL };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => watch.look().await,
        }
    }
}

impl<T: Payload> Watch<T> {
    async fn look(&mut self) {
        let owned: HashSet<Name> = self.standings.lock().keys().cloned().collect();
        self.ask_settings(&owned).await;
        if self.lows_at.is_none_or(|at| at.elapsed() >= LOWS_EVERY) {
            self.lows_at = Some(Instant::now());
            for name in self.shared.retention.limited_by_size(&owned) {
                if let Ok((low, _)) = self.shared.source.client.log_ends(&name.0, name.1).await {
                    self.shared.retention.note_low(&name, low);
                }
            }
        }
        self.look_at_fronts().await;
    }

    async fn ask_settings(&mut self, owned: &HashSet<Name>) {
        let mut topics: Vec<String> = owned.iter().map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        let is_due = topics != self.asked.0 || self.asked.1 <= Instant::now();
        if topics.is_empty() || !is_due {
            return;
        }
        let (kafka, asked) = (self.kafka.clone(), topics.clone());
        // Its client waits for its own thread when it goes.
        let asking = tokio::task::spawn_blocking(move || Handle::current().block_on(retention(&kafka, &asked)));
        // Else the process is ending.
        let Ok(told) = asking.await else { return };
        self.asked = (topics, Instant::now() + SETTINGS_EVERY);
        let pool = &*self.shared.name;
        match told {
            Ok(told) => {
                tracing::debug!(pool, retention = ?told, "the topics' retention was asked for");
                let untold = self.shared.retention.note(&self.asked.0, told);
                self.compare();
                if !untold.is_empty() {
                    tracing::warn!(
                        pool,
                        topics = untold.join(" "),
                        "Kafka does not tell the retention of topics, so weir_retention_left_seconds lacks them; grant weir's \
                         user DESCRIBE_CONFIGS on them"
                    );
                }
            }
            // A broker that is away is told by the consumer; what was told before stays.
            Err(error) => tracing::debug!(pool, %error, "the topics' retention is not told yet"),
        }
    }

    /// What Kafka keeps for longer than `messages` could come again when its day is dropped; then it is set aside.
    fn compare(&self) {
        let pipelines = &self.shared.pipelines;
        let is_ours = pipelines.id_key().is_some_and(|key| key.table == config::MESSAGES);
        let Some(kept) = pipelines.store.messages_retention().filter(|_| is_ours) else { return };
        let longer = self.shared.retention.longer_than(kept);
        if !longer.is_empty() {
            tracing::warn!(
                pool = &*self.shared.name,
                topics = longer.join(" "),
                "Kafka keeps topics for longer than store.messages_retention: what is read again from before it is set aside as \
                 dead rows; raise that, or lower the topics' retention.ms"
            );
        }
    }

    /// Looks at the first record of partitions that are behind, stand still and have none in hand.
    async fn look_at_fronts(&mut self) {
        let fronts = self.fronts();
        if fronts.is_empty() {
            return;
        }
        let kafka = self.kafka.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let reader = LogReader::connect(&kafka)?;
            let look = |((topic, partition), offset): (Name, i64)| {
                let record = reader.first(&topic, partition, offset)?;
                Ok::<_, LogError>(((topic, partition), Front { offset, seen_at: Instant::now(), record }))
            };
            // One that cannot be looked at, such as of a topic that is gone, keeps none of the others.
            Ok::<_, LogError>(fronts.into_iter().map(look).collect::<Vec<_>>())
        });
        // The process is ending, or there is no client: the next turn tells.
        let Ok(Ok(seen)) = looked.await else { return };
        let standings = self.standings.lock();
        for seen in seen {
            match seen {
                Ok((name, front)) => {
                    if let Some(progress) = standings.get(&name) {
                        progress.lock().front = Some(front);
                    }
                }
                Err(error) => {
                    let pool = &*self.shared.name;
                    tracing::debug!(pool, %error, "the first record of a waiting partition cannot be looked at yet");
                }
            }
        }
    }

    fn fronts(&mut self) -> Vec<(Name, i64)> {
        let standings = self.standings.lock();
        let mut stands = HashMap::new();
        let mut fronts = Vec::new();
        for (name, progress) in standings.iter() {
            let Some(end) = self.shared.source.client.cached_log_end(&name.0, name.1) else { continue };
            let is_behind = progress.lag(end).is_some_and(|lag| lag > 0);
            let standing = progress.lock();
            let Some(next) = standing.next_offset else { continue };
            stands.insert(name.clone(), next);
            let stood = self.stood.get(name) == Some(&next);
            let is_known = standing
                .front
                .as_ref()
                .is_some_and(|front| front.offset == next && front.seen_at.elapsed() < FRONTS_EVERY);
            if is_behind && stood && standing.oldest_in_hand_ms.is_none() && !is_known {
                let seen_at = standing.front.as_ref().map(|front| front.seen_at);
                fronts.push((seen_at, name.clone(), next));
            }
        }
        self.stood = stands;
        // Those that were never looked at, and then those that were longest ago.
        fronts.sort_by_key(|(seen_at, ..)| *seen_at);
        fronts.truncate(FRONTS_MAX);
        fronts.into_iter().map(|(_, name, next)| (name, next)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::progress::Progress;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn by_time_it_is_what_is_left_of_the_oldest_events_time_and_all_of_it_without_lag() {
        let of = |lag, oldest| left_by_time_s(Some(HOUR_MS), lag, oldest, 10 * HOUR_MS);
        assert_eq!(of(0, None), Some(3_600.0));
        assert_eq!(of(5, Some(First::At(10 * HOUR_MS - 600_000))), Some(3_000.0));
        assert_eq!(of(5, Some(First::At(0))), Some(0.0), "it may be deleted at any time");
        assert_eq!(of(5, Some(First::At(20 * HOUR_MS))), Some(3_600.0), "a producer's clock may be ahead");
        assert_eq!(of(5, Some(First::Gone)), Some(0.0));
        assert_eq!(of(5, None), None, "not known yet");
        assert_eq!(left_by_time_s(None, 5, Some(First::At(0)), HOUR_MS), None, "kept for ever");
    }

    #[test]
    fn by_size_it_is_the_distance_at_the_speed_of_the_logs_beginning() {
        let begun = Instant::now();
        let after = |s| begun + Duration::from_secs(s);
        let mut lows = Lows::default();
        lows.note(begun, 1_000);
        lows.note(after(300), 1_600);
        assert_eq!(lows.left_s(9_000, after(300)), None, "not seen for long enough");
        lows.note(after(600), 2_200);
        // Two a second, so 6,800 offsets are left for 3,400 s.
        assert_eq!(lows.left_s(9_000, after(600)), Some(3_400.0));
        assert_eq!(lows.left_s(9_000, after(700)), Some(3_300.0));
        assert_eq!(lows.left_s(2_000, after(700)), Some(0.0));
        let mut still = Lows::default();
        (0..40).for_each(|minute| still.note(after(minute * 60), 7));
        assert_eq!((still.left_s(9_000, after(2_400)), still.0.len()), (None, LOWS_KEPT));
    }

    #[test]
    fn the_sooner_of_both_limits_counts_and_a_topic_that_is_not_told_has_none() {
        let name = ("t".to_owned(), 0);
        let kept = Kept::default();
        let progress = Progress::new();
        let mut standing = progress.lock();
        standing.next_offset = Some(4_000);
        standing.oldest_in_hand_ms = Some(1);
        assert_eq!(kept.left_s(&name, &standing, 9, HOUR_MS / 2), None);
        let limits = Retention { ms: Some(HOUR_MS), bytes: Some(1_000_000) };
        assert!(kept.note(&["t".to_owned()], HashMap::from([("t".to_owned(), limits)])).is_empty());
        let by_time = kept.left_s(&name, &standing, 9, HOUR_MS / 2).unwrap();
        assert!((by_time - 1_800.0).abs() < 0.01, "{by_time}");
        let now = Instant::now();
        let mut lows = Lows::default();
        lows.note(now.checked_sub(SPEED_OVER).unwrap(), 1_000);
        lows.note(now, 2_000);
        kept.lock().lows.insert(name.clone(), lows);
        let by_size = kept.left_s(&name, &standing, 9, HOUR_MS / 2).unwrap();
        assert!((by_size - 1_200.0).abs() < 60.0, "{by_size}");
    }

    #[test]
    fn topics_whose_settings_are_not_told_are_named_once_until_they_are_told() {
        let kept = Kept::default();
        let asked = ["a".to_owned(), "b".to_owned()];
        let told = |topics: &[&str]| topics.iter().map(|topic| ((*topic).to_owned(), Retention::default())).collect();
        assert_eq!(kept.note(&asked, told(&["a"])), ["b"]);
        assert!(kept.note(&asked, told(&["a"])).is_empty());
        assert!(kept.note(&asked, told(&["a", "b"])).is_empty());
        assert_eq!(kept.note(&asked, told(&[])), ["a", "b"]);
    }

    #[test]
    fn topics_that_are_kept_for_longer_than_messages_are_named_once() {
        let kept = Kept::default();
        let of = |ms| Retention { ms, bytes: None };
        let told =
            [("a".to_owned(), of(Some(HOUR_MS))), ("b".to_owned(), of(Some(HOUR_MS + 1))), ("c".to_owned(), of(None))];
        kept.note(&[], HashMap::from(told));
        assert_eq!(kept.longer_than(Duration::from_secs(3_600)), ["b", "c"]);
        assert!(kept.longer_than(Duration::from_secs(3_600)).is_empty());
    }

    #[test]
    fn first_offsets_are_asked_for_where_a_size_limits_and_forgotten_with_the_partition() {
        let kept = Kept::default();
        let limited = Retention { ms: None, bytes: Some(1) };
        let topics = [("a".to_owned(), limited), ("b".to_owned(), Retention::default())];
        kept.note(&["a".to_owned(), "b".to_owned()], HashMap::from(topics));
        let owned = HashSet::from([("a".to_owned(), 1), ("b".to_owned(), 1)]);
        assert_eq!(kept.limited_by_size(&owned), [("a".to_owned(), 1)]);
        kept.note_low(&("a".to_owned(), 1), 5);
        kept.limited_by_size(&HashSet::new());
        assert!(kept.lock().lows.is_empty());
    }
}
