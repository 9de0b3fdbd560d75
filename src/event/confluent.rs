//! The header that Confluent's serializers put before a value: a zero byte, then the schema's id in a registry as four bytes,
//! the most significant first.

use super::{Decode, NotDecoded, Record};

const MAGIC: u8 = 0;
const HEADER_BYTES: usize = 5;

/// The schema's id and what follows the header. `None`: there is no such header.
pub(super) fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (header, rest) = value.split_first_chunk::<HEADER_BYTES>()?;
    let [MAGIC, id @ ..] = *header else { return None };
    Some((u32::from_be_bytes(id), rest))
}

/// What to say of a value that should be JSON and begins with the header: no JSON begins with a zero byte, so it is not one
/// event's fault.
pub(super) fn instead_of_json(value: &[u8]) -> Option<NotDecoded> {
    let (id, _) = split(value)?;
    Some(NotDecoded::Hold(format!(
        "a value begins with a Confluent header (a zero byte and schema id {id}), and this pool reads plain JSON: a producer \
         writes Avro, Protobuf or JSON by a schema registry. Have it write plain JSON, or make the pool by code with the decoder \
         of that format (weir::event::Avro, Protobuf, or Unframed for JSON); to go on behind such records: `weir seek`"
    )))
}

/// A decoder of values behind a Confluent header whose schema it does not need, such as JSON.
#[derive(Debug, Clone, Default)]
pub struct Unframed<D>(pub D);

impl<T, D: Decode<T>> Decode<T> for Unframed<D> {
    fn decode(&self, record: &Record) -> Result<T, NotDecoded> {
        let value = record.value.as_ref().ok_or_else(|| NotDecoded::malformed("the record has no value"))?;
        let (_, rest) = split(value).ok_or_else(no_header)?;
        let rest = value.slice_ref(rest);
        self.0.decode(&Record { value: Some(rest), ..record.clone() })
    }
}

/// A value without the header where one was expected.
pub(super) fn no_header() -> NotDecoded {
    NotDecoded::malformed("the value does not begin with a Confluent header (a zero byte and a schema id)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Fields, Json, Payload as _};
    use crate::payload::OrderEvent;

    const PAID: &str = r#"{"type":"order_paid","event_id":"e","order_id":1,"user_id":7,"amount_minor":1,"currency":"EUR","timestamp":1}"#;

    fn framed(id: u32, rest: &[u8]) -> Record {
        Record::new(0, [&[0], &id.to_be_bytes()[..], rest].concat())
    }

    #[test]
    fn a_header_where_json_is_read_is_no_events_fault() {
        let fields = Fields::new(&crate::config::EventFields::default()).unwrap();
        let record = framed(100_007, b"\x02e");
        for why in [Json::<OrderEvent>::default().decode(&record).unwrap_err(), fields.decode(&record).unwrap_err()] {
            assert!(matches!(&why, NotDecoded::Hold(why) if why.contains("schema id 100007")), "{why:?}");
        }
        // Too short for a header, or no zero byte in front: one event's fault.
        for value in [&b"\0\0\0\0"[..], b"\x01\0\0\0\x07{}", b""] {
            assert!(matches!(fields.decode(&Record::new(0, value)), Err(NotDecoded::Malformed(_))), "{value:?}");
        }
    }

    #[test]
    fn json_behind_a_header_is_read_without_it() {
        let decoder = Unframed(Json::<OrderEvent>::default());
        let event = decoder.decode(&framed(7, PAID.as_bytes())).unwrap();
        assert_eq!((event.kind(), event.id().as_deref()), ("order_paid", Some("e")));
        assert!(matches!(decoder.decode(&Record::new(0, PAID)), Err(NotDecoded::Malformed(_))));
    }

    #[test]
    fn a_records_id_does_not_depend_on_the_frame() {
        let origin = crate::event::Origin { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: 0 };
        let record = framed(7, b"x").with_header("ce_id", b"c");
        assert_eq!(EventId::of_record(&origin, &record).as_str(), "c");
    }
}
