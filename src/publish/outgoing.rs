//! What is sent: an event's topic, key, value, headers and time.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::outcome::Pending;

/// An event to be sent. The bytes are copied by [`Publisher::send`].
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub(super) topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [(&'a str, &'a [u8])],
    timestamp_ms: Option<i64>,
}

impl<'a> Outgoing<'a> {
    /// An event without key and headers: it goes to a random partition.
    pub fn new(topic: &'a str, value: &'a [u8]) -> Self {
        Self { value: Some(value), ..Self::tombstone(topic) }
    }

    /// A record without a value; on a compacted topic it deletes its key.
    pub fn tombstone(topic: &'a str) -> Self {
        Self { topic, key: None, value: None, headers: &[], timestamp_ms: None }
    }

    /// Sets the key. An empty key is a key: all such events share a partition.
    pub fn key(self, key: &'a [u8]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets the headers, such as `weir-id` or `ce_id`, in this order.
    pub fn headers(self, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        Self { headers, ..self }
    }

    /// Sets the record's time, in milliseconds since 1970; otherwise it is the time of sending.
    pub fn timestamp_ms(self, timestamp_ms: i64) -> Self {
        Self { timestamp_ms: Some(timestamp_ms), ..self }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

pub(super) fn record<'a>(event: &Outgoing<'a>, pending: Box<Pending>) -> BaseRecord<'a, [u8], [u8], Box<Pending>> {
    let headers = (!event.headers.is_empty()).then(|| {
        let empty = OwnedHeaders::new_with_capacity(event.headers.len());
        event.headers.iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
    });
    BaseRecord {
        key: event.key,
        payload: event.value,
        timestamp: event.timestamp_ms,
        headers,
        ..BaseRecord::with_opaque_to(event.topic, pending)
    }
}
