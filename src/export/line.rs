//! A record as a line of JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{Record, headers_as_json};

/// What is no text, or no JSON where JSON is expected, stands under another name in base64.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// A record's line, with its end.
pub(super) fn line(topic: &str, partition: i32, record: &Record) -> Vec<u8> {
    let key = record.key.as_deref();
    let text = key.and_then(|key| std::str::from_utf8(key).ok());
    let value = record.value.as_deref();
    let json = value.and_then(on_one_line);
    let headers = headers_as_json(&record.headers).and_then(|json| String::from_utf8(json).ok());
    let line = Line {
        topic,
        partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: text,
        key_base64: key.filter(|_| text.is_none()).map(|key| STANDARD.encode(key)),
        headers: headers.and_then(|json| RawValue::from_string(json).ok()),
        value_base64: value.filter(|_| json.is_none()).map(|value| STANDARD.encode(value)),
        value: json,
    };
    let mut bytes = serde_json::to_vec(&line).expect("text, numbers and JSON have a JSON form");
    bytes.push(b'\n');
    bytes
}

/// JSON as it was sent, on one line. Inside a string a line's end is escaped, so any other is mere space.
fn on_one_line(value: &[u8]) -> Option<Cow<'_, RawValue>> {
    let json: &RawValue = serde_json::from_slice(value).ok()?;
    if !json.get().contains(['\n', '\r']) {
        return Some(Cow::Borrowed(json));
    }
    RawValue::from_string(json.get().replace(['\n', '\r'], " ")).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(record: &Record) -> Value {
        let bytes = line("t", 3, record);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "a line is one line");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn json_is_kept_as_it_was_sent() {
        let value = "{\"a\":1.2345678901234567890123,\r\n \"b\":\"x\\ny\"}";
        let text = String::from_utf8(line("t", 3, &Record::new(7, value).with_header("h", b"v"))).unwrap();
        assert!(text.contains("1.2345678901234567890123"), "no digit is lost: {text}");
        let parsed = parsed(&Record::new(7, value).with_header("h", b"v"));
        assert_eq!(
            (&parsed["offset"], &parsed["partition"], &parsed["value"]["b"]),
            (&json!(7), &json!(3), &json!("x\ny"))
        );
        assert_eq!(parsed["headers"], json!([{"name": "h", "value": "v"}]));
    }

    #[test]
    fn what_is_no_json_or_text_is_kept_in_base64_and_a_tombstone_has_no_value() {
        let odd = Record { key: Some(Bytes::from_static(b"\xff\x00")), ..Record::new(0, b"\x00\x00\x00\x00\x07avro") };
        let parsed = parsed(&odd);
        assert_eq!(STANDARD.decode(parsed["value_base64"].as_str().unwrap()).unwrap(), b"\x00\x00\x00\x00\x07avro");
        assert_eq!(STANDARD.decode(parsed["key_base64"].as_str().unwrap()).unwrap(), b"\xff\x00");
        assert!(parsed.get("value").is_none() && parsed.get("key").is_none());
        let tombstone = self::parsed(&Record { value: None, ..Record::new(1, b"") });
        assert!(tombstone.get("value").is_none() && tombstone.get("value_base64").is_none());
    }
}
