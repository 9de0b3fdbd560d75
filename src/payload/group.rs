//! Topic `group-events`: what happens to groups, keyed by group.

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_events_are_written_as_they_were_read() {
        for json in [
            r#"{"type":"member_joined","event_id":"e","group_id":42,"user_id":"1001","timestamp":1}"#,
            r#"{"type":"group_created","group_id":"g","timestamp":1}"#,
        ] {
            let event: GroupEvent = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
        }
    }
}
