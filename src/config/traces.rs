//! Where traces go, and how much of them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Traces by OpenTelemetry; off without an endpoint.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// The receiver of OTLP over HTTP, such as `http://collector:4318`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The part of events without a trace of their own for which one is begun. A trace that has begun elsewhere is
    /// followed as it says itself.
    pub sample_ratio: f64,
    /// How a worker's spans stand to those of whoever published the event.
    pub relation: Relation,
    /// What the process is called; without it, what `OTEL_SERVICE_NAME` says, or `weir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// A file with headers for the receiver, `name: value` a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// What that file holds.
    #[serde(skip)]
    pub headers: Headers,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 0.01,
            relation: Relation::default(),
            service_name: None,
            headers_file: None,
            headers: Headers::default(),
        }
    }
}

/// How a worker's spans stand to the span of whoever published the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// A batch is a trace of its own, with a link to each traced event's.
    #[default]
    Link,
    /// Each traced event's handling is a part of its publisher's trace.
    Parent,
}

/// Headers whose values are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Reads `name: value` lines; blank ones and those that begin with '#' are passed over.
    ///
    /// # Errors
    /// The number of the first line that is no header; nothing of its content.
    pub(super) fn read(text: &str) -> Result<Self, usize> {
        let is_kept = |line: &str| !line.is_empty() && !line.starts_with('#');
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| is_kept(line));
        lines.map(|(at, line)| header(line).ok_or(at + 1)).collect::<Result<_, _>>().map(Self)
    }

    /// Names and values: for the connection that needs them, never for text.
    pub(crate) fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A header as HTTP takes it (RFC 9110, 5.1 and 5.5).
fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_value = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let is_header = !name.is_empty() && name.bytes().all(is_token) && !value.is_empty() && value.bytes().all(is_value);
    is_header.then(|| (name.to_owned(), value.to_owned()))
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| format!("{name}: {}", super::secret::HIDDEN))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_headers_is_read_and_never_shown() {
        let headers =
            Headers::read("# for the collector\n\nauthorization: Bearer http://hunter2\n x-team : a b \n").unwrap();
        let read: Vec<_> = headers.expose().collect();
        assert_eq!(read, [("authorization", "Bearer http://hunter2"), ("x-team", "a b")]);
        assert_eq!(format!("{headers:?}"), r#"["authorization: ***", "x-team: ***"]"#);
        let traces = Traces { headers, ..Traces::default() };
        assert!(!format!("{traces:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&traces).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_line_that_is_no_header_is_told_by_its_number() {
        for (text, line) in [("hunter2", 1), ("a: b\n\nb c: d", 3), (": x", 1), ("a:", 1), ("a: \u{e9}", 1)] {
            assert_eq!(Headers::read(text), Err(line), "{text}");
        }
    }
}
