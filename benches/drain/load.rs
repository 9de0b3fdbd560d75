//! The load: chat messages of about 330 bytes, lz4, keyed by conversation, of which some are much busier than others.

use std::time::Duration;

use anyhow::Result;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::services::Services;

/// How many partitions a topic has where nothing else is asked for.
pub(crate) const PARTITIONS: i32 = 8;
const CONVERSATIONS: u64 = 10_000;
/// How much busier: the n-th busiest has 1/n of the events of the busiest.
const ZIPF: f64 = 1.0;
/// The first event's time; each is a millisecond after the one before.
const BEGINNING_MS: u64 = 1_760_000_000_000;

/// A backlog to drain.
#[derive(Clone)]
pub(crate) struct Backlog {
    pub(crate) topic: String,
    pub(crate) events: u64,
    pub(crate) partitions: i32,
}

/// Fills a new topic.
pub(crate) async fn publish(services: &Services, events: u64, partitions: i32) -> Result<Backlog> {
    let topic = format!("{}-{events}-{partitions}", services.name);
    fill(services, topic, events, partitions, None).await
}

/// Fills a new topic with events that all have a trace, of which so many of 1,000 are sampled.
pub(crate) async fn publish_traced(services: &Services, events: u64, sampled_per_mille: u64) -> Result<Backlog> {
    let topic = format!("{}-{events}-traced-{sampled_per_mille}", services.name);
    fill(services, topic, events, PARTITIONS, Some(sampled_per_mille)).await
}

async fn fill(
    services: &Services,
    topic: String,
    events: u64,
    partitions: i32,
    sampled_per_mille: Option<u64>,
) -> Result<Backlog> {
    services.make_topic(&topic, partitions).await?;
    let producer: BaseProducer = services
        .client()
        .set("linger.ms", "20")
        .set("batch.num.messages", "10000")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    let conversations = Conversations::new();
    let mut rng = fastrand::Rng::with_seed(events);
    for n in 0..events {
        let (key, value) = message(n, conversations.pick(&mut rng));
        let context = sampled_per_mille.map(|sampled| {
            let (trace, span) = (rng.u128(1..), rng.u64(1..));
            let flags = u8::from(rng.u64(..1_000) < sampled);
            format!("00-{trace:032x}-{span:016x}-{flags:02x}")
        });
        let record = || {
            let record = BaseRecord::to(&topic).key(&key).payload(&value);
            let header = |value| OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(value) });
            BaseRecord { headers: context.as_ref().map(header), ..record }
        };
        while producer.send(record()).is_err() {
            producer.poll(Duration::from_millis(5));
        }
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(Backlog { topic, events, partitions })
}

/// Which conversation an event is of.
pub(crate) struct Conversations {
    /// The share of the events that is of this conversation or a busier one.
    up_to: Vec<f64>,
}

impl Conversations {
    pub(crate) fn new() -> Self {
        let shares = (1..=CONVERSATIONS).map(|rank| (rank as f64).powf(-ZIPF));
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = shares
            .map(|share| {
                sum += share;
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|share| *share /= sum);
        Self { up_to }
    }

    pub(crate) fn pick(&self, rng: &mut fastrand::Rng) -> u64 {
        let at = rng.f64();
        (self.up_to.partition_point(|share| *share <= at) as u64).min(CONVERSATIONS - 1)
    }
}

pub(crate) fn message(n: u64, conversation: u64) -> (String, String) {
    let (from, to) = (conversation, conversation + 1);
    let value = format!(
        "{{\"type\":\"new_message\",\"message\":{{\"message_id\":\"{}\",\"from\":{from},\"to\":{to},\"content\":\"message {n}: {}\",\
         \"message_type\":1,\"timestamp\":{}}},\"timestamp\":{}}}",
        uuid::Uuid::now_v7(),
        "some words of a usual length that people send each other in a day ".repeat(2),
        BEGINNING_MS + n,
        BEGINNING_MS + n
    );
    (weir::payload::conversation_of_two(&from.to_string(), &to.to_string()), value)
}
