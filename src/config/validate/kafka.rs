//! The cluster's settings, and what `kafka.options` may not set.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::{at_most, positive};
use crate::config::secret::{HIDDEN, is_secret_name};
use crate::config::{GroupProtocol, Kafka};
use crate::kafka::Listener;

/// Settings of librdkafka that weir governs, and what to use instead.
const GOVERNED: [(&str, &str); 20] = [
    ("group_id", "use `pools.<name>.group`"),
    ("enable_auto_commit", "weir commits what is in the database; leave it out"),
    ("enable_auto_offset_store", "weir commits what is in the database; leave it out"),
    ("auto_commit_enable", "weir commits what is in the database; leave it out"),
    ("auto_commit_interval_ms", "use `kafka.commit_interval`"),
    ("group_protocol", "use `kafka.group_protocol`"),
    ("group_instance_id", "use `kafka.group_instance_id`"),
    ("group_remote_assignor", "weir leaves the assignor to the brokers; leave it out"),
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

/// What only the classic protocol has, and where the consumer protocol has it.
const OF_CLASSIC: [(&str, &str); 4] = [
    (
        "session_timeout_ms",
        "leave it out, and set consumer.session.timeout.ms of the group, or the brokers' group.consumer.session.timeout.ms",
    ),
    (
        "heartbeat_interval_ms",
        "leave it out, and set consumer.heartbeat.interval.ms of the group, or the brokers' group.consumer.heartbeat.interval.ms",
    ),
    (
        "partition_assignment_strategy",
        "leave it out; the brokers share the partitions out, by group.consumer.assignors",
    ),
    ("group_protocol_type", "leave it out; the protocol has no types of groups"),
];
/// The longest instance id that brokers take.
const INSTANCE_ID_MAX: usize = 249;

pub(super) fn check(kafka: &Kafka, problems: &mut Vec<String>) {
    if kafka.brokers.is_empty() || kafka.brokers.iter().any(String::is_empty) {
        problems.push("`kafka.brokers` needs addresses such as \"127.0.0.1:9092\"".to_owned());
    }
    for broker in kafka.brokers.iter().filter(|broker| !broker.is_empty() && !is_address(broker)) {
        problems.push(format!("`kafka.brokers`: found {broker:?}, expected an address such as \"127.0.0.1:9092\""));
    }
    // The upper ends are librdkafka's own.
    for (key, value, most) in [
        ("session_timeout_ms", kafka.session_timeout_ms, 3_600_000),
        ("heartbeat_interval_ms", kafka.heartbeat_interval_ms, 3_600_000),
        ("max_poll_interval_ms", Some(kafka.max_poll_interval_ms), 86_400_000),
        ("metadata_refresh_ms", Some(kafka.metadata_refresh_ms), 3_600_000),
    ] {
        let Some(value) = value else { continue };
        positive(&format!("kafka.{key}"), Duration::from_millis(value), problems);
        at_most(&format!("kafka.{key}"), value, most, problems);
    }
    positive("kafka.commit_interval", kafka.commit_interval, problems);
    check_instance_id(kafka.group_instance_id.as_deref(), problems);
    match kafka.heartbeat_interval() {
        Some(heartbeat_interval) => check_classic(kafka, heartbeat_interval, problems),
        None => refuse_classic(kafka, problems),
    }
    for name in kafka.options.keys() {
        let plain = name.to_ascii_lowercase().replace('.', "_");
        let is_refused_already =
            kafka.group_protocol == GroupProtocol::Consumer && OF_CLASSIC.iter().any(|(classic, _)| *classic == plain);
        if let Some((_, instead)) = GOVERNED.iter().find(|(governed, _)| *governed == plain)
            && !is_refused_already
        {
            problems.push(format!("`kafka.options.{name}` cannot be set: {instead}"));
        }
    }
    problems.extend(refused_option(kafka));
}

/// The times of the classic protocol among themselves.
fn check_classic(kafka: &Kafka, heartbeat_interval: Duration, problems: &mut Vec<String>) {
    let max_poll_interval_ms = kafka.max_poll_interval_ms;
    let (heartbeat_interval_ms, session_timeout_ms) =
        (heartbeat_interval.as_millis(), kafka.session_timeout().0.as_millis());
    if heartbeat_interval_ms >= session_timeout_ms.div_ceil(3) {
        problems.push(format!(
            "`kafka.heartbeat_interval_ms` is {heartbeat_interval_ms}: it must be less than a third of \
             `kafka.session_timeout_ms` ({session_timeout_ms}), so that two lost heartbeats do no harm"
        ));
    }
    if u128::from(max_poll_interval_ms) < session_timeout_ms {
        problems.push(format!(
            "`kafka.max_poll_interval_ms` is {max_poll_interval_ms}: it must not be less than \
             `kafka.session_timeout_ms` ({session_timeout_ms})"
        ));
    }
}

/// Under the consumer protocol the brokers have some of the settings, and librdkafka refuses them.
fn refuse_classic(kafka: &Kafka, problems: &mut Vec<String>) {
    let keys = [
        kafka.session_timeout_ms.map(|_| "session_timeout_ms"),
        kafka.heartbeat_interval_ms.map(|_| "heartbeat_interval_ms"),
    ];
    let keys = keys.into_iter().flatten().map(|key| (format!("kafka.{key}"), key.to_owned()));
    let options = kafka.options.keys();
    let options = options.map(|name| (format!("kafka.options.{name}"), name.to_ascii_lowercase().replace('.', "_")));
    for (key, plain) in keys.chain(options) {
        if let Some((_, instead)) = OF_CLASSIC.iter().find(|(classic, _)| *classic == plain) {
            problems.push(format!("`{key}` cannot be set with `kafka.group_protocol` = \"consumer\": {instead}"));
        }
    }
}

/// Brokers take an id of the characters that a topic's name may have.
fn check_instance_id(id: Option<&str>, problems: &mut Vec<String>) {
    let is_of = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_id =
        |id: &str| (1..=INSTANCE_ID_MAX).contains(&id.len()) && id.bytes().all(is_of) && id != "." && id != "..";
    if let Some(id) = id.filter(|id| !is_id(id)) {
        problems.push(format!(
            "`kafka.group_instance_id`: found {id:?}, expected up to {INSTANCE_ID_MAX} letters, digits, '.', '_' and '-', \
             such as a StatefulSet's pod name; leave it out for a member without one"
        ));
    }
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
