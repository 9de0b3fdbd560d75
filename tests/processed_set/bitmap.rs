//! What only a bitmap promises.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir::config;
use weir::metrics::Metrics;
use weir::once::ProcessedSet;

use super::{OwnRedis, fresh, pool, redis_config, until};

/// Much longer than a test takes: Redis' own clock stays behind the tests' clocks, so no key ends meanwhile, and what is
/// forgotten is not asked for any more.
const EXPIRY_MS: u64 = 3_600_000;

/// What the tests ask Redis itself.
struct Direct(redis::Connection);

impl Direct {
    fn to(redis: &OwnRedis) -> Self {
        Self(redis::Client::open(redis.url()).unwrap().get_connection().unwrap())
    }

    fn ask<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut asked = redis::Cmd::new();
        command.iter().for_each(|word| _ = asked.arg(*word));
        asked.query(&mut self.0).unwrap()
    }

    fn keys(&mut self) -> Vec<String> {
        self.ask(&["KEYS", "*"])
    }

    /// The keys that would stay for ever.
    fn without_an_end(&mut self) -> Vec<String> {
        let keys = self.keys();
        keys.into_iter().filter(|key| self.ask::<i64>(&["PTTL", key]) < 0).collect()
    }

    fn used_bytes(&mut self) -> u64 {
        let keys = self.keys();
        keys.iter().map(|key| self.ask::<u64>(&["MEMORY", "USAGE", key])).sum()
    }
}

fn settings(bloom: config::Bloom) -> config::Pool {
    config::Pool { processed_set: config::ProcessedSet::Bloom, bloom, ..config::Pool::default() }
}

/// A bitmap whose calls wait as long as a busy machine takes.
fn bitmap(redis: &OwnRedis, bloom: config::Bloom, pool: &str) -> (ProcessedSet, config::Bitmap) {
    let settings = settings(bloom);
    let config = redis_config(&redis.url(), Duration::from_millis(EXPIRY_MS), Duration::from_secs(30));
    let set = ProcessedSet::configured(&config, &settings, pool, Metrics::new().pool(pool)).unwrap().unwrap();
    (set, config::Bitmap::of(&settings, Some(&config)).unwrap().unwrap())
}

fn names(range: Range<u64>) -> Vec<String> {
    range.map(|n| format!("message-{n}")).collect()
}

fn texts(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn at(clock_ms: &AtomicU64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock_ms.load(Ordering::Relaxed))
}

#[tokio::test]
async fn every_id_is_known_for_one_expiry_over_all_rotations_and_none_after_two() {
    static CLOCK_MS: AtomicU64 = AtomicU64::new(0);
    const STEPS_AN_EXPIRY: u64 = 7;
    const STEP_IDS: u64 = 300;
    let redis = OwnRedis::start(&[]);
    let bloom = config::Bloom { ids: Some(100_000), false_positives: 1e-6, ..config::Bloom::default() };
    let (set, _) = bitmap(&redis, bloom, &pool());
    let set = set.with_clock(|| at(&CLOCK_MS));
    let begun_ms = now_ms();
    for step in 0..30 {
        CLOCK_MS.store(begun_ms + step * EXPIRY_MS / STEPS_AN_EXPIRY, Ordering::Relaxed);
        set.mark(&texts(&names(step * STEP_IDS..(step + 1) * STEP_IDS))).await;
        let from = step.saturating_sub(STEPS_AN_EXPIRY);
        let known = set.lookup(&texts(&names(from * STEP_IDS..(step + 1) * STEP_IDS))).await.unwrap();
        assert!(known.iter().all(|known| *known), "step {step}: an id of the last expiry is forgotten");
        let old = names(0..step.saturating_sub(2 * STEPS_AN_EXPIRY) * STEP_IDS);
        let known = set.lookup(&texts(&old)).await.unwrap();
        assert!(known.iter().all(|known| !known), "step {step}: an id is known after two expiries");
    }
    let mut direct = Direct::to(&redis);
    assert!(direct.keys().len() > 4 && direct.without_an_end().is_empty(), "{:?}", direct.without_an_end());
}

#[tokio::test]
async fn with_two_full_generations_false_positives_and_memory_are_within_what_was_said() {
    static CLOCK_MS: AtomicU64 = AtomicU64::new(0);
    const IDS: u64 = 103_000;
    const ASKED: u64 = 300_000;
    let redis = OwnRedis::start(&[]);
    let mut direct = Direct::to(&redis);
    let bloom = config::Bloom { ids: Some(IDS), false_positives: 0.001, ..config::Bloom::default() };
    let (set, size) = bitmap(&redis, bloom, &pool());
    let set = set.with_clock(|| at(&CLOCK_MS));
    let begun_ms = now_ms();
    for generation in 0..2 {
        CLOCK_MS.store(begun_ms + generation * EXPIRY_MS, Ordering::Relaxed);
        let first = generation * IDS;
        for from in (first..first + IDS).step_by(500) {
            set.mark(&texts(&names(from..from + 500))).await;
        }
    }
    let (used, said) = (direct.used_bytes(), size.memory_bytes());
    assert!(used <= said && used * 10 > said * 9, "{used} bytes, and {said} were said");
    for key in direct.keys() {
        assert_eq!(direct.ask::<u64>(&["STRLEN", &key]), 65_473, "a part is whole from its first mark on");
    }
    let mut found = 0;
    for from in (10_000_000..10_000_000 + ASKED).step_by(500) {
        let known = set.lookup(&texts(&names(from..from + 500))).await.unwrap();
        found += known.iter().filter(|known| **known).count();
    }
    assert!((100..=300).contains(&found), "{found} of {ASKED}, and 300 are allowed");
}

#[tokio::test]
async fn after_redis_lost_everything_marks_are_known_again_and_end_by_themselves() {
    let mut redis = OwnRedis::start(&[]);
    let set = fresh(&redis.url(), config::ProcessedSet::Bloom);
    set.mark(&["a"]).await;
    assert_eq!(set.lookup(&["a", "b"]).await, Some(vec![true, false]));
    Direct::to(&redis).ask::<()>(&["FLUSHALL"]);
    set.mark(&["b"]).await;
    assert_eq!(set.lookup(&["a", "b"]).await, Some(vec![false, true]));
    assert_eq!(Direct::to(&redis).without_an_end(), Vec::<String>::new());
    redis.stop();
    redis.start_again();
    until(&set, &["b"], Some(vec![false])).await;
    set.mark(&["c"]).await;
    assert_eq!(set.lookup(&["b", "c"]).await, Some(vec![false, true]));
    let mut direct = Direct::to(&redis);
    assert_eq!((direct.keys().len(), direct.without_an_end()), (1, Vec::new()));
}

/// Workers of one pool whose configurations differ, as during a deploy.
#[tokio::test]
async fn bits_of_another_size_are_not_read_as_ones_own() {
    let redis = OwnRedis::start(&[]);
    let sized = |ids| bitmap(&redis, config::Bloom { ids: Some(ids), ..config::Bloom::default() }, "same").0;
    let (small, large) = (sized(100), sized(1_000_000));
    small.mark(&["a"]).await;
    assert_eq!(large.lookup(&["a"]).await, Some(vec![false]));
    large.mark(&["b"]).await;
    assert_eq!(small.lookup(&["a", "b"]).await, Some(vec![true, false]));
    assert_eq!(large.lookup(&["a", "b"]).await, Some(vec![false, true]));
}
