//! A table's columns from SQLite's catalog. SQLite takes any word for a type, so the words of other databases are
//! read as what they mean there; the file keeps numbers, text and nothing else.

use std::collections::HashSet;

use sqlx::{Row, SqliteConnection};

use crate::store::{Column, ColumnType};

/// Columns that alone make up a unique key. An index that folds case would take two ids for one.
const UNIQUE: &str = "
    SELECT c.name FROM pragma_index_list(?1) AS l JOIN pragma_index_xinfo(l.name) AS c
     WHERE l.\"unique\" = 1 AND l.partial = 0 AND c.key = 1 AND c.coll = 'BINARY'
       AND (SELECT count(*) FROM pragma_index_xinfo(l.name) AS k WHERE k.key = 1) = 1";

pub(super) async fn columns(db: &mut SqliteConnection, table: &str) -> sqlx::Result<Vec<Column>> {
    let unique: Vec<String> = sqlx::query_scalar(UNIQUE).bind(table).fetch_all(&mut *db).await?;
    let unique: HashSet<String> = unique.into_iter().collect();
    let rows = sqlx::query(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL AS has_default, pk, hidden FROM pragma_table_xinfo(?1)",
    )
    .bind(table)
    .fetch_all(db)
    .await?;
    let keys = rows.iter().map(|row| row.try_get::<i64, _>("pk")).collect::<sqlx::Result<Vec<_>>>()?;
    let has_single_key = keys.iter().filter(|pk| **pk > 0).count() == 1;
    rows.iter()
        .zip(keys)
        .map(|(row, pk)| {
            let declared: String = row.try_get("type")?;
            let name: String = row.try_get("name")?;
            // The row's own number: it has no index, and SQLite fills it in.
            let is_rowid = has_single_key && pk > 0 && declared.eq_ignore_ascii_case("integer");
            let generated = row.try_get::<i64, _>("hidden")? != 0;
            Ok(Column {
                kind: if generated { ColumnType::Other("generated".to_owned()) } else { column_type(&declared) },
                nullable: !row.try_get::<bool, _>("notnull")?,
                unique: is_rowid || unique.contains(&name),
                has_default: is_rowid || generated || row.try_get("has_default")?,
                name,
            })
        })
        .collect()
}

/// The names were checked to be plain, or are the catalog's. A function takes no more than some hundred values, so each row's
/// object is put together of one for each column.
pub(super) async fn rows_as_json(
    db: &mut SqliteConnection,
    table: &str,
    columns: &[&str],
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let of_column = |name: &&str| {
        let quoted = name.replace('"', "\"\"");
        // JSON has no bytes.
        format!(
            "json_object('{}', CASE typeof(\"{quoted}\") WHEN 'blob' THEN NULL ELSE \"{quoted}\" END)",
            name.replace('\'', "''")
        )
    };
    let object = columns.iter().map(of_column).reduce(|all, one| format!("json_patch({all}, {one})"));
    let object = object.unwrap_or_else(|| "'{}'".to_owned());
    let sql = format!("SELECT {object} FROM \"{table}\" LIMIT ?1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(db).await
}

/// `NUMERIC` and its like are left out: SQLite would round what a 64-bit float cannot hold.
fn column_type(declared: &str) -> ColumnType {
    let upper = declared.to_ascii_uppercase();
    let (word, size) = upper.split_once('(').unwrap_or((&upper, ""));
    match word.trim() {
        "BOOL" | "BOOLEAN" => ColumnType::Bool,
        "SMALLINT" | "INT2" => ColumnType::Int2,
        "INT4" | "MEDIUMINT" => ColumnType::Int4,
        "INT" | "INTEGER" | "BIGINT" | "INT8" => ColumnType::Int8,
        "REAL" | "DOUBLE" | "DOUBLE PRECISION" | "FLOAT" | "FLOAT8" => ColumnType::Float8,
        "TEXT" | "CLOB" => ColumnType::Text { chars_max: None, bytes_max: None },
        "CHAR" | "VARCHAR" | "NVARCHAR" => {
            ColumnType::Text { chars_max: size.trim_end_matches(')').trim().parse().ok(), bytes_max: None }
        }
        "UUID" => ColumnType::Uuid,
        "TIMESTAMP" | "TIMESTAMPTZ" | "DATETIME" => ColumnType::Timestamp,
        "JSON" => ColumnType::Json,
        _ => ColumnType::Other(declared.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_type_is_read_as_what_it_means_elsewhere() {
        assert_eq!(column_type("varchar(20)"), ColumnType::Text { chars_max: Some(20), bytes_max: None });
        assert_eq!(column_type("TEXT"), ColumnType::Text { chars_max: None, bytes_max: None });
        assert_eq!(column_type("Integer"), ColumnType::Int8);
        assert_eq!(column_type("int4"), ColumnType::Int4);
        assert_eq!(column_type("DECIMAL(10,2)"), ColumnType::Other("DECIMAL(10,2)".to_owned()));
        assert_eq!(column_type(""), ColumnType::Other(String::new()));
    }
}
