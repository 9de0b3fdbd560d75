//! Whether a cluster answers, and if not, why not in one line: librdkafka tells every failed attempt of every
//! connection. What it is asked before a group is joined, and how much of it clients fetch ahead.

mod prefetch;
mod retention;
mod session;

pub(crate) use prefetch::Prefetch;
pub(crate) use retention::{Retention, retention};
pub(crate) use session::session_timeout;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::config::{self, Kafka};

/// What is kept out of the log, as a filter. A client that cannot go on cannot be closed in order either, which rdkafka
/// tells apart from the reason.
pub(crate) const UNSAID: &str = "rdkafka::consumer::base_consumer=off";
/// How long one question to a cluster may take that may be away.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause before the next.
const PAUSE: Duration = Duration::from_millis(250);
/// Events that are looked at for the reason of one failed question.
const EVENTS_MAX: usize = 100;

/// librdkafka's version.
pub(crate) fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Why a cluster cannot be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unanswered {
    /// No connection, or no answer on it.
    #[error("no broker of {brokers} answers ({why}): check kafka.brokers and kafka.options, and that Kafka is up")]
    Away {
        /// The addresses that were tried.
        brokers: String,
        /// What the last attempt met.
        why: String,
    },
    /// The user or the password is wrong, or the listener knows no logins.
    #[error(
        "Kafka at {brokers} refuses the login ({why}): check security_protocol, sasl_mechanism, sasl_username and sasl_password in kafka.options"
    )]
    Login {
        /// The addresses that were tried.
        brokers: String,
        /// What the broker said.
        why: String,
    },
}

/// The last reason that a client gave for not reaching its cluster.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Reasons {
    /// Keeps a reason.
    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // It follows on the reasons of the single brokers.
            None | Some(RDKafkaErrorCode::AllBrokersDown) => {}
            Some(code) => *self.lock() = Some((code, plain(reason).to_owned())),
        }
    }

    /// Why the cluster cannot be asked.
    pub(crate) fn unanswered(&self, brokers: &str) -> Unanswered {
        let brokers = brokers.to_owned();
        match self.lock().clone() {
            Some((RDKafkaErrorCode::Authentication, why)) => Unanswered::Login { brokers, why },
            Some((_, why)) => Unanswered::Away { brokers, why },
            None => Unanswered::Away { brokers, why: "no answer in time".to_owned() },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(RDKafkaErrorCode, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often an error that lasts is logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Different errors that are told apart.
const KINDS_MAX: usize = 64;

/// Errors that last are logged once, and again only rarely.
#[derive(Debug, Default)]
pub(crate) struct Rarely(Mutex<HashMap<String, Instant>>);

impl Rarely {
    /// Whether this is to be logged now.
    pub(crate) fn is_due(&self, what: String) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = match told.get(&what) {
            Some(at) => at.elapsed() >= REPEAT_AFTER,
            None => told.len() < KINDS_MAX,
        };
        if is_due {
            told.insert(what, Instant::now());
        }
        is_due
    }

    /// What was logged is news again.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A reason without the address before it and the client's state behind it.
pub(crate) fn plain(reason: &str) -> &str {
    let reason = match reason.split_once(": ") {
        Some((address, rest)) if address.contains('/') && !address.contains(' ') => rest,
        _ => reason,
    };
    reason.rsplit_once(" (after ").map_or(reason, |(reason, _)| reason).trim_end_matches([' ', ':'])
}

/// Keeps reasons in place of logging each.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    reasons: Reasons,
}

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        self.reasons.note(&error, reason);
    }
}

impl ConsumerContext for Listener {}

/// Why it is not known which topics a pool reads.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// No broker answers, or the login is refused.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// librdkafka refuses a setting.
    #[error("create a Kafka client: {0}")]
    Client(#[from] KafkaError),
    /// There are none.
    #[error("no topic matches {patterns}: make one, or correct the pool's topics")]
    NoMatch {
        /// What the pool is configured with.
        patterns: String,
    },
}

/// The pool with the topics that its patterns match now, in place of the patterns; waits for a cluster that does not answer
/// yet.
pub(crate) async fn resolved(
    kafka: &Kafka,
    pool: &config::Pool,
    patience: Duration,
) -> Result<config::Pool, Unresolved> {
    if !pool.has_patterns() {
        return Ok(pool.clone());
    }
    let probe = Probe::new(kafka)?;
    let asked = tokio::task::spawn_blocking(move || Probe::awaited(patience, || probe.topic_names())).await;
    // The runtime is going down: as if the client were closed.
    let topics = pool.topics_among(&asked.map_err(|_| KafkaError::Canceled)??);
    match topics.is_empty() {
        true => Err(Unresolved::NoMatch { patterns: pool.patterns() }),
        false => Ok(config::Pool { topics, ..pool.clone() }),
    }
}

/// The names of all topics that a cluster has told of.
pub(crate) fn names_of(metadata: &Metadata) -> Vec<String> {
    metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| topic.name().to_owned()).collect()
}

/// A client that belongs to no group and asks for topics.
pub(crate) struct Probe {
    client: BaseConsumer<Listener>,
    brokers: String,
}

impl Probe {
    /// Prepares a client; nothing is asked yet.
    ///
    /// # Errors
    /// librdkafka refuses the settings.
    pub(crate) fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        let client = kafka.client().create_with_context(Listener::default())?;
        Ok(Self { client, brokers: kafka.brokers.join(",") })
    }

    /// How many partitions each topic has; none for one that does not exist. Blocks.
    ///
    /// # Errors
    /// No broker answers soon.
    pub(crate) fn partitions(&self, topics: &[String]) -> Result<Vec<usize>, Unanswered> {
        topics.iter().map(|topic| self.partitions_of(topic, ATTEMPT)).collect()
    }

    /// The names of all topics. Blocks.
    ///
    /// # Errors
    /// No broker answers soon.
    pub(crate) fn topic_names(&self) -> Result<Vec<String>, Unanswered> {
        let Ok(metadata) = self.client.fetch_metadata(None, ATTEMPT) else { return Err(self.unanswered()) };
        Ok(names_of(&metadata))
    }

    fn partitions_of(&self, topic: &str, within: Duration) -> Result<usize, Unanswered> {
        let Ok(metadata) = self.client.fetch_metadata(Some(topic), within) else { return Err(self.unanswered()) };
        Ok(metadata.topics().iter().filter(|known| known.name() == topic).map(|known| known.partitions().len()).sum())
    }

    /// The same, waiting for a cluster that does not answer yet, and saying so once. Blocks.
    ///
    /// # Errors
    /// No broker answers in time, or the login is refused.
    pub(crate) fn await_partitions(&self, topics: &[String], patience: Duration) -> Result<Vec<usize>, Unanswered> {
        Self::awaited(patience, || self.partitions(topics))
    }

    fn awaited<A>(patience: Duration, ask: impl Fn() -> Result<A, Unanswered>) -> Result<A, Unanswered> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            match ask() {
                Err(error @ Unanswered::Away { .. }) if begun.elapsed() + PAUSE < patience => {
                    if !told {
                        let limit = humantime::format_duration(patience);
                        tracing::warn!("waiting for Kafka, up to {limit}: {error}");
                        told = true;
                    }
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// What went wrong is told by events, which are only heard by polling.
    fn unanswered(&self) -> Unanswered {
        for _ in 0..EVENTS_MAX {
            if self.client.poll(Duration::from_millis(20)).is_none() {
                break;
            }
        }
        self.client.context().reasons.unanswered(&self.brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_without_its_connection() {
        for (told, kept) in [
            (
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
            ),
            (
                "sasl_plaintext://k:9092/1: Authentication failed: wrong (after 2ms in state AUTH_REQ, 1 identical error(s) suppressed)",
                "Authentication failed: wrong",
            ),
            ("Subscribed topic not available: t", "Subscribed topic not available: t"),
        ] {
            assert_eq!(plain(told), kept);
        }
    }

    #[test]
    fn a_refused_login_is_told_from_a_broker_that_is_away() {
        let reasons = Reasons::default();
        assert!(matches!(reasons.unanswered("b"), Unanswered::Away { .. }));
        reasons.note(&KafkaError::Global(RDKafkaErrorCode::Authentication), "no such user");
        reasons.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let told = reasons.unanswered("b:1").to_string();
        assert!(told.starts_with("Kafka at b:1 refuses the login (no such user): check"), "{told}");
    }
}
