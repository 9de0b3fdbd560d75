//! Sizes in bytes: a whole number, or text with a unit such as `4MiB`.

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// From the largest, so that a size shows in the largest unit that divides it.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL_UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

pub(crate) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    let count = *bytes as u64;
    match UNITS.iter().find(|(_, unit)| count >= *unit && count.is_multiple_of(*unit)) {
        Some((name, unit)) => serializer.collect_str(&format_args!("{}{name}", count / unit)),
        None => serializer.serialize_u64(count),
    }
}

/// Reads a size; the error says how one is written.
pub(super) fn parse(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let unit = match unit {
        "" | "B" => Some(1),
        _ => {
            let mut known = UNITS.iter().chain(&DECIMAL_UNITS);
            known.find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, unit)| *unit)
        }
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("found {text:?}, expected a number of bytes or a size such as \"4MiB\""))
}

struct SizeVisitor;

impl de::Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes or a size such as \"4MiB\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let sizes = [("0", 0), ("500", 500), ("500B", 500), ("4MiB", 4 << 20), ("4 mib", 4 << 20), ("2MB", 2_000_000)];
        for (text, bytes) in sizes {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5MiB", "4 bananas", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_show_in_the_largest_unit_that_divides_them() {
        let shown = |bytes: usize| serialize(&bytes, serde_json::value::Serializer).unwrap();
        assert_eq!(shown(96 << 20), "96MiB");
        assert_eq!(shown(1 << 30), "1GiB");
        assert_eq!(shown(1_000_000), 1_000_000);
    }
}
