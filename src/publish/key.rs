//! The record key of a JSON line, found without building a tree of the line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::payload::conversation_of_two;

/// Where a line's record key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRule {
    /// The chat conversation: `/message/group_id`, else `/message/from` and `/message/to`, sorted and
    /// joined by `:`. A line without them has no key.
    Conversation,
    /// The string, number or boolean that a JSON pointer leads to; anything else is no key.
    Field(Pointer),
    /// The same key for every line.
    Fixed(String),
}

impl KeyRule {
    /// The key of a line that is a JSON object; `None` sends it to a random partition.
    pub fn key<'a>(&'a self, line: &'a str) -> Option<Cow<'a, str>> {
        match self {
            Self::Conversation => conversation(line).map(Cow::Owned),
            Self::Field(pointer) => scalar(pointer.find(line)?),
            Self::Fixed(key) => Some(Cow::Borrowed(key)),
        }
    }
}

/// A JSON pointer (RFC 6901) to a field of an object: `/message/from`. Arrays are not entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// A text that is no JSON pointer to a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a JSON pointer to a field: it starts with '/', as in /message/from; '~' is written ~0 and '/' in a name ~1"
)]
pub struct BadPointer(String);

impl std::str::FromStr for Pointer {
    type Err = BadPointer;

    fn from_str(text: &str) -> Result<Self, BadPointer> {
        let bad = || BadPointer(text.to_owned());
        let names = text.strip_prefix('/').ok_or_else(bad)?;
        names.split('/').map(|name| unescape(name).ok_or_else(bad)).collect::<Result<_, _>>().map(Self)
    }
}

/// `~1` is a slash and `~0` a tilde; another `~` is an error.
fn unescape(name: &str) -> Option<String> {
    let plain = name.replace("~1", "").replace("~0", "");
    (!plain.contains('~')).then(|| name.replace("~1", "/").replace("~0", "~"))
}

impl Pointer {
    fn find<'a>(&self, line: &'a str) -> Option<&'a str> {
        self.0.iter().try_fold(line, |object, name| {
            let [value] = fields(object, [name])?;
            value
        })
    }
}

fn conversation(line: &str) -> Option<String> {
    let [message] = fields(line, ["message"])?;
    let [group, from, to] = fields(message?, ["group_id", "from", "to"])?;
    if let Some(group) = group.and_then(id).filter(|group| !group.is_empty()) {
        return Some(group.into_owned());
    }
    Some(conversation_of_two(&id(from?)?, &id(to?)?))
}

/// A string's text or an integer's digits.
fn id(json: &str) -> Option<Cow<'_, str>> {
    let is_integer = json.strip_prefix('-').unwrap_or(json).bytes().all(|byte| byte.is_ascii_digit());
    if is_integer {
        return Some(Cow::Borrowed(json));
    }
    text(json)
}

/// A string's text, or a number or boolean as it is spelled.
fn scalar(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => text(json),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

fn text(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// The raw values of some of an object's fields; of a repeated one the last, as PostgreSQL and most
/// parsers have it. `None` when `json` is no object.
fn fields<'a, const N: usize>(json: &'a str, names: [&str; N]) -> Option<[Option<&'a str>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(Fields(names)).ok()
}

struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(index) = map.next_key_seed(Index(&self.0))? {
            match index {
                Some(index) => found[index] = Some(map.next_value::<&RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Which of the names a field has. Read as bytes, since a name may hold what is no Unicode text.
struct Index<'n>(&'n [&'n str]);

impl<'de> serde::de::DeserializeSeed<'de> for Index<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Index<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known.as_bytes() == name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        self.visit_bytes(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(line: &str) -> Option<String> {
        KeyRule::Conversation.key(line).map(Cow::into_owned)
    }

    fn field(pointer: &str, line: &str) -> Option<String> {
        let rule = KeyRule::Field(pointer.parse().unwrap());
        rule.key(line).map(Cow::into_owned)
    }

    #[test]
    fn the_default_key_is_the_conversation_whoever_writes() {
        let there = r#"{"type":"new_message","message":{"from":"b","to":"a"}}"#;
        let back = r#"{"message": {"to" : "b", "content":{"from":"x"}, "from":"a"} , "type":1}"#;
        assert_eq!(chat(there).unwrap(), "a:b");
        assert_eq!(chat(back).unwrap(), "a:b");
    }

    #[test]
    fn integers_and_strings_are_the_same_user() {
        assert_eq!(chat(r#"{"message":{"from":10,"to":9}}"#).unwrap(), "10:9");
        assert_eq!(chat(r#"{"message":{"from":"9","to":10}}"#).unwrap(), "10:9");
    }

    #[test]
    fn a_groups_id_comes_first_unless_it_is_empty_or_null() {
        let with = |group: &str| chat(&format!(r#"{{"message":{{"from":1,"to":2,"group_id":{group}}}}}"#));
        assert_eq!(with(r#""g""#).unwrap(), "g");
        assert_eq!(with("42").unwrap(), "42");
        assert_eq!(with(r#""""#).unwrap(), "1:2");
        assert_eq!(with("null").unwrap(), "1:2");
        assert_eq!(chat(r#"{"message":{"group_id":"g"}}"#).unwrap(), "g");
    }

    #[test]
    fn the_key_agrees_with_the_types_conversation() {
        for line in [
            r#"{"type":"t","message":{"from":"zo\u00eb","to":-3,"content":"","message_type":1,"timestamp":1},"timestamp":1}"#,
            r#"{"type":"t","message":{"from":18446744073709551615,"to":"a\"b","content":"","message_type":1,"timestamp":1},"timestamp":1}"#,
            r#"{"type":"t","message":{"from":1,"to":2,"group_id":"","content":"","message_type":1,"timestamp":1},"timestamp":1}"#,
        ] {
            let event: crate::payload::MessageEvent = serde_json::from_str(line).unwrap();
            assert_eq!(chat(line).unwrap(), event.conversation());
        }
    }

    #[test]
    fn a_line_that_is_no_chat_message_has_no_key() {
        for line in [
            "{}",
            r#"{"message":"text"}"#,
            r#"{"message":[1]}"#,
            r#"{"message":{"from":1}}"#,
            r#"{"message":{"from":1.5,"to":2}}"#,
            r#"{"message":{"from":null,"to":2}}"#,
            r#"{"message":{"from":"\ud800","to":2}}"#,
            r#"{"from":1,"to":2}"#,
        ] {
            assert_eq!(chat(line), None, "{line}");
        }
    }

    #[test]
    fn of_a_repeated_field_the_last_counts() {
        assert_eq!(field("/a", r#"{"a":1,"a":2}"#).unwrap(), "2");
    }

    #[test]
    fn odd_names_do_not_hide_the_others() {
        assert_eq!(field("/a", r#"{"\ud800":0,"a":1}"#).unwrap(), "1");
        assert_eq!(field("/a", r#"{"\u0061":1}"#).unwrap(), "1");
    }

    #[test]
    fn a_pointer_leads_to_a_scalar_or_to_no_key() {
        let line = r#"{"a/b":{"~":"x"},"":7,"t":true,"n":null,"o":{},"s":"\"","f":1.50}"#;
        assert_eq!(field("/a~1b/~0", line).unwrap(), "x");
        assert_eq!(field("/", line).unwrap(), "7");
        assert_eq!(field("/t", line).unwrap(), "true");
        assert_eq!(field("/s", line).unwrap(), "\"");
        assert_eq!(field("/f", line).unwrap(), "1.50");
        for none in ["/n", "/o", "/missing", "/t/x"] {
            assert_eq!(field(none, line), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["", "a", "message/from", "/a~", "/a~2"] {
            text.parse::<Pointer>().unwrap_err();
        }
        assert_eq!("/~01".parse::<Pointer>().unwrap(), Pointer(vec!["~1".to_owned()]));
    }
}
