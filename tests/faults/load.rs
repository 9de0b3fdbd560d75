//! Publishes steadily, straight to the broker, and keeps book of what was acknowledged: only that is promised anything.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use uuid::Uuid;

use super::events::{Fate, Kind, Made, make};

/// How the events are mixed.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    pub(crate) per_second: u64,
    pub(crate) keys: u64,
    /// The first key; a key stays on its partition, however many there are later.
    pub(crate) keys_from: u64,
    /// Of 1,000 events, how many are repeats of earlier ones, half of them on another partition.
    pub(crate) repeats_per_mille: u64,
    /// Of 1,000 events, how many are of one of these kinds.
    pub(crate) odd_per_mille: u64,
    pub(crate) odd: Vec<Kind>,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            per_second: 2_500,
            keys: 400,
            keys_from: 0,
            repeats_per_mille: 50,
            odd_per_mille: 2,
            odd: vec![Kind::CutOffJson, Kind::NotJson, Kind::Nul, Kind::Overflow],
        }
    }
}

/// Where copies of an id were acknowledged.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) kind: Kind,
    pub(crate) at: Vec<(i32, i64)>,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) live: HashMap<String, Acked>,
    pub(crate) dead: HashMap<String, Acked>,
    /// Ids that were also sent to another partition, where they may come first.
    pub(crate) elsewhere: HashSet<String>,
    /// Ids whose records were given up: they may be there or not.
    pub(crate) unsure: HashSet<String>,
    pub(crate) records: u64,
    pub(crate) repeats: u64,
    pub(crate) tombstones: u64,
    /// The offset behind the last acknowledged record of each partition.
    pub(crate) ends: HashMap<i32, i64>,
}

impl Book {
    fn note(&mut self, topic_id: Uuid, sent: &Sent, partition: i32, offset: i64) {
        self.records += 1;
        let end = self.ends.entry(partition).or_default();
        *end = (*end).max(offset + 1);
        let (book, id) = match sent.kind.fate() {
            Fate::Live => (&mut self.live, sent.id.clone()),
            Fate::Dead => (&mut self.dead, sent.id.clone()),
            Fate::DeadByPosition => (&mut self.dead, format!("{topic_id}:{partition}:{offset}")),
            Fate::Passed => return self.tombstones += 1,
        };
        book.entry(id).or_insert(Acked { kind: sent.kind, at: Vec::new() }).at.push((partition, offset));
    }
}

struct Sent {
    id: String,
    kind: Kind,
}

struct Receipts {
    topic_id: Uuid,
    book: Arc<Mutex<Book>>,
}

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let mut book = self.book.lock().unwrap();
        match result {
            Ok(message) => book.note(self.topic_id, &sent, message.partition(), message.offset()),
            Err(_) => _ = book.unsure.insert(sent.id.clone()),
        }
    }
}

/// A load that goes on until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    publishing: tokio::task::JoinHandle<Result<()>>,
}

struct Shared {
    mix: Mix,
    /// Events to be sent at once beside the steady ones.
    burst: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    pub(crate) fn start(
        client: &ClientConfig,
        topic: &str,
        topic_id: Uuid,
        partitions: i32,
        rng: Rng,
        mix: Mix,
        book: Arc<Mutex<Book>>,
    ) -> Result<Self> {
        let mut client = client.clone();
        client.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "120000");
        client.set("reconnect.backoff.max.ms", "500").set("message.max.bytes", "3000000");
        client.set("topic.metadata.refresh.interval.ms", "1000");
        let producer = client.create_with_context(Receipts { topic_id, book: Arc::clone(&book) })?;
        let shared = Arc::new(Shared { mix, burst: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let first_sequence = book.lock().unwrap().records;
        let sender = Sender {
            topic: topic.to_owned(),
            partitions,
            shared: Arc::clone(&shared),
            producer,
            rng,
            first_sequence,
            sequences: HashMap::new(),
            recent: Vec::new(),
            book,
        };
        Ok(Self { shared, publishing: tokio::spawn(sender.run()) })
    }

    pub(crate) fn burst(&self, events: u64) {
        self.shared.burst.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn burst_left(&self) -> u64 {
        self.shared.burst.load(Ordering::Relaxed)
    }

    /// Stops, and waits until all is acknowledged or given up.
    pub(crate) async fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.publishing.await.context("the load ended early")?
    }
}

/// A usual event that may be sent again.
struct Recent {
    made: Made,
    home: i32,
}

struct Sender {
    topic: String,
    partitions: i32,
    shared: Arc<Shared>,
    producer: ThreadedProducer<Receipts>,
    rng: Rng,
    /// Above all that an earlier load of the same keys sent.
    first_sequence: u64,
    sequences: HashMap<u64, u64>,
    recent: Vec<Recent>,
    book: Arc<Mutex<Book>>,
}

impl Sender {
    async fn run(mut self) -> Result<()> {
        let (mut then, mut due) = (Instant::now(), 0.0);
        while !self.shared.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mix = self.shared.mix.clone();
            // What a stall of this machine held up is not sent in one go.
            due += mix.per_second as f64 * then.elapsed().as_secs_f64().min(0.5);
            then = Instant::now();
            let burst = self.shared.burst.load(Ordering::Relaxed).min(2_000);
            self.shared.burst.fetch_sub(burst, Ordering::Relaxed);
            for _ in 0..due as u64 + burst {
                self.send_one(&mix).await?;
            }
            due = due.fract();
        }
        let flushed = tokio::task::spawn_blocking(move || self.producer.flush(Duration::from_secs(60))).await?;
        flushed.context("the load's last events are not acknowledged")
    }

    async fn send_one(&mut self, mix: &Mix) -> Result<()> {
        let roll = self.rng.u64(0..1_000);
        if roll < mix.repeats_per_mille && !self.recent.is_empty() {
            let at = self.rng.usize(0..self.recent.len());
            let Recent { made, home } = self.recent.swap_remove(at);
            let to = if self.rng.bool() { self.rng.i32(0..self.partitions) } else { home };
            self.note_repeat(&made.id, to != home);
            return self.send(&made, to).await;
        }
        let is_odd = roll >= 1_000 - mix.odd_per_mille && !mix.odd.is_empty();
        let kind = if is_odd { mix.odd[self.rng.usize(0..mix.odd.len())] } else { Kind::Usual };
        let key = mix.keys_from + self.rng.u64(0..mix.keys);
        let sequence = self.sequences.entry(key).or_insert(self.first_sequence);
        *sequence += 1;
        let sent_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let made = make(&mut self.rng, kind, key, *sequence, sent_ms);
        let home = i32::try_from(key % self.partitions.unsigned_abs() as u64)?;
        self.send(&made, home).await?;
        let made = Recent { made, home };
        if kind == Kind::Usual && self.recent.len() < 2_000 {
            self.recent.push(made);
        } else if kind == Kind::Usual {
            let at = self.rng.usize(0..self.recent.len());
            self.recent[at] = made;
        }
        Ok(())
    }

    fn note_repeat(&self, id: &str, is_elsewhere: bool) {
        let mut book = self.book.lock().unwrap();
        book.repeats += 1;
        if is_elsewhere {
            book.elsewhere.insert(id.to_owned());
        }
    }

    async fn send(&self, made: &Made, partition: i32) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut sent = Box::new(Sent { id: made.id.clone(), kind: made.kind });
        loop {
            let mut record = BaseRecord::<str, [u8], Box<Sent>>::with_opaque_to(&self.topic, sent).key(&made.key);
            record.payload = made.value.as_deref();
            record.partition = Some(partition);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => sent = back.delivery_opaque,
                Err((error, _)) => return Err(error).context("publish an event"),
            }
            ensure!(Instant::now() < deadline, "the broker takes no events");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
