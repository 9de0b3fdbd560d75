//! Holds the sample files in `config/` to the code: they load, and the documented default documents every key.

use std::path::PathBuf;

use super::schema::{Key, ROOT, Shape};
use super::{Config, Kinds, Pipeline, Pool, Redis, Secret, Store};

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn load(file: PathBuf) -> Config {
    Config::load_with(Kinds::shipped(), &[file], std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_sample_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(sample("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            load(path);
            count += 1;
        }
    }
    assert!(count >= 2, "{count} samples");
}

#[test]
fn the_documented_default_has_the_values_of_the_code() {
    let store = Store { url: Secret::new("postgres://weir:weir@127.0.0.1/weir"), ..Store::default() };
    let redis = Redis { url: Secret::new("redis://127.0.0.1:6379"), ..Redis::default() };
    let pipeline = |name: &str| Pipeline { name: name.to_owned(), handler: name.to_owned(), ..Pipeline::default() };
    let storage = Pool {
        topics: vec!["message-events".to_owned()],
        pipelines: vec![pipeline("persist"), pipeline("analyze")],
        ..Pool::default()
    };
    let expected = Config {
        store: Some(store),
        redis: Some(redis),
        pools: [("storage".to_owned(), storage)].into(),
        ..Config::default()
    };
    let loaded = load(sample("weir.toml"));
    assert_eq!(serde_json::to_value(&loaded).unwrap(), serde_json::to_value(&expected).unwrap());
}

/// The default with the keys that stand behind '#' brought to the front.
fn with_examples() -> toml::Table {
    let text = std::fs::read_to_string(sample("weir.toml")).unwrap();
    let is_example = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_key || (line.starts_with("[pools.") || line.starts_with("[[pools.")) && line.ends_with(']')
    };
    let lines = text.lines().map(|line| line.strip_prefix("# ").filter(|line| is_example(line)).unwrap_or(line));
    toml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

#[test]
fn the_documented_default_names_every_key_and_no_other() {
    let table = with_examples();
    let Shape::Table(keys) = ROOT else { unreachable!("the root is a table") };
    assert_eq!(undocumented("", &[&table], keys), Vec::<String>::new());
    assert_eq!(super::layers::problems_of(table), Vec::<String>::new());
}

#[test]
fn every_setting_of_the_code_is_in_the_schema() {
    let text = toml::to_string(&load(sample("weir.toml"))).unwrap();
    assert_eq!(super::layers::problems_of(toml::from_str(&text).unwrap()), Vec::<String>::new());
}

/// The keys that none of the tables has.
fn undocumented(path: &str, tables: &[&toml::Table], keys: &[Key]) -> Vec<String> {
    let mut missing = Vec::new();
    for key in keys {
        let path = format!("{path}.{}", key.name);
        let values: Vec<&toml::Value> = tables.iter().filter_map(|table| table.get(key.name)).collect();
        let below: Vec<&toml::Table> = match key.shape {
            Shape::Table(_) => values.iter().filter_map(|value| value.as_table()).collect(),
            Shape::Named(_) => values
                .iter()
                .flat_map(|value| value.as_table().unwrap().values())
                .filter_map(toml::Value::as_table)
                .collect(),
            Shape::List(_) | Shape::Pipelines => {
                values.iter().flat_map(|value| value.as_array().unwrap()).filter_map(toml::Value::as_table).collect()
            }
            _ => Vec::new(),
        };
        if values.is_empty() {
            missing.push(path);
            continue;
        }
        match key.shape {
            Shape::Table(keys) | Shape::Named(keys) | Shape::List(keys) => {
                missing.extend(undocumented(&path, &below, keys));
            }
            Shape::Pipelines => missing.extend(undocumented(&path, &below, &Kinds::shipped().keys_of(None))),
            _ => {}
        }
    }
    missing
}
