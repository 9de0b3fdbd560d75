//! A pipeline: a handler and what it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Moderate, Secret, duration};

/// What is done with a pool's events. Keys of one handler are refused on another.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// The pipeline's name in logs, metrics and dead rows.
    pub name: String,
    /// `persist`, `analyze`, `moderate`, `forward` or `notify`.
    pub handler: String,
    /// The events that it wants, as a condition in CEL; without one, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// `persist`: the table; without one, `messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// `persist`: the column with the event's id, which needs a unique key of its own; without one, `message_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `persist`: what becomes of an event whose id the table holds; without it, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_duplicate: Option<OnDuplicate>,
    /// `persist`: the column that says which of two events is newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_by: Option<String>,
    /// `analyze`: what events are counted by; without it, by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<Vec<String>>,
    /// `moderate`: what messages are judged by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moderate: Option<Moderate>,
    /// `persist`: a source for each column: a JSON pointer, or `$id`, `$key`, `$topic`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeMap<String, String>>,
    /// `forward`: the topic to send to, with places such as `{type}` or `{/order/id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `forward`: the key to send under, with places; without one, the record's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_key: Option<String>,
    /// `notify`: the address to post to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// A file with that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// `notify`: what requests are signed with; without it, they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// `notify`: how long an answer is waited for; without it, 10 s.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Handlers whose effect is outside any database: they are in pools without a store.
const UNSTORED: [&str; 2] = ["forward", "notify"];

impl Pipeline {
    /// Whether its effect is in the database.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        !UNSTORED.contains(&self.handler.as_str())
    }

    /// How long `notify` waits for an answer.
    #[must_use]
    pub fn notify_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(10))
    }
}

/// The table that `persist` writes where none is named: that of `weir migrate --messages`.
pub(crate) const MESSAGES: &str = "messages";

impl Pipeline {
    /// The table that `persist` writes.
    #[must_use]
    pub fn persist_table(&self) -> &str {
        self.table.as_deref().unwrap_or(MESSAGES)
    }

    /// The column of that table with the event's id.
    #[must_use]
    pub fn persist_key(&self) -> &str {
        self.key.as_deref().unwrap_or("message_id")
    }
}

/// What becomes of an event whose id the table holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicate {
    /// It changes nothing.
    Ignore,
    /// It replaces the row if it is newer.
    Update,
}
