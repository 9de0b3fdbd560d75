//! The publisher, against a real Kafka.

mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::kafka::{PATIENCE, Topic, client};
use rdkafka::message::{Headers, Message};
use weir::publish::{Delivery, Outgoing, PublishError, PublishOptions, Publisher, Receipt};

fn publisher() -> Publisher {
    Publisher::new(client(), PublishOptions::default()).unwrap()
}

fn buffered() -> Publisher {
    let options = PublishOptions { delivery: Delivery::Buffered, ..PublishOptions::default() };
    Publisher::new(client(), options).unwrap()
}

/// Java's murmur2, from its definition: 32 bits, seed 0x9747b28c, over little-endian words.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn java_partition(key: &[u8], partitions: u32) -> i32 {
    ((murmur2(key) & 0x7fff_ffff) % partitions) as i32
}

#[test]
fn this_files_murmur2_is_javas() {
    // The vectors of the Java client's own test.
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
    }
}

#[tokio::test]
async fn a_key_lands_on_the_partition_that_java_would_choose() {
    let topic = Topic::new(7);
    let publisher = publisher();
    let mut keys: Vec<Vec<u8>> =
        ["", "a", "1001:1002", "zoë", "日本語", "😀😀", "group-42"].map(|key| key.as_bytes().to_vec()).into();
    keys.extend((1..=64).map(|length| (0..length).map(|byte: u8| byte.wrapping_mul(31).wrapping_add(200)).collect()));
    let mut handles = Vec::new();
    for key in &keys {
        let event = Outgoing::new(&topic.0, key).key(key);
        handles.push(publisher.send(event).await.unwrap());
    }
    for (key, handle) in keys.iter().zip(handles) {
        let Receipt::Acknowledged { partition, .. } = handle.await.unwrap() else {
            panic!("acknowledged");
        };
        assert_eq!(partition, java_partition(key, 7), "{key:?}");
    }
    let events = topic.read();
    assert_eq!(events.len(), keys.len());
    for event in events {
        let key = event.key().expect("an empty key is a key, too");
        assert_eq!(event.payload(), Some(key));
        assert_eq!(event.partition(), java_partition(key, 7));
    }
}

#[tokio::test]
async fn events_without_a_key_are_spread() {
    let topic = Topic::new(4);
    let publisher = publisher();
    for _ in 0..20 {
        for _ in 0..100 {
            drop(publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap());
        }
        assert_eq!(publisher.flush(PATIENCE).await.total(), 0);
    }
    let mut per_partition = BTreeMap::<i32, usize>::new();
    for event in topic.read() {
        assert_eq!(event.key(), None);
        *per_partition.entry(event.partition()).or_default() += 1;
    }
    assert_eq!(per_partition.values().sum::<usize>(), 2000);
    assert!(per_partition.len() > 1, "{per_partition:?}");
}

#[tokio::test]
async fn acknowledged_events_of_a_key_get_offsets_in_order() {
    let topic = Topic::new(3);
    let publisher = publisher();
    let mut sent = Vec::new();
    for number in 0..3000_u32 {
        let key = format!("key-{}", number % 10);
        let value = number.to_string();
        let event = Outgoing::new(&topic.0, value.as_bytes()).key(key.as_bytes());
        sent.push((number, publisher.send(event).await.unwrap()));
    }
    let mut places = BTreeMap::new();
    for (number, handle) in sent {
        let Receipt::Acknowledged { partition, offset } = handle.await.unwrap() else {
            panic!("acknowledged");
        };
        places.insert((partition, offset), number.to_string());
    }
    let found: BTreeMap<_, _> = topic
        .read()
        .iter()
        .map(|event| {
            let value = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
            ((event.partition(), event.offset()), value)
        })
        .collect();
    assert_eq!(found, places, "each stands where its receipt says, once");
    let mut last = BTreeMap::new();
    for number in places.values().map(|value| value.parse::<u32>().unwrap()) {
        let before = last.insert(number % 10, number);
        assert!(before < Some(number), "{number} after {before:?}");
    }
    assert_eq!(last.len(), 10);
}

#[tokio::test]
async fn a_single_event_leaves_without_others_following() {
    let topic = Topic::new(1);
    let publisher = publisher();
    publisher.await_topic(&topic.0, PATIENCE).await.unwrap();
    let warm = publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap();
    warm.await.unwrap();
    let began = Instant::now();
    let handle = publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap();
    handle.await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(9), "it lingers: {took:?}");
    assert!(took < Duration::from_secs(1), "not for long: {took:?}");
}

#[tokio::test]
async fn a_batch_of_a_hundred_leaves_without_lingering() {
    let topic = Topic::new(1);
    let mut client = client();
    client.set("linger.ms", "60000");
    let publisher = Publisher::new(client, PublishOptions::default()).unwrap();
    publisher.await_topic(&topic.0, PATIENCE).await.unwrap();
    let mut handles = Vec::new();
    for _ in 0..99 {
        handles.push(publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap());
    }
    let first = handles.remove(0);
    tokio::pin!(first);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut first).await;
    assert!(early.is_err(), "99 events wait for the hundredth");
    handles.push(publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap());
    let all = async {
        first.await.unwrap();
        for handle in handles {
            handle.await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("sent at once");
}

#[tokio::test]
async fn buffered_events_arrive_and_are_not_waited_for() {
    let topic = Topic::new(2);
    let publisher = buffered();
    for number in 0..1000 {
        let value = format!("{{\"n\":{number}}}");
        let handle = publisher.send(Outgoing::new(&topic.0, value.as_bytes())).await.unwrap();
        assert_eq!(handle.await.unwrap(), Receipt::Buffered);
    }
    assert_eq!(publisher.flush(PATIENCE).await.total(), 0);
    assert_eq!(publisher.in_flight_events(), 0);
    assert_eq!(topic.values().len(), 1000);
}

#[tokio::test]
async fn what_buffering_lost_is_counted_once() {
    let publisher = buffered();
    for _ in 0..5 {
        drop(publisher.send(Outgoing::new("no-such-topic", b"{}")).await.unwrap());
    }
    let left = publisher.flush(PATIENCE).await;
    assert_eq!((left.failed, left.pending), (5, 0));
    let error = left.first_error.unwrap();
    assert!(matches!(error, PublishError::UnknownTopic { .. }), "{error}");
    assert_eq!(publisher.flush(PATIENCE).await.total(), 0);
}

#[tokio::test]
async fn an_unknown_topic_is_named_and_not_made() {
    let publisher = publisher();
    let name = format!("missing-{}", uuid::Uuid::new_v4());
    let error = publisher.await_topic(&name, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    let sent = async { publisher.send(Outgoing::new(&name, b"{}")).await?.await };
    let error = sent.await.unwrap_err();
    assert!(matches!(error, PublishError::UnknownTopic { .. }), "{error}");
    let again = publisher.await_topic(&name, PATIENCE).await.unwrap_err();
    assert!(matches!(again, PublishError::UnknownTopic { .. }), "{again}");
}

#[tokio::test]
async fn headers_time_and_tombstones_arrive() {
    let topic = Topic::new(1);
    let publisher = publisher();
    let headers: &[(&str, &[u8])] = &[("ce_id", b"id-1"), ("weir-id", b""), ("ce_id", b"\xff")];
    let event = Outgoing::new(&topic.0, b"{}").headers(headers).timestamp_ms(1_700_000_000_123);
    drop(publisher.send(event).await.unwrap());
    drop(publisher.send(Outgoing::tombstone(&topic.0).key(b"k")).await.unwrap());
    assert_eq!(publisher.flush(PATIENCE).await.total(), 0);
    let events = topic.read();
    let found: Vec<_> =
        events[0].headers().unwrap().iter().map(|header| (header.key, header.value.unwrap_or_default())).collect();
    assert_eq!(found, headers);
    assert_eq!(events[0].timestamp().to_millis(), Some(1_700_000_000_123));
    assert_eq!((events[1].key(), events[1].payload()), (Some(&b"k"[..]), None));
}

#[tokio::test]
async fn a_batch_that_the_topic_finds_too_large_is_refused_by_name() {
    let topic = Topic::with_settings(1, &[("max.message.bytes", "10000")]);
    let publisher = publisher();
    let value: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8 ^ (n >> 8) as u8).collect();
    let mut client = client();
    client.set("compression.type", "none");
    let uncompressed = Publisher::new(client, PublishOptions::default()).unwrap();
    let error = uncompressed.send(Outgoing::new(&topic.0, &value)).await.unwrap().await.unwrap_err();
    assert!(matches!(error, PublishError::BatchTooLarge { size_bytes: 50_000, .. }), "{error}");
    publisher.send(Outgoing::new(&topic.0, b"{}")).await.unwrap().await.unwrap();
}
