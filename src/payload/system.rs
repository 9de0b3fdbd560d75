//! Topic `system-events`: what the system says about itself, keyed by the part that says it.

use serde::{Deserialize, Serialize};

use super::Id;
use super::attributes::payload;

/// A notice of the system, on topic `system-events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SystemEvent {
    /// What happened: `maintenance_started`, `quota_exceeded`, … as the application names it.
    pub r#type: String,
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// The part of the system that says so.
    pub source: String,
    /// What belongs to this type of event; any JSON.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

payload!(SystemEvent, |event| &event.r#type, |_| None);

#[cfg(test)]
pub(super) const SHIPPED: super::Shipped = super::Shipped::new::<SystemEvent>(
    "system-events",
    &[
        r#"{"type":"quota_exceeded","event_id":3,"source":"gateway","detail":{"limit":5},"timestamp":1}"#,
        r#"{"type":"maintenance_started","source":"ops","timestamp":1}"#,
    ],
);
