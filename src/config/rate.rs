//! Rates as people write them: `5000/s`, `300/m`, or a number of events a second.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The forms of [`Rate`], for messages.
pub(super) const FORMS: &str = "a rate such as \"5000/s\" or \"300/m\", from 1/m to 1000000/s";

const PER_SECOND_MIN: f64 = 1.0 / 60.0;
const PER_SECOND_MAX: f64 = 1_000_000.0;

/// How many events a consumer group may handle in a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    events: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
}

impl Rate {
    /// So many events a second. Nothing: that is less than one a minute, or more than a million a second.
    #[must_use]
    pub fn per_second(events: f64) -> Option<Self> {
        Self { events, unit: Unit::Second }.checked()
    }

    /// Events a second.
    #[must_use]
    pub fn events_per_s(self) -> f64 {
        match self.unit {
            Unit::Second => self.events,
            Unit::Minute => self.events / 60.0,
        }
    }

    fn checked(self) -> Option<Self> {
        (PER_SECOND_MIN..=PER_SECOND_MAX).contains(&self.events_per_s()).then_some(self)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.split_once('/') {
            None => (text, Some(Unit::Second)),
            Some((number, "s")) => (number, Some(Unit::Second)),
            Some((number, "m" | "min")) => (number, Some(Unit::Minute)),
            Some((number, _)) => (number, None),
        };
        let rate = number.trim().parse().ok().zip(unit).and_then(|(events, unit)| Self { events, unit }.checked());
        rate.ok_or_else(|| format!("found {text:?}, expected {FORMS}"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => "s",
            Unit::Minute => "m",
        };
        write!(f, "{}/{unit}", self.events)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl de::Visitor<'_> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_f64<E: de::Error>(self, events: f64) -> Result<Rate, E> {
        Rate::per_second(events).ok_or_else(|| E::invalid_value(de::Unexpected::Float(events), &self))
    }

    fn visit_i64<E: de::Error>(self, events: i64) -> Result<Rate, E> {
        #[expect(clippy::cast_precision_loss, reason = "what is not exact is far above the most that a rate may be")]
        self.visit_f64(events as f64)
    }

    fn visit_u64<E: de::Error>(self, events: u64) -> Result<Rate, E> {
        #[expect(clippy::cast_precision_loss, reason = "what is not exact is far above the most that a rate may be")]
        self.visit_f64(events as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_second_or_a_minute() {
        for (text, per_s) in [("5000/s", 5_000.0), ("300/m", 5.0), ("90/min", 1.5), ("100", 100.0), ("0.5/s", 0.5)] {
            assert_eq!(text.parse::<Rate>().unwrap().events_per_s(), per_s, "{text}");
        }
        assert_eq!(serde_json::from_str::<Rate>("250").unwrap().events_per_s(), 250.0);
        assert_eq!(serde_json::from_str::<Rate>("0.5").unwrap().to_string(), "0.5/s");
    }

    #[test]
    fn a_rate_shows_as_it_was_written() {
        for text in ["5000/s", "300/m", "0.5/s"] {
            assert_eq!(serde_json::to_value(text.parse::<Rate>().unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "/s", "0", "0/s", "-1/s", "fast", "5000/h", "0.5/m", "2000000/s", "NaN", "inf/s", "5000/s/s"] {
            let refused = text.parse::<Rate>().expect_err(text);
            assert!(refused.contains("\"5000/s\""), "{refused}");
        }
        for json in ["0", "-5", "1e300", "true"] {
            assert!(serde_json::from_str::<Rate>(json).is_err(), "{json}");
        }
    }
}
