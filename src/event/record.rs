//! A record copied out of librdkafka's memory. One allocation holds all records of a batch.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde::{Deserialize, Serialize};

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The header's name.
    pub name: Bytes,
    /// Its value, if it has one.
    pub value: Option<Bytes>,
}

/// One Kafka record as fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The record's offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970 by Kafka; 0 when the record has none.
    pub timestamp_ms: i64,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers, in order.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record with an offset and a value, for tests and for embedding.
    pub fn new(offset: i64, value: impl AsRef<[u8]>) -> Self {
        Self { offset, value: Some(Bytes::copy_from_slice(value.as_ref())), ..Self::default() }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &[u8]) -> Self {
        let (name, value) = (Bytes::copy_from_slice(name.as_bytes()), Some(Bytes::copy_from_slice(value)));
        self.headers.push(Header { name, value });
        self
    }

    /// The last value given under a header's name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rev().find(|header| header.name == name.as_bytes());
        found?.value.as_deref()
    }

    /// When the event was meant to be sent, in microseconds since 1970, if it says so.
    pub fn intended_us(&self) -> Option<i64> {
        std::str::from_utf8(self.header(super::INTENDED_HEADER)?).ok()?.parse().ok()
    }
}

#[derive(Serialize, Deserialize)]
struct KeptHeader<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// A record's headers as JSON text: `value` where it is UTF-8, else `hex`. `None` when there are none.
pub(crate) fn headers_as_json(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let kept: Vec<KeptHeader<'_>> = headers
        .iter()
        .map(|header| {
            let name = std::str::from_utf8(&header.name).unwrap_or_default();
            let text = header.value.as_deref().map(std::str::from_utf8);
            let (value, hex) = match (text, header.value.as_deref()) {
                (Some(Ok(text)), _) => (Some(Cow::Borrowed(text)), None),
                (_, Some(bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
                (_, None) => (None, None),
            };
            KeptHeader { name: Cow::Borrowed(name), value, hex }
        })
        .collect();
    serde_json::to_vec(&kept).ok()
}

/// The headers that [`headers_as_json`] kept. What it did not write is no header.
pub(crate) fn headers_from_json(json: &[u8]) -> Vec<Header> {
    let kept: Vec<KeptHeader<'_>> = serde_json::from_slice(json).unwrap_or_default();
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    kept.into_iter()
        .map(|header| Header {
            name: bytes(&header.name),
            value: header.value.as_deref().map(bytes).or_else(|| header.hex.as_deref().and_then(from_hex)),
        })
        .collect()
}

fn from_hex(hex: &str) -> Option<Bytes> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Collects borrowed messages into one buffer, then cuts it into records.
#[derive(Debug, Default)]
pub struct RecordBuffer {
    bytes: BytesMut,
    spans: Vec<Spans>,
}

/// Lengths of a record's parts, in the order in which the buffer holds them. `None` is Kafka's null.
#[derive(Debug)]
struct Spans {
    offset: i64,
    timestamp_ms: i64,
    key: Option<usize>,
    value: Option<usize>,
    headers: Vec<(usize, Option<usize>)>,
}

impl RecordBuffer {
    /// Makes it hold so many records and bytes in all without growing.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
        self.spans.reserve(records.saturating_sub(self.spans.len()));
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many bytes its records have.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The time stamp of its first record, in milliseconds since 1970.
    pub fn first_timestamp_ms(&self) -> Option<i64> {
        self.spans.first().map(|record| record.timestamp_ms)
    }

    /// Copies a message's parts to the end of the buffer.
    pub fn push(&mut self, message: &BorrowedMessage<'_>) {
        let key = self.append(message.key());
        let value = self.append(message.payload());
        let headers = match message.headers() {
            None => Vec::new(),
            Some(headers) => headers
                .iter()
                .map(|header| {
                    self.bytes.extend_from_slice(header.key.as_bytes());
                    (header.key.len(), self.append(header.value))
                })
                .collect(),
        };
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        self.spans.push(Spans { offset: message.offset(), timestamp_ms, key, value, headers });
    }

    /// Copies a record, where there is no librdkafka.
    #[cfg(test)]
    pub(crate) fn push_record(&mut self, record: &Record) {
        let key = self.append(record.key.as_deref());
        let value = self.append(record.value.as_deref());
        let Record { offset, timestamp_ms, .. } = *record;
        self.spans.push(Spans { offset, timestamp_ms, key, value, headers: Vec::new() });
    }

    fn append(&mut self, part: Option<&[u8]>) -> Option<usize> {
        part.map(|part| {
            self.bytes.extend_from_slice(part);
            part.len()
        })
    }

    /// The records, sharing the buffer's one allocation.
    pub fn finish(self) -> Vec<Record> {
        let mut rest = self.bytes.freeze();
        self.spans
            .into_iter()
            .map(|spans| Record {
                offset: spans.offset,
                timestamp_ms: spans.timestamp_ms,
                key: spans.key.map(|len| rest.split_to(len)),
                value: spans.value.map(|len| rest.split_to(len)),
                headers: spans
                    .headers
                    .into_iter()
                    .map(|(name, value)| Header {
                        name: rest.split_to(name),
                        value: value.map(|len| rest.split_to(len)),
                    })
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_bytes_that_are_no_text() {
        let header = |name: &str, value: Option<&[u8]>| Header {
            name: bytes::Bytes::copy_from_slice(name.as_bytes()),
            value: value.map(|value| value.to_vec().into()),
        };
        let kept = headers_as_json(&[header("a", Some(b"x")), header("b", Some(&[0xff, 0])), header("c", None)]);
        let kept = String::from_utf8(kept.unwrap()).unwrap();
        assert_eq!(kept, r#"[{"name":"a","value":"x"},{"name":"b","hex":"ff00"},{"name":"c"}]"#);
        assert_eq!(headers_as_json(&[]), None);
    }
}
