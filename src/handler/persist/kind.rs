//! What configuration knows of `persist`.

use std::collections::BTreeMap;

use super::MESSAGES;
use super::cell::Source;
use crate::config::schema::{Shape, key};
use crate::config::{self, Check, HandlerKind, OnDuplicate, Pipeline, SQL_NAME, is_sql_name};

pub(super) const KIND: HandlerKind = HandlerKind {
    name: "persist",
    keys: &[
        key("table", Shape::Text),
        key("key", Shape::Text),
        key("on_duplicate", Shape::Choice(&["ignore", "update"])),
        key("newer_by", Shape::Text),
        key("columns", Shape::TextMap),
    ],
    is_stored: true,
    example: "",
    check,
};

fn check(check: &mut Check<'_>) {
    check_together(check);
    let Pipeline { table, columns, .. } = check.pipeline;
    if let Some(table) = table.as_ref().filter(|table| !is_sql_name(table)) {
        check.say("table", format!("is {table:?}, expected {SQL_NAME}"));
    }
    match (table.as_deref(), columns) {
        (None, Some(_)) => check.say("columns", "needs `table`: name the table that has them"),
        (Some(table), None) if table != config::MESSAGES => {
            check.say("table", format!("is {table:?}, which needs `columns`: map a source to each column"));
        }
        (_, Some(columns)) => check_columns(check, columns),
        _ => {}
    }
    check_key(check);
    check_newer_by(check);
}

/// What decides whether an event is new must see every event that another pipeline sees, and be one for each table.
fn check_together(check: &mut Check<'_>) {
    let Check { at, pool, index, pipeline, .. } = *check;
    let earlier: Vec<&Pipeline> = pool.pipelines[..index].iter().filter(|other| is_persist(other)).collect();
    if earlier.is_empty() && pipeline.when.is_some() && pool.pipelines.iter().any(|other| other.when != pipeline.when) {
        check.problem(format!(
            "`{at}.when`: what persist writes says what is new, so all pipelines of the pool must have the same `when`: give \
             it to all of them, or put persist into a pool of its own"
        ));
    }
    let table = pipeline.persist_table();
    if earlier.iter().any(|other| other.persist_table() == table) {
        check.problem(format!("`{at}` persists into table {table:?}, as another does"));
    }
}

fn is_persist(pipeline: &Pipeline) -> bool {
    pipeline.handler == KIND.name
}

fn has_column(pipeline: &Pipeline, name: &str) -> bool {
    match &pipeline.columns {
        Some(columns) => columns.contains_key(name),
        None => MESSAGES.iter().any(|(column, _)| *column == name),
    }
}

fn check_columns(check: &mut Check<'_>, columns: &BTreeMap<String, String>) {
    for (name, source) in columns {
        let key = format!("columns.{name}");
        if !is_sql_name(name) {
            check.say(&key, format!("is no column: expected {SQL_NAME}"));
        }
        if !source.starts_with('/') && Source::named(source).is_none() {
            let known = Source::NAMED.map(|(name, _)| name).join(", ");
            check.say(&key, format!("is {source:?}, expected a JSON pointer such as \"/{name}\", or one of {known}"));
        }
    }
}

fn check_key(check: &mut Check<'_>) {
    let (pipeline, key) = (check.pipeline, check.pipeline.persist_key());
    if !has_column(pipeline, key) {
        return check.say("key", format!("is {key:?}, which is not one of the columns: map \"$id\" to it"));
    }
    let Some(source) = pipeline.columns.as_ref().and_then(|columns| columns.get(key)) else {
        if key != "message_id" {
            check.say("key", format!("is {key:?}: the event's id is in \"message_id\""));
        }
        return;
    };
    if source != "$id" && *source != check.pool.event.id {
        check.say("key", format!("is {key:?}, which must be filled from the event's id: map \"$id\" to it"));
    }
}

fn check_newer_by(check: &mut Check<'_>) {
    let updates = check.pipeline.on_duplicate == Some(OnDuplicate::Update);
    match &check.pipeline.newer_by {
        None if updates => check.say("newer_by", "is not set: name the column that says which event is newer"),
        Some(_) if !updates => check.say("newer_by", "has no use without on_duplicate = \"update\""),
        Some(newer_by) if !has_column(check.pipeline, newer_by) => {
            check.say("newer_by", format!("is {newer_by:?}, which is not one of the columns"));
        }
        _ => {}
    }
}
