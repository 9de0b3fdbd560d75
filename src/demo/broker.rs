//! Where the demo's topic is: librdkafka's broker in memory, or a real one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::Kafka;
use crate::kafka::Probe;

/// How long a real broker may take to make or remove a topic.
const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PARTITIONS: usize = 8;

/// A broker with the demo's topics on it.
pub(super) enum Broker {
    Memory(MockCluster<'static, DefaultProducerContext>),
    Real { brokers: Vec<String>, topics: Vec<String> },
}

impl Broker {
    pub(super) fn in_memory(topics: &[String]) -> Result<Self> {
        let cluster = MockCluster::new(1).context("start the broker in memory")?;
        for topic in topics {
            cluster.create_topic(topic, partitions(), 1).context("make a topic in memory")?;
        }
        Ok(Self::Memory(cluster))
    }

    pub(super) async fn real(brokers: Vec<String>, topics: &[String]) -> Result<Self> {
        let (kafka, asked) = (Kafka { brokers: brokers.clone(), ..Kafka::default() }, topics.to_vec());
        let ask = move || anyhow::Ok(Probe::new(&kafka)?.await_partitions(&asked, super::ANSWERED)?);
        tokio::task::spawn_blocking(ask).await??;
        let new: Vec<NewTopic<'_>> =
            topics.iter().map(|topic| NewTopic::new(topic, partitions(), TopicReplication::Fixed(-1))).collect();
        let made = admin(&brokers)?.create_topics(&new, &options()).await;
        let made = made.with_context(|| format!("make the demo's topics on {}", brokers.join(",")))?;
        for result in made {
            result.map_err(|(topic, code)| anyhow::anyhow!("make topic {topic}: {code}"))?;
        }
        Ok(Self::Real { brokers, topics: topics.to_vec() })
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Memory(cluster) => vec![cluster.bootstrap_servers()],
            Self::Real { brokers, .. } => brokers.clone(),
        }
    }

    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Removes the topics from a real broker; the one in memory ends with the process.
    pub(super) async fn remove(self) -> Result<()> {
        if let Self::Real { brokers, topics } = self {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            admin(&brokers)?.delete_topics(&names, &options()).await.context("remove the demo's topics")?;
        }
        Ok(())
    }
}

fn partitions() -> i32 {
    i32::try_from(PARTITIONS).unwrap_or(i32::MAX)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn admin(brokers: &[String]) -> Result<AdminClient<DefaultClientContext>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers.join(","));
    client.create().context("start the admin client")
}
