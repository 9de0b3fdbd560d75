//! One decoded Kafka record: its typed payload, its id, and where it came from.
//!
//! An event's id decides what "the same event" means, so the rule is fixed: the payload's own id; else the
//! CloudEvents header `ce_id`, else the header `weir-id`; else topic id, partition and offset. Only the first
//! three survive a producer's retry at another offset.

#[cfg(feature = "avro")]
mod avro;
mod confluent;
mod decode;
mod document;
#[cfg(test)]
mod fuzz;
#[cfg(feature = "protobuf")]
mod protobuf;
mod record;
#[cfg(feature = "avro")]
mod registry;
mod tagged;

#[cfg(feature = "avro")]
pub use avro::{Avro, SchemaError};
pub use confluent::Unframed;
use decode::malformed_json;
pub use decode::{Decode, Json, NotDecoded};
pub use document::{Document, Fields, FieldsError, Slot, Value};
#[cfg(feature = "protobuf")]
pub use protobuf::Protobuf;
pub use record::{Header, Record, RecordBuffer};
pub(crate) use record::{headers_as_json, headers_from_json};
#[cfg(feature = "avro")]
pub use registry::{Registry, RegistryError, Schemas};
pub use tagged::Tagged;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uuid::Uuid;

/// The header in which an event says when it was meant to be sent: microseconds since 1970, as decimal digits.
pub const INTENDED_HEADER: &str = "weir-intended-us";

/// The longest event id accepted, in bytes: it must fit a database key.
pub const ID_BYTES_MAX: usize = 512;

/// Where a partition's records come from. The topic is known by its id: a topic made again under its old name
/// is another topic, and offsets of the old one mean nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id, given by the broker when it was made.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The id of an event, unique for what happened, not for the record that carries it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Box<str>);

impl EventId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first bytes as a number; ids are in the order of these where they differ.
    pub(crate) fn prefix(&self) -> u64 {
        let mut bytes = [0; 8];
        let len = self.0.len().min(8);
        bytes[..len].copy_from_slice(&self.0.as_bytes()[..len]);
        u64::from_be_bytes(bytes)
    }

    /// The same id in the spelling of the key that holds it.
    pub(crate) fn spelt(id: String) -> Self {
        Self(id.into())
    }

    /// The id of a record that carries none of its own: the headers', else the position's.
    pub fn of_record(origin: &Origin, record: &Record) -> Self {
        let header = ["ce_id", "weir-id"].iter().find_map(|name| {
            let id = std::str::from_utf8(record.header(name)?).ok()?;
            is_storable_id(id).then_some(id)
        });
        match header {
            Some(id) => Self(id.into()),
            None => {
                let Origin { topic_id, partition, .. } = origin;
                Self(format!("{topic_id}:{partition}:{}", record.offset).into())
            }
        }
    }

    /// The id the payload gives itself, or else the record's.
    ///
    /// # Errors
    /// The payload's id is empty, longer than [`ID_BYTES_MAX`] or contains NUL: no key could hold it.
    fn of_payload(own: Option<Cow<'_, str>>, origin: &Origin, record: &Record) -> Result<Self, NotDecoded> {
        match own {
            None => Ok(Self::of_record(origin, record)),
            Some(id) if is_storable_id(&id) => Ok(Self(id.into())),
            Some(id) => Err(NotDecoded::Malformed(format!(
                "the event's id has {} bytes or a NUL; from 1 to {ID_BYTES_MAX} bytes without NUL can be kept",
                id.len()
            ))),
        }
    }
}

fn is_storable_id(id: &str) -> bool {
    !id.is_empty() && is_storable(id)
}

fn is_storable(text: &str) -> bool {
    text.len() <= ID_BYTES_MAX && !text.contains('\0')
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One decoded record.
#[derive(Debug)]
pub struct Event<T> {
    /// What makes the event one and the same wherever it is met again.
    pub id: EventId,
    /// Topic and partition.
    pub origin: Arc<Origin>,
    /// The record as it was fetched: offset, key, headers, raw value.
    pub record: Record,
    /// What the decoder made of the record's value.
    pub payload: T,
}

impl<T: Payload> Event<T> {
    /// Decodes a record.
    ///
    /// # Errors
    /// The value is not what the decoder expects, its id cannot be kept, or the decoder cannot read it yet. The record comes
    /// back with the error.
    pub fn decode(
        decoder: &dyn Decode<T>,
        origin: &Arc<Origin>,
        record: Record,
    ) -> Result<Self, Box<(Record, NotDecoded)>> {
        // A decoder that panics on a record is a decoder that cannot take it.
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(&record)));
        let decoded = decoded.unwrap_or_else(|_| Err(NotDecoded::Malformed("the decoder panicked".to_owned())));
        let decoded = decoded.and_then(|payload| {
            if !is_storable(payload.kind()) {
                let why = format!("the event's type is longer than {ID_BYTES_MAX} bytes or contains NUL");
                return Err(NotDecoded::Malformed(why));
            }
            let id = EventId::of_payload(payload.id(), origin, &record)?;
            Ok((payload, id))
        });
        match decoded {
            Ok((payload, id)) => Ok(Self { id, origin: Arc::clone(origin), record, payload }),
            Err(why) => Err(Box::new((record, why))),
        }
    }

    /// Milliseconds since 1970 by the payload, else by Kafka.
    pub fn timestamp_ms(&self) -> i64 {
        self.payload.timestamp_ms().unwrap_or(self.record.timestamp_ms)
    }
}

/// What the shipped parts ask of a payload. Every method but [`kind`](Payload::kind) may stay as it is.
pub trait Payload: Send + Sync + 'static {
    /// The event's own id; `None` takes the header's or the position's.
    fn id(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The event's type, for example `new_message`.
    fn kind(&self) -> &str;
    /// When it happened, in milliseconds since 1970.
    fn timestamp_ms(&self) -> Option<i64> {
        None
    }
    /// Who did it.
    fn user(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The conversation it belongs to.
    fn conversation(&self) -> Option<Cow<'_, str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::MessageEvent;

    fn origin() -> Arc<Origin> {
        Arc::new(Origin { topic: "t".into(), topic_id: Uuid::nil(), partition: 3 })
    }

    fn decode(record: Record) -> Result<Event<MessageEvent>, Box<(Record, NotDecoded)>> {
        Event::decode(&Json::<MessageEvent>::default(), &origin(), record)
    }

    const WITHOUT_ID: &str = r#"{"type":"new_message","message":{"from":1,"to":"b","content":"x","message_type":1,"timestamp":5},"timestamp":6}"#;

    #[test]
    fn the_payloads_own_id_comes_first() {
        let value = WITHOUT_ID.replace("\"from\"", "\"message_id\":\"m-1\",\"from\"");
        let record = Record::new(7, &value).with_header("ce_id", b"c-1");
        assert_eq!(decode(record).unwrap().id.as_str(), "m-1");
    }

    #[test]
    fn headers_come_second_and_the_position_last() {
        let both = Record::new(7, WITHOUT_ID).with_header("weir-id", b"w-1").with_header("ce_id", b"c-1");
        assert_eq!(decode(both).unwrap().id.as_str(), "c-1");
        let one = Record::new(7, WITHOUT_ID).with_header("weir-id", b"w-1");
        assert_eq!(decode(one).unwrap().id.as_str(), "w-1");
        let none = decode(Record::new(7, WITHOUT_ID)).unwrap();
        assert_eq!(none.id.as_str(), "00000000-0000-0000-0000-000000000000:3:7");
    }

    #[test]
    fn an_id_no_key_can_hold_is_malformed_in_the_payload_and_passed_over_in_a_header() {
        let long = WITHOUT_ID.replace("\"from\"", &format!("\"message_id\":\"{}\",\"from\"", "x".repeat(513)));
        assert!(decode(Record::new(7, &long)).is_err());
        let nul = WITHOUT_ID.replace("\"from\"", "\"message_id\":\"a\\u0000\",\"from\"");
        assert!(decode(Record::new(7, &nul)).is_err());
        let header = Record::new(7, WITHOUT_ID).with_header("ce_id", b"");
        assert!(decode(header).unwrap().id.as_str().ends_with(":3:7"));
    }

    #[test]
    fn a_malformed_messages_text_never_quotes_the_payload() {
        let (_, why) = *decode(Record::new(7, r#"{"type":"secret-word","message":"secret-word"}"#)).unwrap_err();
        assert!(matches!(why, NotDecoded::Malformed(_)) && !why.to_string().contains("secret-word"), "{why}");
    }
}
