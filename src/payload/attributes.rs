//! What types tell of themselves where they tell it alike.

/// A type with an `event_id`, a time stamp and perhaps a user: its name, or the field that has it, and the user.
macro_rules! payload {
    ($type:ty, $kind:expr, $user:expr) => {
        impl $crate::event::Payload for $type {
            fn id(&self) -> Option<std::borrow::Cow<'_, str>> {
                self.event_id.as_ref().map($crate::payload::Id::text)
            }

            fn kind(&self) -> &str {
                let kind: fn(&Self) -> &str = $kind;
                kind(self)
            }

            fn timestamp_ms(&self) -> Option<i64> {
                Some(self.timestamp)
            }

            fn user(&self) -> Option<std::borrow::Cow<'_, str>> {
                let user: fn(&Self) -> Option<&$crate::payload::Id> = $user;
                user(self).map($crate::payload::Id::text)
            }
        }
    };
}

/// The types of a topic as one: it tells what the event in it tells.
macro_rules! payload_of_union {
    ($type:ty { $($variant:ident),+ }) => {
        impl $type {
            fn event(&self) -> &dyn $crate::event::Payload {
                match self {
                    $(Self::$variant(event) => event,)+
                }
            }
        }

        impl $crate::event::Payload for $type {
            fn id(&self) -> Option<std::borrow::Cow<'_, str>> {
                self.event().id()
            }

            fn kind(&self) -> &str {
                self.event().kind()
            }

            fn timestamp_ms(&self) -> Option<i64> {
                self.event().timestamp_ms()
            }

            fn user(&self) -> Option<std::borrow::Cow<'_, str>> {
                self.event().user()
            }

            fn conversation(&self) -> Option<std::borrow::Cow<'_, str>> {
                self.event().conversation()
            }
        }
    };
}

pub(super) use {payload, payload_of_union};
