//! Membership of a group: how it is asked for, and what an operator must do where it is refused or ended.

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::config::{GroupProtocol, Kafka};

/// Who a consumer is to its group.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    instance_id: Option<String>,
    protocol: GroupProtocol,
}

/// How the group is joined. Under the consumer protocol librdkafka takes neither an assignor nor times.
pub(super) fn configure(client: &mut ClientConfig, kafka: &Kafka) {
    match kafka.heartbeat_interval() {
        Some(heartbeat_interval) => {
            let session_timeout = kafka.session_timeout().0;
            client
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", session_timeout.as_millis().to_string())
                .set("heartbeat.interval.ms", heartbeat_interval.as_millis().to_string());
        }
        None => _ = client.set("group.protocol", "consumer"),
    }
    if let Some(id) = &kafka.group_instance_id {
        client.set("group.instance.id", id);
    }
}

impl Member {
    pub(super) fn new(group: &str, kafka: &Kafka) -> Self {
        let (instance_id, protocol) = (kafka.group_instance_id.clone(), kafka.group_protocol);
        Self { group: group.to_owned(), instance_id, protocol }
    }

    /// Whether the group keeps its place for a while when it goes.
    pub(super) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// What an operator must do before the group takes this worker; `None` where the error says nothing of the group.
    pub(super) fn refusal(&self, code: RDKafkaErrorCode) -> Option<String> {
        let what = match code {
            RDKafkaErrorCode::InconsistentGroupProtocol => {
                "has members with another protocol or assignor than weir's (classic, cooperative-sticky): \
                 stop them, or give the pool another `group`"
            }
            RDKafkaErrorCode::GroupIdNotFound => {
                "has members with the classic protocol, and the brokers let none of the consumer protocol join them: \
                 stop them, set kafka.group_protocol to \"classic\", or give the pool another `group`"
            }
            RDKafkaErrorCode::GroupAuthorizationFailed => "is not allowed to weir's user: grant it READ on the group",
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                "cannot read a topic: grant weir's user READ and DESCRIBE on the pool's topics"
            }
            RDKafkaErrorCode::InvalidSessionTimeout => {
                "cannot have this kafka.session_timeout_ms: the brokers' limits are group.min.session.timeout.ms \
                 and group.max.session.timeout.ms"
            }
            RDKafkaErrorCode::GroupMaxSizeReached => {
                "is full: run fewer workers, or raise the brokers' group.max.size \
                 (under the consumer protocol group.consumer.max.size)"
            }
            RDKafkaErrorCode::FencedInstanceId => return Some(self.replaced()),
            RDKafkaErrorCode::UnreleasedInstanceId => return Some(self.taken()),
            RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature
                if self.protocol == GroupProtocol::Consumer =>
            {
                "cannot be joined by kafka.group_protocol = \"consumer\", which the brokers do not have \
                 (Apache Kafka has it since 4.0): leave it out"
            }
            _ => return None,
        };
        Some(format!("group {:?} {what}", self.group))
    }

    /// What ended the membership for good.
    pub(super) fn end(&self, code: RDKafkaErrorCode, why: &str) -> String {
        self.refusal(code).unwrap_or_else(|| format!("the Kafka client cannot go on: {why}"))
    }

    fn replaced(&self) -> String {
        let (group, id) = (&self.group, self.id());
        format!(
            "another process has joined group {group:?} with kafka.group_instance_id {id:?}, and this one's partitions are its \
             own now: give each process an id of its own. If there is no other, this one came back after it was put out of \
             the group: start it again"
        )
    }

    fn taken(&self) -> String {
        let (group, id) = (&self.group, self.id());
        format!(
            "group {group:?} has a member with kafka.group_instance_id {id:?} already: give each process an id of its own. If \
             it was this worker and it was killed, its place is free after the session time-out \
             (consumer.session.timeout.ms): start it again then"
        )
    }

    fn id(&self) -> &str {
        self.instance_id.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(protocol: GroupProtocol) -> Member {
        let id = Some("w-0".to_owned());
        Member::new("g", &Kafka { group_protocol: protocol, group_instance_id: id, ..Kafka::default() })
    }

    #[test]
    fn only_the_protocol_that_has_a_setting_is_given_it() {
        let configured = |group_protocol| {
            let mut client = ClientConfig::new();
            configure(&mut client, &Kafka { group_protocol, ..Kafka::default() });
            let names = ["group.protocol", "session.timeout.ms", "heartbeat.interval.ms", "group.instance.id"];
            names.map(|name| client.get(name).map(str::to_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(configured(GroupProtocol::Classic), [some("classic"), some("15000"), some("500"), None]);
        assert_eq!(configured(GroupProtocol::Consumer), [some("consumer"), None, None, None]);
    }

    #[test]
    fn what_ends_a_membership_names_the_id_and_what_to_do() {
        let ended = |code| member(GroupProtocol::Consumer).end(code, "why");
        assert!(
            ended(RDKafkaErrorCode::FencedInstanceId).contains("\"w-0\", and this one's partitions are its own now")
        );
        assert!(ended(RDKafkaErrorCode::UnreleasedInstanceId).contains("\"w-0\" already: give each process"));
        assert!(ended(RDKafkaErrorCode::UnsupportedVersion).contains("since 4.0): leave it out"));
        assert_eq!(ended(RDKafkaErrorCode::InvalidRequest), "the Kafka client cannot go on: why");
        let classic = member(GroupProtocol::Classic).end(RDKafkaErrorCode::UnsupportedVersion, "why");
        assert_eq!(classic, "the Kafka client cannot go on: why");
    }
}
