//! The session's time-out, where the brokers have it and not weir's configuration.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;

use super::Listener;
use crate::config::Kafka;

/// The group's own setting, or what its brokers have for all groups.
const SETTING: &str = "consumer.session.timeout.ms";
/// How long the question may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// After how long the brokers take a member of a group with the consumer protocol to be dead.
///
/// # Errors
/// No broker answers in time, or weir's user may not see the group's settings.
pub(crate) async fn session_timeout(kafka: &Kafka, group: &str) -> Result<Duration, KafkaError> {
    let admin = AdminClient::from_config_and_context(&kafka.client(), Listener::default())?;
    let options = AdminOptions::new().request_timeout(Some(ATTEMPT));
    let described = admin.describe_configs([&ResourceSpecifier::Group(group)], &options).await?;
    for resource in described {
        let resource = resource.map_err(KafkaError::AdminOp)?;
        let value = resource.get(SETTING).and_then(|entry| entry.value.as_ref()?.parse().ok());
        if let Some(ms) = value {
            return Ok(Duration::from_millis(ms));
        }
    }
    Err(KafkaError::AdminOpCreation(format!("the brokers' answer has no {SETTING}")))
}
