//! The bucket of a rate against a real Redis: the script does what its arithmetic in Rust does, case by case, and outages
//! are told in time.

#[path = "common/services.rs"]
mod services;

use std::time::{Duration, Instant};

use redis::Connection;
use weir::config;
use weir::once::{Ask, Bucket};

const ASK: Ask = Ask { cost_us: 50_000, ahead_us: 0, allowance_us: 50_000, horizon_us: 1_000_000 };

fn bucket(url: &str) -> (Bucket, String) {
    let group = format!("test-{}", uuid::Uuid::new_v4());
    let config: config::Redis = serde_json::from_value(serde_json::json!({ "url": url })).unwrap();
    (Bucket::connect(&config, &group), Bucket::key(&group))
}

fn connection() -> Connection {
    redis::Client::open(services::env("REDIS_URL")).unwrap().get_connection().unwrap()
}

fn now_us(redis: &mut Connection) -> i64 {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query(redis).unwrap();
    seconds * 1_000_000 + micros
}

fn stored(redis: &mut Connection, key: &str) -> i64 {
    redis::cmd("GET").arg(key).query::<String>(redis).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_script_does_what_the_arithmetic_says() {
    let mut redis = connection();
    let far_ahead = Ask { ahead_us: 3_600_000_000, ..ASK };
    let slow = Ask { cost_us: 60_000_000, horizon_us: 960_000_000, ..ASK };
    let (some_ahead, done) = (Ask { ahead_us: 300_000, ..ASK }, Ask { ahead_us: -300_000, ..ASK });
    let odd = Ask { cost_us: 33_334, ..ASK };
    // Where the bucket stands, from now.
    let places = [
        None,
        Some(-3_600_000_000),
        Some(-60_000),
        Some(-1),
        Some(200_000),
        Some(500_000),
        Some(900_000),
        Some(3_600_000_000),
        Some(200_000_000),
    ];
    for ask in [ASK, far_ahead, slow, some_ahead, done, odd] {
        for place in places {
            let (bucket, key) = bucket(&services::env("REDIS_URL"));
            let begun = now_us(&mut redis);
            let before = place.map(|from_now| begun + from_now);
            if let Some(before) = before {
                redis::cmd("SET").arg(&key).arg(before).query::<()>(&mut redis).unwrap();
            }
            let asked = now_us(&mut redis);
            let wait_us = i64::try_from(bucket.reserve(&ask).await.unwrap().as_micros()).unwrap();
            let answered = now_us(&mut redis);
            let after = stored(&mut redis, &key);
            // The script ran in between: at which moment is not known, so the arithmetic is done for both ends.
            let ((begins_low, after_low), (begins_high, after_high)) =
                (ask.slot(before, asked), ask.slot(before, answered));
            let case = format!("{ask:?}, {place:?}: wait {wait_us}, after {}", after - asked);
            let (low, high) = (after_low.min(after_high), after_low.max(after_high));
            assert!((low..=high).contains(&after), "{case}, expected {} to {}", low - asked, high - asked);
            let waits = [begins_low - asked, begins_low - answered, begins_high - asked, begins_high - answered];
            let (low, high) = (waits.iter().min().unwrap().max(&0), waits.iter().max().unwrap().max(&0));
            assert!((low..=high).contains(&&wait_us), "{case}, expected {low} to {high}");
        }
    }
}

#[tokio::test]
async fn reservations_of_many_at_once_are_one_behind_the_other() {
    let (bucket, key) = bucket(&services::env("REDIS_URL"));
    let ask = Ask { horizon_us: 60_000_000, ..ASK };
    let begun = Instant::now();
    let asked = (0..64).map(|_| {
        let bucket = bucket.clone();
        tokio::spawn(async move { bucket.reserve(&ask).await.unwrap() })
    });
    let mut ends = Vec::new();
    for wait in futures_util::future::join_all(asked).await {
        ends.push(wait.unwrap());
    }
    let took = begun.elapsed();
    ends.sort();
    // 64 reservations of 50 ms, the first of which had an allowance.
    let last = Duration::from_millis(62 * 50);
    assert!(ends[63] <= last && ends[63] + took >= last, "{ends:?} in {took:?}");
    let mut redis = connection();
    let kept_ms: i64 = redis::cmd("PTTL").arg(&key).query(&mut redis).unwrap();
    assert!((1_000..=6_000).contains(&kept_ms), "{kept_ms}");
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_a_refusal_and_garbage_is_healed() {
    let mut redis = connection();
    let (other, key) = bucket(&services::env("REDIS_URL"));
    redis::cmd("SADD").arg(&key).arg("x").query::<()>(&mut redis).unwrap();
    let refused = other.reserve(&ASK).await.unwrap_err();
    assert!(refused.contains("WRONGTYPE"), "{refused}");
    assert!(other.outage().is_some_and(|(_, error)| error.contains("WRONGTYPE")));
    redis::cmd("DEL").arg(&key).query::<()>(&mut redis).unwrap();
    let begun = Instant::now();
    while other.reserve(&ASK).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(15), "never tried again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(other.outage().is_none());
    let (garbage, key) = bucket(&services::env("REDIS_URL"));
    redis::cmd("SET").arg(&key).arg("x").query::<()>(&mut redis).unwrap();
    assert_eq!(garbage.reserve(&ASK).await, Ok(Duration::ZERO));
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_told_and_then_left_alone() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (bucket, _) = bucket(&format!("redis://127.0.0.1:{port}"));
    assert!(bucket.reserve(&ASK).await.is_err());
    let begun = Instant::now();
    for _ in 0..100 {
        let why = bucket.reserve(&ASK).await.unwrap_err();
        assert!(!why.is_empty());
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}
