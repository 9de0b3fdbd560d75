//! Any JSON object, for users without a Rust type: only the fields somebody asked for are kept, picked in one
//! pass over the bytes, without a tree.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytestring::ByteString;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::confluent::instead_of_json;
use super::{Decode, NotDecoded, Payload, Record, malformed_json};
use crate::config::EventFields;
use crate::payload::conversation_of_two;

/// A picked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The object has no such field.
    Absent,
    /// JSON's null.
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number that fits 64 bits with a sign.
    Int(i64),
    /// A whole number above that.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string; without escapes in it, it is a part of the record's value.
    Text(ByteString),
    /// The JSON text of a field that was asked for as such.
    Json(ByteString),
    /// An object or a list where a single value was asked for.
    Composite,
}

impl Value {
    /// A string as it is, a whole number as its decimal text; nothing else has a text.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            Self::Uint(number) => Some(Cow::Owned(number.to_string())),
            _ => None,
        }
    }
}

/// The place of a picked field in a [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The fields picked from one JSON object.
#[derive(Debug)]
pub struct Document {
    values: Box<[Value]>,
    attributes: Arc<Attributes>,
    /// Put together when it is first asked for: several columns and counters may ask.
    of_two: OnceLock<Option<Box<str>>>,
}

#[derive(Debug, Clone)]
struct Attributes {
    id: Slot,
    kind: Slot,
    timestamp: Slot,
    user: Slot,
    conversation: Conversation,
}

#[derive(Debug, Clone, Copy)]
enum Conversation {
    Field(Slot),
    /// The chat envelope's rule: the group's id, else both users.
    Chat {
        group: Slot,
        from: Slot,
        to: Slot,
    },
}

impl Document {
    /// The value picked for a slot of the same [`Fields`].
    pub fn get(&self, slot: Slot) -> &Value {
        &self.values[slot.0]
    }
}

impl Payload for Document {
    fn id(&self) -> Option<Cow<'_, str>> {
        self.get(self.attributes.id).text()
    }

    fn kind(&self) -> &str {
        match self.get(self.attributes.kind) {
            Value::Text(kind) => kind,
            _ => "",
        }
    }

    fn timestamp_ms(&self) -> Option<i64> {
        match self.get(self.attributes.timestamp) {
            Value::Int(ms) => Some(*ms),
            _ => None,
        }
    }

    fn user(&self) -> Option<Cow<'_, str>> {
        self.get(self.attributes.user).text()
    }

    fn conversation(&self) -> Option<Cow<'_, str>> {
        match self.attributes.conversation {
            Conversation::Field(slot) => self.get(slot).text(),
            Conversation::Chat { group, from, to } => match self.get(group).text() {
                Some(group) if !group.is_empty() => Some(group),
                _ => {
                    let of_two = || {
                        let (from, to) = (self.get(from).text()?, self.get(to).text()?);
                        Some(conversation_of_two(&from, &to).into())
                    };
                    self.of_two.get_or_init(of_two).as_deref().map(Cow::Borrowed)
                }
            },
        }
    }
}

/// A pointer that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSON pointer to a field: it must start with \"/\" (RFC 6901)")]
pub struct FieldsError(pub String);

/// The decoder of [`Document`]s: JSON pointers compiled into one tree of names that a parse walks along.
#[derive(Debug, Clone)]
pub struct Fields {
    root: Node,
    slots: usize,
    attributes: Arc<Attributes>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    slot: Option<usize>,
    raw_slot: Option<usize>,
    children: Vec<(Box<str>, Node)>,
}

impl Fields {
    /// A decoder that picks the attributes every event has.
    ///
    /// # Errors
    /// One of the pointers does not start with `/`.
    pub fn new(fields: &EventFields) -> Result<Self, FieldsError> {
        let (mut root, mut slots) = (Node::default(), 0);
        let mut pick = |pointer: &str| root.pick(pointer, &mut slots, false);
        let attributes = Attributes {
            id: pick(&fields.id)?,
            kind: pick(&fields.r#type)?,
            timestamp: pick(&fields.timestamp)?,
            user: pick(&fields.user)?,
            conversation: match &fields.conversation {
                Some(pointer) => Conversation::Field(pick(pointer)?),
                None => Conversation::Chat {
                    group: pick("/message/group_id")?,
                    from: pick("/message/from")?,
                    to: pick("/message/to")?,
                },
            },
        };
        Ok(Self { root, slots, attributes: Arc::new(attributes) })
    }

    /// Also picks the single value at a pointer.
    ///
    /// # Errors
    /// The pointer does not start with `/`.
    pub fn value(&mut self, pointer: &str) -> Result<Slot, FieldsError> {
        self.root.pick(pointer, &mut self.slots, false)
    }

    /// Also picks what stands at a pointer as JSON text, whatever it is.
    ///
    /// # Errors
    /// The pointer does not start with `/`.
    pub fn json(&mut self, pointer: &str) -> Result<Slot, FieldsError> {
        self.root.pick(pointer, &mut self.slots, true)
    }
}

impl Decode<Document> for Fields {
    fn decode(&self, record: &Record) -> Result<Document, NotDecoded> {
        let bytes = record.value.clone().unwrap_or_default();
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            let malformed = || NotDecoded::malformed("the value is not a JSON object");
            return Err(instead_of_json(&bytes).unwrap_or_else(malformed));
        }
        let mut values = vec![Value::Absent; self.slots].into_boxed_slice();
        let walked = match ByteString::try_from(bytes.clone()) {
            Ok(source) => {
                let mut json = serde_json::Deserializer::from_str(&source);
                let walk = Walk { source: Some(&source), node: &self.root, values: &mut values };
                walk.deserialize(&mut json).and_then(|()| json.end())
            }
            // What is no UTF-8 may stand in a field that nobody asked for.
            Err(_) => {
                let mut json = serde_json::Deserializer::from_slice(&bytes);
                let walk = Walk { source: None, node: &self.root, values: &mut values };
                walk.deserialize(&mut json).and_then(|()| json.end())
            }
        };
        walked.map_err(|error| malformed_json(&error))?;
        Ok(Document { values, attributes: Arc::clone(&self.attributes), of_two: OnceLock::new() })
    }
}

impl Node {
    fn pick(&mut self, pointer: &str, slots: &mut usize, raw: bool) -> Result<Slot, FieldsError> {
        let path = pointer.strip_prefix('/').ok_or_else(|| FieldsError(pointer.to_owned()))?;
        let mut node = self;
        for step in path.split('/') {
            let name = step.replace("~1", "/").replace("~0", "~");
            let at = match node.children.iter().position(|(known, _)| **known == *name) {
                Some(at) => at,
                None => {
                    node.children.push((name.into(), Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
        }
        let slot = if raw { &mut node.raw_slot } else { &mut node.slot };
        Ok(Slot(*slot.get_or_insert_with(|| {
            *slots += 1;
            *slots - 1
        })))
    }

    fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(known, _)| **known == *name).map(|(_, node)| node)
    }
}

/// Deserializes one value, keeping what the node asks for.
struct Walk<'a> {
    /// What is walked through, where picked strings can be parts of it.
    source: Option<&'a ByteString>,
    node: &'a Node,
    values: &'a mut [Value],
}

impl Walk<'_> {
    fn part(&self, text: &str) -> ByteString {
        self.source.map_or_else(|| text.into(), |source| source.slice_ref(text))
    }

    fn keep(self, value: Value) {
        if let Some(slot) = self.node.slot {
            self.values[slot] = value;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.raw_slot else { return deserializer.deserialize_any(self) };
        let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        let mut inner = serde_json::Deserializer::from_str(raw.get());
        self.values[slot] = Value::Json(self.part(raw.get()));
        inner.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.keep(Value::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.keep(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.keep(Value::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.keep(i64::try_from(value).map_or(Value::Uint(value), Value::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.keep(Value::Float(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        if self.node.slot.is_some() {
            let text = self.part(value);
            self.keep(Value::Text(text));
        }
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        if self.node.slot.is_some() {
            self.keep(Value::Text(value.into()));
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { source, node, values } = self;
        while let Some(child) = map.next_key_seed(Name(node))? {
            match child {
                Some(node) => map.next_value_seed(Walk { source, node, values })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Walk { source, node, values }.keep(Value::Composite);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Walk { source, node, values } = self;
        let mut index = 0usize;
        loop {
            let more = match node.children.is_empty() {
                true => seq.next_element::<IgnoredAny>()?.is_some(),
                false => match node.child(&index.to_string()) {
                    Some(node) => seq.next_element_seed(Walk { source, node, values })?.is_some(),
                    None => seq.next_element::<IgnoredAny>()?.is_some(),
                },
            };
            if !more {
                break;
            }
            index += 1;
        }
        Walk { source, node, values }.keep(Value::Composite);
        Ok(())
    }
}

/// Finds the child a key names, without keeping the key.
struct Name<'a>(&'a Node);

impl<'a, 'de> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(fields: &Fields, json: &str) -> Result<Document, NotDecoded> {
        fields.decode(&Record::new(0, json))
    }

    fn fields() -> Fields {
        Fields::new(&EventFields::default()).unwrap()
    }

    #[test]
    fn picks_nested_fields_lists_and_escaped_names_in_one_pass() {
        let mut fields = fields();
        let price = fields.value("/items/1/price").unwrap();
        let odd = fields.value("/a~1b/~0").unwrap();
        let whole = fields.json("/items").unwrap();
        let document =
            decode(&fields, r#"{"items":[{"price":1},{"price":2.5,"x":[1]}],"a/b":{"~":"y"},"z":{"deep":[{}]}}"#)
                .unwrap();
        assert_eq!(*document.get(price), Value::Float(2.5));
        assert_eq!(*document.get(odd), Value::Text("y".into()));
        assert_eq!(*document.get(whole), Value::Json(r#"[{"price":1},{"price":2.5,"x":[1]}]"#.into()));
    }

    #[test]
    fn keeps_apart_what_is_absent_null_composite_and_too_big() {
        let mut fields = fields();
        let slots = ["/a", "/b", "/c", "/d", "/e"].map(|pointer| fields.value(pointer).unwrap());
        let document = decode(&fields, r#"{"b":null,"c":{"x":1},"d":18446744073709551615,"e":"\u0000"}"#).unwrap();
        let expected = [Value::Absent, Value::Null, Value::Composite, Value::Uint(u64::MAX), Value::Text("\0".into())];
        for (slot, value) in slots.into_iter().zip(expected) {
            assert_eq!(*document.get(slot), value);
        }
    }

    #[test]
    fn what_is_no_utf_8_is_malformed_only_where_it_was_asked_for() {
        let record = |json: &[u8]| Record { value: Some(json.to_vec().into()), ..Record::default() };
        let unasked =
            fields().decode(&record(b"{\"type\":\"x\",\"note\":\"\xe4\",\"message\":{\"group_id\":\"g\"}}")).unwrap();
        assert_eq!((unasked.kind(), unasked.conversation().as_deref()), ("x", Some("g")));
        assert!(fields().decode(&record(b"{\"type\":\"\xe4\"}")).is_err());
    }

    #[test]
    fn a_chat_message_has_its_conversation() {
        let pair = decode(&fields(), r#"{"type":"new_message","message":{"from":9,"to":"10"}}"#).unwrap();
        assert_eq!(pair.conversation().as_deref(), Some("10:9"));
        let group = decode(&fields(), r#"{"message":{"from":9,"to":"10","group_id":"g"}}"#).unwrap();
        assert_eq!(group.conversation().as_deref(), Some("g"));
        assert_eq!((pair.kind(), pair.id(), group.kind()), ("new_message", None, ""));
    }

    #[test]
    fn what_is_not_one_json_object_is_malformed() {
        let deep = "[".repeat(100_000);
        for bad in ["", "[]", "1", "null", "{", "{}{}", "{\"a\":}", "{\"message\":[", "\u{feff}{}"] {
            assert!(decode(&fields(), bad).is_err(), "{bad:?} passed");
        }
        assert!(decode(&fields(), &format!("{{\"message\":{deep}")).is_err());
    }
}
