//! What is sent: an event's topic, key, value, headers and time.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::outcome::Pending;
use crate::telemetry::traces::{Headers, Origin, Sending, TRACEPARENT, TRACESTATE};

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

    /// Whether it is sent as a part of a trace, by its own headers.
    pub(super) fn origin(&self) -> Origin {
        let header = |name: &str| self.headers.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value);
        match Origin::of(header(TRACEPARENT), || header(TRACESTATE)) {
            // It stays, and would hide another one.
            Origin::None if header(TRACEPARENT).is_some() => Origin::Unsampled,
            origin => origin,
        }
    }

    /// The headers of its span; none where it has its own.
    pub(super) fn context_of(&self, sending: &Sending) -> Vec<(&'static str, Bytes)> {
        match self.headers.iter().any(|(key, _)| *key == TRACEPARENT) {
            true => Vec::new(),
            false => sending.headers().map(Headers::into_named).unwrap_or_default(),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// The record of an event, with the headers of its span behind its own.
pub(super) fn record<'a>(
    event: &Outgoing<'a>,
    context: &[(&'static str, Bytes)],
    pending: Box<Pending>,
) -> BaseRecord<'a, [u8], [u8], Box<Pending>> {
    let count = event.headers.len() + context.len();
    let headers = (count > 0).then(|| {
        let all = event.headers.iter().copied().chain(context.iter().map(|(key, value)| (*key, &value[..])));
        let empty = OwnedHeaders::new_with_capacity(count);
        all.fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
    });
    BaseRecord {
        key: event.key,
        payload: event.value,
        timestamp: event.timestamp_ms,
        headers,
        ..BaseRecord::with_opaque_to(event.topic, pending)
    }
}
