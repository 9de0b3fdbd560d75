//! Rows as one JSON text, which SQLite takes apart with `json_each`.

use serde::Serialize;

use crate::store::{ColumnData, IdKey, KeyType};

/// A list as a bound value. What is bound here (strings, numbers, lists of them) always has a JSON form.
pub(super) fn json<T: Serialize + ?Sized>(list: &T) -> String {
    serde_json::to_string(list).expect("strings and numbers always have a JSON form")
}

/// Ids as the key's type holds them: numbers for a number's column. Those that the type cannot hold are left out.
pub(super) fn keys(key: &IdKey, ids: &[&str]) -> String {
    let spelt = ids.iter().filter_map(|id| key.kind.spelt(id));
    match key.kind {
        KeyType::Int => json(&spelt.filter_map(|id| id.parse::<i64>().ok()).collect::<Vec<_>>()),
        KeyType::Text | KeyType::Uuid => json(&spelt.collect::<Vec<_>>()),
    }
}

/// One cell of a column.
#[derive(Serialize)]
#[serde(untagged)]
enum Cell<'a> {
    Null,
    Int(i64),
    Float(f64),
    Text(&'a str),
    Uuid(uuid::fmt::Hyphenated),
}

/// The chosen rows of some columns, each row a list.
pub(super) fn table(columns: &[ColumnData<'_>], chosen: impl Iterator<Item = usize>) -> String {
    let row = |at| columns.iter().map(|column| cell(column, at)).collect::<Vec<_>>();
    json(&chosen.map(row).collect::<Vec<_>>())
}

fn cell<'a>(column: &'a ColumnData<'_>, at: usize) -> Cell<'a> {
    let cell = match column {
        ColumnData::Bool(values) => values[at].map(|value| Cell::Int(value.into())),
        ColumnData::Int(values) | ColumnData::TimestampMs(values) => values[at].map(Cell::Int),
        ColumnData::Float(values) => values[at].map(Cell::Float),
        ColumnData::Text(values) => values[at].as_deref().map(Cell::Text),
        ColumnData::Uuid(values) => values[at].map(|value| Cell::Uuid(value.hyphenated())),
    };
    cell.unwrap_or(Cell::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_their_order() {
        let columns = [
            ColumnData::Text(vec![Some("a\"\u{1}".into()), None, Some("ü".into())]),
            ColumnData::Int(vec![Some(i64::MIN), Some(7), None]),
            ColumnData::Float(vec![Some(0.1), None, Some(-1e300)]),
            ColumnData::Bool(vec![Some(true), Some(false), None]),
        ];
        let rows = table(&columns, [0, 2].into_iter());
        assert_eq!(rows, r#"[["a\"\u0001",-9223372036854775808,0.1,1],["ü",null,-1e+300,null]]"#);
    }

    #[test]
    fn ids_that_a_key_cannot_hold_are_not_asked_for() {
        let key = |kind| IdKey { table: "t".to_owned(), column: "id".to_owned(), kind };
        assert_eq!(keys(&key(KeyType::Int), &["007", "x", "-1"]), "[7,-1]");
        assert_eq!(keys(&key(KeyType::Text), &["007", "x"]), r#"["007","x"]"#);
        let upper = "550E8400-E29B-41D4-A716-446655440000";
        assert_eq!(keys(&key(KeyType::Uuid), &[upper, "x"]), format!("[\"{}\"]", upper.to_lowercase()));
    }
}
