//! What the shipped types tell of themselves.

use std::borrow::Cow;

use super::order::OrderCancelled;
use super::user::UserLogout;
use super::{GroupEvent, Id, MessageEvent, OrderEvent, OrderPaid, SystemEvent, UserEvent, UserLogin};
use crate::event::Payload;

impl Id {
    /// As text; only an integer's is made anew.
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Integer(integer) => Cow::Owned(integer.to_string()),
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

/// Types with an `event_id`, a time stamp and perhaps a user.
macro_rules! payload {
    ($type:ty, $kind:expr, $user:expr) => {
        impl Payload for $type {
            fn id(&self) -> Option<Cow<'_, str>> {
                self.event_id.as_ref().map(Id::text)
            }

            fn kind(&self) -> &str {
                let kind: fn(&Self) -> &str = $kind;
                kind(self)
            }

            fn timestamp_ms(&self) -> Option<i64> {
                Some(self.timestamp)
            }

            fn user(&self) -> Option<Cow<'_, str>> {
                let user: fn(&Self) -> Option<&Id> = $user;
                user(self).map(Id::text)
            }
        }
    };
}

payload!(UserLogin, |_| "user_login", |event| Some(&event.user_id));
payload!(UserLogout, |_| "user_logout", |event| Some(&event.user_id));
payload!(GroupEvent, |event| &event.r#type, |event| event.user_id.as_ref());
payload!(SystemEvent, |event| &event.r#type, |_| None);
payload!(OrderPaid, |_| "order_paid", |event| Some(&event.user_id));
payload!(OrderCancelled, |_| "order_cancelled", |_| None);

impl UserEvent {
    fn event(&self) -> &dyn Payload {
        match self {
            Self::UserLogin(event) => event,
            Self::UserLogout(event) => event,
        }
    }
}

impl OrderEvent {
    fn event(&self) -> &dyn Payload {
        match self {
            Self::OrderPaid(event) => event,
            Self::OrderCancelled(event) => event,
        }
    }
}

/// A union tells what the event in it tells.
macro_rules! payload_of_union {
    ($type:ty) => {
        impl Payload for $type {
            fn id(&self) -> Option<Cow<'_, str>> {
                self.event().id()
            }

            fn kind(&self) -> &str {
                self.event().kind()
            }

            fn timestamp_ms(&self) -> Option<i64> {
                self.event().timestamp_ms()
            }

            fn user(&self) -> Option<Cow<'_, str>> {
                self.event().user()
            }
        }
    };
}

payload_of_union!(UserEvent);
payload_of_union!(OrderEvent);
