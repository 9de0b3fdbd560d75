//! What is asked of every shipped type: it is written as it was read, ignores what it does not know, and is the one of its JSON
//! Schema in `schemas/`. `WEIR_WRITE_SCHEMAS=1 cargo test --lib payload::shipped` writes those.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Id, SHIPPED};
use crate::event::{Event, Json, NotDecoded, Origin, Payload, Record};

/// A topic and the type of its records.
#[derive(Clone, Copy)]
pub(crate) struct Shipped {
    topic: &'static str,
    /// Events as producers write them, one of each type at least.
    pub(crate) samples: &'static [&'static str],
    schema: fn() -> Schema,
    rewritten: fn(&str) -> serde_json::Result<String>,
    /// Decodes a record as a pool of this type does.
    pub(crate) decode: fn(&Arc<Origin>, Record) -> Decoded,
}

/// What became of a record, whatever its type.
pub(crate) type Decoded = Result<Event<Box<dyn Payload>>, Box<(Record, NotDecoded)>>;

pub(crate) fn of_any_type<T: Payload>(decoded: Result<Event<T>, Box<(Record, NotDecoded)>>) -> Decoded {
    let Event { id, origin, record, payload } = decoded?;
    Ok(Event { id, origin, record, payload: Box::new(payload) })
}

impl Shipped {
    pub(super) const fn new<T>(topic: &'static str, samples: &'static [&'static str]) -> Self
    where
        T: Payload + Serialize + DeserializeOwned + JsonSchema,
    {
        Self {
            topic,
            samples,
            schema: || schema_for!(T),
            rewritten: |json| serde_json::to_string(&serde_json::from_str::<T>(json)?),
            decode: |origin, record| of_any_type(Event::decode(&Json::<T>::default(), origin, record)),
        }
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

#[test]
fn every_type_has_a_sample() {
    for Shipped { topic, samples, schema, .. } in SHIPPED {
        assert!(!samples.is_empty(), "{topic} has none");
        let schema = schema();
        for kind in schema.pointer("/oneOf").and_then(Value::as_array).into_iter().flatten() {
            let kind = &kind["properties"]["type"]["const"];
            let is_it = |json: &&str| serde_json::from_str::<Value>(json).unwrap()["type"] == *kind;
            assert!(samples.iter().any(is_it), "{topic}: {kind} has none");
        }
    }
}

#[test]
fn events_are_written_as_they_were_read() {
    for Shipped { topic, samples, rewritten, .. } in SHIPPED {
        for json in *samples {
            assert_eq!(rewritten(json).unwrap(), *json, "{topic}");
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for Shipped { topic, samples, rewritten, .. } in SHIPPED {
        for json in *samples {
            let more = json.replacen('{', r#"{"trace":{"id":[1,2]},"edited":false,"#, 1);
            assert_eq!(rewritten(&more).unwrap(), *json, "{topic}");
        }
    }
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for Shipped { topic, schema, .. } in SHIPPED {
        let file = folder.join(format!("{topic}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
        if std::env::var_os("WEIR_WRITE_SCHEMAS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        let help = "the type has changed: WEIR_WRITE_SCHEMAS=1 cargo test --lib payload::shipped";
        assert_eq!(found, text, "{}: {help}", file.display());
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_shipped = SHIPPED.iter().any(|shipped| name == format!("{}.json", shipped.topic));
        assert!(is_shipped, "schemas/{name} is of no shipped type");
    }
}
