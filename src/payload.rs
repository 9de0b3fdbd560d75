//! The shipped event types, one file a topic: its types, and what they tell of themselves.
//!
//! Fields that a type does not know are ignored, so that a producer may add some before its consumers
//! are changed. `schemas/` has them as JSON Schema, for producers in other languages. Time stamps are milliseconds since 1970 (UTC).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

mod attributes;
pub mod group;
pub mod message;
pub mod order;
#[cfg(test)]
mod shipped;
pub mod system;
pub mod user;

pub use group::GroupEvent;
pub use message::{Message, MessageEvent};
pub use order::{OrderEvent, OrderPaid};
#[cfg(test)]
pub(crate) use shipped::{Decoded, Shipped, of_any_type};
pub use system::SystemEvent;
pub use user::{UserEvent, UserLogin};

/// Every topic whose types are shipped.
#[cfg(test)]
pub(crate) const SHIPPED: &[Shipped] =
    &[message::SHIPPED, user::SHIPPED, group::SHIPPED, system::SHIPPED, order::SHIPPED];

/// An identifier that a producer spells either as a string or as an integer. It stays what it was when
/// it is written again; as text ([`fmt::Display`]) an integer is its decimal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// Given as a JSON string.
    Text(String),
    /// Given as a JSON integer: anything from `i64::MIN` to `u64::MAX`.
    Integer(i128),
}

/// Who sent or receives something.
pub type UserId = Id;

impl Id {
    /// Whether it is the empty string, which names nobody.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// As text; only an integer's is made anew.
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Integer(integer) => Cow::Owned(integer.to_string()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(integer) => write!(f, "{integer}"),
        }
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Id {
    fn from(integer: i64) -> Self {
        Self::Integer(integer.into())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(integer) => serializer.serialize_i128(*integer),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrInteger;

        impl Visitor<'_> for StringOrInteger {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Id, E> {
                Ok(Id::Text(text))
            }

            fn visit_i64<E: Error>(self, integer: i64) -> Result<Id, E> {
                Ok(Id::Integer(integer.into()))
            }

            fn visit_u64<E: Error>(self, integer: u64) -> Result<Id, E> {
                Ok(Id::Integer(integer.into()))
            }
        }

        deserializer.deserialize_any(StringOrInteger)
    }
}

/// The conversation of a message between two users: both ids as text, sorted, joined by `:`. So it is
/// the same whoever of the two writes.
pub fn conversation_of_two(one: &str, other: &str) -> String {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    [first, ":", second].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_kind_and_its_value() {
        for json in [r#""1001""#, "1001", "-7", "18446744073709551615", r#""zoë""#, r#""""#] {
            let id: Id = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&id).unwrap(), json);
        }
    }

    #[test]
    fn an_id_is_neither_a_fraction_nor_a_list_nor_null() {
        for json in ["1.5", "[1]", "null", "true", "{}"] {
            serde_json::from_str::<Id>(json).unwrap_err();
        }
    }

    #[test]
    fn a_conversation_is_sorted_as_text() {
        assert_eq!(conversation_of_two("9", "10"), "10:9");
        assert_eq!(conversation_of_two("10", "9"), "10:9");
        assert_eq!(conversation_of_two("a", "a"), "a:a");
    }
}
