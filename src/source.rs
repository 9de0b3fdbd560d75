//! The consumer. librdkafka's callbacks become one enum, [`SourceEvent`], which the pool handles in one loop.
//!
//! Promised to the pool: a partition's queue is split before its assignment takes effect and never while an
//! older queue of it lives; a revoked partition's last watermark is committed, and the partition given up, only
//! after the pool has answered that its task is joined; a lost one is given up without a commit. What breaks it:
//! answering before the task is joined.
//!
//! How each rule of librdkafka's split queues is kept, and which test holds it, is in ARCHITECTURE.md.

mod answers;
mod client;
mod commit;
mod context;
mod joining;
mod log;
mod member;
mod native;
mod probes;
mod queue;
mod watermarks;

use answers::Answers;
pub(crate) use client::Client;
use commit::{Committer, Committing};
use context::Context;
pub(crate) use log::{First, LogError, LogReader, PartitionLog, Span, committed};
use member::Member;
pub use native::{TopicIdError, topic_id};
pub(crate) use queue::{Fetched, Fetching, Limits, Queue};
pub use watermarks::Watermarks;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{self, Arc};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message as _};
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::kafka::Prefetch;
use crate::metrics::PoolMetrics;

/// How long one poll of the main queue waits; also how soon a stop is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The bound of calls that ask the broker something.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened to the consumer.
pub(crate) enum SourceEvent {
    /// Partitions came; each with its queue, which nothing else reads.
    Assigned(Vec<Assigned>),
    /// Partitions go: join their tasks, then answer. Their watermarks are committed afterwards.
    Revoked(Vec<(String, i32)>, oneshot::Sender<()>),
    /// Partitions are gone: join their tasks, then answer. Nothing can be committed for them.
    Lost(Vec<(String, i32)>, oneshot::Sender<()>),
    /// The consumer cannot go on.
    Fatal(String),
    /// The consumer has left the group and is closed.
    Closed,
}

/// A partition that came.
pub(crate) struct Assigned {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) queue: Queue,
}

/// A running consumer, polled by a thread of its own.
pub(crate) struct Source {
    pub(crate) events: mpsc::Receiver<SourceEvent>,
    pub(crate) handle: SourceHandle,
}

/// What partition tasks need of the consumer.
#[derive(Clone)]
pub(crate) struct SourceHandle {
    pub(crate) client: Arc<dyn Client>,
    pub(crate) watermarks: Arc<Watermarks>,
    closing: Arc<AtomicBool>,
}

/// What a pool asks of its consumer.
pub(crate) struct Subscription<'a> {
    pub(crate) pool: &'a str,
    pub(crate) group: &'a str,
    pub(crate) kafka: &'a config::Kafka,
    pub(crate) config: &'a config::Pool,
    /// What it reads at first; none is there yet where a pattern matches nothing.
    pub(crate) topics: &'a [String],
    pub(crate) metrics: PoolMetrics,
    /// Called whenever the poll loop has moved.
    pub(crate) on_poll: Box<dyn Fn() + Send>,
}

fn client_config(subscription: &Subscription<'_>) -> ClientConfig {
    let Subscription { group, kafka, .. } = subscription;
    let mut client = kafka.client();
    client
        .set("group.id", *group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is reported, never jumped over.
        .set("auto.offset.reset", "error")
        // The log's end can lie above its last record (transaction markers, compaction); only this tells that it is reached.
        .set("enable.partition.eof", "true")
        .set("max.poll.interval.ms", kafka.max_poll_interval_ms.to_string())
        .set("topic.metadata.refresh.interval.ms", kafka.metadata_refresh_ms.to_string());
    member::configure(&mut client, kafka);
    for (name, value) in [
        ("fetch.queue.backoff.ms", "20"),
        ("socket.timeout.ms", "10000"),
        // Other requests to a broker wait behind its open fetch, a takeover's among them.
        // The mock cluster answers an empty fetch only after the whole wait.
        ("fetch.wait.max.ms", if kafka.in_memory { "10" } else { "100" }),
    ] {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    }
    client
}

impl Source {
    /// Subscribes, and starts polling.
    ///
    /// # Errors
    /// librdkafka refuses a setting.
    pub(crate) fn start(subscription: Subscription<'_>, partitions: usize) -> Result<Self, KafkaError> {
        let mut client = client_config(&subscription);
        let config::Pool { queue_bytes, max_partition_fetch_bytes, .. } = *subscription.config;
        Prefetch { queue_bytes, fetch_bytes_max: max_partition_fetch_bytes }.share(partitions, &mut client);
        let (sender, events) = mpsc::channel(16);
        let watermarks = Arc::new(Watermarks::default());
        let member = Member::new(subscription.group, subscription.kafka);
        let is_static = member.is_static();
        let context = Context::new(member, sender.clone(), Arc::clone(&watermarks), subscription.metrics.clone());
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(client.create_with_context(context)?);
        consumer.context().attach(&consumer);
        let topics: Vec<&str> = subscription.topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            consumer.subscribe(&topics)?;
        }
        let closing = Arc::new(AtomicBool::new(false));
        let client = client::Kafka {
            consumer: Arc::clone(&consumer),
            watermarks: Arc::clone(&watermarks),
            // The mock cluster names a controller that it does not have; its only broker is 1.
            topic_id_broker: subscription.kafka.in_memory.then_some(1),
            probes: Arc::default(),
            topic_ids: Answers::default(),
        };
        let handle = SourceHandle { client: Arc::new(client), watermarks, closing };
        let committing = Committer::start(&subscription, &consumer, Arc::clone(&handle.watermarks))?;
        let on_poll = subscription.on_poll;
        let poller = Poller { consumer, handle: handle.clone(), sender, committing, on_poll, is_static };
        std::thread::Builder::new()
            .name(format!("poll-{}", subscription.pool))
            .spawn(move || poller.run())
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start the poll thread: {error}")))?;
        Ok(Self { events, handle })
    }
}

impl SourceHandle {
    #[cfg(test)]
    pub(crate) fn simulated(client: Arc<dyn Client>) -> Self {
        Self { client, watermarks: Arc::default(), closing: Arc::default() }
    }

    /// Leaves the group: every partition is revoked, then [`SourceEvent::Closed`] comes.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// The thread that polls the main queue. Rebalance callbacks run on it and block.
struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    handle: SourceHandle,
    sender: mpsc::Sender<SourceEvent>,
    /// Dropped, it ends the commit thread.
    committing: Committing,
    on_poll: Box<dyn Fn() + Send>,
    is_static: bool,
}

impl Poller {
    fn run(self) {
        let consumer = &self.consumer;
        let mut leaving = false;
        loop {
            (self.on_poll)();
            match consumer.poll(POLL_TIMEOUT) {
                None => wake_member(consumer),
                Some(Ok(message)) => {
                    // Cannot happen while queues are split before their assignment takes effect. Going on would pass
                    // over it.
                    let at = format!("{}/{}@{}", message.topic(), message.partition(), message.offset());
                    self.fatal(format!("a message of {at} came outside its partition's queue"));
                    break;
                }
                Some(Err(error)) => match consumer.client().fatal_error() {
                    Some((code, why)) => {
                        self.fatal(consumer.context().fatal(code, &why));
                        break;
                    }
                    None => consumer.context().note_error(&error, ""),
                },
            }
            if self.handle.closing.load(Ordering::Acquire) {
                if !leaving {
                    self.leave();
                    leaving = true;
                } else if consumer.assignment().is_ok_and(|assigned| assigned.count() == 0) {
                    break;
                }
            }
        }
        self.close();
    }

    /// Begins to give all partitions back. A static member stays one: to unsubscribe would tell the group that it goes, and
    /// its partitions would not wait for its return.
    fn leave(&self) {
        match self.is_static {
            true => self.consumer.context().give_back(&self.consumer),
            false => self.consumer.unsubscribe(),
        }
    }

    fn fatal(&self, message: String) {
        // The pool is gone when nobody receives, and then there is nobody to tell.
        drop(self.sender.blocking_send(SourceEvent::Fatal(message)));
    }

    /// Closing leaves the group, unless the member is a static one; it blocks, and happens when the last reference goes.
    fn close(self) {
        let Self { consumer, handle, sender, committing, .. } = self;
        drop((handle, committing));
        drop(consumer);
        drop(sender.blocking_send(SourceEvent::Closed));
    }
}

/// Has librdkafka look at the membership. Its main thread joins a group again no sooner than a second after it last did, and then
/// at whatever wakes it next; a member without partitions has nothing but its heartbeats for that, and what the others have
/// given up for it waits. Any question wakes it.
fn wake_member(consumer: &BaseConsumer<Context>) {
    drop(consumer.assignment());
}
