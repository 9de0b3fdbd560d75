//! A pipeline: a handler and what it needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Moderate, Settings};

/// What is done with a pool's events. Keys of one handler are refused on another; what is a field is read by others than its
/// handler, too.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Pipeline {
    /// The pipeline's name in logs, metrics and dead rows.
    pub name: String,
    /// The name of its handler.
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
    /// The keys that its handler alone reads.
    #[serde(flatten)]
    pub settings: Settings,
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
