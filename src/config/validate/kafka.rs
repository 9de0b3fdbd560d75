//! The cluster's settings, and what `kafka.options` may not set.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::{at_most, positive};
use crate::config::Kafka;
use crate::config::secret::{HIDDEN, is_secret_name};
use crate::kafka::Listener;

/// Settings of librdkafka that weir governs, and what to use instead.
const GOVERNED: [(&str, &str); 18] = [
    ("group_id", "use `pools.<name>.group`"),
    ("enable_auto_commit", "weir commits what is in the database; leave it out"),
    ("enable_auto_offset_store", "weir commits what is in the database; leave it out"),
    ("auto_commit_enable", "weir commits what is in the database; leave it out"),
    ("auto_commit_interval_ms", "use `kafka.commit_interval`"),
    ("group_protocol", "weir uses the classic protocol; leave it out"),
    ("auto_offset_reset", "use `pools.<name>.start`"),
    ("partition_assignment_strategy", "weir needs cooperative-sticky; leave it out"),
    ("session_timeout_ms", "use `kafka.session_timeout_ms`"),
    ("heartbeat_interval_ms", "use `kafka.heartbeat_interval_ms`"),
    ("max_poll_interval_ms", "use `kafka.max_poll_interval_ms`"),
    ("bootstrap_servers", "use `kafka.brokers`"),
    ("metadata_broker_list", "use `kafka.brokers`"),
    ("fetch_message_max_bytes", "use `pools.<name>.max_partition_fetch_bytes`"),
    ("max_partition_fetch_bytes", "use `pools.<name>.max_partition_fetch_bytes`"),
    ("queued_max_messages_kbytes", "use `pools.<name>.queue_bytes`"),
    ("topic_metadata_refresh_interval_ms", "use `kafka.metadata_refresh_ms`"),
    ("allow_auto_create_topics", "weir never makes topics by asking for them; leave it out"),
];

pub(super) fn check(kafka: &Kafka, problems: &mut Vec<String>) {
    let Kafka { session_timeout_ms, heartbeat_interval_ms, max_poll_interval_ms, .. } = *kafka;
    if kafka.brokers.is_empty() || kafka.brokers.iter().any(String::is_empty) {
        problems.push("`kafka.brokers` needs addresses such as \"127.0.0.1:9092\"".to_owned());
    }
    for broker in kafka.brokers.iter().filter(|broker| !broker.is_empty() && !is_address(broker)) {
        problems.push(format!("`kafka.brokers`: found {broker:?}, expected an address such as \"127.0.0.1:9092\""));
    }
    // The upper ends are librdkafka's own.
    for (key, value, most) in [
        ("session_timeout_ms", session_timeout_ms, 3_600_000),
        ("heartbeat_interval_ms", heartbeat_interval_ms, 3_600_000),
        ("max_poll_interval_ms", max_poll_interval_ms, 86_400_000),
        ("metadata_refresh_ms", kafka.metadata_refresh_ms, 3_600_000),
    ] {
        positive(&format!("kafka.{key}"), Duration::from_millis(value), problems);
        at_most(&format!("kafka.{key}"), value, most, problems);
    }
    positive("kafka.commit_interval", kafka.commit_interval, problems);
    if heartbeat_interval_ms >= session_timeout_ms.div_ceil(3) {
        problems.push(format!(
            "`kafka.heartbeat_interval_ms` is {heartbeat_interval_ms}: it must be less than a third of \
             `kafka.session_timeout_ms` ({session_timeout_ms}), so that two lost heartbeats do no harm"
        ));
    }
    if max_poll_interval_ms < session_timeout_ms {
        problems.push(format!(
            "`kafka.max_poll_interval_ms` is {max_poll_interval_ms}: it must not be less than \
             `kafka.session_timeout_ms` ({session_timeout_ms})"
        ));
    }
    for name in kafka.options.keys() {
        let plain = name.to_ascii_lowercase().replace('.', "_");
        if let Some((_, instead)) = GOVERNED.iter().find(|(governed, _)| *governed == plain) {
            problems.push(format!("`kafka.options.{name}` cannot be set: {instead}"));
        }
    }
    problems.extend(refused_option(kafka));
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`, as librdkafka takes them.
fn is_address(broker: &str) -> bool {
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !broker.ends_with(']') => (host, Some(port)),
        _ => (broker, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    !host.is_empty() && !broker.contains(|c: char| c.is_whitespace() || c == ',') && port.is_none_or(is_port)
}

/// librdkafka knows its settings: it is asked without a connection, and names the first that it refuses.
fn refused_option(kafka: &Kafka) -> Option<String> {
    let error = match kafka.options.is_empty() {
        true => kafka.client().create_native_config().err(),
        // Some refusals come only from a client, such as a file that is not there. It connects to nothing.
        false => kafka.client().create_with_context::<_, BaseConsumer<_>>(Listener::default()).err(),
    };
    let (why, setting, value) = match error? {
        KafkaError::ClientConfig(_, why, setting, value) => (why, setting, value),
        KafkaError::ClientCreation(why) => {
            return Some(format!("`kafka.options`: librdkafka cannot use them together: {why}"));
        }
        _ => return None,
    };
    let name = kafka.options.keys().find(|name| name.replace('_', ".") == setting)?;
    let why = if is_secret_name(name) && !value.is_empty() { why.replace(&value, HIDDEN) } else { why };
    Some(format!("`kafka.options.{name}`: librdkafka refuses {setting}: {why}"))
}
