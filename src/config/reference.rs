//! The reference of all keys: what they are and their examples are `config/weir.toml`'s, their types the schema's, their
//! defaults the types' own, and what is said of bad values is what the checks say when they are tried here.

use std::collections::BTreeSet;

use serde::Serialize;
use toml::{Table, Value};

use super::handler::{HandlerKind, Kinds};
use super::schema::{self, Shape};
use super::{Config, validate};

/// The documented configuration, in whose order the keys come.
const DOCUMENTED: &str = include_str!("../../config/weir.toml");
/// What a configuration with everything that there can be begins with: each with no more than it needs, since what it does not
/// say is default. A pipeline of each handler comes behind it.
const SERVICES_AND_POOLS: &str = r#"
[store]
url = "postgres://weir@db/weir"
[redis]
url = "redis://cache"
[pools.storage]
topics = ["t"]
start = "beginning"
[pools.storage.lookups.users]
file = "users.csv"
[pools.hooks]
topics = ["t"]
start = "beginning"
"#;
/// The names of the user's choice that these have, and what stands for any.
const NAMES: [(&str, &str); 3] =
    [("pools.storage", "pools.NAME"), ("pools.hooks", "pools.NAME"), ("lookups.users", "lookups.NAME")];

/// A table of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Section {
    /// Where it stands, such as `pools.NAME`; empty: at the top.
    pub(crate) path: String,
    /// What it is.
    pub(crate) meaning: String,
    pub(crate) keys: Vec<Entry>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What its value is.
    pub(crate) r#type: String,
    pub(crate) required: bool,
    /// As TOML has it. Nothing: without the key there is none.
    pub(crate) default: Option<String>,
    /// A value, where there is no default.
    pub(crate) example: Option<String>,
    /// What it is.
    pub(crate) meaning: String,
    /// What is said of values of its type that cannot be used.
    pub(crate) errors: Vec<String>,
}

/// Every key, in the order of `config/weir.toml`.
pub(crate) fn reference(kinds: Kinds<'_>) -> Vec<Section> {
    let whole = Whole::new(kinds);
    let mut sections: Vec<Section> = vec![Section { path: String::new(), meaning: String::new(), keys: Vec::new() }];
    let (mut at, mut place, mut comment) = (0, Vec::new(), Vec::new());
    // The paragraph at the top is about the file.
    for line in DOCUMENTED.lines().skip_while(|line| !line.is_empty()) {
        let bare = line.strip_prefix("# ").filter(|bare| is_header(bare) || setting(bare).is_some()).unwrap_or(line);
        if is_header(bare) {
            let meaning = std::mem::take(&mut comment).join(" ");
            place = bare.trim_matches(['[', ']']).split('.').map(str::to_owned).collect();
            let path = named(&place.join("."));
            at = sections.iter().position(|section| section.path == path).unwrap_or_else(|| {
                sections.push(Section { path, meaning, keys: Vec::new() });
                sections.len() - 1
            });
        } else if let Some((name, value)) = setting(bare) {
            let meaning = std::mem::take(&mut comment).join(" ");
            if sections[at].keys.iter().all(|known| known.name != name)
                && let Some(entry) = whole.entry(&place, name, value, meaning)
            {
                sections[at].keys.push(entry);
            }
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else {
            comment.clear();
        }
    }
    sections
}

fn is_header(line: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    line.ends_with(']') && line.starts_with('[') && line.trim_matches(['[', ']']).chars().all(is_name)
}

fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_key = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some((name, value))
}

/// With what stands for any name.
fn named(text: &str) -> String {
    NAMES.iter().fold(text.to_owned(), |text, (name, any)| text.replace(name, any))
}

/// The name of the pool, of [`SERVICES_AND_POOLS`], that a handler's pipeline is in.
fn pool_of(kind: &HandlerKind) -> &'static str {
    if kind.is_stored { "storage" } else { "hooks" }
}

/// Everything that there can be, as TOML.
fn everything(kinds: Kinds<'_>) -> String {
    let mut all = SERVICES_AND_POOLS.to_owned();
    for kind in kinds.iter() {
        let (pool, name) = (pool_of(kind), kind.name);
        all += &format!("[[pools.{pool}.pipelines]]\nname = \"{name}\"\nhandler = \"{name}\"\n{}\n", kind.example);
    }
    all
}

/// [`everything`] as it is written, and with all defaults.
struct Whole<'a> {
    kinds: Kinds<'a>,
    written: Table,
    full: Table,
    fine: BTreeSet<String>,
}

impl<'a> Whole<'a> {
    fn new(kinds: Kinds<'a>) -> Self {
        let written: Table = everything(kinds).parse().expect("it is TOML, which a test holds");
        let config: Config = written.clone().try_into().expect("it is a configuration, which a test holds");
        let fine = problems(config.clone(), kinds).into_iter().collect();
        let full = Table::try_from(&config).expect("a configuration can be written as TOML, as `weir check` does");
        Self { kinds, written, full, fine }
    }

    fn entry(&self, place: &[String], name: &str, value: &str, meaning: String) -> Option<Entry> {
        let path: Vec<&str> = place.iter().map(String::as_str).chain([name]).collect();
        let key = schema::key_at(&path, self.kinds);
        let shape = match key {
            Some(key) => key.shape,
            // A setting of librdkafka.
            None => schema::at(path.iter().copied())?,
        };
        let at = self.steps(&path);
        let default = match (find(&self.written, &at), find(&self.full, &at)) {
            (None, Some(value)) if shape != Shape::Secret => Some(value.to_string()),
            _ => None,
        };
        let errors = if key.is_some() { self.errors(&at, shape) } else { Vec::new() };
        Some(Entry {
            name: name.to_owned(),
            r#type: shape.expected(),
            required: key.is_some_and(|key| key.required),
            example: default.is_none().then(|| value.to_owned()),
            default,
            meaning,
            errors,
        })
    }

    /// The place of a key in the whole: in a pipeline of the handler that has it.
    fn steps(&self, path: &[&str]) -> Vec<Step> {
        let kind = match path {
            ["pools", _, "pipelines", name, ..] => self.kinds.with_key(name).next().or(self.kinds.iter().next()),
            _ => None,
        };
        let mut steps: Vec<Step> = Vec::new();
        for name in path {
            let pool = kind.map_or("storage", pool_of);
            let is_pool = matches!(&steps[..], [Step::Name(pools)] if pools == "pools");
            steps.push(Step::Name(if is_pool { pool.to_owned() } else { (*name).to_owned() }));
            if let Some(Value::Array(list)) = find(&self.written, &steps)
                && list.first().is_some_and(Value::is_table)
            {
                let handler = kind.map(|kind| kind.name);
                let has = |value: &Value| value.get("handler").and_then(Value::as_str) == handler;
                steps.push(Step::Index(list.iter().position(has).unwrap_or(0)));
            }
        }
        steps
    }

    /// What the checks say of the least, the most and the emptiest that the type can be.
    fn errors(&self, at: &[Step], shape: Shape) -> Vec<String> {
        let text = |text: &str| Value::from(text);
        let tried = match shape {
            Shape::Duration => vec![text("0s"), text("99h")],
            Shape::Int => vec![Value::from(0), Value::from(4_000_000_000_i64)],
            Shape::Float => vec![Value::from(0.0), Value::from(1e9)],
            Shape::Size => vec![Value::from(0), text("9000GiB")],
            Shape::Text | Shape::Secret => vec![text(""), text("ä b")],
            Shape::Texts => vec![Value::Array(Vec::new()), Value::Array(vec![text("")])],
            _ => Vec::new(),
        };
        let mut said = Vec::new();
        for value in tried {
            let mut table = self.written.clone();
            set(&mut table, at, value);
            let Ok(config) = table.try_into::<Config>() else { continue };
            for problem in problems(config, self.kinds).into_iter().filter(|problem| !self.fine.contains(problem)) {
                let problem = named(&problem);
                if !said.contains(&problem) {
                    said.push(problem);
                }
            }
        }
        said
    }
}

fn problems(mut config: Config, kinds: Kinds<'_>) -> Vec<String> {
    config.pools.values_mut().for_each(|pool| kinds.seal(pool));
    validate::problems(&config, kinds)
}

/// A step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

fn find<'a>(table: &'a Table, at: &[Step]) -> Option<&'a Value> {
    let (first, rest) = at.split_first()?;
    let Step::Name(name) = first else { return None };
    rest.iter().try_fold(table.get(name)?, |value, step| match step {
        Step::Name(name) => value.get(name),
        Step::Index(index) => value.get(index),
    })
}

/// Sets a value; makes the tables on the way that are not there.
fn set(table: &mut Table, at: &[Step], value: Value) {
    let [Step::Name(first), rest @ ..] = at else { return };
    let mut place = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    for step in rest {
        let next = match (place, step) {
            (Value::Table(table), Step::Name(name)) => {
                Some(table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new())))
            }
            (Value::Array(list), Step::Index(index)) => list.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return };
        place = next;
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(section: &str, name: &str) -> Entry {
        let sections = reference(Kinds::shipped());
        let found = sections.iter().find(|found| found.path == section).unwrap_or_else(|| panic!("{sections:#?}"));
        found.keys.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{found:#?}")).clone()
    }

    /// The paths of all keys that are no tables.
    fn each_key(at: &str, shape: Shape, paths: &mut Vec<String>) {
        match shape {
            Shape::Table(keys) | Shape::List(keys) => {
                let path = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
                keys.iter().for_each(|key| each_key(&path(key.name), key.shape, paths));
            }
            Shape::Pipelines => {
                let keys = Kinds::shipped().keys_of(None);
                keys.iter().for_each(|key| each_key(&format!("{at}.{}", key.name), key.shape, paths));
            }
            Shape::Named(keys) => each_key(&format!("{at}.NAME"), Shape::Table(keys), paths),
            Shape::Options => {}
            _ => paths.push(at.to_owned()),
        }
    }

    #[test]
    fn what_the_whole_has_is_fine_as_it_is() {
        assert_eq!(Whole::new(Kinds::shipped()).fine, BTreeSet::new());
        let table: Table = everything(Kinds::shipped()).parse().unwrap();
        assert_eq!(super::super::layers::problems_of(table), Vec::<String>::new());
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_reference_with_a_meaning() {
        let sections = reference(Kinds::shipped());
        let mut missing = Vec::new();
        let mut paths = Vec::new();
        each_key("", schema::ROOT, &mut paths);
        for path in &paths {
            let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
            let found = sections.iter().find(|found| found.path == section);
            if !found.is_some_and(|found| found.keys.iter().any(|key| key.name == name)) {
                missing.push(path.clone());
            }
        }
        assert!(paths.len() > 80, "{paths:?}");
        assert_eq!(missing, Vec::<String>::new());
        for section in &sections {
            for key in &section.keys {
                assert!(!key.meaning.is_empty(), "{}.{} has no meaning", section.path, key.name);
            }
        }
    }

    #[test]
    fn defaults_are_the_types_own_and_examples_are_where_there_is_none() {
        let key = entry("pools.NAME", "max_poll_records");
        assert_eq!((key.default.as_deref(), key.example), (Some("500"), None));
        assert_eq!(entry("pools.NAME.lookups.NAME", "refresh").default.as_deref(), Some("\"30s\""));
        assert_eq!(entry("pools.NAME.pipelines.moderate.classifier", "attempts").default.as_deref(), Some("3"));
        let key = entry("pools.NAME", "rate");
        assert_eq!((key.default, key.example.as_deref()), (None, Some("\"5000/s\"")));
        let key = entry("store", "url");
        assert_eq!(key.default, None);
        assert!(entry("pools.NAME", "start").required);
    }

    #[test]
    fn errors_are_what_the_checks_say_of_bad_values() {
        let said = entry("pools.NAME", "max_poll_records").errors;
        assert!(said[0].contains("`pools.NAME.max_poll_records` must be greater than 0"), "{said:?}");
        assert!(said[1].contains("at most 100000 can be"), "{said:?}");
        let said = entry("pools.NAME.pipelines", "timeout").errors;
        assert!(said.iter().any(|said| said.contains("timeout")), "{said:?}");
        assert!(entry("log", "format").errors.is_empty());
    }
}
