//! Rows as placeholders and bound values, in portions that one statement takes.
//!
//! Statements come in a few sizes, so that each stays prepared. One that is not costs more than its preparation: the driver
//! closes it, to which the server has no answer, and leaves TCP's waiting for more to send on, so that the next command
//! stays behind until the server's delayed acknowledgement, 40 ms later.

use std::ops::Range;

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use uuid::Uuid;

use crate::store::{ColumnData, ColumnType};

/// Placeholders of one statement; the protocol counts them with 16 bits.
const PLACEHOLDERS_MAX: usize = 60_000;
/// How many rows a statement has, or ids that it asks for: more of these, and MariaDB makes a join of the list.
const SIZES: [usize; 9] = [500, 200, 100, 50, 20, 10, 5, 2, 1];
/// The most that one statement has.
pub(super) const AT_ONCE: usize = SIZES[0];
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

/// The size of a statement that asks for so many ids, at most [`AT_ONCE`]; the last one is repeated.
pub(super) fn size_for(count: usize) -> usize {
    SIZES.into_iter().rfind(|size| *size >= count).unwrap_or(count)
}

/// Items up to a size, the last one again and again.
pub(super) fn filled<T>(items: &[T], size: usize) -> impl Iterator<Item = &T> {
    items.iter().chain(std::iter::repeat_n(items.last(), size - items.len()).flatten())
}

/// Items in pieces of the sizes that statements have.
pub(super) fn pieces<T>(items: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let (piece, further) = rest.split_at(largest_of(rest.len())?);
        rest = further;
        Some(piece)
    })
}

/// The largest size that is not above a number.
fn largest_of(most: usize) -> Option<usize> {
    SIZES.into_iter().find(|size| *size <= most)
}

/// Ranges of some rows, given what each takes, of which each makes one statement that fits into a packet. `Err` is the place of
/// a row that does not fit by itself.
pub(super) fn portions(bytes: &[usize], columns: usize, packet_bytes: usize) -> Result<Vec<Range<usize>>, usize> {
    let rows_max = (PLACEHOLDERS_MAX / columns.max(1)).clamp(1, AT_ONCE);
    // Half of it is left for the statement's own text and for what is counted too low.
    let bytes_max = packet_bytes / 2;
    let (mut portions, mut begin) = (Vec::new(), 0);
    while begin < bytes.len() {
        let mut sum = 0;
        let fits = |bytes: &&usize| {
            sum += **bytes;
            sum <= bytes_max
        };
        let fitting = bytes[begin..].iter().take(rows_max).take_while(fits).count();
        let end = begin + largest_of(fitting).ok_or(begin)?;
        portions.push(begin..end);
        begin = end;
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
        let of = |rows: usize, size: usize, columns, packet| portions(&vec![size; rows], columns, packet);
        assert_eq!(of(0, 1, 7, 1000), Ok(vec![]));
        assert_eq!(of(500, 300, 7, 16 << 20), Ok(std::iter::once(0..500).collect()));
        assert_eq!(
            of(1_266, 1, 7, 16 << 20).unwrap(),
            [0..500, 500..1000, 1000..1200, 1200..1250, 1250..1260, 1260..1265, 1265..1266]
        );
        assert_eq!(of(100, 1, 2_000, 16 << 20).unwrap()[0], 0..20, "60,000 placeholders");
        assert_eq!(of(5, 400, 1, 1_000).unwrap(), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(of(5, 200, 1, 1_000).unwrap(), [0..2, 2..4, 4..5]);
        assert_eq!(portions(&[1, 501], 1, 1_000), Err(1), "a row that no packet takes");
    }

    #[test]
    fn statements_have_few_sizes() {
        let all: Vec<u32> = (0..1_266).collect();
        assert_eq!(pieces(&all).map(<[u32]>::len).collect::<Vec<_>>(), [500, 500, 200, 50, 10, 5, 1]);
        assert_eq!(pieces(&all).flatten().copied().collect::<Vec<_>>(), all);
        assert_eq!([1, 2, 3, 51, 499, 500].map(size_for), [1, 2, 5, 100, 500, 500]);
    }
}
