//! How values and names are written: for people, with their units; for HTML and its scripts, harmless.

use std::time::{Duration, UNIX_EPOCH};

/// The first millisecond that RFC 3339's four digits of a year cannot tell.
const YEAR_10000_MS: i64 = 253_402_300_800_000;
const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// What a value counts; how it is written follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events a second.
    PerSecond,
    /// Events.
    Events,
    /// Milliseconds, written as seconds from 1,000 on.
    Millis,
    /// Seconds.
    Seconds,
    /// A part of 1, written as percent.
    Share,
    /// Processors' worth of time.
    Cores,
    /// Bytes, written as MiB, and as GiB from 10 of them on.
    Bytes,
}

impl Unit {
    /// The word beside a plot's title.
    pub(super) fn title(self) -> &'static str {
        match self {
            Unit::PerSecond => "events a second",
            Unit::Events => "events",
            Unit::Millis => "ms and s, logarithmic",
            Unit::Seconds => "seconds",
            Unit::Share => "percent",
            Unit::Cores => "cores",
            Unit::Bytes => "MiB",
        }
    }

    /// The name by which the page's script writes the same.
    pub(super) fn key(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::Events => "events",
            Unit::Millis => "ms",
            Unit::Seconds => "s",
            Unit::Share => "%",
            Unit::Cores => "cores",
            Unit::Bytes => "MiB",
        }
    }

    /// What one of the script's units is in this one's.
    pub(super) fn scale(self) -> f64 {
        match self {
            Unit::Share => 0.01,
            Unit::Bytes => MIB,
            _ => 1.0,
        }
    }

    /// A value with its unit: `1.5 s`, `20,000 /s`.
    #[must_use]
    pub fn write(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Unit::Millis if value.abs() >= 999.5 => format!("{} s", number(value / 1000.0)),
            Unit::Bytes if value >= 10.0 * GIB => format!("{} GiB", number(value / GIB)),
            _ => format!("{} {}", number(value / self.scale()), self.key()),
        }
    }

    /// A value as it stands at an axis, where large numbers are short: `20k`.
    pub(super) fn tick(self, value: f64) -> String {
        match self {
            Unit::Millis | Unit::Seconds => self.write(value),
            Unit::Share => format!("{} %", number(value / self.scale())),
            _ => short(value / self.scale()),
        }
    }
}

/// A number of at least three figures that count, with a comma between thousands.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        v if v >= 0.001 => 3,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let part = part.trim_end_matches('0');
    let whole = grouped(whole);
    let plain = if part.is_empty() { whole } else { format!("{whole}.{part}") };
    if plain == "-0" { "0".to_owned() } else { plain }
}

/// A whole number with a comma between thousands.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with a letter for its thousands from 10,000 on.
fn short(value: f64) -> String {
    match value.abs() {
        v if v < 9_999.5 => number(value),
        v if v < 999_950.0 => format!("{}k", number(value / 1e3)),
        v if v < 999_950_000.0 => format!("{}M", number(value / 1e6)),
        _ => format!("{}G", number(value / 1e9)),
    }
}

/// Seconds since the run's start, as a clock has them: `2:05`, `1:00:00`.
pub(super) fn clock(seconds: f64) -> String {
    let parts = seconds.max(0.0).fract();
    let fraction = if parts > 1e-6 && seconds < 10.0 { format!("{parts:.1}")[1..].to_owned() } else { String::new() };
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}{fraction}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A length of time in words: `12.5 s`, `10 min 3 s`.
pub(super) fn length(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 120.0 {
        return Unit::Seconds.write(seconds);
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 if seconds == 0 => format!("{minutes} min"),
        0 => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// A point in time, given in milliseconds since 1970.
pub(super) fn moment(ms: i64) -> String {
    let since = u64::try_from(ms).ok().filter(|_| ms < YEAR_10000_MS);
    match since.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms))) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', " UTC"),
        None => format!("{ms} ms since 1970"),
    }
}

/// Text that HTML takes for nothing else, in elements and in quoted attributes. What cannot be seen, or turns the order
/// of what follows, is shown by a mark in its place.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() => safe.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON that ends no script element.
pub(super) fn script_json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text() {
        assert_eq!(escape("<img src='x' onerror=\"a&b\">"), "&lt;img src=&#39;x&#39; onerror=&quot;a&amp;b&quot;&gt;");
        assert_eq!(escape("a\0b\u{202e}c\nd"), "a\u{fffd}b\u{fffd}c\nd");
        let json = script_json(&serde_json::json!({"n": "</script><script>"}));
        assert!(!json.contains('<'), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["n"], "</script><script>");
    }

    #[test]
    fn numbers_have_the_figures_that_count() {
        let pairs = [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (1.0, "1"),
            (1.005, "1"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1,234"),
            (20_000.0, "20,000"),
            (-1_234_567.0, "-1,234,567"),
            (0.0005, "0.0005"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, text) in pairs {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn values_have_their_units() {
        assert_eq!(Unit::Millis.write(812.4), "812 ms");
        assert_eq!(Unit::Millis.write(2500.0), "2.5 s");
        assert_eq!(Unit::Share.write(0.25), "25 %");
        assert_eq!(Unit::Bytes.write(192.0 * MIB), "192 MiB");
        assert_eq!(Unit::Bytes.write(24.0 * GIB), "24 GiB");
        assert_eq!(Unit::PerSecond.tick(20_000.0), "20k");
        assert_eq!(Unit::Events.tick(1_500_000.0), "1.5M");
        assert_eq!(Unit::Events.tick(5_000.0), "5,000");
        assert_eq!(Unit::Cores.write(f64::NAN), "–");
    }

    #[test]
    fn times_are_read_as_clocks_and_lengths() {
        assert_eq!([clock(0.0), clock(125.0), clock(3600.0), clock(0.5)], ["0:00", "2:05", "1:00:00", "0:00.5"]);
        assert_eq!(clock(f64::NAN), "0:00");
        assert_eq!([length(12.5), length(603.0), length(7320.0)], ["12.5 s", "10 min 3 s", "2 h 2 min"]);
        assert_eq!(moment(1_769_846_400_000), "2026-01-31 08:00:00 UTC");
        assert_eq!(moment(i64::MAX), format!("{} ms since 1970", i64::MAX));
        assert_eq!(moment(-1), "-1 ms since 1970");
    }
}
