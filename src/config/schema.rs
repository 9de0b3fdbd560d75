//! Every key there is and the shape of its value: what a key is checked against, and how text from a variable or
//! from `--set` is read. The keys of pipelines come from the handlers ([`Kinds`]).

use super::Kinds;
use super::secret::is_secret_name;

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Text.
    Text,
    /// Text that no message shows.
    Secret,
    /// Text in the form of a duration.
    Duration,
    /// Text in one of the forms of [`super::Start`].
    Start,
    /// Text in the form `address:port`.
    Address,
    /// Text in one of the forms of [`super::ConsoleListen`].
    Listen,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// A number of bytes, or text such as `4MiB`.
    Size,
    /// A number of events a second, or text in the forms of [`super::Rate`].
    Rate,
    /// A list of texts.
    Texts,
    /// Texts under names of the user's choice.
    TextMap,
    /// librdkafka's settings: text, numbers or booleans under their names.
    Options,
    /// Known keys.
    Table(&'static [Key]),
    /// Tables under names of the user's choice.
    Named(&'static [Key]),
    /// A list of tables.
    List(&'static [Key]),
    /// A list of tables with the keys of a pipeline, those of its handler among them.
    Pipelines,
}

impl Shape {
    /// What a value of this shape is called in messages.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Duration => "a duration such as \"20s\" or \"15min\"".to_owned(),
            Self::Start => super::start::FORMS.to_owned(),
            Self::Address => "an address such as \"127.0.0.1:9464\"".to_owned(),
            Self::Listen => super::console::FORMS.to_owned(),
            Self::Choice(choices) => {
                let quoted: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                quoted.join(" or ")
            }
            Self::Int => "a whole number that is not negative".to_owned(),
            Self::Float => "a number that is not negative".to_owned(),
            Self::Size => "a number of bytes or a size such as \"4MiB\"".to_owned(),
            Self::Rate => super::rate::FORMS.to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::TextMap => "a table of texts".to_owned(),
            Self::Options => "a table of librdkafka's settings".to_owned(),
            Self::Table(_) | Self::Named(_) => "a table".to_owned(),
            Self::List(_) | Self::Pipelines => "a list of tables".to_owned(),
        }
    }

    /// The shape below this one under a name, where there is one.
    pub(super) fn below(self, name: &str) -> Option<Self> {
        match self {
            Self::Options if is_secret_name(name) => Some(Self::Secret),
            Self::TextMap | Self::Options => Some(Self::Text),
            Self::Named(keys) => Some(Self::Table(keys)),
            Self::Table(keys) => keys.iter().find(|key| key.name == name).map(|key| key.shape),
            _ => None,
        }
    }

    /// Whether text from outside is taken as it is, so that a password of digits stays one.
    pub(super) fn is_text(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Secret | Self::Duration | Self::Start | Self::Address | Self::Listen | Self::Choice(_)
        )
    }
}

/// A key that there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// A key that may be left out.
pub(crate) const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: false }
}

/// A key that must be given.
pub(crate) const fn required(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: true }
}

/// The keys of the whole.
pub(super) const ROOT: Shape = Shape::Table(&[
    key("startup_timeout", Shape::Duration),
    key("kafka", Shape::Table(KAFKA)),
    key("store", Shape::Table(STORE)),
    key("redis", Shape::Table(REDIS)),
    key("health", Shape::Table(&[key("listen", Shape::Address)])),
    key("console", Shape::Table(&[key("listen", Shape::Listen), key("hosts", Shape::Texts)])),
    key("log", Shape::Table(&[key("format", Shape::Choice(&["text", "json"])), key("level", Shape::Text)])),
    key("traces", Shape::Table(TRACES)),
    key("pools", Shape::Named(POOL)),
]);

const KAFKA: &[Key] = &[
    key("brokers", Shape::Texts),
    key("group_protocol", Shape::Choice(&["classic", "consumer"])),
    key("group_instance_id", Shape::Text),
    key("session_timeout_ms", Shape::Int),
    key("heartbeat_interval_ms", Shape::Int),
    key("max_poll_interval_ms", Shape::Int),
    key("metadata_refresh_ms", Shape::Int),
    key("commit_interval", Shape::Duration),
    key("options", Shape::Options),
];

const STORE: &[Key] = &[
    key("url", Shape::Secret),
    key("url_file", Shape::Text),
    key("pooler", Shape::Choice(&["session", "transaction"])),
    key("connections", Shape::Int),
    key("statement_timeout", Shape::Duration),
    key("idle_in_transaction_timeout", Shape::Duration),
    key("lock_timeout", Shape::Duration),
    key("messages_retention", Shape::Duration),
];

const REDIS: &[Key] = &[
    key("url", Shape::Secret),
    key("url_file", Shape::Text),
    key("expiry", Shape::Duration),
    key("deadline", Shape::Duration),
];

const TRACES: &[Key] = &[
    key("endpoint", Shape::Secret),
    key("sample_ratio", Shape::Float),
    key("relation", Shape::Choice(&["link", "parent"])),
    key("service_name", Shape::Text),
    key("headers_file", Shape::Text),
];

const POOL: &[Key] = &[
    key("group", Shape::Text),
    key("topics", Shape::Texts),
    required("start", Shape::Start),
    key("max_poll_records", Shape::Int),
    key("batch_bytes", Shape::Size),
    key("batch_linger", Shape::Duration),
    key("drain_deadline", Shape::Duration),
    key("handle_ms", Shape::Float),
    key("max_partition_fetch_bytes", Shape::Size),
    key("queue_bytes", Shape::Size),
    key("rate", Shape::Rate),
    key("transactions_max", Shape::Int),
    key("processed_set", Shape::Choice(&["set", "bloom", "off"])),
    key("bloom", Shape::Table(BLOOM)),
    key("on_tombstone", Shape::Choice(&["skip", "reject"])),
    key("types", Shape::Texts),
    key("on_unknown_type", Shape::Choice(&["pass", "reject"])),
    key("on_reject", Shape::Choice(&["dead", "park"])),
    key("park_limit", Shape::Int),
    key("reject_hold_ratio", Shape::Float),
    key("seen_horizon", Shape::Duration),
    key("scaling", Shape::Table(SCALING)),
    key("event", Shape::Table(EVENT)),
    key("lookups", Shape::Named(LOOKUP)),
    key("pipelines", Shape::Pipelines),
];

const BLOOM: &[Key] = &[
    key("ids", Shape::Int),
    key("rate", Shape::Rate),
    key("expiry", Shape::Duration),
    key("false_positives", Shape::Float),
];

const SCALING: &[Key] = &[
    key("clear_within", Shape::Duration),
    key("down_after", Shape::Duration),
    key("min", Shape::Int),
    key("max", Shape::Int),
];

const EVENT: &[Key] = &[
    key("id", Shape::Text),
    key("type", Shape::Text),
    key("timestamp", Shape::Text),
    key("user", Shape::Text),
    key("conversation", Shape::Text),
];

const LOOKUP: &[Key] =
    &[key("file", Shape::Text), key("table", Shape::Text), key("key", Shape::Text), key("refresh", Shape::Duration)];

/// The keys of every pipeline; the others are its handler's.
pub(super) const PIPELINE: &[Key] =
    &[required("name", Shape::Text), required("handler", Shape::Text), key("when", Shape::Text)];

/// The key at a path, in lists of tables too; text under names of the user's choice is none.
pub(super) fn key_at(path: &[&str], kinds: Kinds<'_>) -> Option<Key> {
    let (mut shape, mut found) = (ROOT, None);
    for name in path {
        (shape, found) = match shape {
            Shape::Table(keys) | Shape::List(keys) => {
                let key = *keys.iter().find(|key| key.name == *name)?;
                (key.shape, Some(key))
            }
            Shape::Pipelines => {
                let key = kinds.key(name)?;
                (key.shape, Some(key))
            }
            Shape::Named(keys) => (Shape::Table(keys), None),
            _ => return None,
        };
    }
    found
}

/// The shape at a path, where there is one.
pub(super) fn at<'a>(path: impl IntoIterator<Item = &'a str>) -> Option<Shape> {
    path.into_iter().try_fold(ROOT, |shape, name| shape.below(name))
}
