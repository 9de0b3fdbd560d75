//! The processed set against a real Redis, which is stopped, frozen and filled up under it: the same for sets and bitmaps,
//! and what only a bitmap promises (bitmap.rs).

#[path = "processed_set/bitmap.rs"]
mod bitmap;
#[path = "common/services.rs"]
mod services;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use weir::config;
use weir::metrics::Metrics;
use weir::once::ProcessedSet;

const DEADLINE: Duration = Duration::from_millis(100);
/// What scheduling may add on a busy machine.
const MARGIN: Duration = Duration::from_millis(150);

/// The ways to keep ids.
const KINDS: [config::ProcessedSet; 2] = [config::ProcessedSet::Set, config::ProcessedSet::Bloom];

fn redis_config(url: &str, expiry: Duration, deadline: Duration) -> config::Redis {
    let [expiry, deadline] = [expiry, deadline].map(|time| format!("{}ms", time.as_millis()));
    serde_json::from_value(serde_json::json!({ "url": url, "expiry": expiry, "deadline": deadline })).unwrap()
}

fn set(url: &str, kind: config::ProcessedSet, pool: &str, expiry: Duration, metrics: &Metrics) -> ProcessedSet {
    let bloom = config::Bloom { ids: Some(100_000), false_positives: 1e-6, ..config::Bloom::default() };
    let settings = config::Pool { processed_set: kind, bloom, ..config::Pool::default() };
    let config = redis_config(url, expiry, DEADLINE);
    ProcessedSet::configured(&config, &settings, pool, metrics.pool(pool)).unwrap().unwrap()
}

/// A pool name that no other test has.
fn pool() -> String {
    format!("test-{}", uuid::Uuid::new_v4())
}

fn fresh(url: &str, kind: config::ProcessedSet) -> ProcessedSet {
    set(url, kind, &pool(), Duration::from_secs(900), &Metrics::new())
}

/// Polls until the set answers so, for 15 s at most.
async fn until(set: &ProcessedSet, ids: &[&str], wanted: Option<Vec<bool>>) {
    let started = Instant::now();
    loop {
        let answer = set.lookup(ids).await;
        if answer == wanted {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{answer:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A Redis of the test's own, ended with it.
struct OwnRedis {
    port: u16,
    process: Child,
}

impl OwnRedis {
    fn start(options: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, process: launch(port, options) }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = launch(self.port, &[]);
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It may have been stopped by the test already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn launch(port: u16, options: &[&str]) -> Child {
    let process = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is needed on the PATH");
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

/// A look-up that must not be answered, and how long it took.
async fn unanswered(set: &ProcessedSet, ids: &[&str]) -> Duration {
    let started = Instant::now();
    assert_eq!(set.lookup(ids).await, None);
    started.elapsed()
}

/// What holds while Redis is away: the first batch costs one deadline, the next ones nothing.
async fn away_costs_one_deadline(set: &ProcessedSet) {
    let first = unanswered(set, &["a"]).await;
    assert!(first < DEADLINE + MARGIN, "{first:?}");
    let started = Instant::now();
    for _ in 0..100 {
        unanswered(set, &["a"]).await;
        set.mark(&["a"]).await;
    }
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
}

#[tokio::test]
async fn marked_ids_are_hits_and_others_are_misses_in_the_order_asked() {
    for kind in KINDS {
        let (pool, metrics) = (pool(), Metrics::new());
        let set = set(&services::env("REDIS_URL"), kind, &pool, Duration::from_secs(900), &metrics);
        let ids: Vec<String> = (0..500).map(|n| format!("id-{n}")).collect();
        let even: Vec<&str> = ids.iter().step_by(2).map(String::as_str).collect();
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        set.mark(&even).await;
        let expected: Vec<bool> = (0..500).map(|n| n % 2 == 0).collect();
        assert_eq!(set.lookup(&all).await, Some(expected));
        let text = metrics.render();
        for result in ["hit", "miss"] {
            let line = format!("weir_processed_set_lookups_total{{pool=\"{pool}\",result=\"{result}\"}} 250");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

#[tokio::test]
async fn pools_do_not_see_each_others_ids() {
    for kind in KINDS {
        let url = services::env("REDIS_URL");
        let (one, other) = (fresh(&url, kind), fresh(&url, kind));
        one.mark(&["a"]).await;
        assert_eq!(one.lookup(&["a"]).await, Some(vec![true]));
        assert_eq!(other.lookup(&["a"]).await, Some(vec![false]));
    }
}

#[tokio::test]
async fn an_id_is_forgotten_after_one_to_two_expiries_and_its_set_with_it() {
    for kind in KINDS {
        let redis = OwnRedis::start(&[]);
        let expiry = Duration::from_secs(1);
        let set = set(&redis.url(), kind, &pool(), expiry, &Metrics::new());
        let marked = Instant::now();
        set.mark(&["a", "b", "c"]).await;
        assert_eq!(set.lookup(&["a"]).await, Some(vec![true]));
        until(&set, &["a", "b", "c"], Some(vec![false; 3])).await;
        let kept = marked.elapsed();
        assert!(kept >= expiry && kept < expiry * 2 + MARGIN, "{kept:?}");
        let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        let started = Instant::now();
        while redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap() > 0 {
            assert!(started.elapsed() < Duration::from_secs(5), "a set has no expiry");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The clock of the test below, in seconds: past that of Redis, so that nothing expires meanwhile; ten seconds into a generation.
static CLOCK: AtomicU64 = AtomicU64::new(4_444_444 * 900 + 10);

#[tokio::test]
async fn a_set_that_nobody_asks_for_by_any_clock_is_unlinked_and_not_left_to_its_expiry() {
    let redis = OwnRedis::start(&[]);
    let clock = || UNIX_EPOCH + Duration::from_secs(CLOCK.load(Ordering::Relaxed));
    let expiry = Duration::from_secs(900);
    let set = set(&redis.url(), config::ProcessedSet::Set, "p", expiry, &Metrics::new()).with_clock(clock);
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut keys = || redis::cmd("KEYS").arg("*").query::<Vec<String>>(&mut connection).unwrap().len();
    marked(&set, "a").await;
    assert_eq!(keys(), 1);
    CLOCK.fetch_add(900, Ordering::Relaxed);
    marked(&set, "b").await;
    assert_eq!(keys(), 2, "it is still asked for");
    until(&set, &["a", "b"], Some(vec![true, true])).await;
    CLOCK.fetch_add(900, Ordering::Relaxed);
    marked(&set, "c").await;
    assert_eq!(keys(), 3, "a worker whose clock is behind asks for it");
    CLOCK.fetch_add(30, Ordering::Relaxed);
    marked(&set, "e").await;
    assert_eq!(keys(), 2);
    until(&set, &["a", "b"], Some(vec![false, true])).await;
    // One that is full takes no mark; what has ended goes all the same.
    let mut settings = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    configure(&mut settings, "maxmemory-policy", "noeviction");
    configure(&mut settings, "maxmemory", "1mb");
    CLOCK.fetch_add(900, Ordering::Relaxed);
    let begun = Instant::now();
    while keys() == 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "what has ended stays");
        set.mark(&["d"]).await;
    }
    until(&set, &["b", "c", "d"], Some(vec![false, true, false])).await;
}

/// Marks an id, however long Redis takes.
async fn marked(set: &ProcessedSet, id: &str) {
    let started = Instant::now();
    while set.lookup(&[id]).await != Some(vec![true]) {
        assert!(started.elapsed() < Duration::from_secs(10), "{id} is not marked");
        set.mark(&[id]).await;
    }
}

fn configure(connection: &mut redis::Connection, option: &str, value: &str) {
    redis::cmd("CONFIG").arg("SET").arg(option).arg(value).query::<()>(connection).unwrap();
}

#[tokio::test]
async fn a_redis_that_is_not_there_at_start_keeps_nobody_from_starting() {
    for kind in KINDS {
        let mut redis = OwnRedis::start(&[]);
        redis.stop();
        let started = Instant::now();
        let set = fresh(&redis.url(), kind);
        assert!(started.elapsed() < DEADLINE);
        away_costs_one_deadline(&set).await;
        redis.start_again();
        until(&set, &["a"], Some(vec![false])).await;
        set.mark(&["a"]).await;
        assert_eq!(set.lookup(&["a"]).await, Some(vec![true]));
    }
}

#[tokio::test]
async fn a_stopped_redis_is_an_unknown_answer_until_it_is_back() {
    for kind in KINDS {
        let mut redis = OwnRedis::start(&[]);
        let set = fresh(&redis.url(), kind);
        set.mark(&["a"]).await;
        assert_eq!(set.lookup(&["a"]).await, Some(vec![true]));
        redis.stop();
        away_costs_one_deadline(&set).await;
        redis.start_again();
        until(&set, &["a"], Some(vec![false])).await;
    }
}

#[tokio::test]
async fn a_frozen_redis_costs_one_deadline_and_comes_back() {
    for kind in KINDS {
        let redis = OwnRedis::start(&[]);
        let set = fresh(&redis.url(), kind);
        set.mark(&["a"]).await;
        assert_eq!(set.lookup(&["a"]).await, Some(vec![true]));
        redis.signal("-STOP");
        away_costs_one_deadline(&set).await;
        redis.signal("-CONT");
        until(&set, &["a"], Some(vec![true])).await;
    }
}

/// The frozen Redis answers what it was asked once it thaws: into connections that nobody reads any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_is_never_read_as_another_batchs_answer() {
    for kind in KINDS {
        let redis = OwnRedis::start(&[]);
        let set = fresh(&redis.url(), kind);
        set.mark(&["known"]).await;
        for _ in 0..5 {
            until(&set, &["known"], Some(vec![true])).await;
            redis.signal("-STOP");
            let asked = (0..8).map(|_| {
                let set = set.clone();
                tokio::spawn(async move { set.lookup(&["known", "known", "known"]).await })
            });
            for answer in futures_util::future::join_all(asked).await {
                assert_eq!(answer.unwrap(), None);
            }
            redis.signal("-CONT");
            until(&set, &["other"], Some(vec![false])).await;
            for _ in 0..50 {
                assert_eq!(set.lookup(&["other", "known"]).await, Some(vec![false, true]));
            }
        }
    }
}

/// A caller that goes away in the middle leaves nothing behind either.
#[tokio::test]
async fn a_cancelled_lookup_leaves_no_reply_behind() {
    for kind in KINDS {
        let redis = OwnRedis::start(&[]);
        let set = fresh(&redis.url(), kind);
        set.mark(&["known"]).await;
        for micros in 0..300 {
            let cut_off = tokio::time::timeout(Duration::from_micros(micros), set.lookup(&["known", "known"]));
            drop(cut_off.await);
            assert_eq!(set.lookup(&["other", "known"]).await, Some(vec![false, true]));
        }
    }
}

#[tokio::test]
async fn a_full_redis_refuses_marks_and_still_answers() {
    for kind in KINDS {
        let redis = OwnRedis::start(&[]);
        let set = fresh(&redis.url(), kind);
        set.mark(&["before"]).await;
        let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        configure(&mut connection, "maxmemory-policy", "noeviction");
        configure(&mut connection, "maxmemory", "1mb");
        for _ in 0..10 {
            set.mark(&["after"]).await;
            assert_eq!(set.lookup(&["before", "after"]).await, Some(vec![true, false]));
        }
        configure(&mut connection, "maxmemory", "0");
        marked(&set, "after").await;
    }
}

#[tokio::test]
async fn a_refused_lookup_is_unknown_and_a_wrong_password_too() {
    for kind in KINDS {
        let redis = OwnRedis::start(&["--requirepass", "secret"]);
        let set = fresh(&redis.url(), kind);
        assert_eq!(set.lookup(&["a"]).await, None);
        set.mark(&["a"]).await;
        assert_eq!(set.lookup(&["a"]).await, None);
        let allowed = fresh(&redis.url().replace("redis://", "redis://:secret@"), kind);
        assert_eq!(allowed.lookup(&["a"]).await, Some(vec![false]));
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_an_unknown_answer() {
    let set = fresh("http://nowhere", config::ProcessedSet::Set);
    assert_eq!(set.lookup(&["a"]).await, None);
    set.mark(&["a"]).await;
}

/// The first byte of a TLS handshake is 22; without a chosen cryptography the client panics before it.
#[tokio::test]
async fn a_rediss_url_speaks_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = fresh(&format!("rediss://{}", listener.local_addr().unwrap()), config::ProcessedSet::Set);
    let hello = tokio::task::spawn_blocking(move || {
        let mut first = [0; 1];
        listener.accept().unwrap().0.read_exact(&mut first).unwrap();
        first[0]
    });
    assert_eq!(set.lookup(&["a"]).await, None);
    assert_eq!(hello.await.unwrap(), 22);
}
