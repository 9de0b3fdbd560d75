//! Topics of a real Kafka that last as long as a test.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

/// How long anything may take that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of a client of the real broker.
pub(crate) fn client() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", super::services::env("KAFKA_BROKERS"));
    client
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A topic of one test, deleted at its end.
pub(crate) struct Topic(pub(crate) String);

impl Topic {
    /// A topic with the broker's settings.
    pub(crate) fn new(partitions: i32) -> Self {
        Self::with_settings(partitions, &[])
    }

    /// A topic with settings of its own.
    pub(crate) fn with_settings(partitions: i32, settings: &[(&str, &str)]) -> Self {
        Self::make(format!("test-{}", uuid::Uuid::new_v4()), partitions, settings)
    }

    /// A topic that a test has a name for.
    pub(crate) fn named(name: &str, partitions: i32) -> Self {
        Self::make(name.to_owned(), partitions, &[])
    }

    fn make(name: String, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let made = Self::on_a_thread(|| {
            let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
            let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
            let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
            let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
            block_on(admin.create_topics([&topic], &options)).unwrap()
        });
        made.into_iter().for_each(|made| drop(made.unwrap()));
        Self(name)
    }

    /// Runs it outside of any runtime that the test may be in.
    fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// Everything on the topic, by partition and offset.
    pub(crate) fn read(&self) -> Vec<OwnedMessage> {
        let mut config = client();
        config.set("group.id", "not-joined").set("fetch.wait.max.ms", "50");
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.0), PATIENCE).unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut expected = 0;
        for partition in metadata.topics()[0].partitions() {
            let id = partition.id();
            let (low, high) = consumer.fetch_watermarks(&self.0, id, PATIENCE).unwrap();
            expected += high - low;
            assignment.add_partition_offset(&self.0, id, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        while (events.len() as i64) < expected {
            assert!(Instant::now() < deadline, "{} of {expected}", events.len());
            if let Some(event) = consumer.poll(Duration::from_millis(100)) {
                events.push(event.unwrap().detach());
            }
        }
        events.sort_by_key(|event| (event.partition(), event.offset()));
        events
    }

    /// The values as text, in the order of [`Topic::read`].
    pub(crate) fn values(&self) -> Vec<String> {
        let text = |event: &OwnedMessage| String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
        self.read().iter().map(text).collect()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let name = self.0.clone();
        let deleted = std::thread::spawn(move || {
            let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
            let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
            let deleted = block_on(admin.delete_topics(&[&name], &options)).unwrap();
            deleted.into_iter().for_each(|one| drop(one.unwrap()));
        });
        let is_deleted = deleted.join().is_ok();
        assert!(is_deleted || std::thread::panicking(), "topic {} is left behind", self.0);
    }
}
