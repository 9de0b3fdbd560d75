//! Rows as placeholders and bound values, in portions that one statement takes.

use std::ops::Range;

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use uuid::Uuid;

use crate::store::{ColumnData, ColumnType};

/// Placeholders of one statement; the protocol counts them with 16 bits.
const PLACEHOLDERS_MAX: usize = 60_000;
/// Rows of one statement.
const ROWS_MAX: usize = 1_000;
/// What a number or a NULL takes at most, with its type.
const CELL_BYTES: usize = 16;

/// A statement with its arguments.
pub(super) type Statement<'q> = Query<'q, sqlx::MySql, MySqlArguments>;

/// So many of a template, with commas between.
pub(super) fn tuples(template: &str, count: usize) -> String {
    let mut all = String::with_capacity((template.len() + 2) * count);
    for at in 0..count {
        if at > 0 {
            all.push_str(", ");
        }
        all.push_str(template);
    }
    all
}

/// A UUID as it is kept.
pub(super) fn uuid_of(text: &str) -> sqlx::Result<Uuid> {
    text.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))
}

/// Ranges of some rows' sizes, none of more than a packet, of which each takes one statement. `Err` is the place of a row
/// that does not fit by itself.
pub(super) fn portions(
    sizes: impl ExactSizeIterator<Item = usize>,
    columns: usize,
    packet_bytes: usize,
) -> Result<Vec<Range<usize>>, usize> {
    let rows_max = (PLACEHOLDERS_MAX / columns.max(1)).clamp(1, ROWS_MAX);
    // Half of it is left for the statement's own text and for what is counted too low.
    let bytes_max = packet_bytes / 2;
    let count = sizes.len();
    let (mut portions, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, size) in sizes.enumerate() {
        if size > bytes_max {
            return Err(at);
        }
        if at - begin == rows_max || bytes + size > bytes_max {
            portions.push(begin..at);
            (begin, bytes) = (at, 0);
        }
        bytes += size;
    }
    if begin < count {
        portions.push(begin..count);
    }
    Ok(portions)
}

/// What a row takes in a packet, about.
pub(super) fn row_bytes(columns: &[ColumnData<'_>], at: usize) -> usize {
    let cell_bytes = |column: &ColumnData<'_>| match column {
        ColumnData::Text(values) => values[at].as_ref().map_or(0, |text| text.len()) + CELL_BYTES,
        ColumnData::Uuid(_) => 40 + CELL_BYTES,
        _ => CELL_BYTES,
    };
    columns.iter().map(cell_bytes).sum()
}

/// Binds one row, column by column.
pub(super) fn bind_row<'q>(mut query: Statement<'q>, columns: &[ColumnData<'_>], at: usize) -> Statement<'q> {
    for column in columns {
        query = match column {
            ColumnData::Bool(values) => query.bind(values[at]),
            ColumnData::Int(values) | ColumnData::TimestampMs(values) => query.bind(values[at]),
            ColumnData::Float(values) => query.bind(values[at]),
            ColumnData::Text(values) => query.bind(values[at].as_deref()),
            ColumnData::Uuid(values) => query.bind(values[at].map(|uuid| uuid.to_string())),
        };
    }
    query
}

/// How a column's value stands in a statement, given what stands for the value as it is bound.
pub(super) fn value(kind: &ColumnType, bound: &str) -> String {
    match kind {
        ColumnType::Timestamp => format!("TIMESTAMP '1970-01-01 00:00:00' + INTERVAL {bound} * 1000 MICROSECOND"),
        _ => bound.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_divided_by_number_placeholders_and_bytes() {
        let of = |rows: usize, size: usize, columns, packet| portions((0..rows).map(|_| size), columns, packet);
        assert_eq!(of(0, 1, 7, 1000), Ok(vec![]));
        assert_eq!(of(500, 300, 7, 16 << 20).unwrap(), std::slice::from_ref(&(0..500)));
        assert_eq!(of(2_500, 1, 7, 16 << 20).unwrap(), [0..1000, 1000..2000, 2000..2500]);
        assert_eq!(of(100, 1, 2_000, 16 << 20).unwrap()[0], 0..30, "60,000 placeholders");
        assert_eq!(of(5, 400, 1, 1_000).unwrap(), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(of(5, 200, 1, 1_000).unwrap(), [0..2, 2..4, 4..5]);
        assert_eq!(portions([1, 501].into_iter(), 1, 1_000), Err(1), "a row that no packet takes");
    }
}
