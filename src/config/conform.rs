//! Checks values against the schema: unknown keys, wrong types, missing keys. Every problem is one line.

use ::config::{Map, Value, ValueKind};

use super::schema::{Key, PIPELINE, ROOT, Shape};
use super::{Kinds, Rate, duration, secret, size, start};

/// Every way in which the values are not of the schema's shape.
pub(super) fn problems(values: &Map<String, Value>, kinds: Kinds<'_>) -> Vec<String> {
    let mut conform = Conform { kinds, problems: Vec::new() };
    if let Shape::Table(keys) = ROOT {
        conform.keys("", values, keys);
    }
    conform.problems
}

struct Conform<'a> {
    kinds: Kinds<'a>,
    problems: Vec<String>,
}

impl Conform<'_> {
    fn keys(&mut self, path: &str, values: &Map<String, Value>, keys: &[Key]) {
        let mut names: Vec<_> = values.keys().collect();
        names.sort_unstable();
        for name in names {
            let (value, path) = (&values[name], join(path, name));
            match keys.iter().find(|key| key.name == name.as_str()) {
                Some(key) => self.value(&path, value, key.shape),
                None => self.problems.push(unknown(&path, name, value, keys)),
            }
        }
        for key in keys.iter().filter(|key| key.required && !values.contains_key(key.name)) {
            let expected = key.shape.expected();
            self.problems.push(format!("`{}` is not set: give {expected}", join(path, key.name)));
        }
    }

    fn value(&mut self, path: &str, value: &Value, shape: Shape) {
        match (shape, &value.kind) {
            (Shape::Table(keys), ValueKind::Table(values)) => self.keys(path, values, keys),
            (Shape::Named(keys), ValueKind::Table(values)) => {
                self.each(path, values, |all, path, value| all.value(path, value, Shape::Table(keys)));
            }
            (Shape::List(keys), ValueKind::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    self.value(&format!("{path}[{index}]"), value, Shape::Table(keys));
                }
            }
            (Shape::Pipelines, ValueKind::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    self.pipeline(&format!("{path}[{index}]"), value);
                }
            }
            (Shape::Texts, ValueKind::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    self.value(&format!("{path}[{index}]"), value, Shape::Text);
                }
            }
            (Shape::TextMap, ValueKind::Table(values)) => {
                self.each(path, values, |all, path, value| all.value(path, value, Shape::Text));
            }
            (Shape::Options, ValueKind::Table(values)) => self.each(path, values, Self::option),
            _ if is_of(shape, &value.kind) => {}
            _ => {
                let (found, expected) = (found(&value.kind, shape == Shape::Secret), shape.expected());
                self.problems.push(format!("`{path}`{}: found {found}, expected {expected}", place(value)));
            }
        }
    }

    fn pipeline(&mut self, path: &str, value: &Value) {
        let ValueKind::Table(values) = &value.kind else { return self.value(path, value, Shape::Table(PIPELINE)) };
        let handler = values.get("handler").and_then(|name| match &name.kind {
            ValueKind::String(name) => Some(name.as_str()),
            _ => None,
        });
        self.keys(path, values, &self.kinds.keys_of(handler));
    }

    fn option(&mut self, path: &str, value: &Value) {
        if matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil) {
            let found = found(&value.kind, secret::is_secret_name(path));
            self.problems
                .push(format!("`{path}`{}: found {found}, expected text, a number or a boolean", place(value)));
        }
    }

    fn each(&mut self, path: &str, values: &Map<String, Value>, mut check: impl FnMut(&mut Self, &str, &Value)) {
        let mut names: Vec<_> = values.keys().collect();
        names.sort_unstable();
        for name in names {
            check(self, &join(path, name), &values[name]);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Where a value was written.
fn place(value: &Value) -> String {
    origin(value).map(|origin| format!(" ({origin})")).unwrap_or_default()
}

/// Merging takes a table's own origin away; that of something in it is as good.
fn origin(value: &Value) -> Option<&str> {
    value.origin().or_else(|| match &value.kind {
        ValueKind::Table(values) => values.values().find_map(origin),
        _ => None,
    })
}

fn unknown(path: &str, name: &str, value: &Value, keys: &[Key]) -> String {
    let advice = match nearest(name, keys.iter().map(|key| key.name)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            format!("known are {}", known.join(", "))
        }
    };
    format!("unknown key `{path}`{}: {advice}", place(value))
}

/// The name that another one may have been meant for.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (likeness(name, known), known))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, nearest)| nearest)
}

/// From 0 to 1. A name that was cut off is like the whole one.
fn likeness(name: &str, known: &str) -> f64 {
    let begins = name.len() >= 3 && known.starts_with(name);
    strsim::normalized_damerau_levenshtein(name, known).max(if begins { 0.75 } else { 0.0 })
}

fn is_of(shape: Shape, value: &ValueKind) -> bool {
    match (shape, value) {
        (Shape::Text | Shape::Secret, ValueKind::String(_)) | (Shape::Float, ValueKind::Float(_)) => true,
        (Shape::Int | Shape::Float | Shape::Size, ValueKind::I64(number)) => *number >= 0,
        (Shape::Duration, ValueKind::String(text)) => duration::parse(text).is_ok(),
        (Shape::Start, ValueKind::String(text)) => text.parse::<start::Start>().is_ok(),
        (Shape::Address, ValueKind::String(text)) => text.parse::<std::net::SocketAddr>().is_ok(),
        (Shape::Listen, ValueKind::String(text)) => text.parse::<super::ConsoleListen>().is_ok(),
        (Shape::Size, ValueKind::String(text)) => size::parse(text).is_ok(),
        (Shape::Rate, ValueKind::String(text)) => text.parse::<Rate>().is_ok(),
        #[expect(clippy::cast_precision_loss, reason = "what is not exact is far above the most that a rate may be")]
        (Shape::Rate, ValueKind::I64(number)) => Rate::per_second(*number as f64).is_some(),
        (Shape::Rate, ValueKind::Float(number)) => Rate::per_second(*number).is_some(),
        (Shape::Choice(choices), ValueKind::String(text)) => choices.contains(&text.as_str()),
        _ => false,
    }
}

fn found(value: &ValueKind, is_secret: bool) -> String {
    match value {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        _ if is_secret => "something else".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
