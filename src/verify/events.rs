//! What an event is, read anew: the auditor shares no code with the decoders that it checks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::identity::Kind;
use super::wants::Wants;
use crate::config::{self, EventFields, OnTombstone, OnUnknownType};

const ID_BYTES_MAX: usize = 512;

/// A hash of 128 bits: it stands for an id or a counter, so that millions of them fit into memory.
pub(super) type Digest = [u64; 2];

pub(super) const MINUTE_MS: i64 = 60_000;

/// The digest of some parts. Parts are kept apart, so that ("a", "bc") is not ("ab", "c").
pub(super) fn digest(parts: &[&str]) -> Digest {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&part.len().to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let (high, low) = Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes).as_u64_pair();
    [high, low]
}

/// How a pool's ids are kept: what the database gives back for an id that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Text,
    Uuid,
    Integer,
}

impl KeyKind {
    /// The digest of an id, however it is spelt.
    pub(super) fn digest(self, id: &str) -> Digest {
        match self {
            Self::Text => digest(&[id]),
            Self::Uuid => match Uuid::parse_str(id) {
                Ok(uuid) => digest(&[uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())]),
                Err(_) => digest(&[id]),
            },
            Self::Integer => match id.parse::<i64>() {
                Ok(number) => digest(&[&number.to_string()]),
                Err(_) => digest(&[id]),
            },
        }
    }
}

/// One counter that an event adds to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Counter {
    pub(crate) minute: i64,
    pub(crate) dimension: String,
    pub(crate) member: String,
}

/// When a minute, counted since 1970, began.
pub(super) fn time_of(minute: i64) -> SystemTime {
    let at_s = u64::try_from(minute.saturating_mul(60)).unwrap_or(0);
    // The last year that can be written.
    UNIX_EPOCH + Duration::from_secs(at_s.min(253_402_300_799))
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_rfc3339_seconds(time_of(self.minute));
        write!(f, "{at} {} {:?}", self.dimension, self.member)
    }
}

impl Counter {
    pub(super) fn digest(&self) -> Digest {
        digest(&[&self.minute.to_string(), &self.dimension, &self.member])
    }
}

/// One record as the auditor sees it.
#[derive(Debug)]
pub(super) struct Event {
    /// The event's id by its payload, else by its header, else by its position.
    pub(super) id: String,
    /// Its type; none where the payload has none, or one that the pool does not know.
    pub(super) kind: Kind,
    /// The header's id, where the payload has another one.
    pub(super) alias: Option<String>,
    /// A hash of the record's key.
    pub(super) key: Option<u64>,
    /// What it adds to, `active_users` with the user as member.
    pub(super) counters: Vec<Counter>,
    /// Milliseconds since 1970 by Kafka; 0 when unknown.
    pub(super) record_ms: i64,
}

/// How a pool's records are read.
#[derive(Debug)]
pub(super) struct Rules {
    fields: EventFields,
    rejects_tombstones: bool,
    /// The types that the pool knows; empty: all.
    types: Vec<String>,
    passes_unknown_types: bool,
    /// What is counted by, and the place of the pipeline that does.
    dimensions: Vec<(usize, String)>,
    wants: Option<Wants>,
}

impl Rules {
    pub(super) fn new(pool: &config::Pool, wants: Option<Wants>) -> Self {
        let analyze = pool.pipelines.iter().enumerate().filter(|(_, pipeline)| pipeline.handler == "analyze");
        let dimensions = analyze.flat_map(|(at, pipeline)| {
            let dimensions = pipeline.dimensions.clone().unwrap_or_else(|| vec!["type".to_owned()]);
            dimensions.into_iter().map(move |dimension| (at, dimension))
        });
        Self {
            fields: pool.event.clone(),
            rejects_tombstones: pool.on_tombstone == OnTombstone::Reject,
            types: pool.types.clone(),
            passes_unknown_types: pool.on_unknown_type == OnUnknownType::Pass,
            dimensions: dimensions.collect(),
            wants,
        }
    }

    /// The event that a record carries. `None`: a tombstone or a type that the pool passes, or an event that no pipeline wants.
    pub(super) fn event(&self, topic_id: Uuid, message: &BorrowedMessage<'_>) -> Option<Event> {
        let payload = match message.payload() {
            Some(value) => Payload::parse(value),
            None if self.rejects_tombstones => None,
            None => return None,
        };
        let kind = payload.as_ref().map(|payload| self.kind(payload)).unwrap_or_default();
        let is_unknown = payload.is_some() && !self.types.is_empty() && !self.types.iter().any(|known| *known == kind);
        if is_unknown && self.passes_unknown_types {
            return None;
        }
        // The worker sets what it does not know aside without a type.
        let kind = if is_unknown { Kind::NONE } else { Kind::of(&kind) };
        let wanted = self.wants.as_ref().map(|wants| wants.ask(topic_id, message));
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&true)) {
            return None;
        }
        let record_ms = message.timestamp().to_millis().unwrap_or(0);
        let own = payload.as_ref().and_then(|payload| payload.text(&self.fields.id)).filter(|id| is_id(id));
        let position = || format!("{topic_id}:{}:{}", message.partition(), message.offset());
        let (id, alias) = match (own, header_id(message)) {
            (Some(own), Some(header)) if own != header => (own, Some(header)),
            (Some(own), _) => (own, None),
            (None, header) => (header.unwrap_or_else(position), None),
        };
        let counters = payload.map(|payload| self.counters(&payload, record_ms, wanted.as_deref())).unwrap_or_default();
        Some(Event { id, kind, alias, key: message.key().map(hash), counters, record_ms })
    }

    fn kind<'a>(&self, payload: &'a Payload) -> Cow<'a, str> {
        payload.string(&self.fields.r#type).unwrap_or_default()
    }

    fn counters(&self, payload: &Payload, record_ms: i64, wanted: Option<&[bool]>) -> Vec<Counter> {
        if self.dimensions.is_empty() {
            return Vec::new();
        }
        let stamp = payload.at(&self.fields.timestamp).and_then(|value| value.as_i64());
        let minute = stamp.unwrap_or(record_ms).div_euclid(MINUTE_MS);
        let member = |dimension: &str| match dimension {
            "type" => Some(self.kind(payload).into_owned()),
            "conversation" => self.conversation(payload),
            _ => payload.text(&self.fields.user),
        };
        let counter = |(pipeline, dimension): &(usize, String)| {
            let is_wanted = wanted.is_none_or(|wanted| wanted[*pipeline]);
            is_wanted.then(|| Some(Counter { minute, dimension: dimension.clone(), member: member(dimension)? }))?
        };
        self.dimensions.iter().filter_map(counter).collect()
    }

    fn conversation(&self, payload: &Payload) -> Option<String> {
        if let Some(pointer) = &self.fields.conversation {
            return payload.text(pointer);
        }
        payload.text("/message/group_id").or_else(|| {
            let mut pair = [payload.text("/message/from")?, payload.text("/message/to")?];
            pair.sort();
            Some(pair.join(":"))
        })
    }
}

/// A JSON object. What serde_json will not make a tree of (bytes that are no UTF-8, a number out of range)
/// can still have a readable id, and a decoder that skips what it does not need finds it: so is done here.
enum Payload {
    Tree(Value),
    Text(String),
}

impl Payload {
    fn parse(value: &[u8]) -> Option<Self> {
        match serde_json::from_slice(value) {
            Ok(tree @ Value::Object(_)) => Some(Self::Tree(tree)),
            Ok(_) => None,
            Err(_) => {
                let text = String::from_utf8_lossy(value).into_owned();
                let is_object = serde_json::from_str::<BTreeMap<String, &RawValue>>(&text).is_ok();
                is_object.then_some(Self::Text(text))
            }
        }
    }

    fn at(&self, pointer: &str) -> Option<Value> {
        match self {
            Self::Tree(tree) => tree.pointer(pointer).cloned(),
            Self::Text(text) => {
                let mut here: &RawValue = serde_json::from_str(text).ok()?;
                for step in pointer.strip_prefix('/')?.split('/') {
                    let name = step.replace("~1", "/").replace("~0", "~");
                    here = match name.parse::<usize>() {
                        Ok(index) if here.get().starts_with('[') => {
                            serde_json::from_str::<Vec<&RawValue>>(here.get()).ok()?.get(index).copied()?
                        }
                        _ => serde_json::from_str::<BTreeMap<String, &RawValue>>(here.get()).ok()?.remove(&name)?,
                    };
                }
                serde_json::from_str(here.get()).ok()
            }
        }
    }

    fn string(&self, pointer: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Tree(tree) => tree.pointer(pointer)?.as_str().map(Cow::Borrowed),
            Self::Text(_) => match self.at(pointer)? {
                Value::String(text) => Some(Cow::Owned(text)),
                _ => None,
            },
        }
    }

    /// Text, or a whole number as its decimal text.
    fn text(&self, pointer: &str) -> Option<String> {
        match self.at(pointer)? {
            Value::String(text) => Some(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }
}

/// Keys of one hash are taken for one key, which does no harm: a partition's events are in order whatever their keys.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\0')
}

/// `ce_id`, else `weir-id`; of several headers of a name the last counts.
fn header_id(message: &BorrowedMessage<'_>) -> Option<String> {
    let headers = message.headers()?;
    ["ce_id", "weir-id"].iter().find_map(|name| {
        let header = headers.iter().filter(|header| header.key == *name).last()?;
        let id = std::str::from_utf8(header.value?).ok()?;
        is_id(id).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_keep_their_parts_apart() {
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
        assert_eq!(digest(&["a", "bc"]), digest(&["a", "bc"]));
    }

    #[test]
    fn an_id_is_the_same_however_its_column_spells_it() {
        let upper = "0192F0C1-2222-7000-8000-000000000001";
        assert_eq!(KeyKind::Uuid.digest(upper), KeyKind::Uuid.digest(&upper.to_lowercase()));
        assert_ne!(KeyKind::Text.digest(upper), KeyKind::Text.digest(&upper.to_lowercase()));
        assert_eq!(KeyKind::Integer.digest("007"), KeyKind::Integer.digest("7"));
    }

    #[test]
    fn fields_are_found_in_payloads_that_make_no_tree() {
        for broken in
            [&b"{\"x\":\"\xff\",\"m\":{\"l\":[0,{\"id\":7}]}}"[..], b"{\"x\":1e999,\"m\":{\"l\":[0,{\"id\":7}]}}"]
        {
            assert!(serde_json::from_slice::<Value>(broken).is_err());
            assert_eq!(Payload::parse(broken).unwrap().text("/m/l/1/id").as_deref(), Some("7"));
        }
        for bad in [&b"[1]"[..], b"1", b"", b"{\"a\":"] {
            assert!(Payload::parse(bad).is_none());
        }
    }
}
