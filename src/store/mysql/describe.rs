//! A table's columns from the information schema.

use std::collections::HashSet;

use sqlx::{MySqlConnection, Row};

use crate::store::{Column, ColumnType};

const COLUMNS: &str = "
    SELECT CAST(column_name AS CHAR) AS name, CAST(data_type AS CHAR) AS data_type, CAST(column_type AS CHAR) AS column_type,
           CAST(character_maximum_length AS SIGNED) AS chars_max, CAST(character_octet_length AS SIGNED) AS bytes_max,
           CAST(character_set_name AS CHAR) AS character_set, CAST(collation_name AS CHAR) AS collation,
           is_nullable = 'YES' AS nullable, CAST(column_default AS CHAR) AS standing_in, CAST(extra AS CHAR) AS extra
      FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position";

/// Columns that alone, and as a whole, make up a unique key.
const UNIQUE: &str = "
    SELECT CAST(max(column_name) AS CHAR) FROM information_schema.statistics
     WHERE table_schema = DATABASE() AND table_name = ? AND non_unique = 0
     GROUP BY index_name HAVING count(*) = 1 AND max(sub_part) IS NULL AND max(column_name) IS NOT NULL";

/// MariaDB keeps JSON as text with a check.
const JSON_OF_MARIADB: &str = "
    SELECT CAST(constraint_name AS CHAR) FROM information_schema.check_constraints
     WHERE constraint_schema = DATABASE() AND table_name = ?
       AND check_clause IN (CONCAT('json_valid(`', constraint_name, '`)'), CONCAT('json_valid(\"', constraint_name, '\")'))";

pub(super) async fn columns(db: &mut MySqlConnection, table: &str, is_mariadb: bool) -> sqlx::Result<Vec<Column>> {
    let names = async |db: &mut MySqlConnection, sql: &'static str| -> sqlx::Result<HashSet<String>> {
        let names: Vec<String> = sqlx::query_scalar(sql).bind(table).fetch_all(db).await?;
        Ok(names.into_iter().collect())
    };
    let unique = names(&mut *db, UNIQUE).await?;
    let json = if is_mariadb { names(&mut *db, JSON_OF_MARIADB).await? } else { HashSet::new() };
    let rows = sqlx::query(COLUMNS).bind(table).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get("name")?;
            let extra = row.try_get::<String, _>("extra")?.to_ascii_lowercase();
            let collation: Option<String> = row.try_get("collation")?;
            // MariaDB says 'NULL' where NULL stands in, MySQL says nothing.
            let standing_in = row.try_get::<Option<String>, _>("standing_in")?.filter(|text| text != "NULL");
            let generated = extra.contains("generated") && !extra.contains("default_generated");
            let kind = match () {
                () if generated => ColumnType::Other("generated".to_owned()),
                () if json.contains(&name) => ColumnType::Json,
                () => column_type(
                    &row.try_get::<String, _>("data_type")?,
                    &row.try_get::<String, _>("column_type")?,
                    row.try_get("chars_max")?,
                    row.try_get("bytes_max")?,
                    row.try_get::<Option<String>, _>("character_set")?.as_deref(),
                ),
            };
            Ok(Column {
                kind,
                nullable: row.try_get("nullable")?,
                unique: unique.contains(&name) && collation.as_deref().is_none_or(is_bytewise),
                has_default: standing_in.is_some() || generated || extra.contains("auto_increment"),
                name,
            })
        })
        .collect()
}

/// The names were checked to be plain, or are the catalog's.
pub(super) async fn rows_as_json(
    db: &mut MySqlConnection,
    table: &str,
    columns: &[&str],
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let field = |name: &&str| format!("'{}', \"{}\"", name.replace('\'', "''"), name.replace('"', "\"\""));
    let fields: Vec<String> = columns.iter().map(field).collect();
    let sql = format!("SELECT JSON_OBJECT({}) FROM \"{table}\" LIMIT ?", fields.join(", "));
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(db).await
}

/// A collation that folds case would take two ids for one. Where spaces at the end count for nothing, two ids that differ
/// in these alone are told apart by the insert, which then refuses the second.
fn is_bytewise(collation: &str) -> bool {
    collation.ends_with("_bin")
}

fn column_type(
    data_type: &str,
    column_type: &str,
    chars_max: Option<i64>,
    bytes_max: Option<i64>,
    character_set: Option<&str>,
) -> ColumnType {
    let other = || ColumnType::Other(column_type.to_owned());
    if column_type.contains("unsigned") || column_type.contains("zerofill") {
        return other();
    }
    let size = |size: Option<i64>| size.and_then(|size| usize::try_from(size).ok());
    match data_type.to_ascii_lowercase().as_str() {
        "tinyint" if column_type == "tinyint(1)" => ColumnType::Bool,
        "smallint" => ColumnType::Int2,
        "int" => ColumnType::Int4,
        "bigint" => ColumnType::Int8,
        "double" => ColumnType::Float8,
        "decimal" => ColumnType::Numeric,
        // Other character sets lack characters that events have.
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" if character_set != Some("utf8mb4") => {
            ColumnType::Other(format!(
                "{column_type} CHARACTER SET {} (utf8mb4 would be)",
                character_set.unwrap_or("binary")
            ))
        }
        "char" | "varchar" => ColumnType::Text { chars_max: size(chars_max), bytes_max: None },
        "tinytext" | "text" | "mediumtext" => ColumnType::Text { chars_max: None, bytes_max: size(bytes_max) },
        "longtext" => ColumnType::Text { chars_max: None, bytes_max: None },
        "uuid" => ColumnType::Uuid,
        "timestamp" | "datetime" => ColumnType::Timestamp,
        "json" => ColumnType::Json,
        _ => other(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        data_type: &str,
        declared: &str,
        size: (Option<i64>, Option<i64>),
        character_set: Option<&str>,
    ) -> ColumnType {
        column_type(data_type, declared, size.0, size.1, character_set)
    }

    #[test]
    fn a_declared_type_is_read_with_its_limits() {
        let utf8 = Some("utf8mb4");
        assert_eq!(
            of("varchar", "varchar(20)", (Some(20), Some(80)), utf8),
            ColumnType::Text { chars_max: Some(20), bytes_max: None }
        );
        assert_eq!(
            of("text", "text", (Some(65_535), Some(65_535)), utf8),
            ColumnType::Text { chars_max: None, bytes_max: Some(65_535) }
        );
        assert_eq!(of("tinyint", "tinyint(1)", (None, None), None), ColumnType::Bool);
        assert!(matches!(of("tinyint", "tinyint(4)", (None, None), None), ColumnType::Other(_)));
        assert!(matches!(of("bigint", "bigint(20) unsigned", (None, None), None), ColumnType::Other(_)));
        assert!(
            matches!(of("varchar", "varchar(9)", (Some(9), Some(9)), Some("latin1")), ColumnType::Other(kind) if kind.contains("utf8mb4"))
        );
    }

    #[test]
    fn only_a_key_that_compares_bytes_tells_ids_apart() {
        assert!(is_bytewise("utf8mb4_nopad_bin") && is_bytewise("utf8mb4_0900_bin") && is_bytewise("ascii_bin"));
        assert!(!is_bytewise("utf8mb4_general_ci") && !is_bytewise("utf8mb4_0900_as_cs"));
    }
}
