//! The keys of a pipeline that nobody but its handler reads, as they were written.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use super::Error;
use super::schema::{Key, Shape};
use super::secret::{HIDDEN, Secret};

/// A handler's own keys. A program writes them as a file has them: `"url = \"https://host/path\"".parse()`.
///
/// Debug and Serialize show what the handler's keys say is no secret, at any depth, and nothing of what they do not know.
#[derive(Clone, Default)]
pub struct Settings {
    values: Table,
    /// The handler's keys; none before [`Settings::seal`].
    keys: &'static [Key],
}

impl Settings {
    /// The settings as their handler has them.
    ///
    /// # Errors
    /// What is of another type, in one line.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let told = |error: toml::de::Error| error.to_string().trim_end().replace('\n', " ");
        // The error quotes what it found, which may be a secret; so it is made again from what may be shown.
        self.values.clone().try_into().map_err(|_| match self.shown().try_into::<T>() {
            Err(error) => told(error),
            Ok(_) => "a secret of it cannot be read".to_owned(),
        })
    }

    /// Takes the handler's keys, by which a secret is known.
    pub(super) fn seal(&mut self, keys: &'static [Key]) {
        self.keys = keys;
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    pub(super) fn set_text(&mut self, key: &str, text: String) {
        self.values.insert(key.to_owned(), Value::from(text));
    }

    fn shown(&self) -> Table {
        shown_below(&self.values, Shape::Table(self.keys))
    }
}

fn shown_below(values: &Table, shape: Shape) -> Table {
    values.iter().map(|(name, value)| (name.clone(), shown(value, shape.below(name)))).collect()
}

fn shown(value: &Value, shape: Option<Shape>) -> Value {
    match (value, shape) {
        (Value::String(text), Some(Shape::Secret)) => Secret::new(text).to_string().into(),
        (_, None | Some(Shape::Secret)) => HIDDEN.into(),
        (Value::Table(values), Some(shape)) => shown_below(values, shape).into(),
        (Value::Array(list), Some(Shape::List(keys))) => {
            Value::Array(list.iter().map(|value| shown(value, Some(Shape::Table(keys)))).collect())
        }
        (value, Some(_)) => value.clone(),
    }
}

impl FromStr for Settings {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let values = text.parse().map_err(|error: toml::de::Error| {
            // Not the error's own text: it quotes the line, which may hold a secret.
            Error::Syntax { place: "a pipeline's settings".to_owned(), problem: error.message().to_owned() }
        })?;
        Ok(Self { values, keys: &[] })
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { values: Table::deserialize(deserializer)?, keys: &[] })
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::key;

    const KEYS: &[Key] = &[
        key("path", Shape::Text),
        key("port", Shape::Int),
        key("token", Shape::Secret),
        key("login", Shape::Table(&[key("user", Shape::Text), key("password", Shape::Secret)])),
        key("mirrors", Shape::List(&[key("host", Shape::Text), key("token", Shape::Secret)])),
        key("places", Shape::Named(&[key("token", Shape::Secret)])),
        key("client", Shape::Options),
    ];

    fn sealed(text: &str) -> Settings {
        let mut settings: Settings = text.parse().unwrap();
        settings.seal(KEYS);
        settings
    }

    #[test]
    fn secrets_are_hidden_at_any_depth_and_nothing_else_is() {
        let settings = sealed(
            "path = \"plain\"\nport = 5\ntoken = \"hunter2\"\nlogin = { user = \"ann\", password = \"hunter2\" }\n\
             mirrors = [{ host = \"near\", token = \"hunter2\" }]\nplaces = { a = { token = \"hunter2\" } }\n\
             client = { sasl_password = \"hunter2\", linger_ms = 4 }\nnobody_knows = \"hunter2\"\n",
        );
        for text in [format!("{settings:?}"), toml::to_string(&settings).unwrap()] {
            assert!(["plain", "ann", "near", "linger_ms"].iter().all(|part| text.contains(part)), "{text}");
            assert!(text.contains("nobody_knows") && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn before_the_handlers_keys_are_known_nothing_is_shown() {
        let settings: Settings = "token = \"hunter2\"\nlogin = { user = \"hunter2\" }".parse().unwrap();
        assert_eq!(toml::to_string(&settings).unwrap(), "login = \"***\"\ntoken = \"***\"\n");
        let error = "token = hunter2".parse::<Settings>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_told_in_a_line_that_holds_no_secret() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        struct Own {
            port: u16,
            token: u16,
        }
        let settings = sealed("port = 5\ntoken = \"hunter2\"");
        let told = settings.read::<Own>().unwrap_err();
        assert!(told.contains("token") && !told.contains("hunter2"), "{told}");
        let told = sealed("port = 70000").read::<Own>().unwrap_err();
        assert!(told.contains("70000") && told.contains("port") && !told.contains('\n'), "{told}");
        let Own { port, token } = sealed("port = 5\ntoken = 1").read().unwrap();
        assert_eq!((port, token), (5, 1));
    }
}
