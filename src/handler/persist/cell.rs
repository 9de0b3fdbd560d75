//! One value on its way into one column: where it comes from, whether the column can hold it, and its column form.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use uuid::Uuid;

use super::json;
use crate::event::{Document, Event, Fields, Payload as _, Slot, Value};
use crate::store::{Column, ColumnData, ColumnType};

/// PostgreSQL's and MariaDB's common range of points in time, in milliseconds: the years 1 to 9999.
const TIMESTAMP_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Id,
    Key,
    Topic,
    Partition,
    Offset,
    KafkaTimestamp,
    Type,
    Conversation,
    Field(Slot),
}

impl Source {
    /// Those that are no field, by their names in a mapping.
    pub(super) const NAMED: [(&str, Self); 8] = [
        ("$id", Self::Id),
        ("$key", Self::Key),
        ("$topic", Self::Topic),
        ("$partition", Self::Partition),
        ("$offset", Self::Offset),
        ("$kafka_timestamp", Self::KafkaTimestamp),
        ("$type", Self::Type),
        ("$conversation", Self::Conversation),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
    }

    pub(super) fn compile(source: &str, column: &ColumnType, fields: &mut Fields) -> Result<Self, String> {
        if let Some(named) = Self::named(source) {
            return Ok(named);
        }
        let picked = if *column == ColumnType::Json { fields.json(source) } else { fields.value(source) };
        picked.map(Self::Field).map_err(|error| error.to_string())
    }

    pub(super) fn cell(self, event: &Event<Document>) -> Cell<'_> {
        match self {
            Self::Id => Cell::Text(Cow::Borrowed(event.id.as_str())),
            Self::Key => match event.record.key.as_deref() {
                None => Cell::Null,
                Some(key) => std::str::from_utf8(key).map_or(Cell::Unfit("not UTF-8"), |key| Cell::Text(key.into())),
            },
            Self::Topic => Cell::Text(Cow::Borrowed(&event.origin.topic)),
            Self::Partition => Cell::Int(event.origin.partition.into()),
            Self::Offset => Cell::Int(event.record.offset),
            Self::KafkaTimestamp => Cell::Int(event.record.timestamp_ms),
            Self::Type => Cell::Text(Cow::Borrowed(event.payload.kind())),
            Self::Conversation => event.payload.conversation().map_or(Cell::Null, Cell::Text),
            Self::Field(slot) => Cell::of(event.payload.get(slot)),
        }
    }
}

/// A value for a column.
#[derive(Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Json(&'a str),
    /// What no column holds, and why.
    Unfit(&'static str),
}

impl<'a> Cell<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Absent | Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => Self::Uint(*value),
            Value::Float(value) => Self::Float(*value),
            Value::Text(value) => Self::Text(Cow::Borrowed(value)),
            Value::Json(value) if &**value == "null" => Self::Null,
            Value::Json(value) => Self::Json(value),
            Value::Composite => Self::Unfit("an object or a list"),
        }
    }

    /// Whether the column can hold the value.
    pub(super) fn check(&self, column: &Column) -> Result<(), Cow<'static, str>> {
        match (self, &column.kind) {
            (Self::Unfit(what), _) => Err(format!("{what} does not fit").into()),
            (Self::Null, _) if column.nullable => Ok(()),
            (Self::Null, _) => Err("it takes no NULL, and the field is missing or null".into()),
            (_, ColumnType::Bool) => self.as_bool().map(drop).ok_or_else(|| "expected true or false".into()),
            (_, ColumnType::Int2) => self.fits_int(i16::MIN.into(), i16::MAX.into()),
            (_, ColumnType::Int4) => self.fits_int(i32::MIN.into(), i32::MAX.into()),
            (_, ColumnType::Int8) => self.fits_int(i64::MIN, i64::MAX),
            (_, ColumnType::Float8) => self.as_float().map(drop).ok_or_else(|| "expected a number".into()),
            (_, ColumnType::Numeric) => self.as_number_text().map(drop).ok_or_else(|| "expected a number".into()),
            (_, ColumnType::Uuid) => self.as_uuid().map(drop).ok_or_else(|| "expected a UUID".into()),
            (_, ColumnType::Timestamp) => {
                let why = "expected milliseconds since 1970 or RFC 3339 in UTC, in the years 1 to 9999";
                self.as_timestamp_ms().map(drop).ok_or_else(|| why.into())
            }
            (_, ColumnType::Json) => match self.as_json() {
                Some(json) => json::check(&json).map_err(Cow::Borrowed),
                None => Err("expected JSON".into()),
            },
            // A number's text has no NUL and can only be too long.
            (Self::Int(_) | Self::Uint(_), ColumnType::Text { chars_max: None, .. }) => Ok(()),
            (Self::Text(text), ColumnType::Text { chars_max, bytes_max }) => fits_text(text, *chars_max, *bytes_max),
            (_, ColumnType::Text { chars_max, bytes_max }) => match self.as_text() {
                None => Err("expected a string or a whole number".into()),
                Some(text) => fits_text(&text, *chars_max, *bytes_max),
            },
            (_, ColumnType::Other(_)) => Err("its type is not one that persist writes".into()),
        }
    }

    /// Whether this is the newer of two values of a column, as the column's type orders them; a value is newer than none.
    pub(super) fn is_newer_than(&self, other: &Self, column: &ColumnType) -> bool {
        if *self == Self::Null || *other == Self::Null {
            return *self != Self::Null && *other == Self::Null;
        }
        match column {
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => self.as_int() > other.as_int(),
            ColumnType::Timestamp => self.as_timestamp_ms() > other.as_timestamp_ms(),
            ColumnType::Float8 | ColumnType::Numeric => self.as_float() > other.as_float(),
            ColumnType::Uuid => self.as_uuid() > other.as_uuid(),
            ColumnType::Bool => self.as_bool() > other.as_bool(),
            ColumnType::Text { .. } | ColumnType::Json | ColumnType::Other(_) => self.as_text() > other.as_text(),
        }
    }

    fn fits_int(&self, min: i64, max: i64) -> Result<(), Cow<'static, str>> {
        match self.as_int() {
            Some(value) if (min..=max).contains(&value) => Ok(()),
            _ => Err(format!("expected a whole number from {min} to {max}").into()),
        }
    }

    fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The ids of events are text, but a key may be a number.
    fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a floating point column holds whole numbers that way")]
    fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    fn as_number_text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Int(value) => Some(value.to_string().into()),
            Self::Uint(value) => Some(value.to_string().into()),
            Self::Float(value) => Some(value.to_string().into()),
            _ => None,
        }
    }

    fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Text(text) => Uuid::parse_str(text).ok(),
            _ => None,
        }
    }

    fn as_timestamp_ms(&self) -> Option<i64> {
        let ms = match self {
            Self::Int(ms) => *ms,
            Self::Text(text) => {
                let time = humantime::parse_rfc3339(text).ok()?;
                i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?
            }
            _ => return None,
        };
        TIMESTAMP_MS.contains(&ms).then_some(ms)
    }

    fn as_json(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Json(json) => Some(Cow::Borrowed(json)),
            Self::Text(text) => serde_json::to_string(text).ok().map(Cow::Owned),
            Self::Bool(value) => Some(value.to_string().into()),
            _ => self.as_number_text(),
        }
    }

    fn as_text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(value) => Some(value.to_string().into()),
            Self::Uint(value) => Some(value.to_string().into()),
            _ => None,
        }
    }
}

fn fits_text(text: &str, chars_max: Option<usize>, bytes_max: Option<usize>) -> Result<(), Cow<'static, str>> {
    match (chars_max, bytes_max) {
        _ if text.contains('\0') => Err("the text contains NUL, which the database refuses".into()),
        (Some(max), _) if text.chars().count() > max => Err(format!("longer than {max} characters").into()),
        (_, Some(max)) if text.len() > max => Err(format!("longer than {max} bytes").into()),
        _ => Ok(()),
    }
}

/// The cells of one column, which were checked before, in the form the store takes.
pub(super) fn column_data<'a>(kind: &ColumnType, cells: impl Iterator<Item = Cell<'a>>) -> ColumnData<'a> {
    match kind {
        ColumnType::Bool => ColumnData::Bool(cells.map(|cell| cell.as_bool()).collect()),
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => {
            ColumnData::Int(cells.map(|cell| cell.as_int()).collect())
        }
        ColumnType::Float8 => ColumnData::Float(cells.map(|cell| cell.as_float()).collect()),
        ColumnType::Numeric => ColumnData::Text(cells.map(|cell| cell.as_number_text()).collect()),
        ColumnType::Uuid => ColumnData::Uuid(cells.map(|cell| cell.as_uuid()).collect()),
        ColumnType::Timestamp => ColumnData::TimestampMs(cells.map(|cell| cell.as_timestamp_ms()).collect()),
        ColumnType::Json => ColumnData::Text(cells.map(|cell| cell.as_json()).collect()),
        ColumnType::Text { .. } | ColumnType::Other(_) => {
            ColumnData::Text(cells.map(|cell| cell.into_text()).collect())
        }
    }
}

impl<'a> Cell<'a> {
    fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            other => other.as_text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, nullable: bool) -> Column {
        Column { name: "c".to_owned(), kind, nullable, unique: false, has_default: false }
    }

    #[test]
    fn what_a_column_cannot_hold_is_found_before_the_database_sees_it() {
        let text = ColumnType::Text { chars_max: Some(3), bytes_max: None };
        let unfit: [(Cell<'_>, ColumnType); 15] = [
            (Cell::Text("äöü".into()), ColumnType::Text { chars_max: None, bytes_max: Some(5) }),
            (Cell::Null, ColumnType::Int4),
            (Cell::Int(i64::from(i32::MAX) + 1), ColumnType::Int4),
            (Cell::Int(40_000), ColumnType::Int2),
            (Cell::Uint(u64::MAX), ColumnType::Int8),
            (Cell::Float(1.5), ColumnType::Int8),
            (Cell::Text("a\0".into()), text.clone()),
            (Cell::Text("äöüß".into()), text.clone()),
            (Cell::Bool(true), text.clone()),
            (Cell::Unfit("an object or a list"), text),
            (Cell::Text("x".into()), ColumnType::Uuid),
            (Cell::Text("yesterday".into()), ColumnType::Timestamp),
            (Cell::Int(i64::MAX), ColumnType::Timestamp),
            (Cell::Json(r#"{"a":"\u0000"}"#), ColumnType::Json),
            (Cell::Text("1".into()), ColumnType::Float8),
        ];
        for (cell, kind) in unfit {
            assert!(cell.check(&column(kind.clone(), false)).is_err(), "{cell:?} passed as {kind:?}");
        }
        let fit: [(Cell<'_>, ColumnType); 7] = [
            (Cell::Text("äöü".into()), ColumnType::Text { chars_max: Some(3), bytes_max: Some(6) }),
            (Cell::Int(7), ColumnType::Text { chars_max: None, bytes_max: Some(1) }),
            (Cell::Text("7".into()), ColumnType::Int8),
            (Cell::Json(r#"{"a":"\\u0000"}"#), ColumnType::Json),
            (Cell::Text("2024-02-29T12:00:00Z".into()), ColumnType::Timestamp),
            (Cell::Int(3), ColumnType::Numeric),
            (Cell::Bool(false), ColumnType::Bool),
        ];
        for (cell, kind) in fit {
            assert_eq!(cell.check(&column(kind.clone(), false)), Ok(()), "{cell:?} as {kind:?}");
        }
        assert_eq!(Cell::Null.check(&column(ColumnType::Int4, true)), Ok(()));
    }

    #[test]
    fn newer_is_by_number_time_or_text_and_something_beats_nothing() {
        let newer = |mine: Cell<'_>, other: Cell<'_>, kind: ColumnType| mine.is_newer_than(&other, &kind);
        assert!(newer(Cell::Int(2), Cell::Int(1), ColumnType::Int8));
        assert!(!newer(Cell::Int(1), Cell::Int(1), ColumnType::Int8));
        assert!(newer(Cell::Text("10".into()), Cell::Text("9".into()), ColumnType::Int4), "numbers given as strings");
        assert!(newer(Cell::Int(9_007_199_254_740_993), Cell::Int(9_007_199_254_740_992), ColumnType::Int8));
        let (later, earlier) = (Cell::Text("2024-02-02T00:00:00Z".into()), Cell::Int(1));
        assert!(newer(later, earlier, ColumnType::Timestamp));
        assert!(newer(
            Cell::Text("b".into()),
            Cell::Text("a".into()),
            ColumnType::Text { chars_max: None, bytes_max: None }
        ));
        assert!(newer(Cell::Int(1), Cell::Null, ColumnType::Int8));
        assert!(!newer(Cell::Null, Cell::Int(1), ColumnType::Int8));
    }
}
