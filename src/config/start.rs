//! Where a group begins.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The forms of [`Start`], for messages.
pub(super) const FORMS: &str = "\"beginning\" (every record that is still there), \"end\" (only records from now on), \"committed\" (where the \
     group stopped in Kafka) or a point in time such as \"2026-01-31T08:00:00Z\" (records as young as that)";

/// Where a group begins that has no place on a partition yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record.
    #[default]
    Beginning,
    /// After the newest record.
    End,
    /// Where the group has committed to in Kafka.
    Committed,
    /// At the first record that is not older.
    Time(SystemTime),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            "committed" => Ok(Self::Committed),
            _ => {
                humantime::parse_rfc3339(text).map(Self::Time).map_err(|_| format!("found {text:?}, expected {FORMS}"))
            }
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::End => f.write_str("end"),
            Self::Committed => f.write_str("committed"),
            Self::Time(time) => humantime::format_rfc3339(*time).fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_alike() {
        for text in ["beginning", "end", "committed", "2026-01-31T08:00:00Z"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
        assert!("earliest".parse::<Start>().unwrap_err().contains("beginning"));
    }
}
