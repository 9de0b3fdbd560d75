//! Where the demo's topics are: librdkafka's broker in memory, or a real one.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::Kafka;
use crate::kafka::Probe;

/// How long a real broker may take to make or remove a topic.
const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PARTITIONS: usize = 8;

/// A broker, and the demo's topics on it.
pub(super) enum Broker {
    Memory(MockCluster<'static, DefaultProducerContext>),
    Real {
        brokers: Vec<String>,
        /// Those that are there, or may be: an answer can be lost.
        topics: Vec<String>,
    },
}

impl Broker {
    pub(super) fn in_memory() -> Result<Self> {
        Ok(Self::Memory(MockCluster::new(1).context("start the broker in memory")?))
    }

    /// A real one, with no topic yet.
    pub(super) fn real(brokers: Vec<String>) -> Self {
        Self::Real { brokers, topics: Vec::new() }
    }

    /// Waits until a real broker answers a question about a topic.
    pub(super) async fn answers(brokers: &[String], topic: &str) -> Result<()> {
        let (kafka, asked) = (Kafka { brokers: brokers.to_vec(), ..Kafka::default() }, [topic.to_owned()]);
        let ask = move || anyhow::Ok(Probe::new(&kafka)?.await_partitions(&asked, super::ANSWERED)?);
        tokio::task::spawn_blocking(ask).await?.map(drop)
    }

    /// Makes the topics.
    pub(super) async fn make(&mut self, names: &[String]) -> Result<()> {
        let (brokers, topics) = match self {
            Self::Memory(cluster) => {
                let make =
                    |name: &String| cluster.create_topic(name, partitions(), 1).context("make a topic in memory");
                return names.iter().try_for_each(make);
            }
            Self::Real { brokers, topics } => (brokers, topics),
        };
        let new: Vec<NewTopic<'_>> =
            names.iter().map(|name| NewTopic::new(name, partitions(), TopicReplication::Fixed(-1))).collect();
        let admin = admin(brokers)?;
        topics.extend_from_slice(names);
        let made = admin.create_topics(&new, &options()).await;
        let made = made.with_context(|| format!("make the demo's topics on {}", brokers.join(",")))?;
        let is_refused = |code| code != RDKafkaErrorCode::RequestTimedOut;
        for (name, code) in made.iter().filter_map(|result| result.as_ref().err()) {
            topics.retain(|topic| topic != name || !is_refused(*code));
        }
        match made.into_iter().find_map(Result::err) {
            Some((name, code)) => bail!("make topic {name}: {code}"),
            None => Ok(()),
        }
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
        let Self::Real { brokers, topics } = self else { return Ok(()) };
        if topics.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let asked = admin(&brokers)?.delete_topics(&names, &options()).await;
        all_removed(&asked.with_context(|| format!("remove {}", names.join(", ")))?)
    }
}

/// Whether none is left, as a broker has answered for each.
fn all_removed(results: &[TopicResult]) -> Result<()> {
    let left = results.iter().filter_map(|result| match result {
        Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)) => None,
        Err((name, code)) => Some(format!("{name}: {code}")),
    });
    let left: Vec<String> = left.collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(anyhow!("{}", left.join("; "))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_not_be_removed_is_told() {
        let gone = Err(("b".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition));
        assert!(all_removed(&[Ok("a".to_owned()), gone.clone()]).is_ok());
        let refused = Err(("c".to_owned(), RDKafkaErrorCode::TopicAuthorizationFailed));
        let told = all_removed(&[Ok("a".to_owned()), gone, refused]).unwrap_err().to_string();
        assert!(told.starts_with("c: ") && told.contains("authorization"), "{told}");
    }
}
