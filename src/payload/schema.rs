//! The JSON Schemas in `schemas/`, held to the types. `WEIR_WRITE_SCHEMAS=1 cargo test --lib payload::schema` writes them.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};

use super::{GroupEvent, Id, MessageEvent, OrderEvent, SystemEvent, UserEvent};

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

/// Each topic's schema, under the topic's name.
fn schemas() -> [(&'static str, Schema); 5] {
    [
        ("message-events", schema_for!(MessageEvent)),
        ("user-events", schema_for!(UserEvent)),
        ("group-events", schema_for!(GroupEvent)),
        ("system-events", schema_for!(SystemEvent)),
        ("order-events", schema_for!(OrderEvent)),
    ]
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let names: Vec<String> = schemas().iter().map(|(topic, _)| format!("{topic}.json")).collect();
    for (topic, schema) in schemas() {
        let file = folder.join(format!("{topic}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("WEIR_WRITE_SCHEMAS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        let help = "the type has changed: WEIR_WRITE_SCHEMAS=1 cargo test --lib payload::schema";
        assert_eq!(found, text, "{}: {help}", file.display());
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "schemas/{name} is of no shipped type");
    }
}
