//! The cluster's settings, and what `kafka.options` may not set.

use std::time::Duration;

use super::positive;
use crate::config::Kafka;

/// Settings of librdkafka that weir governs, and what to use instead.
const GOVERNED: [(&str, &str); 15] = [
    ("group_id", "use `pools.<name>.group`"),
    ("enable_auto_commit", "weir commits what is in the database; leave it out"),
    ("enable_auto_offset_store", "weir commits what is in the database; leave it out"),
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
    for (key, value) in [
        ("session_timeout_ms", session_timeout_ms),
        ("heartbeat_interval_ms", heartbeat_interval_ms),
        ("max_poll_interval_ms", max_poll_interval_ms),
        ("metadata_refresh_ms", kafka.metadata_refresh_ms),
    ] {
        positive(&format!("kafka.{key}"), Duration::from_millis(value), problems);
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
}
