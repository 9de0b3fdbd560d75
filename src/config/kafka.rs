//! The cluster and how weir speaks to it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize, Serializer};

use super::secret::{HIDDEN, is_secret_name};

/// After how long brokers take a member of the consumer protocol to be dead, unless they are set otherwise
/// (`group.consumer.session.timeout.ms`).
const BROKERS_SESSION_TIMEOUT: Duration = Duration::from_secs(45);
const SESSION_TIMEOUT_MS: u64 = 15_000;
const HEARTBEAT_INTERVAL_MS: u64 = 500;
/// How long a client waits at most before it tries a broker again. With librdkafka's own ten seconds, workers would stand
/// still for as long after an outage.
const RECONNECT_MS: &str = "1000";

/// How the members of a group agree on who has which partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The members share the partitions out themselves, by cooperative-sticky.
    #[default]
    Classic,
    /// The broker does (KIP-848; Kafka 4.0 or newer), and has the session's time-out and the heartbeat's interval.
    Consumer,
}

/// The Kafka cluster, for all pools and commands.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Addresses to begin with, as `host:port`.
    pub brokers: Vec<String>,
    /// How the workers of a group share its partitions out.
    pub group_protocol: GroupProtocol,
    /// A name that this process keeps when it is started again, by which the group gives it its partitions back without a
    /// rebalance. It is unique within a group; the consumers of several pools are of groups of their own, so one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_instance_id: Option<String>,
    /// After how long without a heartbeat a worker is taken to be dead; of the classic protocol alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timeout_ms: Option<u64>,
    /// How often a worker says that it lives; also how soon it hears of a rebalance. Of the classic protocol alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
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
            group_protocol: GroupProtocol::Classic,
            group_instance_id: None,
            session_timeout_ms: Some(SESSION_TIMEOUT_MS),
            heartbeat_interval_ms: Some(HEARTBEAT_INTERVAL_MS),
            max_poll_interval_ms: 60_000,
            metadata_refresh_ms: 30_000,
            commit_interval: Duration::from_secs(1),
            options: BTreeMap::new(),
            in_memory: false,
        }
    }
}

impl Kafka {
    /// What was left out gets its default, where the protocol has the setting at all.
    pub(super) fn fill_in(&mut self) {
        if self.group_protocol == GroupProtocol::Classic {
            self.session_timeout_ms.get_or_insert(SESSION_TIMEOUT_MS);
            self.heartbeat_interval_ms.get_or_insert(HEARTBEAT_INTERVAL_MS);
        }
    }

    /// After how long without a heartbeat a worker is taken to be dead, and whose setting that is. Under the consumer
    /// protocol it is what brokers have by default.
    pub(crate) fn session_timeout(&self) -> (Duration, &'static str) {
        match self.group_protocol {
            GroupProtocol::Classic => {
                let ms = self.session_timeout_ms.unwrap_or(SESSION_TIMEOUT_MS);
                (Duration::from_millis(ms), "kafka.session_timeout_ms")
            }
            GroupProtocol::Consumer => (BROKERS_SESSION_TIMEOUT, "the brokers' consumer.session.timeout.ms"),
        }
    }

    /// How often a worker says that it lives. `None`: the broker tells it.
    pub(crate) fn heartbeat_interval(&self) -> Option<Duration> {
        let ms = self.heartbeat_interval_ms.unwrap_or(HEARTBEAT_INTERVAL_MS);
        (self.group_protocol == GroupProtocol::Classic).then(|| Duration::from_millis(ms))
    }

    /// What every client of the cluster begins with. Topics are never made by asking for them.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "weir")
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.max.ms", RECONNECT_MS);
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
            .field("group_protocol", &self.group_protocol)
            .field("group_instance_id", &self.group_instance_id)
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
    fn a_client_tries_again_within_a_second_unless_options_say_otherwise() {
        let waits = |kafka: &Kafka| kafka.client().get("reconnect.backoff.max.ms").map(str::to_owned);
        assert_eq!(waits(&Kafka::default()).as_deref(), Some("1000"));
        let options = [("reconnect_backoff_max_ms".to_owned(), "3000".to_owned())].into();
        assert_eq!(waits(&Kafka { options, ..Kafka::default() }).as_deref(), Some("3000"));
    }

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
