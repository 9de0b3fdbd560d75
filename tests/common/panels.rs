//! The dashboards' panels, as Grafana reads them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;

use serde_json::Value;

/// A query of a panel.
#[derive(Debug)]
pub(crate) struct Query {
    /// The dashboard's and the panel's title.
    pub(crate) place: String,
    pub(crate) expr: String,
    pub(crate) legend: String,
}

/// A series that a query names.
#[derive(Debug)]
pub(crate) struct Selector<'a> {
    pub(crate) name: &'a str,
    /// Between its braces.
    pub(crate) matchers: &'a str,
    /// What stands before and behind it.
    pub(crate) before: &'a str,
    pub(crate) behind: &'a str,
}

pub(crate) fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All dashboards.
pub(crate) fn dashboards() -> Vec<Value> {
    let names = ["overview", "pool", "load"];
    names.iter().map(|name| serde_json::from_str(&read(&format!("dashboards/{name}.json"))).unwrap()).collect()
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The panels that show something.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

pub(crate) fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for dashboard in &dashboards() {
        for panel in panels(dashboard) {
            let place = format!("{}, {}", text(dashboard, "title"), text(panel, "title"));
            for target in panel["targets"].as_array().unwrap() {
                let (expr, legend) = (text(target, "expr").to_owned(), text(target, "legendFormat").to_owned());
                queries.push(Query { place: place.clone(), expr, legend });
            }
        }
    }
    queries
}

/// The series that an expression names: what begins like a metric of weir's or of its process.
pub(crate) fn selectors(expr: &str) -> Vec<Selector<'_>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expr.char_indices().filter(|(at, _)| {
        let is_metric = ["weir_", "process_"].iter().any(|prefix| expr[*at..].starts_with(prefix));
        is_metric && !expr[..*at].ends_with(is_name)
    });
    starts
        .map(|(at, _)| {
            let (before, rest) = expr.split_at(at);
            let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            let (matchers, behind) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once('}').expect("braces are closed"),
                None => ("", rest),
            };
            Selector { name, matchers, before, behind }
        })
        .collect()
}
