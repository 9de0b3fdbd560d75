//! Events with repeats and poison, from a seed, and what must become of each.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use uuid::Uuid;
use weir::publish::{Handle, Outgoing, PublishOptions, Publisher, Receipt};

use super::world::{World, kafka};

/// 2026-01-01T00:00:00Z.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) events: u64,
    pub(crate) keys: u64,
    /// Of 1,000 events, how many are repeats of earlier ones, half of them on another partition.
    pub(crate) repeats_per_mille: u64,
    /// Of 1,000 events, how many can never succeed, half malformed and half refused by the database.
    pub(crate) poison_per_mille: u64,
    /// At most so many a second.
    pub(crate) per_second: u64,
}

impl Plan {
    pub(crate) fn new(seed: u64, events: u64) -> Self {
        Self { seed, events, keys: 1_000, repeats_per_mille: 50, poison_per_mille: 1, per_second: u64::MAX }
    }
}

/// What was sent and acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Ids that must have a row.
    pub(crate) live: HashSet<String>,
    /// Ids that must have a dead row.
    pub(crate) dead: HashSet<String>,
    /// All records, repeats included.
    pub(crate) records: u64,
    pub(crate) repeats: u64,
    /// Ids that were also sent to another partition, where they may come first.
    pub(crate) elsewhere: HashSet<String>,
}

struct Sent {
    id: String,
    key: String,
    value: String,
}

/// Sends the plan's events and waits until all are acknowledged.
pub(crate) async fn publish(world: &World, plan: Plan) -> Published {
    let mut sender = Sender::new(world, plan);
    let begun = Instant::now();
    for n in 0..plan.events {
        sender.send_one().await;
        if n % 500 == 499 {
            let due = Duration::from_secs_f64(n as f64 / plan.per_second as f64);
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }
    sender.finish().await
}

struct Sender<'a> {
    world: &'a World,
    plan: Plan,
    /// Sends by key, as users of weir do.
    publisher: Publisher,
    /// Sends to a partition of the test's choice, which no user of weir can.
    elsewhere: FutureProducer,
    rng: Rng,
    sequences: HashMap<u64, u64>,
    recent: Vec<Sent>,
    waiting: Vec<Handle>,
    waiting_elsewhere: Vec<DeliveryFuture>,
    malformed: Vec<Handle>,
    published: Published,
}

impl<'a> Sender<'a> {
    fn new(world: &'a World, plan: Plan) -> Self {
        Self {
            world,
            plan,
            publisher: Publisher::new(kafka(), PublishOptions::default()).unwrap(),
            elsewhere: kafka().set("linger.ms", "10").create().unwrap(),
            rng: Rng::with_seed(plan.seed),
            sequences: HashMap::new(),
            recent: Vec::new(),
            waiting: Vec::new(),
            waiting_elsewhere: Vec::new(),
            malformed: Vec::new(),
            published: Published::default(),
        }
    }

    async fn send_one(&mut self) {
        let roll = self.rng.u64(0..1_000);
        if roll < self.plan.poison_per_mille {
            self.send_poison().await;
        } else if roll < self.plan.poison_per_mille + self.plan.repeats_per_mille && !self.recent.is_empty() {
            self.send_repeat().await;
        } else {
            let sent = self.fresh("hello");
            self.published.live.insert(sent.id.clone());
            self.send(&sent, None).await;
            self.remember(sent);
        }
    }

    fn fresh(&mut self, content: &str) -> Sent {
        let key = self.rng.u64(0..self.plan.keys);
        let sequence = self.sequences.entry(key).or_default();
        *sequence += 1;
        // A later run of a test has a higher seed, and its events are younger.
        let at = EPOCH_MS + (self.plan.seed * 1_000_000 + *sequence) * 137;
        let id = Uuid::from_u128(self.rng.u128(..)).to_string();
        let (from, to) = (key, 1_000_000);
        let value = format!(
            r#"{{"type":"new_message","message":{{"message_id":"{id}","from":{from},"to":"{to}","content":"{content} number {sequence} of {key}","message_type":1,"timestamp":{at}}},"timestamp":{at}}}"#
        );
        let key = weir::payload::conversation_of_two(&from.to_string(), &to.to_string());
        Sent { id, key, value }
    }

    fn remember(&mut self, sent: Sent) {
        if self.recent.len() < 2_000 {
            self.recent.push(sent);
        } else {
            let at = self.rng.usize(0..self.recent.len());
            self.recent[at] = sent;
        }
    }

    async fn send_repeat(&mut self) {
        let at = self.rng.usize(0..self.recent.len());
        let sent = self.recent.swap_remove(at);
        let elsewhere = self.rng.bool().then(|| self.rng.i32(0..self.world.partitions));
        self.published.repeats += 1;
        if elsewhere.is_some() {
            self.published.elsewhere.insert(sent.id.clone());
        }
        self.send(&sent, elsewhere).await;
    }

    async fn send_poison(&mut self) {
        if self.rng.bool() {
            let value =
                ["{\"type\":", "not json", "[1]", "{\"message\":{\"content\":\"\\ud800\"}}"][self.rng.usize(0..4)];
            let key = self.rng.u64(..).to_string();
            let handle = self.enqueue(&key, value).await;
            self.malformed.push(handle);
        } else {
            let mut sent = self.fresh("poison\\u0000");
            if self.rng.bool() {
                sent.value =
                    sent.value.replace("\\u0000", "").replace("\"message_type\":1", "\"message_type\":3000000000");
            }
            self.published.dead.insert(sent.id.clone());
            self.send(&sent, None).await;
        }
    }

    async fn send(&mut self, sent: &Sent, partition: Option<i32>) {
        if let Some(partition) = partition {
            self.send_elsewhere(sent, partition).await;
        } else {
            let handle = self.enqueue(&sent.key, &sent.value).await;
            self.waiting.push(handle);
        }
        if self.waiting.len() >= 20_000 {
            self.settle().await;
        }
    }

    async fn enqueue(&mut self, key: &str, value: &str) -> Handle {
        self.published.records += 1;
        self.publisher.send(Outgoing::new(&self.world.topic, value.as_bytes()).key(key.as_bytes())).await.unwrap()
    }

    async fn send_elsewhere(&mut self, sent: &Sent, partition: i32) {
        self.published.records += 1;
        loop {
            let record = FutureRecord::to(&self.world.topic).key(&sent.key).payload(&sent.value).partition(partition);
            match self.elsewhere.send_result(record) {
                Ok(future) => return self.waiting_elsewhere.push(future),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Waits until what was sent is acknowledged: only that is promised anything.
    async fn settle(&mut self) {
        for handle in std::mem::take(&mut self.waiting) {
            handle.await.unwrap();
        }
        for future in std::mem::take(&mut self.waiting_elsewhere) {
            future.await.unwrap().unwrap();
        }
    }

    async fn finish(mut self) -> Published {
        self.settle().await;
        let topic_id = self.world.topic_id();
        for handle in self.malformed {
            let Receipt::Acknowledged { partition, offset } = handle.await.unwrap() else {
                panic!("the publisher acknowledges by default");
            };
            self.published.dead.insert(format!("{topic_id}:{partition}:{offset}"));
        }
        self.published
    }
}
