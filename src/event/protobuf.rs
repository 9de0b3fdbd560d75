//! Protobuf, plain or behind a Confluent header.

use std::fmt;
use std::marker::PhantomData;

use super::{Decode, NotDecoded, Record, confluent};

/// The deepest nesting of messages that a header's path may name.
const DEPTH_MAX: usize = 32;

/// Decodes Protobuf into a message type of `prost`'s.
///
/// Plain values are the message's bytes alone. A Confluent serializer puts a header before them, and the place of the message
/// in its schema: [`Protobuf::confluent`]. The schema itself is not asked for, since the Rust type has it.
pub struct Protobuf<M> {
    framing: Framing,
    message: PhantomData<fn() -> M>,
}

enum Framing {
    None,
    /// A Confluent header, and the path to the message among those of its schema.
    Confluent(Vec<i32>),
}

impl<M> Default for Protobuf<M> {
    fn default() -> Self {
        Self { framing: Framing::None, message: PhantomData }
    }
}

impl<M> Protobuf<M> {
    /// Values are behind a Confluent header, and the message is the first of its schema.
    #[must_use]
    pub fn confluent() -> Self {
        Self::confluent_at([0])
    }

    /// Values are behind a Confluent header, and the message is at this place in its schema: `[1]` is the second, `[1, 0]` the
    /// first within the second. Values of another message are of an unknown type.
    #[must_use]
    pub fn confluent_at(path: impl Into<Vec<i32>>) -> Self {
        Self { framing: Framing::Confluent(path.into()), message: PhantomData }
    }
}

impl<M: prost::Message + Default + 'static> Decode<M> for Protobuf<M> {
    fn decode(&self, record: &Record) -> Result<M, NotDecoded> {
        let value = record.value.as_deref().unwrap_or_default();
        let message = match &self.framing {
            Framing::None => value,
            Framing::Confluent(expected) => {
                let (_, rest) = confluent::split(value).ok_or_else(confluent::no_header)?;
                let (path, message) = path(rest).ok_or_else(|| {
                    NotDecoded::malformed("behind the Confluent header there is no list of message indexes")
                })?;
                if path != *expected {
                    return Err(NotDecoded::UnknownType);
                }
                message
            }
        };
        M::decode(message).map_err(|error| match (&self.framing, confluent::split(value)) {
            // No message begins with a zero byte: a field's number is at least 1.
            (Framing::None, Some((id, _))) => NotDecoded::Hold(format!(
                "a value begins with a Confluent header (a zero byte and schema id {id}), and the pool reads plain Protobuf: make \
                 its decoder by Protobuf::confluent()"
            )),
            _ => NotDecoded::Malformed(error.to_string()),
        })
    }
}

impl<M> fmt::Debug for Protobuf<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &self.framing {
            Framing::None => None,
            Framing::Confluent(path) => Some(path),
        };
        f.debug_struct("Protobuf").field("confluent", &path).finish()
    }
}

/// The message's place and what follows it: how many indexes, then each, as signed variable-length integers; the one index 0
/// may be written as a count of 0.
fn path(bytes: &[u8]) -> Option<(Vec<i32>, &[u8])> {
    let (count, mut rest) = signed(bytes)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= DEPTH_MAX)?;
    if count == 0 {
        return Some((vec![0], rest));
    }
    let mut path = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, after) = signed(rest)?;
        path.push(index);
        rest = after;
    }
    Some((path, rest))
}

/// A signed integer of 32 bits in its variable-length form: seven bits a byte, the sign in the lowest.
fn signed(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            let signed = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            return Some((signed, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fuzz::damage_to;

    /// A payment, as a service would define it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Paid {
        #[prost(int32, tag = "1")]
        amount: i32,
        #[prost(string, optional, tag = "2")]
        note: Option<String>,
    }

    /// The encoding's own documentation: field 1 with the value 150; field 2 with the text "testing".
    const DOCUMENTED: &[u8] = b"\x08\x96\x01\x12\x07testing";

    fn paid() -> Paid {
        Paid { amount: 150, note: Some("testing".to_owned()) }
    }

    fn framed(path: &[u8], message: &[u8]) -> Record {
        Record::new(0, [b"\0\0\0\0\x2a", path, message].concat())
    }

    #[test]
    fn plain_messages_are_read_and_fields_may_come_and_go() {
        let decoder = Protobuf::<Paid>::default();
        let decode = |value: &[u8]| decoder.decode(&Record::new(0, value));
        assert_eq!(decode(DOCUMENTED), Ok(paid()));
        assert_eq!(decode(b"\x08\x96\x01"), Ok(Paid { note: None, ..paid() }), "an optional field is missing");
        let later = [DOCUMENTED, b"\x1a\x03new\x20\x05"].concat();
        assert_eq!(decode(&later), Ok(paid()), "fields 3 and 4 were added");
        for broken in [&b"\x08"[..], b"\x12\x07test", b"\x12\x02\xff\xfe", b"{}"] {
            assert!(matches!(decode(broken), Err(NotDecoded::Malformed(_))), "{broken:?}");
        }
    }

    #[test]
    fn framed_messages_are_read_by_their_place_in_the_schema() {
        let first = Protobuf::<Paid>::confluent();
        assert_eq!(first.decode(&framed(&[0], DOCUMENTED)), Ok(paid()));
        assert_eq!(first.decode(&framed(&[2, 0], DOCUMENTED)), Ok(paid()), "written in full: one index, 0");
        assert_eq!(first.decode(&framed(&[2, 2], DOCUMENTED)), Err(NotDecoded::UnknownType), "the second message");
        let nested = Protobuf::<Paid>::confluent_at([1, 0]);
        assert_eq!(nested.decode(&framed(&[4, 2, 0], DOCUMENTED)), Ok(paid()));
        for broken in [framed(&[], b""), framed(&[4, 2], b""), framed(&[0x80; 9], b""), Record::new(0, DOCUMENTED)] {
            assert!(matches!(first.decode(&broken), Err(NotDecoded::Malformed(_))), "{broken:?}");
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_tell_what_is_in_a_value() {
        let (plain, nested) = (Protobuf::<Paid>::default(), Protobuf::<Paid>::confluent_at([1, 0]));
        let is_quiet =
            |told: Result<Paid, NotDecoded>| told.err().is_none_or(|why| !why.to_string().contains("testing"));
        damage_to(DOCUMENTED, |value| is_quiet(plain.decode(&Record::new(0, value))));
        let sound = [b"\0\0\0\0\x2a\x04\x02\x00", DOCUMENTED].concat();
        damage_to(&sound, |value| is_quiet(nested.decode(&Record::new(0, value))));
    }

    #[test]
    fn a_header_where_none_was_expected_is_no_events_fault() {
        let why = Protobuf::<Paid>::default().decode(&framed(&[0], DOCUMENTED)).unwrap_err();
        assert!(matches!(&why, NotDecoded::Hold(why) if why.contains("schema id 42")), "{why:?}");
    }

    #[test]
    fn indexes_are_read_as_they_are_written() {
        for (bytes, value) in [(&[0_u8][..], 0), (&[1], -1), (&[2], 1), (&[0xac, 0x02], 150)] {
            assert_eq!(signed(bytes), Some((value, &[][..])));
        }
        assert_eq!(signed(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Some((i32::MAX, &[][..])));
        assert_eq!((signed(&[0x80]), signed(&[0x80; 6])), (None, None));
    }
}
