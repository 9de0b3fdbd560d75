//! How to produce, and the client settings that it means.

use std::time::Duration;

use rdkafka::config::ClientConfig;

/// A batch is sent when it holds this many events …
const BATCH_EVENTS: &str = "100";
/// … or when its first event has waited this long, in milliseconds.
const LINGER_MS: &str = "10";
/// Bytes that may wait in the client's queue, in KiB; sending waits beyond it.
const QUEUE_KIB: &str = "65536";
/// The most events that librdkafka allows its queue.
const QUEUE_EVENTS_MAX: u64 = 10_000_000;
/// How long a topic may be unknown to the cluster before its events fail, in milliseconds: long enough
/// for a topic that was just created.
const UNKNOWN_TOPIC_MS: &str = "5000";

/// When sending an event is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Delivery {
    /// When all in-sync replicas have it: nothing acknowledged is lost, repeated or overtaken.
    #[default]
    Acknowledged,
    /// When it is in the client's queue: the least latency; a crash loses what waits there, and a
    /// connection that breaks can lose, repeat or reorder events.
    Buffered,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy: cheap, and usually enough.
    #[default]
    Snappy,
    /// LZ4: as cheap, a little smaller.
    Lz4,
    /// Zstandard: smallest, at more work.
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How to produce.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// When sending an event is over.
    pub delivery: Delivery,
    /// How batches are compressed; `None`: as the client's settings say, else Snappy.
    pub compression: Option<Compression>,
    /// How long an event is tried before it fails (120 s).
    pub delivery_timeout: Duration,
    /// Events that may be in flight at once (20,000); sending waits beyond it. 0 counts as 1.
    pub in_flight_events_max: u32,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            delivery: Delivery::default(),
            compression: None,
            delivery_timeout: Duration::from_secs(120),
            in_flight_events_max: 20_000,
        }
    }
}

impl PublishOptions {
    /// The client's settings with these options: defaults where the client says nothing, and what
    /// `delivery` promises in any case.
    pub fn settings(&self, mut client: ClientConfig) -> ClientConfig {
        let queue_events = (u64::from(self.in_flight_events_max.max(1)) * 2).min(QUEUE_EVENTS_MAX);
        let queue_events = queue_events.to_string();
        let defaults = [
            ("partitioner", "murmur2_random"),
            ("batch.num.messages", BATCH_EVENTS),
            ("linger.ms", LINGER_MS),
            ("queue.buffering.max.kbytes", QUEUE_KIB),
            // Twice the bound on events: librdkafka counts an event until a little after its report.
            ("queue.buffering.max.messages", &queue_events),
            ("topic.metadata.propagation.max.ms", UNKNOWN_TOPIC_MS),
            ("allow.auto.create.topics", "false"),
        ];
        for (name, value) in defaults {
            if !is_set(&client, name) {
                client.set(name, value);
            }
        }
        match self.compression {
            Some(compression) => set(&mut client, "compression.type", compression.name()),
            None if !is_set(&client, "compression.type") => {
                client.set("compression.type", Compression::default().name());
            }
            None => {}
        }
        let (acks, idempotent) = match self.delivery {
            Delivery::Acknowledged => ("all", "true"),
            Delivery::Buffered => ("1", "false"),
        };
        set(&mut client, "acks", acks);
        set(&mut client, "enable.idempotence", idempotent);
        let timeout_ms = self.delivery_timeout.as_millis().to_string();
        set(&mut client, "delivery.timeout.ms", &timeout_ms);
        client
    }
}

/// Two names for one setting: whichever the client uses counts.
const ALIASES: [[&str; 2]; 4] = [
    ["linger.ms", "queue.buffering.max.ms"],
    ["compression.type", "compression.codec"],
    ["acks", "request.required.acks"],
    ["delivery.timeout.ms", "message.timeout.ms"],
];

fn names(name: &str) -> impl Iterator<Item = &str> {
    let aliases = ALIASES.iter().find(|pair| pair.contains(&name));
    std::iter::once(name).chain(aliases.into_iter().flatten().copied())
}

fn is_set(client: &ClientConfig, name: &str) -> bool {
    names(name).any(|name| client.get(name).is_some())
}

fn set(client: &mut ClientConfig, name: &str, value: &str) {
    for alias in names(name) {
        client.remove(alias);
    }
    client.set(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What librdkafka itself makes of the settings.
    fn effective(settings: &ClientConfig, name: &str) -> String {
        settings.create_native_config().unwrap().get(name).unwrap()
    }

    #[test]
    fn acknowledged_is_idempotent_batched_and_keyed_as_java_does() {
        let settings = PublishOptions::default().settings(ClientConfig::new());
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("request.required.acks", "-1"),
            ("batch.num.messages", "100"),
            ("queue.buffering.max.ms", "10"),
            ("partitioner", "murmur2_random"),
            ("compression.codec", "snappy"),
            ("message.timeout.ms", "120000"),
            ("queue.buffering.max.messages", "40000"),
            ("allow.auto.create.topics", "false"),
        ] {
            assert_eq!(effective(&settings, name), value, "{name}");
        }
    }

    #[test]
    fn buffered_waits_for_the_leader_only() {
        let options = PublishOptions {
            delivery: Delivery::Buffered,
            compression: Some(Compression::Zstd),
            ..PublishOptions::default()
        };
        let settings = options.settings(ClientConfig::new());
        assert_eq!(effective(&settings, "enable.idempotence"), "false");
        assert_eq!(effective(&settings, "request.required.acks"), "1");
        assert_eq!(effective(&settings, "compression.codec"), "zstd");
    }

    #[test]
    fn the_clients_settings_win_but_not_over_what_delivery_promises() {
        let mut client = ClientConfig::new();
        client
            .set("queue.buffering.max.ms", "3")
            .set("compression.codec", "lz4")
            .set("partitioner", "fnv1a_random")
            .set("request.required.acks", "0")
            .set("enable.idempotence", "false");
        let settings = PublishOptions::default().settings(client);
        for (name, value) in [
            ("linger.ms", "3"),
            ("compression.type", "lz4"),
            ("partitioner", "fnv1a_random"),
            ("acks", "-1"),
            ("enable.idempotence", "true"),
        ] {
            assert_eq!(effective(&settings, name), value, "{name}");
        }
    }
}
