//! Texts with places for what an event tells: `orders-{type}`, `{key}`, `{/order/id}`.

use anyhow::bail;

use super::Rejection;
use crate::event::{Document, Event, Fields, Payload as _, Slot};

/// What may stand between braces, beside JSON pointers.
const NAMES: [&str; 8] = ["id", "type", "key", "topic", "partition", "offset", "user", "conversation"];

/// A text with places.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Name(&'static str),
    Field(String, Slot),
}

impl Template {
    /// What is wrong with the places of a template.
    pub(super) fn problem(text: &str) -> Option<String> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Some("a '{' is without its '}'".to_owned());
            };
            if !name.starts_with('/') && !NAMES.contains(&name) {
                let known = NAMES.join(", ");
                let or = "known are a JSON pointer such as \"/order/id\", and";
                return Some(format!("there is no {name:?}: {or} {known}"));
            }
            rest = behind;
        }
        None
    }

    /// Reads a template, and asks the decoder for the fields in it.
    pub(super) fn parse(text: &str, fields: &mut Fields) -> anyhow::Result<Self> {
        if let Some(why) = Self::problem(text) {
            bail!("{text:?}: {why}");
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, (name, behind))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            parts.push(Part::Text(before.to_owned()));
            parts.push(match NAMES.iter().find(|known| **known == name) {
                Some(known) => Part::Name(known),
                None => Part::Field(name.to_owned(), fields.value(name)?),
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text for an event.
    pub(super) fn fill(&self, event: &Event<Document>) -> Result<String, Rejection> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Name(name) => text.push_str(&named(event, name).ok_or_else(|| lacks(name))?),
                Part::Field(pointer, slot) => {
                    text.push_str(&event.payload.get(*slot).text().ok_or_else(|| lacks(pointer))?);
                }
            }
        }
        Ok(text)
    }
}

fn named(event: &Event<Document>, name: &str) -> Option<String> {
    let Event { origin, record, payload, .. } = event;
    match name {
        "id" => Some(event.id.to_string()),
        "type" => Some(payload.kind().to_owned()).filter(|kind| !kind.is_empty()),
        "key" => String::from_utf8(record.key.as_ref()?.to_vec()).ok(),
        "topic" => Some(origin.topic.to_string()),
        "partition" => Some(origin.partition.to_string()),
        "offset" => Some(record.offset.to_string()),
        "user" => payload.user().map(Into::into),
        _ => payload.conversation().map(Into::into),
    }
}

fn lacks(name: &str) -> Rejection {
    Rejection::by_handler(format!("it has no {name} that is a text or a whole number, and the template needs it"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::EventFields;
    use crate::event::{Origin, Record};

    fn fill(template: &str, json: &str, key: Option<&[u8]>) -> Result<String, Rejection> {
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        let template = Template::parse(template, &mut fields).unwrap();
        let origin = Arc::new(Origin { topic: "orders".into(), topic_id: uuid::Uuid::nil(), partition: 3 });
        let record = Record { key: key.map(bytes::Bytes::copy_from_slice), ..Record::new(7, json) };
        template.fill(&Event::decode(&fields, &origin, record.with_header("ce_id", b"e")).unwrap())
    }

    #[test]
    fn places_are_filled_from_the_event() {
        let json = r#"{"type":"paid","order":{"id":42},"message":{"from":"b","to":"a"}}"#;
        for (template, filled) in [
            ("plain", "plain"),
            ("", ""),
            ("{topic}-{type}-{/order/id}", "orders-paid-42"),
            ("{partition}/{offset}/{id}/{key}", "3/7/e/k"),
            ("{conversation} of {user}", "a:b of b"),
        ] {
            assert_eq!(fill(template, json, Some(b"k")), Ok(filled.to_owned()));
        }
    }

    #[test]
    fn an_event_without_what_is_needed_is_rejected_and_nothing_of_it_told() {
        for (template, key) in [("{type}", None), ("{/order}", None), ("{key}", None), ("{key}", Some(&[0xff][..]))] {
            let rejection = fill(template, r#"{"order":{"id":"secret"}}"#, key).unwrap_err();
            assert!(!rejection.message.contains("secret"), "{}", rejection.message);
        }
    }

    #[test]
    fn a_template_that_is_none_is_refused() {
        let mut fields = Fields::new(&EventFields::default()).unwrap();
        for bad in ["{", "a{typ}", "{}", "{type"] {
            assert!(Template::parse(bad, &mut fields).is_err(), "{bad}");
        }
    }
}
