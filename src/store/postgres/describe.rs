//! A table's columns from PostgreSQL's catalog.

use sqlx::{PgConnection, Row};

use crate::store::{Column, ColumnType};

const COLUMNS: &str = "
    SELECT a.attname, t.typname, a.atttypmod, NOT a.attnotnull AS nullable,
           a.atthasdef OR a.attidentity <> '' AS has_default,
           EXISTS (SELECT 1 FROM pg_index i
                    WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
                      AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS is_unique
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass(quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum";

pub(super) async fn columns(db: &mut PgConnection, table: &str) -> sqlx::Result<Vec<Column>> {
    let rows = sqlx::query(COLUMNS).bind(table).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            let type_name: String = row.try_get("typname")?;
            Ok(Column {
                name: row.try_get("attname")?,
                kind: column_type(&type_name, row.try_get("atttypmod")?),
                nullable: row.try_get("nullable")?,
                unique: row.try_get("is_unique")?,
                has_default: row.try_get("has_default")?,
            })
        })
        .collect()
}

/// The names were checked to be plain, or are the catalog's.
pub(super) async fn rows_as_json(
    db: &mut PgConnection,
    table: &str,
    columns: &[&str],
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let names: Vec<String> = columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let sql = format!("SELECT row_to_json(r)::text FROM (SELECT {} FROM \"{table}\" LIMIT $1) AS r", names.join(", "));
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(db).await
}

/// `atttypmod` of a length-limited text is the limit plus 4, and -1 without a limit.
fn column_type(name: &str, typmod: i32) -> ColumnType {
    match name {
        "bool" => ColumnType::Bool,
        "int2" => ColumnType::Int2,
        "int4" => ColumnType::Int4,
        "int8" => ColumnType::Int8,
        "float8" => ColumnType::Float8,
        "numeric" => ColumnType::Numeric,
        "text" => ColumnType::Text { chars_max: None, bytes_max: None },
        "varchar" => ColumnType::Text { chars_max: usize::try_from(typmod - 4).ok(), bytes_max: None },
        "uuid" => ColumnType::Uuid,
        "timestamptz" => ColumnType::Timestamp,
        "jsonb" | "json" => ColumnType::Json,
        other => ColumnType::Other(other.to_owned()),
    }
}
