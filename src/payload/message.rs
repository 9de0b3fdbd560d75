//! Topic `message-events`: chat messages, keyed by conversation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Id, UserId, conversation_of_two};
use crate::event::Payload;

/// The chat envelope, on topic `message-events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MessageEvent {
    /// What happened: `new_message` for a message that was sent.
    pub r#type: String,
    /// The message itself.
    pub message: Message,
    /// When the envelope was made, in milliseconds since 1970.
    pub timestamp: i64,
}

/// A chat message between two users, or to a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Message {
    /// The id that makes a repeat recognisable. Without one, weir takes a header's or the position's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Id>,
    /// The sender.
    pub from: UserId,
    /// The recipient.
    pub to: UserId,
    /// The group it was sent to, for a group message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Id>,
    /// The text.
    pub content: String,
    /// The kind of content, as the application numbers it.
    pub message_type: i32,
    /// When it was sent, in milliseconds since 1970.
    pub timestamp: i64,
}

impl MessageEvent {
    /// What the message belongs to, and its record key: the group's id if it has one (an empty one names
    /// no group), else both users' ids as text, sorted and joined by `:`.
    pub fn conversation(&self) -> String {
        let Message { from, to, group_id, .. } = &self.message;
        match group_id {
            Some(group) if !group.is_empty() => group.to_string(),
            _ => conversation_of_two(&from.to_string(), &to.to_string()),
        }
    }
}

impl Payload for MessageEvent {
    fn id(&self) -> Option<Cow<'_, str>> {
        self.message.message_id.as_ref().map(Id::text)
    }

    fn kind(&self) -> &str {
        &self.r#type
    }

    fn timestamp_ms(&self) -> Option<i64> {
        Some(self.message.timestamp)
    }

    fn user(&self) -> Option<Cow<'_, str>> {
        Some(self.message.from.text())
    }

    fn conversation(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(Self::conversation(self)))
    }
}

#[cfg(test)]
pub(super) const SHIPPED: super::Shipped =
    super::Shipped::new::<MessageEvent>("message-events", &[tests::WITH_ID, tests::WITHOUT_ID, tests::TO_A_GROUP]);

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const WITH_ID: &str = r#"{"type":"new_message","message":{"message_id":"m-1","from":"1001","to":1002,"content":"né \"so\" \n 😀","message_type":1,"timestamp":1700000000001},"timestamp":1700000000002}"#;
    pub(super) const WITHOUT_ID: &str = r#"{"type":"new_message","message":{"from":1001,"to":"999","content":"","message_type":2,"timestamp":1},"timestamp":2}"#;
    pub(super) const TO_A_GROUP: &str = r#"{"type":"new_message","message":{"message_id":7,"from":1,"to":2,"group_id":42,"content":"x","message_type":1,"timestamp":1},"timestamp":2}"#;

    fn parse(json: &str) -> MessageEvent {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn unknown_fields_are_tolerated() {
        let more = WITH_ID.replacen(r#"{"type""#, r#"{"trace":{"id":[1,2]},"schema":3,"type""#, 1);
        let more = more.replacen(r#""content""#, r#""edited":false,"content""#, 1);
        assert_eq!(parse(&more), parse(WITH_ID));
    }

    #[test]
    fn a_conversation_is_the_group_or_both_users() {
        assert_eq!(parse(WITH_ID).conversation(), "1001:1002");
        assert_eq!(parse(WITHOUT_ID).conversation(), "1001:999");
        assert_eq!(parse(TO_A_GROUP).conversation(), "42");
        let nameless = TO_A_GROUP.replace(r#""group_id":42"#, r#""group_id":"""#);
        assert_eq!(parse(&nameless).conversation(), "1:2");
    }

    #[test]
    fn a_missing_sender_is_an_error_that_names_it() {
        let error =
            serde_json::from_str::<MessageEvent>(&WITH_ID.replace(r#""from""#, r#""form""#)).unwrap_err().to_string();
        assert!(error.contains("missing field `from`"), "{error}");
    }
}
