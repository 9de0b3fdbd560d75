//! Topic `group-events`: what happens to groups, keyed by group.

use serde::{Deserialize, Serialize};

use super::attributes::payload;
use super::{Id, UserId};

/// A change of a group, on topic `group-events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GroupEvent {
    /// What happened: `group_created`, `member_joined`, `member_left`, … as the application names it.
    pub r#type: String,
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// The group.
    pub group_id: Id,
    /// The user it concerns, if it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

payload!(GroupEvent, |event| &event.r#type, |event| event.user_id.as_ref());

#[cfg(test)]
pub(super) const SHIPPED: super::Shipped = super::Shipped::new::<GroupEvent>(
    "group-events",
    &[
        r#"{"type":"member_joined","event_id":"e","group_id":42,"user_id":"1001","timestamp":1}"#,
        r#"{"type":"group_created","group_id":"g","timestamp":1}"#,
    ],
);
