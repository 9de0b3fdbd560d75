//! Why an event was not published.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::Unanswered;

/// Why an event was not published, or not known to be. Each is about one event, but for the first two.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// A setting that the Kafka client refuses.
    #[error("set up the Kafka producer: {0}; check the settings under [kafka]")]
    Setup(#[source] KafkaError),
    /// No broker answers, or the login is refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The cluster has no such topic.
    #[error(
        "topic {topic} does not exist on {brokers}; create it with `kafka-topics.sh --create --topic {topic} --bootstrap-server {brokers}`"
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
        /// The cluster's addresses.
        brokers: String,
    },
    /// The event exceeds the producer's own limit, and was not sent.
    #[error(
        "the event for topic {topic} has {size_bytes} bytes, more than the limit of {limit_bytes}; raise message.max.bytes in kafka.options (and the topic's max.message.bytes), or send less"
    )]
    TooLarge {
        /// The topic it was meant for.
        topic: String,
        /// The event's key and value.
        size_bytes: usize,
        /// The producer's `message.max.bytes`, framing included.
        limit_bytes: usize,
    },
    /// The broker refused the batch that the event was in as too large.
    #[error(
        "topic {topic} refused the batch with this event of {size_bytes} bytes as larger than its max.message.bytes; raise that, or lower batch.size in kafka.options below it"
    )]
    BatchTooLarge {
        /// The topic.
        topic: String,
        /// The event's key and value.
        size_bytes: usize,
    },
    /// No answer within the delivery timeout. The event may be on its partition or not.
    #[error("no acknowledgement from topic {topic} within the delivery timeout; the event may be stored or not")]
    TimedOut {
        /// The topic.
        topic: String,
    },
    /// The publisher went away before the answer came. The event may be on its partition or not.
    #[error("the publisher stopped before the event was acknowledged; it may be stored or not")]
    Interrupted,
    /// Anything else that the broker or the client answers.
    #[error("topic {topic} did not take the event: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// The answer.
        code: RDKafkaErrorCode,
    },
}

impl PublishError {
    /// Whether a person must act, since trying again will not help: the topic or a right is missing, or a setting is wrong.
    pub fn needs_a_person(&self) -> bool {
        use RDKafkaErrorCode as Code;
        match self {
            Self::Setup(_) | Self::UnknownTopic { .. } | Self::Unanswered(Unanswered::Login { .. }) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::TopicAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
                    | Code::InvalidTopic
                    | Code::SaslAuthenticationFailed
                    | Code::Authentication
                    | Code::InvalidRequiredAcks
                    | Code::PolicyViolation
            ),
            Self::Unanswered(_)
            | Self::TooLarge { .. }
            | Self::BatchTooLarge { .. }
            | Self::TimedOut { .. }
            | Self::Interrupted => false,
        }
    }

    /// The error of an event, or of a topic's look-up, before anything was sent.
    pub(super) fn from_code(code: RDKafkaErrorCode, topic: &str, brokers: &str) -> Self {
        let topic = topic.to_owned();
        match code {
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                Self::UnknownTopic { topic, brokers: brokers.to_owned() }
            }
            RDKafkaErrorCode::MessageTimedOut => Self::TimedOut { topic },
            RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight => Self::Interrupted,
            code => Self::Refused { topic, code },
        }
    }

    /// The error of an event that was queued.
    pub(super) fn of_delivery(code: RDKafkaErrorCode, topic: &str, size_bytes: usize, brokers: &str) -> Self {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => Self::BatchTooLarge { topic: topic.to_owned(), size_bytes },
            code => Self::from_code(code, topic, brokers),
        }
    }
}
