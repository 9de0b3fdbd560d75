//! What people and programs are shown of bytes and times, and how they write times. What an event brings is never
//! written to a terminal as it is: it could steer it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Text whose control characters are made visible.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_printable(c) {
            true => safe.push(c),
            false => safe.extend(c.escape_default()),
        }
    }
    safe
}

/// Whether a character neither steers a terminal nor turns the order of what follows.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes as text, where they are text that can be printed, line breaks included.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(|c| is_printable(c) || matches!(c, '\n' | '\r' | '\t')).then_some(text)
}

/// Bytes on one line: text, or hexadecimal with their number.
pub(crate) fn line(bytes: &[u8]) -> String {
    match as_text(bytes) {
        Some(text) => safe(text),
        None => format!("{} ({} bytes, hex)", hex(bytes), bytes.len()),
    }
}

/// Bytes as they are printed whole.
pub(crate) fn whole(bytes: &[u8]) -> String {
    match as_text(bytes) {
        Some(text) => text.replace('\r', "\\r"),
        None => line(bytes),
    }
}

/// Bytes for programs: under the name where they are text, else as hexadecimal under the name with `_hex`.
pub(crate) fn put(object: &mut Value, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| hex(bytes))) {
        None => object[name] = Value::Null,
        Some(Ok(text)) => object[name] = json!(text),
        Some(Err(hex)) => object[format!("{name}_hex")] = json!(hex),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

/// Who runs this command, for the record.
pub(crate) fn who() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    safe(&format!("{user}@{}", host.trim()))
}

/// A point in time, given in milliseconds since 1970.
pub(crate) fn time(ms: i64) -> String {
    let since = Duration::from_millis(ms.try_into().unwrap_or_default());
    match UNIX_EPOCH.checked_add(since) {
        // The last year that the format can write.
        Some(time) if ms < 253_402_300_800_000 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("{ms} ms"),
    }
}

/// A point in time as people write it, such as 2026-01-31T08:00:00Z, or how long ago, such as 2h. Milliseconds since 1970.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time: give one such as 2026-01-31T08:00:00Z, or how long ago, such as 2h");
    let time = match humantime::parse_rfc3339(text) {
        Ok(time) => time,
        Err(_) => {
            let ago = humantime::parse_duration(text).map_err(|_| wrong())?;
            SystemTime::now().checked_sub(ago).ok_or_else(wrong)?
        }
    };
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
    i64::try_from(since.as_millis()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_printed() {
        for bytes in [&b"a\x1b[2Jb"[..], b"\xc2\x9b", "a\u{202e}b".as_bytes(), b"\xff\xfe"] {
            for shown in [line(bytes), whole(bytes), safe(&String::from_utf8_lossy(bytes))] {
                assert!(shown.chars().all(is_printable), "{shown:?}");
            }
        }
        assert_eq!(line(b"\x1b"), "1b (1 bytes, hex)");
        assert_eq!(whole("Zoë\n\tx".as_bytes()), "Zoë\n\tx");
        assert_eq!(line(b"a\nb"), "a\\nb");
    }

    #[test]
    fn times_are_read_as_points_and_as_ages() {
        assert_eq!(parse_time("2026-01-31T08:00:00Z"), Ok(1_769_846_400_000));
        assert_eq!(time(1_769_846_400_000), "2026-01-31T08:00:00Z");
        let hour_ago = parse_time("1h").unwrap();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert!((3_600_000..3_610_000).contains(&(now - hour_ago)));
        assert!(parse_time("yesterday").is_err());
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
    }

    #[test]
    fn programs_get_bytes_that_are_no_text_as_hexadecimal() {
        let mut object = json!({});
        put(&mut object, "key", Some(b"k"));
        put(&mut object, "value", Some(b"\xff\0"));
        put(&mut object, "none", None);
        assert_eq!(object, json!({"key": "k", "value_hex": "ff00", "none": null}));
    }
}
