//! A pool: one consumer group, its topics and its pipelines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bloom, Lookup, Pipeline, Rate, Scaling, Start};

/// One consumer group with its pipelines.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// The consumer group; without one, the pool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The topics consumed: names, and patterns for names, which begin with `^`.
    pub topics: Vec<String>,
    /// Where the group begins on a partition on which it has no place yet. A configured pool must say.
    pub start: Start,
    /// The most events of a batch, which is one transaction.
    pub max_poll_records: usize,
    /// The most bytes of a batch.
    #[serde(with = "super::size")]
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more.
    #[serde(with = "super::duration")]
    pub batch_linger: Duration,
    /// How long a partition that is taken away may still work before it is given up.
    #[serde(with = "super::duration")]
    pub drain_deadline: Duration,
    /// What handling an event takes, in milliseconds, where it is known: the time budget is checked with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_ms: Option<f64>,
    /// The most bytes, as they were sent, that one fetch brings of a partition; less where many share `queue_bytes`.
    #[serde(with = "super::size")]
    pub max_partition_fetch_bytes: usize,
    /// The most bytes fetched ahead, over all partitions. Small events take about twice as much memory.
    #[serde(with = "super::size")]
    pub queue_bytes: usize,
    /// How many events the whole group may handle in a time; without it, as many as it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The most batches that this worker has in a transaction at a time; fewer while commits are slow. Without it, as many
    /// as there are connections, however long commits take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions_max: Option<u32>,
    /// How many workers it asks for in `weir_desired_replicas`.
    pub scaling: Scaling,
    /// Whether Redis, where there is one, remembers which events are done.
    pub processed_set: ProcessedSet,
    /// The bitmap, where it is one.
    pub bloom: Bloom,
    /// What becomes of records without a value.
    pub on_tombstone: OnTombstone,
    /// The types that the pool knows; without any, all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// What becomes of events of other types.
    pub on_unknown_type: OnUnknownType,
    /// What becomes of later events of a rejected event's key.
    pub on_reject: OnReject,
    /// The most events of a key and partition that wait behind a rejected one, and the most keys of a partition that are held back; with one more, the partition is held.
    pub park_limit: usize,
    /// The part of rejected events above which a partition is held, since not every event can be wrong.
    pub reject_hold_ratio: f64,
    /// How long ids of pools without a table of their own are kept.
    #[serde(with = "super::duration")]
    pub seen_horizon: Duration,
    /// Where events keep their attributes.
    pub event: EventFields,
    /// Tables that conditions can ask, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lookups: BTreeMap<String, Lookup>,
    /// What is done with events.
    pub pipelines: Vec<Pipeline>,
}

impl Pool {
    /// The consumer group of the pool of this name.
    #[must_use]
    pub fn group_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.group.as_deref().unwrap_or(name)
    }

    /// What of the settings a pool without a store cannot have, a line each.
    pub(crate) fn problems_without_store(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if self.on_reject == OnReject::Park {
            problems.push(format!(
                "`pools.{name}.on_reject` is \"park\", and the pool has no store in which later events could wait: leave it out"
            ));
        }
        if self.transactions_max.is_some() {
            problems
                .push(format!("`pools.{name}.transactions_max` has no use in a pool without a store: leave it out"));
        }
        if self.processed_set == ProcessedSet::Bloom {
            problems.push(format!(
                "`pools.{name}.processed_set` is \"bloom\", and the pool has no store that could tell a new event from a false \
                 positive, which would be lost: set it to \"set\" or \"off\""
            ));
        }
        if self.has_patterns() && self.start != Start::Beginning {
            problems.push(format!(
                "`pools.{name}.topics` has patterns, and the pool has no store to tell new topics from old ones: set \
                 `pools.{name}.start` to \"beginning\", or name the topics"
            ));
        }
        if self.has_patterns()
            && let Some(template) = self.open_template()
        {
            problems.push(format!(
                "`pools.{name}.topics` has patterns, and a pipeline's `topic` is {template:?}, of which neither begin nor end is \
                 fixed: what is forwarded could be read again; name the topics, or begin or end `topic` with something fixed"
            ));
        }
        problems
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            group: None,
            topics: Vec::new(),
            start: Start::default(),
            max_poll_records: 500,
            batch_bytes: 4 << 20,
            batch_linger: Duration::from_millis(5),
            drain_deadline: Duration::from_secs(20),
            handle_ms: None,
            max_partition_fetch_bytes: 256 << 10,
            queue_bytes: 32 << 20,
            rate: None,
            transactions_max: None,
            scaling: Scaling::default(),
            processed_set: ProcessedSet::default(),
            bloom: Bloom::default(),
            on_tombstone: OnTombstone::default(),
            types: Vec::new(),
            on_unknown_type: OnUnknownType::default(),
            on_reject: OnReject::default(),
            park_limit: 10_000,
            reject_hold_ratio: 0.5,
            seen_horizon: Duration::from_secs(7 * 24 * 60 * 60),
            event: EventFields::default(),
            lookups: BTreeMap::new(),
            pipelines: Vec::new(),
        }
    }
}

/// JSON pointers to an event's attributes in its payload. The defaults are the chat envelope's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFields {
    /// The id, by which an event is one and the same however often it is sent.
    pub id: String,
    /// The type.
    pub r#type: String,
    /// When it happened, in milliseconds since 1970.
    pub timestamp: String,
    /// Who sent it.
    pub user: String,
    /// The conversation; without a pointer it is `/message/group_id`, or else both ends of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
}

impl Default for EventFields {
    fn default() -> Self {
        Self {
            id: "/message/message_id".to_owned(),
            r#type: "/type".to_owned(),
            timestamp: "/message/timestamp".to_owned(),
            user: "/message/from".to_owned(),
            conversation: None,
        }
    }
}

/// Whether a pool uses the processed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessedSet {
    /// Sets in Redis, with a member an event.
    #[default]
    Set,
    /// A Bloom filter in Redis: a few bits an event, and now and then one that is new is taken for known.
    Bloom,
    /// None.
    Off,
}

/// What becomes of a record without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTombstone {
    /// It is passed.
    #[default]
    Skip,
    /// It goes to the dead rows.
    Reject,
}

/// What becomes of an event of a type that the pool does not know. It is counted in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownType {
    /// It is passed.
    Pass,
    /// It goes to the dead rows.
    #[default]
    Reject,
}

/// What becomes of later events of a rejected event's key, on its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// They go on.
    #[default]
    Dead,
    /// They wait behind it, in order, until the key is released.
    Park,
}
