//! For how long a topic's records are kept, by the topic's settings or the brokers' defaults.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;

use super::Listener;
use crate::config::Kafka;

/// How long the question may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What limits a topic's log; `None`: that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Retention {
    /// `retention.ms`: the age that a record reaches.
    pub(crate) ms: Option<i64>,
    /// `retention.bytes`: of one partition.
    pub(crate) bytes: Option<i64>,
}

/// The retention of each topic. A topic that weir's user may not see, or that is not there, is missing from it.
///
/// # Errors
/// No broker answers in time, or none knows the question.
pub(crate) async fn retention(kafka: &Kafka, topics: &[String]) -> Result<HashMap<String, Retention>, KafkaError> {
    let admin = AdminClient::from_config_and_context(&kafka.client(), Listener::default())?;
    let options = AdminOptions::new().request_timeout(Some(ATTEMPT));
    let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = admin.describe_configs(&asked, &options).await?;
    // A refusal of one topic comes as that topic without any setting: rdkafka keeps the error to itself.
    let told = described.into_iter().flatten().filter(|resource| !resource.entries.is_empty());
    Ok(told
        .filter_map(|resource| match &resource.specifier {
            OwnedResourceSpecifier::Topic(topic) => Some((topic.clone(), of_topic(&resource))),
            _ => None,
        })
        .collect())
}

fn of_topic(resource: &ConfigResource) -> Retention {
    let setting = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
    limits(setting("cleanup.policy"), setting("retention.ms"), setting("retention.bytes"))
}

/// A log that is compacted only loses no key's last record to its age or size; -1 is no limit.
fn limits(policy: Option<&str>, ms: Option<&str>, bytes: Option<&str>) -> Retention {
    let deletes = policy.is_none_or(|policy| policy.split(',').any(|one| one.trim() == "delete"));
    if !deletes {
        return Retention::default();
    }
    let limit = |value: Option<&str>| value?.parse().ok().filter(|limit| *limit >= 0);
    Retention { ms: limit(ms), bytes: limit(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_is_deleted_from_has_limits_and_minus_one_is_none() {
        let both = Retention { ms: Some(3_600_000), bytes: Some(1_000) };
        assert_eq!(limits(Some("delete"), Some("3600000"), Some("1000")), both);
        assert_eq!(limits(Some("compact,delete"), Some("3600000"), Some("1000")), both);
        assert_eq!(limits(Some("compact"), Some("3600000"), Some("1000")), Retention::default());
        assert_eq!(limits(Some("delete"), Some("-1"), Some("-1")), Retention::default());
        assert_eq!(limits(None, Some("5"), None), Retention { ms: Some(5), bytes: None });
    }
}
