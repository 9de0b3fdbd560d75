//! A table that a handler writes to: its columns, what they can hold, and the key that decides what is new.

use std::borrow::Cow;

use uuid::Uuid;

/// A column of a table, as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether it takes NULL.
    pub nullable: bool,
    /// Whether a unique key or the primary key consists of this column alone.
    pub unique: bool,
    /// Whether the database fills it in when nothing is given.
    pub has_default: bool,
}

/// The types that events can be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// true or false.
    Bool,
    /// 16 bits with a sign.
    Int2,
    /// 32 bits with a sign.
    Int4,
    /// 64 bits with a sign.
    Int8,
    /// 64-bit floating point.
    Float8,
    /// Any number.
    Numeric,
    /// Text of at most so many characters.
    Text {
        /// The limit, where there is one.
        chars_max: Option<usize>,
        /// The limit of its UTF-8, where that is what the database counts.
        bytes_max: Option<usize>,
    },
    /// A UUID.
    Uuid,
    /// A point in time.
    Timestamp,
    /// Any JSON.
    Json,
    /// A type that `persist` does not write.
    Other(String),
}

/// The unique key that decides whether an event is new: a table's column that holds event ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdKey {
    /// The table, checked to be a plain name.
    pub table: String,
    /// The column, checked to be a plain name.
    pub column: String,
    /// What it holds.
    pub kind: KeyType,
}

/// The types that can hold event ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// Text.
    Text,
    /// A UUID; ids that are none are refused.
    Uuid,
    /// A 64-bit (or smaller) whole number; ids that are none are refused.
    Int,
}

impl KeyType {
    /// What a column of this type holds as a key; `None`: no event ids.
    #[must_use]
    pub fn of(column: &ColumnType) -> Option<Self> {
        match column {
            ColumnType::Text { .. } => Some(Self::Text),
            ColumnType::Uuid => Some(Self::Uuid),
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => Some(Self::Int),
            _ => None,
        }
    }

    /// An id as the key's type prints it, so that two spellings of one UUID are one id. `None`: the type cannot hold it.
    pub(crate) fn spelt(self, id: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Text => Some(Cow::Borrowed(id)),
            Self::Uuid => Uuid::parse_str(id).ok().map(|uuid| Cow::Owned(uuid.to_string())),
            Self::Int => id.parse::<i64>().ok().map(|number| Cow::Owned(number.to_string())),
        }
    }
}

/// What becomes of an event whose id the table holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It changes nothing.
    Ignore,
    /// It replaces the row if it is newer by this column.
    Update {
        /// The column that says which is newer.
        newer_by: String,
    },
}

/// A table that rows are inserted into.
#[derive(Debug, Clone)]
pub struct Table {
    /// The column with the event's id.
    pub key: IdKey,
    /// The columns written, the key's among them.
    pub columns: Vec<Column>,
    /// What becomes of repeated ids.
    pub on_duplicate: OnDuplicate,
}

/// The values of one column for all rows of a batch.
#[derive(Debug)]
pub enum ColumnData<'a> {
    /// For [`ColumnType::Bool`].
    Bool(Vec<Option<bool>>),
    /// For the three integer types.
    Int(Vec<Option<i64>>),
    /// For [`ColumnType::Float8`].
    Float(Vec<Option<f64>>),
    /// For [`ColumnType::Text`], and as their text for [`ColumnType::Numeric`] and [`ColumnType::Json`].
    Text(Vec<Option<Cow<'a, str>>>),
    /// For [`ColumnType::Uuid`].
    Uuid(Vec<Option<Uuid>>),
    /// For [`ColumnType::Timestamp`]: milliseconds since 1970.
    TimestampMs(Vec<Option<i64>>),
}
