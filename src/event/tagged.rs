//! Many types in one topic, told apart by a name that each event carries.

use std::collections::HashMap;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::decode::not_json;
use super::{Decode, Json, NotDecoded, Record};

/// A decoder for a topic with several types: a name in the event chooses the decoder.
///
/// ```
/// use weir::event::Tagged;
/// use weir::payload::{OrderEvent, OrderPaid, UserLogin};
///
/// enum Activity {
///     Paid(OrderPaid),
///     Login(UserLogin),
/// }
/// let decoder = Tagged::by_field("type")
///     .json::<OrderPaid>("order_paid", Activity::Paid)
///     .json::<UserLogin>("user_login", Activity::Login);
/// // An enum that serde itself tells apart by the field:
/// let orders = Tagged::<OrderEvent>::by_field("type").variants(["order_paid", "order_cancelled"]);
/// ```
///
/// An event of any other type is [`NotDecoded::UnknownType`]: the pool counts it, and passes it or sets it aside
/// (`PoolBuilder::on_unknown_type`, or the pool's key `on_unknown_type`). One that carries no name is malformed.
pub struct Tagged<T> {
    tag: Tag,
    known: HashMap<Box<str>, Box<dyn Decode<T>>>,
}

enum Tag {
    /// A field at the top of a JSON object.
    Field(Box<str>),
    Header(Box<str>),
}

impl<T: 'static> Tagged<T> {
    /// The type stands in a field at the top of the JSON object.
    #[must_use]
    pub fn by_field(name: &str) -> Self {
        Self { tag: Tag::Field(name.into()), known: HashMap::new() }
    }

    /// The type stands in a header of the record, as with `ce_type`; the value may be of any format.
    #[must_use]
    pub fn by_header(name: &str) -> Self {
        Self { tag: Tag::Header(name.into()), known: HashMap::new() }
    }

    /// Events of this type are read by this decoder.
    #[must_use]
    pub fn with(mut self, name: &str, decoder: impl Decode<T>) -> Self {
        self.known.insert(name.into(), Box::new(decoder));
        self
    }

    /// Events of this type are read by a decoder of another Rust type and made into the pool's.
    #[must_use]
    pub fn of<V: 'static>(self, name: &str, decoder: impl Decode<V>, into: fn(V) -> T) -> Self {
        self.with(name, Into { decoder, into })
    }

    /// Events of this type are the JSON of a Rust type, made into the pool's.
    #[must_use]
    pub fn json<V: DeserializeOwned + 'static>(self, name: &str, into: fn(V) -> T) -> Self {
        self.of(name, Json::<V>::default(), into)
    }

    /// Events of these types are JSON that the pool's own type tells apart, as an enum with serde's `tag` does.
    #[must_use]
    pub fn variants<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self
    where
        T: DeserializeOwned,
    {
        names.into_iter().fold(self, |all, name| all.with(name, Json::<T>::default()))
    }

    fn decoder(&self, name: &str) -> Result<&dyn Decode<T>, NotDecoded> {
        self.known.get(name).map(|decoder| &**decoder).ok_or(NotDecoded::UnknownType)
    }
}

impl<T: 'static> Decode<T> for Tagged<T> {
    fn decode(&self, record: &Record) -> Result<T, NotDecoded> {
        match &self.tag {
            Tag::Header(name) => {
                let found = record.header(name).and_then(|value| std::str::from_utf8(value).ok());
                let found = found.ok_or_else(|| NotDecoded::Malformed(format!("no header {name:?} tells its type")))?;
                self.decoder(found)?.decode(record)
            }
            Tag::Field(name) => {
                let value = record.value.as_deref().unwrap_or_default();
                self.decoder(&name_in(value, name)?)?.decode(record)
            }
        }
    }
}

impl<T> fmt::Debug for Tagged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagged").field("known", &self.known.keys()).finish_non_exhaustive()
    }
}

struct Into<D, V, T> {
    decoder: D,
    into: fn(V) -> T,
}

impl<V: 'static, T: 'static, D: Decode<V>> Decode<T> for Into<D, V, T> {
    fn decode(&self, record: &Record) -> Result<T, NotDecoded> {
        self.decoder.decode(record).map(self.into)
    }
}

/// The text that a JSON object has in a field. Reading ends there: the type's decoder looks at the rest.
fn name_in(value: &[u8], field: &str) -> Result<String, NotDecoded> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(value);
    let walked = json.deserialize_map(Find { field, found: &mut found });
    match (found, walked) {
        (Some(name), _) => Ok(name),
        (None, Ok(())) => Err(NotDecoded::Malformed(format!("no field {field:?} tells its type"))),
        (None, Err(error)) => Err(not_json(value, &error)),
    }
}

struct Find<'a> {
    field: &'a str,
    found: &'a mut Option<String>,
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_it) = map.next_key_seed(Is(self.field))? {
            if is_it {
                *self.found = Some(map.next_value()?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Whether a field has this name.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fuzz::damage_to;
    use crate::payload::{OrderEvent, OrderPaid, UserLogin};

    #[derive(Debug, PartialEq)]
    enum Activity {
        Paid(OrderPaid),
        Login(UserLogin),
    }

    fn activities(decoder: Tagged<Activity>) -> Tagged<Activity> {
        decoder.json("order_paid", Activity::Paid).json("user_login", Activity::Login)
    }

    const LOGIN: &str = r#"{"user_id":"u","timestamp":1,"type":"user_login","added":{"later":[1]}}"#;

    #[test]
    fn a_field_chooses_the_type_wherever_it_stands() {
        let decoder = activities(Tagged::by_field("type"));
        let Activity::Login(login) = decoder.decode(&Record::new(0, LOGIN)).unwrap() else { panic!("a login") };
        assert_eq!((login.user_id, login.device), ("u".into(), None));
    }

    #[test]
    fn a_header_chooses_the_type() {
        let decoder = activities(Tagged::by_header("ce_type"));
        let record = Record::new(0, LOGIN).with_header("ce_type", b"user_login");
        assert!(matches!(decoder.decode(&record), Ok(Activity::Login(_))));
        assert_eq!(decoder.decode(&record.with_header("ce_type", b"other")), Err(NotDecoded::UnknownType));
        assert!(matches!(decoder.decode(&Record::new(0, LOGIN)), Err(NotDecoded::Malformed(_))));
    }

    #[test]
    fn no_damage_makes_it_panic_or_tell_what_is_in_a_value() {
        let (by_field, by_header) = (activities(Tagged::by_field("type")), activities(Tagged::by_header("ce_type")));
        let sound = LOGIN.replace("\"u\"", "\"sEcReT\"");
        damage_to(sound.as_bytes(), |value| {
            let record = Record::new(0, value).with_header("ce_type", b"user_login");
            let told = [by_field.decode(&record), by_header.decode(&record)];
            told.into_iter().filter_map(Result::err).all(|why| !why.to_string().contains("sEcReT"))
        });
    }

    #[test]
    fn an_unknown_type_is_told_from_what_has_none_and_from_what_is_broken() {
        let decoder = Tagged::<OrderEvent>::by_field("type").variants(["order_paid", "order_cancelled"]);
        let decode = |json: &str| decoder.decode(&Record::new(0, json));
        assert_eq!(decode(r#"{"type":"order_refunded","order_id":1}"#), Err(NotDecoded::UnknownType));
        assert!(decode(r#"{"type":"order_cancelled","order_id":1,"timestamp":2}"#).is_ok());
        for broken in [
            r#"{"order_id":1}"#,
            r#"{"type":7}"#,
            r#"{"type":"order_cancelled"}"#,
            r#"{"type":"order_cancelled","order_id":1,"timestamp":2"#,
            r#"["order_paid"]"#,
            "",
        ] {
            assert!(matches!(decode(broken), Err(NotDecoded::Malformed(_))), "{broken}");
        }
        assert!(matches!(decode("\0\0\0\0\x07xyz"), Err(NotDecoded::Hold(_))), "a Confluent header");
    }
}
