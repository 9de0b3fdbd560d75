//! What an expression works with. Texts are borrowed from the event or the expression wherever they can be.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::node::Literal;
use crate::event;

/// Why an evaluation ends without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// It asked for something that is not there.
    Missing,
    /// It cannot be; in words, without the values.
    Failed(String),
}

pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<BTreeMap<Cow<'a, str>, Val<'a>>>),
    /// An object or a list of which nothing is asked but that it is there.
    Composite,
}

impl<'a> Val<'a> {
    /// What it is called in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Uint(_) => "a whole number",
            Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
            Self::Composite => "an object or a list",
        }
    }

    pub(super) fn of_literal(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Int(value) => Self::Int(*value),
            Literal::Uint(value) => Self::Uint(*value),
            Literal::Double(value) => Self::Double(*value),
            Literal::Text(text) => Self::Text(Cow::Borrowed(text)),
        }
    }

    pub(super) fn of_picked(value: &'a event::Value) -> Result<Self, Stop> {
        Ok(match value {
            event::Value::Absent => return Err(Stop::Missing),
            event::Value::Null => Self::Null,
            event::Value::Bool(value) => Self::Bool(*value),
            event::Value::Int(value) => Self::Int(*value),
            event::Value::Uint(value) => Self::Uint(*value),
            event::Value::Float(value) => Self::Double(*value),
            event::Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            event::Value::Json(json) => {
                return serde_json::from_str(json).or_else(|_| failed("a part of the payload cannot be read"));
            }
            event::Value::Composite => Self::Composite,
        })
    }

    /// A value of a lookup table, which may be replaced meanwhile.
    pub(super) fn of_json(value: &serde_json::Value) -> Val<'static> {
        match value {
            serde_json::Value::Null => Val::Null,
            serde_json::Value::Bool(value) => Val::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Val::Int(value),
                (None, Some(value)) => Val::Uint(value),
                (None, None) => Val::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Val::Text(Cow::Owned(text.clone())),
            serde_json::Value::Array(list) => Val::List(Rc::new(list.iter().map(Val::of_json).collect())),
            serde_json::Value::Object(_) => Val::Composite,
        }
    }

    /// The key of a table's row: a text as it is, a whole number as its decimal text.
    pub(super) fn as_key(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Uint(value) => Some(Cow::Owned(value.to_string())),
            _ => None,
        }
    }

    /// About how much of it a comparison looks at.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 64,
            Self::List(list) => list.iter().map(|value| 1 + value.weight()).sum(),
            Self::Map(map) => map.values().map(|value| 1 + value.weight()).sum(),
            _ => 0,
        }
    }

    /// Values of different kinds are not equal; numbers are compared by their value.
    pub(super) fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Self::Null, Val::Null) => true,
            (Self::Bool(a), Val::Bool(b)) => a == b,
            (Self::Text(a), Val::Text(b)) => a == b,
            (Self::List(a), Val::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b)),
            (Self::Map(a), Val::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(&**key).is_some_and(|b| a.equals(b)))
            }
            _ => self.number_order(other) == Some(Ordering::Equal),
        }
    }

    pub(super) fn order(&self, other: &Val<'_>) -> Result<Option<Ordering>, Stop> {
        match (self, other) {
            (Self::Text(a), Val::Text(b)) => Ok(Some(a.cmp(b))),
            (Self::Bool(a), Val::Bool(b)) => Ok(Some(a.cmp(b))),
            (a, b) if a.is_number() && b.is_number() => Ok(a.number_order(b)),
            (a, b) => failed(format!("{} with {} cannot be compared", a.kind(), b.kind())),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    #[expect(clippy::cast_precision_loss, reason = "as CEL compares whole numbers with others")]
    fn number_order(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Double(a), Val::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Uint(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Val<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Reads JSON; serde_json bounds its depth.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Val<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Val<'de>, E> {
        Ok(Val::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Val<'de>, E> {
        Ok(Val::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Val<'de>, E> {
        Ok(Val::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Val<'de>, E> {
        Ok(i64::try_from(value).map_or(Val::Uint(value), Val::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Val<'de>, E> {
        Ok(Val::Double(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Val<'de>, E> {
        Ok(Val::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Val<'de>, E> {
        Ok(Val::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Val<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Val::List(Rc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Val<'de>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Val<'de>>()? {
            map.insert(Cow::Owned(key), value);
        }
        Ok(Val::Map(Rc::new(map)))
    }
}
