//! A pool's pipelines: their names, and each handler's keys.

mod moderate;

use std::collections::{BTreeMap, BTreeSet};

use super::is_name;
use crate::config::pipeline::MESSAGES;
use crate::config::{OnDuplicate, Pipeline, Pool, Secret};

const HANDLERS: [&str; 5] = ["persist", "analyze", "moderate", "forward", "notify"];
/// The keys that belong to a handler, with those that it needs; `name` and `handler` are everybody's.
const KEYS: [(&str, &[&str]); 5] = [
    ("persist", &["table", "key", "columns", "on_duplicate", "newer_by"]),
    ("analyze", &["dimensions"]),
    ("moderate", &["moderate"]),
    ("forward", &["topic", "record_key"]),
    ("notify", &["url", "url_file", "secret", "secret_file", "timeout"]),
];
const DIMENSIONS: [&str; 4] = ["type", "user", "conversation", "active_users"];
/// What may stand in a template's braces, beside JSON pointers.
const PLACES: [&str; 8] = ["id", "type", "key", "topic", "partition", "offset", "user", "conversation"];
/// Sources of a column beside JSON pointers.
const SOURCES: [&str; 8] =
    ["$id", "$key", "$topic", "$partition", "$offset", "$kafka_timestamp", "$type", "$conversation"];
/// The columns that `persist` fills where none are configured.
const MESSAGES_COLUMNS: [&str; 7] =
    ["message_id", "conversation", "sender", "recipient", "content", "message_type", "timestamp"];

/// The handler that a key of a pipeline belongs to; those of all belong to none.
pub(in crate::config) fn handler_of(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(_, keys)| keys.contains(&key)).map(|(handler, _)| *handler)
}

/// The pool's lookup tables.
pub(super) fn check_lookups(pool_at: &str, pool: &Pool, problems: &mut Vec<String>) {
    for (name, lookup) in &pool.lookups {
        let at = format!("{pool_at}.lookups.{name}");
        if !is_name(name) {
            problems.push(format!("`{at}`: its name is {name:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'"));
        }
        match (&lookup.file, &lookup.table) {
            (Some(_), Some(_)) => problems.push(format!("`{at}` has both `file` and `table`: give one")),
            (None, None) => problems.push(format!("`{at}` has neither `file` nor `table`: give one")),
            (None, Some(table)) if !is_sql_name(table) => {
                problems.push(format!("`{at}.table` is {table:?}, expected {SQL_NAME}"));
            }
            (None, Some(_)) if !is_sql_name(&lookup.key) => {
                problems.push(format!("`{at}.key` is {:?}, expected {SQL_NAME}", lookup.key));
            }
            _ => {}
        }
        super::timeout(&format!("{at}.refresh"), lookup.refresh, problems);
    }
}

pub(super) fn check_all(pool_at: &str, pool: &Pool, problems: &mut Vec<String>) {
    check_whens(pool_at, pool, problems);
    let (mut names, mut tables) = (BTreeSet::new(), BTreeSet::new());
    for (index, pipeline) in pool.pipelines.iter().enumerate() {
        let at = format!("{pool_at}.pipelines[{index}]");
        let name = &pipeline.name;
        if !is_name(name) {
            problems.push(format!("`{at}.name`: found {name:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'"));
        } else if !names.insert(name) {
            problems.push(format!("`{at}.name`: {name:?} is another pipeline's name: names of a pool differ"));
        }
        check_foreign(&at, pipeline, problems);
        match pipeline.handler.as_str() {
            "forward" => check_forward(&at, pipeline, problems),
            "notify" => check_notify(&at, pipeline, problems),
            "persist" => {
                if !tables.insert(pipeline.persist_table()) {
                    problems
                        .push(format!("`{at}` persists into table {:?}, as another does", pipeline.persist_table()));
                }
                Persist { at: &at, pipeline, id_pointer: &pool.event.id, problems }.check();
            }
            "analyze" => check_analyze(&at, pipeline, problems),
            "moderate" => moderate::check(&at, pool, pipeline, problems),
            other => {
                let known = HANDLERS.join(", ");
                problems.push(format!("`{at}.handler`: there is no handler {other:?}, expected one of {known}"));
            }
        }
    }
    check_stores(pool_at, pool, problems);
}

/// What decides whether an event is new must see every event that another pipeline sees.
fn check_whens(pool_at: &str, pool: &Pool, problems: &mut Vec<String>) {
    let is_persist = |(_, pipeline): &(usize, &Pipeline)| pipeline.handler == "persist";
    let Some((index, persist)) = pool.pipelines.iter().enumerate().find(is_persist) else { return };
    if persist.when.is_some() && pool.pipelines.iter().any(|pipeline| pipeline.when != persist.when) {
        problems.push(format!(
            "`{pool_at}.pipelines[{index}].when`: what persist writes says what is new, so all pipelines of the pool must have \
             the same `when`: give it to all of them, or put persist into a pool of its own"
        ));
    }
}

/// An effect outside the transaction would be there before the others, and again whenever they fail.
fn check_stores(pool_at: &str, pool: &Pool, problems: &mut Vec<String>) {
    let of = |stored: bool| {
        let is_known = |pipeline: &&Pipeline| HANDLERS.contains(&pipeline.handler.as_str());
        pool.pipelines.iter().filter(is_known).find(|pipeline| pipeline.needs_store() == stored)
    };
    if let (Some(inside), Some(outside)) = (of(true), of(false)) {
        problems.push(format!(
            "`{pool_at}`: pipeline {:?} writes to the database and {:?} does not: give {:?} a pool of its own, with its own group",
            inside.name, outside.name, outside.name
        ));
    }
}

/// Keys of other handlers.
fn check_foreign(at: &str, pipeline: &Pipeline, problems: &mut Vec<String>) {
    let own = KEYS.iter().find(|(handler, _)| *handler == pipeline.handler);
    let Some((handler, own)) = own else { return };
    let set = [
        ("table", pipeline.table.is_some()),
        ("key", pipeline.key.is_some()),
        ("columns", pipeline.columns.is_some()),
        ("on_duplicate", pipeline.on_duplicate.is_some()),
        ("newer_by", pipeline.newer_by.is_some()),
        ("dimensions", pipeline.dimensions.is_some()),
        ("topic", pipeline.topic.is_some()),
        ("record_key", pipeline.record_key.is_some()),
        ("url", pipeline.url.is_some()),
        ("secret", pipeline.secret.is_some()),
        ("timeout", pipeline.timeout.is_some()),
    ];
    for (key, _) in set.into_iter().filter(|(key, is_set)| *is_set && !own.contains(key)) {
        if let Some((owner, _)) = KEYS.iter().find(|(_, keys)| keys.contains(&key)) {
            problems.push(format!("`{at}.{key}` belongs to the handler {owner}, not to {handler}"));
        }
    }
}

fn check_forward(at: &str, pipeline: &Pipeline, problems: &mut Vec<String>) {
    if pipeline.topic.as_deref().unwrap_or_default().is_empty() {
        problems.push(format!("`{at}.topic` is not set: name the topic to send to"));
    }
    for (key, template) in [("topic", &pipeline.topic), ("record_key", &pipeline.record_key)] {
        if let Some(why) = template.as_deref().and_then(wrong_place) {
            problems.push(format!("`{at}.{key}`: {why}"));
        }
    }
}

/// What is wrong with the places of a template.
fn wrong_place(template: &str) -> Option<String> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else { return Some("a '{' is without its '}'".to_owned()) };
        if !name.starts_with('/') && !PLACES.contains(&name) {
            let known = PLACES.join(", ");
            return Some(format!("there is no {name:?}: known are a JSON pointer such as \"/order/id\", and {known}"));
        }
        rest = behind;
    }
    None
}

fn check_notify(at: &str, pipeline: &Pipeline, problems: &mut Vec<String>) {
    let is_http = |url: &Secret| {
        url::Url::parse(url.expose()).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    };
    match &pipeline.url {
        None if pipeline.url_file.is_none() => {
            problems.push(format!("`{at}.url` is not set: give the address to post to, or `{at}.url_file`"));
        }
        Some(url) if !is_http(url) => {
            problems.push(format!("`{at}.url` must be an address such as https://host/path"));
        }
        _ => {}
    }
    if pipeline.secret.as_ref().is_some_and(Secret::is_empty) {
        problems.push(format!("`{at}.secret` is empty: leave it out to sign nothing"));
    }
    super::timeout(&format!("{at}.timeout"), pipeline.notify_timeout(), problems);
}

fn check_analyze(at: &str, pipeline: &Pipeline, problems: &mut Vec<String>) {
    let Some(dimensions) = &pipeline.dimensions else { return };
    if dimensions.is_empty() {
        problems.push(format!("`{at}.dimensions` is empty: name what to count by, or leave it out"));
    }
    let mut seen = BTreeSet::new();
    for name in dimensions {
        if !DIMENSIONS.contains(&name.as_str()) {
            let known = DIMENSIONS.join(", ");
            problems.push(format!("`{at}.dimensions`: there is no dimension {name:?}, known are {known}"));
        } else if !seen.insert(name) {
            problems.push(format!("`{at}.dimensions` names {name:?} twice"));
        }
    }
}

/// A `persist` pipeline under check.
struct Persist<'a> {
    at: &'a str,
    pipeline: &'a Pipeline,
    id_pointer: &'a str,
    problems: &'a mut Vec<String>,
}

impl Persist<'_> {
    fn check(mut self) {
        let Pipeline { table, columns, .. } = self.pipeline;
        if let Some(table) = table.as_ref().filter(|table| !is_sql_name(table)) {
            self.say("table", &format!("is {table:?}, expected {SQL_NAME}"));
        }
        match (table.as_deref(), columns) {
            (None, Some(_)) => self.say("columns", "needs `table`: name the table that has them"),
            (Some(table), None) if table != MESSAGES => {
                self.say("table", &format!("is {table:?}, which needs `columns`: map a source to each column"));
            }
            (_, Some(columns)) => self.columns(columns),
            _ => {}
        }
        self.key();
        self.newer_by();
    }

    fn say(&mut self, key: &str, problem: &str) {
        self.problems.push(format!("`{}.{key}` {problem}", self.at));
    }

    fn has_column(&self, name: &str) -> bool {
        match &self.pipeline.columns {
            Some(columns) => columns.contains_key(name),
            None => MESSAGES_COLUMNS.contains(&name),
        }
    }

    fn columns(&mut self, columns: &BTreeMap<String, String>) {
        for (name, source) in columns {
            let key = format!("columns.{name}");
            if !is_sql_name(name) {
                self.say(&key, &format!("is no column: expected {SQL_NAME}"));
            }
            if !source.starts_with('/') && !SOURCES.contains(&source.as_str()) {
                let known = SOURCES.join(", ");
                self.say(
                    &key,
                    &format!("is {source:?}, expected a JSON pointer such as \"/{name}\", or one of {known}"),
                );
            }
        }
    }

    fn key(&mut self) {
        let key = self.pipeline.persist_key();
        if !self.has_column(key) {
            return self.say("key", &format!("is {key:?}, which is not one of the columns: map \"$id\" to it"));
        }
        let Some(source) = self.pipeline.columns.as_ref().and_then(|columns| columns.get(key)) else {
            if key != "message_id" {
                self.say("key", &format!("is {key:?}: the event's id is in \"message_id\""));
            }
            return;
        };
        if source != "$id" && source != self.id_pointer {
            self.say("key", &format!("is {key:?}, which must be filled from the event's id: map \"$id\" to it"));
        }
    }

    fn newer_by(&mut self) {
        let updates = self.pipeline.on_duplicate == Some(OnDuplicate::Update);
        match &self.pipeline.newer_by {
            None if updates => self.say("newer_by", "is not set: name the column that says which event is newer"),
            Some(_) if !updates => self.say("newer_by", "has no use without on_duplicate = \"update\""),
            Some(newer_by) if !self.has_column(newer_by) => {
                self.say("newer_by", &format!("is {newer_by:?}, which is not one of the columns"));
            }
            _ => {}
        }
    }
}

const SQL_NAME: &str = "a letter a-z or '_', then up to 62 of a-z, 0-9 and '_'";

fn is_sql_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 63
        && bytes.next().is_some_and(|first| matches!(first, b'a'..=b'z' | b'_'))
        && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Dimension, SHIPPED, TEMPLATE_NAMES};

    #[test]
    fn the_known_handlers_and_dimensions_are_those_that_ship() {
        assert_eq!(SHIPPED.map(|(name, _)| name), HANDLERS);
        assert_eq!(KEYS.map(|(name, _)| name), HANDLERS);
        assert_eq!(TEMPLATE_NAMES, PLACES);
        assert!(DIMENSIONS.iter().all(|name| Dimension::from_name(name).is_some()));
    }

    #[test]
    fn names_of_the_database_are_plain() {
        assert!(is_sql_name("orders_2026") && is_sql_name("_x") && is_sql_name(&"a".repeat(63)));
        for name in ["", "2x", "Orders", "a-b", "a;drop", "a\"b", "ordër", &"a".repeat(64)] {
            assert!(!is_sql_name(name), "{name}");
        }
    }
}
