//! The cluster and how weir speaks to it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize, Serializer};

use super::secret::{HIDDEN, is_secret_name};

/// The Kafka cluster, for all pools and commands.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Addresses to begin with, as `host:port`.
    pub brokers: Vec<String>,
    /// After how long without a heartbeat a worker is taken to be dead.
    pub session_timeout_ms: u64,
    /// How often a worker says that it lives; also how soon it hears of a rebalance.
    pub heartbeat_interval_ms: u64,
    /// After how long without a poll a worker gives up its partitions.
    pub max_poll_interval_ms: u64,
    /// How soon new partitions and topics are noticed.
    pub metadata_refresh_ms: u64,
    /// How often positions are committed to Kafka, for lag tools; the truth is in the database.
    #[serde(with = "super::duration")]
    pub commit_interval: Duration,
    /// Any further librdkafka setting. '_' in a name stands for '.', since a key cannot contain a dot.
    #[serde(serialize_with = "serialize_options")]
    pub options: BTreeMap<String, String>,
    /// The broker is librdkafka's mock cluster, which has ways of its own.
    #[serde(skip)]
    pub(crate) in_memory: bool,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            session_timeout_ms: 15_000,
            heartbeat_interval_ms: 500,
            max_poll_interval_ms: 60_000,
            metadata_refresh_ms: 30_000,
            commit_interval: Duration::from_secs(1),
            options: BTreeMap::new(),
            in_memory: false,
        }
    }
}

impl Kafka {
    /// What every client of the cluster begins with. Topics are never made by asking for them.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "weir")
            .set("allow.auto.create.topics", "false");
        for (name, value) in &self.options {
            client.set(name.replace('_', "."), value);
        }
        client
    }
}

fn shown(options: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let show = |name: &str, value| if is_secret_name(name) { HIDDEN } else { value };
    options.iter().map(|(name, value)| (name.as_str(), show(name, value.as_str()))).collect()
}

fn serialize_options<S: Serializer>(options: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    shown(options).serialize(serializer)
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("heartbeat_interval_ms", &self.heartbeat_interval_ms)
            .field("max_poll_interval_ms", &self.max_poll_interval_ms)
            .field("metadata_refresh_ms", &self.metadata_refresh_ms)
            .field("commit_interval", &self.commit_interval)
            .field("options", &shown(&self.options))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_client_and_their_secrets_stay_out_of_text() {
        let options = [("sasl_password", "hunter2"), ("sasl_username", "weir")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let kafka = Kafka { options, ..Kafka::default() };
        assert_eq!(kafka.client().get("sasl.password"), Some("hunter2"));
        for text in [format!("{kafka:?}"), serde_json::to_string(&kafka).unwrap()] {
            assert!(text.contains("***") && text.contains("weir") && !text.contains("hunter2"), "{text}");
        }
    }
}
