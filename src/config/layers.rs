//! The layers of configuration: files, variables, `--set`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::config::{Map, Source, Value, ValueKind};

use super::Error;
use super::schema::{self, Shape};

/// Where the file lies that is taken when none is named.
const DEFAULT_FILE: &str = "config/weir.toml";
/// What the names of variables begin with.
pub(super) const PREFIX: &str = "WEIR__";

/// Values from one place.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// All layers merged, later ones over earlier ones.
pub(super) fn merge(
    files: &[PathBuf],
    variables: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<::config::Config, Error> {
    let mut builder = ::config::Config::builder();
    let mut pools = BTreeSet::new();
    let default = [PathBuf::from(DEFAULT_FILE)];
    let files = if files.is_empty() && default[0].exists() { &default } else { files };
    for file in files {
        let layer = of_file(file)?;
        if let Some(ValueKind::Table(named)) = layer.0.get("pools").map(|value| &value.kind) {
            pools.extend(named.keys().cloned());
        }
        builder = builder.add_source(layer);
    }
    let mut variables: Vec<_> = variables.collect();
    variables.sort_unstable();
    for (name, value) in variables {
        builder = match of_variable(&name, &value, &pools) {
            Some(layer) => builder.add_source(layer),
            None => builder,
        };
    }
    for set in sets {
        builder = builder.add_source(of_set(set)?);
    }
    builder.build().map_err(|error| Error::invalid([error.to_string()]))
}

fn of_file(path: &Path) -> Result<Layer, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let place = path.display().to_string();
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        // Not the error's own text: it quotes the line, which may hold a password.
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Error::Syntax { place: place.clone(), problem: format!("line {line}: {}", error.message()) }
    })?;
    Ok(Layer(map_of(table, &place)))
}

/// `WEIR__POOLS__STORAGE__TOPICS=a,b` is `pools.storage.topics = ["a", "b"]`. Few shells take a '-' in a variable's
/// name, so '_' stands for it in the name of a pool that the files have.
fn of_variable(name: &str, value: &str, pools: &BTreeSet<String>) -> Option<Layer> {
    let has_prefix = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let path = name.get(PREFIX.len()..).filter(|_| has_prefix)?.to_lowercase();
    let mut path: Vec<&str> = path.split("__").collect();
    if let ["pools", pool, ..] = path[..]
        && !pools.contains(pool)
        && let Some(known) = pools.iter().find(|known| known.replace('-', "_") == pool.replace('-', "_"))
    {
        path[1] = known;
    }
    let shape = schema::at(path.iter().copied());
    let value = match shape {
        Some(shape) if !shape.is_text() => read(value, shape),
        _ => toml::Value::from(value),
    };
    Some(nest(&path, value, &format!("the variable {name}")))
}

/// `a.b=value`, the value as in TOML or else as text.
fn of_set(set: &str) -> Result<Layer, Error> {
    let wrong = |problem: &str| Error::Syntax { place: "--set".to_owned(), problem: problem.to_owned() };
    let (path, value) = set.split_once('=').ok_or_else(|| wrong("expected KEY=VALUE, found no '='"))?;
    let path: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if path.iter().any(|name| name.is_empty()) {
        return Err(wrong(&format!("the key {:?} has an empty part", path.join("."))));
    }
    let is_quoted = value.trim_start().starts_with(['"', '\'']);
    let value = match schema::at(path.iter().copied()) {
        Some(shape) if is_quoted || !shape.is_text() => read(value, shape),
        _ => toml::Value::from(value),
    };
    Ok(nest(&path, value, "--set"))
}

/// Reads text as TOML where that succeeds. A list may be separated by commas alone.
fn read(text: &str, shape: Shape) -> toml::Value {
    let parsed =
        toml::from_str::<toml::Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value) if shape != Shape::Texts || value.is_array() => value,
        _ if shape == Shape::Texts => {
            toml::Value::Array(text.split(',').map(|part| toml::Value::from(part.trim())).collect())
        }
        _ => toml::Value::from(text),
    }
}

fn nest(path: &[&str], value: toml::Value, origin: &str) -> Layer {
    let nested =
        path.iter().rev().fold(value, |value, name| toml::Table::from_iter([((*name).to_owned(), value)]).into());
    match nested {
        toml::Value::Table(table) => Layer(map_of(table, origin)),
        _ => Layer(Map::new()),
    }
}

fn map_of(table: toml::Table, origin: &str) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (name, value_of(value, origin))).collect()
}

fn value_of(value: toml::Value, origin: &str) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text),
        toml::Value::Integer(number) => ValueKind::I64(number),
        toml::Value::Float(number) => ValueKind::Float(number),
        toml::Value::Boolean(value) => ValueKind::Boolean(value),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(list) => ValueKind::Array(list.into_iter().map(|value| value_of(value, origin)).collect()),
        toml::Value::Table(table) => ValueKind::Table(map_of(table, origin)),
    };
    Value::new(Some(&origin.to_owned()), kind)
}

/// What conformity finds in a table.
#[cfg(test)]
pub(super) fn problems_of(table: toml::Table) -> Vec<String> {
    super::conform::problems(&map_of(table, "a test"), super::Kinds::shipped())
}
