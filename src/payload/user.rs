//! Topic `user-events`: what users do with their accounts, keyed by user.

use serde::{Deserialize, Serialize};

use super::attributes::{payload, payload_of_union};
use super::{Id, UserId};

/// An event of topic `user-events`; the field `type` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum UserEvent {
    /// `user_login`: somebody logged in.
    UserLogin(UserLogin),
    /// `user_logout`: somebody logged out, or was logged out.
    UserLogout(UserLogout),
}

/// A login, on topic `user-events`. A consumer of logins only can decode to this type directly: the
/// field `type` beside these is ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UserLogin {
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// Who logged in.
    pub user_id: UserId,
    /// The device, as the client names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The address it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

/// A logout, on topic `user-events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UserLogout {
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// Who logged out.
    pub user_id: UserId,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

payload!(UserLogin, |_| "user_login", |event| Some(&event.user_id));
payload!(UserLogout, |_| "user_logout", |event| Some(&event.user_id));
payload_of_union!(UserEvent { UserLogin, UserLogout });

#[cfg(test)]
pub(super) const SHIPPED: super::Shipped = super::Shipped::new::<UserEvent>(
    "user-events",
    &[
        r#"{"type":"user_login","event_id":"e-1","user_id":1001,"device":"phone","ip":"192.0.2.7","timestamp":1700000000001}"#,
        r#"{"type":"user_logout","user_id":"1001","timestamp":1}"#,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_can_be_read_alone() {
        let json = SHIPPED.samples[0];
        let UserEvent::UserLogin(expected) = serde_json::from_str(json).unwrap() else {
            panic!("a login");
        };
        assert_eq!(serde_json::from_str::<UserLogin>(json).unwrap(), expected);
    }
}
